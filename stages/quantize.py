"""work/finetune -> work/quantize, submission/model.onnx: the submitted file, quantized or not."""

from pathlib import Path

from weighin.stage import Stage, main


def quantize(stage: Stage) -> None:
    """Write the exported network in whole numbers of 8 bits, or pass it on unchanged."""
    from weighin.compress.quantize import quantize

    work = Path("work")
    source, out = work / "finetune/model.onnx", work / "quantize"
    quantize(work / "prepare", source, stage.params, out, Path("submission/model.onnx"))


if __name__ == "__main__":
    main(quantize)
