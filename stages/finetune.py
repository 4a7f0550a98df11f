"""work/decompose, work/train -> work/finetune, submission/model.onnx: recovered and exported."""

from pathlib import Path

from weighin.stage import Stage, main


def finetune(stage: Stage) -> None:
    """Train the factorized network on, with the one as it was trained for a teacher."""
    from weighin.compress.context import read_context
    from weighin.compress.finetune import finetune
    from weighin.compress.network_files import read_network

    context = read_context(Path("work"), stage.params, stage.scratch)
    given, out = read_network(Path("work/decompose")), Path("work/finetune")
    finetune(context, given, out, Path("submission/model.onnx"))


if __name__ == "__main__":
    main(finetune)
