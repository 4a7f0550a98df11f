"""Everything -> submission/: the figures, the page, the model card, the provenance."""

from pathlib import Path

from weighin.stage import Stage, main


def report(stage: Stage) -> None:
    """Write what people look at, and the numbers that DVC compares."""
    from weighin.report.inputs import Inputs
    from weighin.report.page import write_report
    from weighin.report.provenance import record_machine

    write_report(Inputs(), stage.params, Path("submission"))
    record_machine(Path("submission/provenance.json"))


if __name__ == "__main__":
    main(report)
