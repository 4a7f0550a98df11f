"""work/search -> work/tune: the recipe that the chosen network is trained with."""

from pathlib import Path

from weighin.stage import Stage, main


def tune(stage: Stage) -> None:
    """Search the recipe's knobs."""
    from weighin.network.spec import read_spec
    from weighin.search.stages import tune

    spec = read_spec(Path("work/search/network.yaml"))
    tune(Path("work/prepare"), spec, Path("work/tune"), stage.params, Path(".weighin/evaluations"))


if __name__ == "__main__":
    main(tune)
