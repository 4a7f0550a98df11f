"""work/prepare -> work/search: a network's rows, chosen among many that were tried."""

from pathlib import Path

from weighin.stage import Stage, main


def search(stage: Stage) -> None:
    """Search the space of networks."""
    from weighin.search.stages import search

    search(Path("work/prepare"), Path("work/search"), stage.params, Path(".weighin/evaluations"))


if __name__ == "__main__":
    main(search)
