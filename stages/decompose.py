"""work/train -> work/decompose: the trained network pruned and factorized, no MAC more."""

from pathlib import Path

from weighin.stage import Stage, main


def decompose(stage: Stage) -> None:
    """Prune the trained network and factorize its convolutions."""
    from weighin.compress.context import read_context
    from weighin.compress.decompose import decompose

    decompose(read_context(Path("work"), stage.params, stage.scratch), Path("work/decompose"))


if __name__ == "__main__":
    main(decompose)
