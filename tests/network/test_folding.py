from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from weighin.determinism import generator
from weighin.network.build import build, initialize
from weighin.network.cost import folded_macs
from weighin.network.factorized import Factorization
from weighin.network.folding import fold_batch_norms
from weighin.network.macs import count_macs, layer_macs
from weighin.network.spec import NetworkSpec, Row, read_spec, shipped


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
