import hashlib
import os
import subprocess
import sys
from collections import Counter
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from weighin.determinism import PINS, generator
from weighin.errors import OutputError
from weighin.network.build import Factorization, build, initialize
from weighin.network.cost import count_macs, fold_batch_norms, folded_macs, layer_macs
from weighin.network.export import export_onnx, onnx_bytes
from weighin.network.spec import NetworkSpec, Row, read_spec, shipped

SCRIPT = """
import hashlib
from weighin.network.build import build, initialize
from weighin.network.export import onnx_bytes
from weighin.network.spec import read_spec, shipped
spec = read_spec(shipped("seed"))
module = build(spec, 9)
for seed in (0, 1):
    initialize(module, seed)
    data = onnx_bytes(module, spec.input, {"b": "2", "a": "1", "c": "3"})
    print(hashlib.sha256(data).hexdigest())
"""

# the operators of each block, after folding, beside the Flatten and Gemm of the head
OPERATORS = {
    ("Conv", (8, 3)): {"Conv": 1, "Relu": 1},
    ("Conv", (8, 3, 1, None, 1, "ReLU6")): {"Conv": 1, "Clip": 1},
    ("FixedConv", (8, 1, 1, None, 1, None)): {"Conv": 1},
    ("DWConv", (8, 3)): {"Conv": 1, "Relu": 1},
    ("Bottleneck", (8,)): {"Conv": 2, "Relu": 2, "Add": 1},
    ("InvertedResidualv2", (8, 2)): {"Conv": 3, "Clip": 2, "Add": 1},
    ("InvertedResidualv3", (3, 2, 8, 1, 1)): {
        "Conv": 5,
        "HardSwish": 2,
        "ReduceMean": 1,
        "Relu": 1,
        "HardSigmoid": 1,
        "Mul": 1,
        "Add": 1,
    },
    ("MBConv", (2, 8, 2, 3)): {
        "Pad": 1,
        "Conv": 5,
        "Sigmoid": 4,
        "Mul": 4,
        "GlobalAveragePool": 1,
    },
    ("FusedMBConv", (2, 8)): {"Conv": 2, "Sigmoid": 1, "Mul": 1, "Add": 1},
    ("ShuffleNetV2", (1,)): {
        "Split": 1,
        "Conv": 3,
        "Relu": 2,
        "Unsqueeze": 2,
        "Concat": 1,
        "Reshape": 1,
    },
    ("MixNetBlock", ((3, 5), 2, 8, 1)): {
        "Conv": 6,
        "Relu": 2,
        "Split": 1,
        "Concat": 1,
        "ReduceMean": 1,
        "Sigmoid": 2,
        "Mul": 2,
        "Add": 1,
    },
    ("MaxPool", (3, 2, 1)): {"MaxPool": 1},
    ("AvgPool", (2,)): {"AveragePool": 1},
    ("GlobalAvgPool", ()): {"ReduceMean": 1},
}


def network(*rows, size=(16, 16)):
    head = (Row(1, "Flatten"), Row(1, "Linear", ("classes",)))
    module = build(NetworkSpec(size, 1.0, (Row(1, "FixedConv", (8,)), *rows, *head)), 4)
    initialize(module, 0)
    return module


@pytest.mark.parametrize(("block", "args"), OPERATORS)
def test_operators_of_a_block(block, args):
    model = onnx.load_from_string(onnx_bytes(network(Row(1, block, args)), (16, 16), {}))
    expected = Counter(OPERATORS[block, args]) + Counter(["Conv", "Relu", "Flatten", "Gemm"])
    assert Counter(node.op_type for node in model.graph.node) == expected


@pytest.mark.parametrize("name", ["small", "seed"])
@pytest.mark.parametrize("batch", [1, 5])
def test_outputs_are_torchs(name, batch):
    spec = read_spec(shipped(name))
    module = build(spec, 9).eval()
    initialize(module, 3)
    images = np.random.Generator(np.random.Philox(1)).random((batch, 3, *spec.input), np.float32)
    session = onnxruntime.InferenceSession(onnx_bytes(module, spec.input, {}))
    (logits,) = session.run(["logits"], {"images": images})
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).numpy()
    assert logits.shape == (batch, 9)
    assert np.abs(logits - expected).max() < 1e-5


def test_bytes_are_the_same_in_every_process():
    def run(hash_seed, folder):
        env = os.environ | PINS | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(
            command, env=env, cwd=folder, capture_output=True, check=True, text=True
        )
        assert done.stderr == ""
        return done.stdout.split()

    first, other = run("1", "/")
    assert run("2", "/tmp") == [first, other]
    assert other != first


def test_metadata_is_sorted_and_names_nothing_else():
    data = onnx_bytes(network(), (16, 16), {"b": "2", "a": "é"})
    model = onnx.load_from_string(data)
    assert [(prop.key, prop.value) for prop in model.metadata_props] == [("a", "é"), ("b", "2")]
    assert (model.producer_name, model.producer_version) == ("weighin", "")
    assert [opset.version for opset in model.opset_import] == [17]
    assert not any(node.doc_string for node in model.graph.node)
    assert str(Path.cwd()).encode() not in data and b".py" not in data
    assert onnx_bytes(network(), (16, 16), {"a": "é", "b": "2"}) == data


def test_input_and_output():
    graph = onnx.load_from_string(onnx_bytes(network(), (16, 16), {})).graph
    shapes = {}
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = [dim.dim_param or dim.dim_value for dim in dims]
    assert shapes == {"images": ["N", 3, 16, 16], "logits": ["N", 4]}


def test_equal_weights_are_all_stored():
    graph = onnx.load_from_string(onnx_bytes(network(Row(2, "Conv", (8, 3))), (16, 16), {})).graph
    stored = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
    folded = (24 + 8) + (576 + 8) * 2 + (8 * 256 * 4 + 4)
    assert stored == folded


def test_a_file_or_nothing(tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(network(), (16, 16), path, {"classes": "[]"})
    expected = onnx_bytes(network(), (16, 16), {"classes": "[]"})
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(expected).digest()
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
    with pytest.raises(OutputError, match="cannot write"):
        export_onnx(network(), (16, 16), path / "below" / "model.onnx", {})


def trained(module):
    """Give the module weights and statistics as a training would leave them."""
    initialize(module, 0)
    for name, part in module.named_modules():
        if isinstance(part, nn.BatchNorm2d):
            rng = generator("norm", name)
            for tensor, low in (
                (part.running_mean, -0.1),
                (part.running_var, 0.5),
                (part.weight, 0.5),
                (part.bias, -0.1),
            ):
                values = rng.uniform(low, low + 0.5, part.num_features).astype(np.float32)
                tensor.data.copy_(torch.from_numpy(values))
    return module


def close(module, folded, x):
    """Compare in float64: what is left is the rounding of the folded weights to float32."""
    exact, rounded, x = deepcopy(module).double().eval(), deepcopy(folded).double(), x.double()
    with torch.no_grad():
        expected = exact(x)
        assert float((rounded(x) - expected).abs().max()) < 1e-6 * float(expected.abs().max())


@pytest.mark.parametrize("name", ["small", "seed"])
def test_same_outputs_for_fewer_macs(name):
    spec = read_spec(shipped(name))
    module = trained(build(spec, 9))
    folded = fold_batch_norms(module)
    close(module, folded, torch.rand(3, 3, *spec.input))
    norms = sum(c.macs for c in layer_macs(module, spec.input) if c.kind == "BatchNorm2d")
    assert count_macs(folded, spec.input) == count_macs(module, spec.input) - norms // 2
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())


@pytest.mark.parametrize(
    ("name", "macs"), [("small", 1_437_217), ("seed", 1_776_949), ("mobilenetv3", 219_727_457)]
)
def test_the_count_is_known_before_training(name, macs):
    spec = read_spec(shipped(name))
    assert folded_macs(spec, 9) == macs
    assert count_macs(fold_batch_norms(build(spec, 9)), spec.input) == macs


def test_a_factorized_network_folds_into_the_last_piece():
    spec = read_spec(shipped("small"))
    ranks = {
        "0.0.conv.0": Factorization("tucker", (2, 4)),
        "2.0.conv.0": Factorization("svd", (4,)),
    }
    module = trained(build(spec, 9, ranks))
    folded = fold_batch_norms(module)
    close(module, folded, torch.rand(2, 3, *spec.input))
    assert [piece.bias is not None for piece in folded.get_submodule("0.0.conv.0")] == [
        False,
        False,
        True,
    ]
    assert folded_macs(spec, 9, ranks) == count_macs(folded, spec.input)


def test_mixed_kernels_fold_by_group():
    rows = (
        Row(1, "MixNetBlock", ((3, 5), 2, 8, 1)),
        Row(1, "GlobalAvgPool"),
        Row(1, "FixedConv", ("classes",)),
    )
    spec = NetworkSpec((16, 16), 1.0, rows)
    module = trained(build(spec, 4))
    folded = fold_batch_norms(module)
    close(module, folded, torch.rand(2, 3, 16, 16))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())


def test_the_original_is_left_alone():
    module = build(read_spec(shipped("small")), 9)
    before = [id(part) for part in module.modules()]
    fold_batch_norms(module)
    assert [id(part) for part in module.modules()] == before
    assert module.training and module[0][0].conv[0].bias is None


def test_bias_and_plain_norms_fold_too():
    module = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=True)))
    module[0].bias.data.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
    close(module, fold_batch_norms(module), torch.rand(2, 3, 8, 8))
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)).eval()
    plain[1].running_var.fill_(4.0)
    close(plain, fold_batch_norms(plain), torch.rand(2, 3, 8, 8))


class Forked(nn.Module):
    """The norm is not the only reader of the convolution."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(x)
        return y + self.norm(y)


class Twice(Forked):
    def forward(self, x):
        return self.conv(self.norm(self.conv(x)))


@pytest.mark.parametrize(
    "module", [Forked(), Twice(), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))]
)
def test_norms_that_cannot_fold_stay(module):
    trained(module)
    folded = fold_batch_norms(module)
    close(module, folded, torch.rand(2, 3, 8, 8))
    assert any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
