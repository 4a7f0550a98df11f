"""The golden values: those recorded, of everything there is, and others where a pin is missing."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest

from weighin import golden
from weighin.compress.decompose import RULES
from weighin.determinism import PINS
from weighin.images import FORMATS, normalize
from weighin.network.blocks import ACTIVATIONS, BLOCKS
from weighin.network.build import Method, build, initialize
from weighin.network.export import onnx_bytes
from weighin.network.spec import NetworkSpec
from weighin.params import Augment
from weighin.training.augment import RANDAUGMENT

HAS_AVX512 = " avx512f " in Path("/proc/cpuinfo").read_text(encoding="utf-8")
wide_only = pytest.mark.skipif(not HAS_AVX512, reason="no AVX-512 here, so nothing to differ")


def test_every_value_is_as_recorded() -> None:
    fix = "where a change of bytes is meant: python -m weighin.golden > src/weighin/golden.json"
    assert golden.differences() == [], fix


def test_a_missing_and_an_unknown_value_are_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "computed", lambda: {"a": "1", "b": "2", "new": "3"})
    monkeypatch.setattr(golden, "recorded", lambda: {"a": "1", "b": "0", "old": "3"})
    assert golden.differences() == ["b", "new", "old"]


def test_the_record_is_of_everything_there_is() -> None:
    names = golden.recorded().keys()
    assert golden.BLOCK_ROWS.keys() | {"GlobalAvgPool", "Flatten", "Linear"} == BLOCKS.keys()
    assert {f"training/{name}" for name in golden.BLOCK_ROWS} < names
    changes = golden.AUGMENTATIONS.keys() | {"background"}
    assert changes | {"magnitude"} == {field.name for field in fields(Augment)}
    assert {f"augmentations/{name}" for name in changes} < names
    assert {f"augmentations/RandAugment {name}" for name in RANDAUGMENT} < names
    assert {f"compression/{method} factors" for method in get_args(Method)} < names
    assert {f"compression/ranks by {rule}" for rule in RULES.keys() - {"search"}} < names
    assert {f"files/decode {name.lower()}" for name in FORMATS if name} < names


def operators(data: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_from_string(data).graph.node}


def test_the_networks_have_every_operator_of_an_export() -> None:
    known = set().union(*map(operators, golden.onnx_files().values()))
    twice = [[2, name, args] for name, args in golden.BLOCK_ROWS.items()]
    networks = [
        [[1, "Conv", [16, 1, 1, None, 1, act]] for act in ACTIVATIONS],
        twice[:6],
        twice[6:],
        [[1, "ShuffleNetV2", [1]], [1, "MBConv", [1, 24, 1, 3]], [1, "MBConv", [2, 24, 2, 5]]],
        [[1, "MixNetBlock", [[3], 1, 24, 0]], [1, "InvertedResidualv3", [3, 2, 24, 1, 0, 2]]],
    ]
    for rows in networks:
        given = {"input": [64, 64], "width": 1.0, "rows": [golden.STEM, *rows, *golden.HEAD]}
        module = build(NetworkSpec.from_dict(given), 3)
        initialize(module, "operators")
        assert operators(onnx_bytes(module.eval(), (64, 64), {})) <= known, rows


@wide_only
def test_without_the_pins_some_differ() -> None:
    env = {name: value for name, value in os.environ.items() if name not in PINS}
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    env["OMP_NUM_THREADS"] = "1"
    code = "import json, weighin.golden as g; print(json.dumps(g.computed([g.training])))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    found, recorded = json.loads(done.stdout), golden.recorded()
    assert any(recorded[name] != value for name, value in found.items())


@wide_only
def test_at_the_default_level_of_the_runtime_some_logits_differ() -> None:
    random = golden.generator("golden", "logits")
    images = random.integers(0, 256, (8, *golden.SIZE, 3), np.uint8)
    same, options = [], onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for name, data in golden.onnx_files().items():
        session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
        (logits,) = session.run(None, {"images": normalize(images)})
        digest = golden.sha256(logits.tobytes())
        same.append(digest == golden.recorded()[f"networks/logits of {name}"])
    assert not all(same)
