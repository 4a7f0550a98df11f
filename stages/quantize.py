"""work/finetune -> work/quantize, submission/model.onnx: the submitted file, quantized or not."""

from pathlib import Path

from weighin.stage import Stage, main


def quantize(stage: Stage) -> None:
    """Write the exported network in whole numbers of 8 bits, or pass it on unchanged."""
    from weighin.compress.quantize import quantize

    work, model = Path("work"), Path("submission/model.onnx")
    quantize(work, stage.params, stage.scratch, work / "quantize", model)


if __name__ == "__main__":
    main(quantize)
