"""Files that parameters name -> work/inputs: their copies and hashes, for other stages' deps."""

from pathlib import Path

from weighin.stage import Stage, main


def inputs(stage: Stage) -> None:
    """Record the files that parameters name."""
    from weighin.stage import record_files

    record_files(stage.params, Path("work/inputs"))


if __name__ == "__main__":
    main(inputs, pinned=False)
