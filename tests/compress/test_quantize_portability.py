"""The same logits with VNNI and without it at 7 bits, and other ones at 8, where sums saturate."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from small import SIZE, SPEC, make_params, untrained

from weighin.determinism import PINS, generator
from weighin.images import normalize
from weighin.network.export import onnx_bytes
from weighin.network.quantized import quantized

pytestmark = pytest.mark.portability
LOGITS = "bca73367b4eac785"  # of 7 bits: natively (AVX-512, VNNI) and emulated (AVX2)
RUN = """
import hashlib, sys
import numpy as np, onnx
from weighin.grading.runtime import run, session
images = np.load(sys.argv[1])
for path in sys.argv[2:]:
    (logits,) = run(session(onnx.load(path)), {"images": images})
    print(hashlib.sha256(logits.tobytes()).hexdigest()[:16])
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Images, and a network of every kind of layer with 7 and with 8 bits."""
    folder = tmp_path_factory.mktemp("quantized")
    network = untrained(SPEC)
    rng = generator("quantize", "portability")
    for array in network.weights.values():
        if array.ndim > 1:  # large weights of both signs, so that sums of two products are large
            array[:] = np.sign(rng.standard_normal(array.shape)) * array.std()
    proto = onnx.load_model_from_string(onnx_bytes(network.module(3), SIZE, {}))
    pixels = rng.integers(0, 256, (64, *SIZE, 3)).astype(np.uint8)
    knobs = replace(make_params().quantize, calibration="minmax")
    paths = [folder / "images.npy", folder / "seven.onnx", folder / "eight.onnx"]
    np.save(paths[0], normalize(pixels[:32]))
    for path, seven_bits in zip(paths[1:], (True, False), strict=True):
        path.write_bytes(quantized(proto, pixels, knobs, (), seven_bits))
    return paths


def hashes(files: list[Path], *emulator: str) -> list[str]:
    """Return the hashes of the logits of 7 and of 8 bits."""
    env = {**os.environ, **PINS, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    line = [*emulator, os.path.realpath(sys.executable), "-c", RUN, *map(str, files)]
    return subprocess.run(line, env=env, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("cpu", ["Haswell", "EPYC"])
def test_seven_bits_are_exact_and_eight_saturate(files: list[Path], cpu: str) -> None:
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        pytest.skip("no qemu-x86_64; install the package qemu-user")
    here, there = hashes(files), hashes(files, qemu, "-cpu", cpu)
    assert there[0] == here[0] == LOGITS
    if "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        assert there[1] != here[1]
