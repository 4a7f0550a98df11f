"""The exported files in another engine than ONNX Runtime: OpenVINO gives the same labels."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from small import RECIPE, SPEC, make_params

from weighin.compress.context import CompressionContext
from weighin.compress.finetune import export
from weighin.data.pack import read_packed
from weighin.grading.model import open_model
from weighin.grading.runtime import Runner
from weighin.images import normalize
from weighin.network.quantized import quantized

openvino = pytest.importorskip("openvino", reason="no OpenVINO: make setup-dev")


def other_logits(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Return what OpenVINO computes in full precision of images (N, H, W, 3)."""
    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    compiled = core.compile_model(core.read_model(path), "CPU")
    return next(iter(compiled(normalize(pixels)).values()))


def test_labels_of_all_validation_images_are_those_of_onnx_runtime(packed, network, tmp_path):
    context = CompressionContext(packed, network, RECIPE, make_params(), tmp_path)
    source = export(context, network, tmp_path / "float.onnx").path
    pixels = np.asarray(read_packed(packed, "validation", SPEC.input).images)
    eight = tmp_path / "eight.onnx"
    eight.write_bytes(quantized(onnx.load(source), pixels, make_params().quantize))
    for path, tolerance in ((source, 1e-4), (eight, 0.1)):
        onnx.checker.check_model(onnx.load(path), full_check=True)
        own, other = Runner(open_model(path)).logits(pixels), other_logits(path, pixels)
        assert np.abs(own - other).max() < tolerance * np.abs(own).max()
        clear = np.diff(np.sort(own, axis=1)[:, -2:])[:, 0] > tolerance * np.abs(own).max()
        assert clear.mean() > 0.9
        assert np.array_equal(own.argmax(1)[clear], other.argmax(1)[clear])
