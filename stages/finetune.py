"""work/decompose, work/train -> work/finetune: the better network, recovered and exported."""

from pathlib import Path

from weighin.stage import Stage, main


def finetune(stage: Stage) -> None:
    """Train the factorized network on, with the one as it was trained for a teacher."""
    from weighin.compress.context import read_context, read_network
    from weighin.compress.finetune import finetune

    context = read_context(Path("work"), stage.params, stage.scratch)
    given = read_network(Path("work/decompose"))
    finetune(context, given, Path("work/finetune"))


if __name__ == "__main__":
    main(finetune)
