import pytest
import torch
from torch import nn

from weighin.errors import NetworkError
from weighin.network.build import (
    Factorization,
    apply_ranks,
    build,
    factorized_structure,
    initialize,
    ranks_from_dict,
    ranks_to_dict,
    structure,
)
from weighin.network.cost import count_macs
from weighin.network.spec import read_spec, shipped

CONV = {"stride": 2, "padding": 1, "bias": True}


@pytest.mark.parametrize(
    ("layer", "how", "shapes"),
    [
        (
            nn.Conv2d(8, 12, 3, **CONV),
            Factorization("tucker", (4, 5)),
            [(4, 8, 1, 1), (5, 4, 3, 3), (12, 5, 1, 1)],
        ),
        (
            nn.Conv2d(8, 12, 3, **CONV),
            Factorization("cp", (6,)),
            [(6, 8, 1, 1), (6, 1, 3, 1), (6, 1, 1, 3), (12, 6, 1, 1)],
        ),
        (
            nn.Conv2d(8, 12, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(2, 1)),
            Factorization("spatial", (6,)),
            [(6, 8, 3, 1), (12, 6, 1, 5)],
        ),
        (
            nn.Conv2d(8, 12, 1, stride=2, bias=False),
            Factorization("svd", (3,)),
            [(3, 8, 1, 1), (12, 3, 1, 1)],
        ),
    ],
)
def test_convolution(layer, how, shapes):
    pieces = factorized_structure(layer, how)
    x = torch.rand(2, 8, 11, 10)
    assert [tuple(piece.weight.shape) for piece in pieces] == shapes
    assert all(type(piece) is nn.Conv2d for piece in pieces)
    assert pieces(x).shape == layer(x).shape
    assert [piece.bias is not None for piece in pieces] == [
        *[False] * (len(shapes) - 1),
        layer.bias is not None,
    ]
    assert not any(parameter.any() for parameter in pieces.parameters())


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias):
    layer = nn.Linear(10, 6, bias=bias)
    head, tail = factorized_structure(layer, Factorization("svd", (2,)))
    assert (tuple(head.weight.shape), tuple(tail.weight.shape)) == ((2, 10), (6, 2))
    assert (head.bias is None, tail.bias is None) == (True, not bias)


@pytest.mark.parametrize(
    ("layer", "how", "fault"),
    [
        (
            nn.Conv2d(8, 8, 3, groups=8),
            Factorization("tucker", (2, 2)),
            "a.b cannot be factorized by tucker: it has 8 groups; "
            "depthwise and grouped layers stay as they are",
        ),
        (
            nn.Conv2d(8, 8, 1),
            Factorization("cp", (2,)),
            "a.b cannot be factorized by cp: a 1 x 1 convolution takes svd, and only it does",
        ),
        (
            nn.Conv2d(8, 8, 3),
            Factorization("svd", (2,)),
            "a.b cannot be factorized by svd: a 1 x 1 convolution takes svd, and only it does",
        ),
        (
            nn.Conv2d(8, 8, 3),
            Factorization("tucker", (2,)),
            "a.b cannot be factorized by tucker: its ranks are [2]; 2 of 1 or more are needed",
        ),
        (
            nn.Conv2d(8, 4, 3),
            Factorization("tucker", (2, 5)),
            "a.b cannot be factorized by tucker: its ranks [2, 5] exceed its channels [8, 4]",
        ),
        (
            nn.Linear(8, 4),
            Factorization("cp", (2,)),
            "a.b cannot be factorized by cp: a linear layer takes svd",
        ),
        (
            nn.ReLU(),
            Factorization("cp", (2,)),
            "a.b cannot be factorized by cp: it is a ReLU, not a convolution or a linear layer",
        ),
        (
            nn.Conv2d(8, 8, 3, padding="same"),
            Factorization("cp", (2,)),
            "a.b cannot be factorized by cp: its padding is not a number of zeros",
        ),
    ],
)
def test_refusals_name_the_layer(layer, how, fault):
    with pytest.raises(NetworkError) as error:
        factorized_structure(layer, how, "a.b")
    assert error.value.problem == fault


def test_a_network_is_built_with_ranks():
    spec = read_spec(shipped("small"))
    path = "2.0.conv.6"
    ranks = {"7.0.conv.0": Factorization("svd", (8,)), path: Factorization("svd", (4,))}
    module, plain = build(spec, 9, ranks), build(spec, 9)
    pointwise = plain.get_submodule(path)
    assert [type(part) for part in module.get_submodule(path)] == [nn.Conv2d, nn.Conv2d]
    assert list(module.state_dict()) != list(plain.state_dict())
    pixels = 16 * 16
    saved = (pointwise.in_channels * pointwise.out_channels) - 4 * (
        pointwise.in_channels + pointwise.out_channels
    )
    head = 16 * (40 * 72 - 8 * (40 + 72))
    assert count_macs(plain, spec.input) - count_macs(module, spec.input) == pixels * saved + head
    assert count_macs(structure(spec, 9, ranks), spec.input) == count_macs(module, spec.input)


def test_apply_ranks_leaves_the_other_weights():
    spec = read_spec(shipped("small"))
    module = build(spec, 9)
    initialize(module, 0)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    apply_ranks(module, {"0.0.conv.0": Factorization("tucker", (2, 4))})
    after = module.state_dict()
    same = [name for name in after if not name.startswith("0.0.conv.0.")]
    assert all(torch.equal(after[name], before[name]) for name in same)
    assert set(before) - set(same) == {"0.0.conv.0.weight"}


def test_unknown_layer():
    with pytest.raises(NetworkError, match=r"has no layer 99\.conv, which the ranks name"):
        build(read_spec(shipped("small")), 9, {"99.conv": Factorization("svd", (1,))})


def test_ranks_as_values():
    ranks = {"b": Factorization("tucker", (3, 4)), "a": Factorization("svd", (2,))}
    values = ranks_to_dict(ranks)
    assert list(values) == ["a", "b"]
    assert values["b"] == {"method": "tucker", "ranks": [3, 4]}
    assert ranks_from_dict(values) == ranks


@pytest.mark.parametrize(
    "value",
    [
        {"method": "qr", "ranks": [1]},
        {"method": "svd", "ranks": [0]},
        {"method": "svd", "ranks": [True]},
        {"method": "svd"},
        3,
    ],
)
def test_wrong_values_name_the_layer(value):
    with pytest.raises(NetworkError) as error:
        ranks_from_dict({"2.conv": value}, "ranks.yaml")
    assert error.value.problem == (
        f"ranks.yaml: 2.conv is {value}; "
        "it must be {method: tucker | cp | svd | spatial, ranks: [r, ...]}, r from 1"
    )
