from itertools import pairwise

import pytest
import torch
from torch import nn

from weighin.network.blocks import BLOCKS, Chain, SqueezeExcitation, interleave, make_divisible
from weighin.network.build import build, count_parameters, initialize, structure
from weighin.network.spec import NetworkSpec, Row

# block: arguments, output of 16 x 12 x 12 after 3 repeats, parameters (9 weights of a k = 3 filter)
CASES = {
    "Conv": ([24, 3, 2], (24, 6, 6), (16 + 24 + 24) * 24 * 9 + 3 * 48),
    "FixedConv": ([20, 3, 2], (20, 6, 6), (16 + 20 + 20) * 20 * 9 + 3 * 40),
    "DWConv": ([32, 3, 2], (32, 6, 6), 3 * 32 * 9 + 3 * 64),  # 16 groups of 1 -> 2 first
    "Bottleneck": ([24], (24, 12, 12), 2 * (16 * 8 + 8 * 16 * 9 + 48) + 16 * 12 + 12 * 24 * 9 + 72),
    "InvertedResidualv2": (
        [24, 2, 2],
        (24, 6, 6),
        (16 * 32 + 32 * 9 + 32 * 24 + 176) + 2 * (24 * 48 + 48 * 9 + 48 * 24 + 240),
    ),
    "InvertedResidualv3": (
        [3, 2, 24, 1, 1, 2],
        (24, 6, 6),
        (16 * 32 + 32 * 9 + 32 * 24 + 176 + 2 * 32 * 8 + 40)
        + 2 * (24 * 48 + 48 * 9 + 48 * 24 + 240 + 2 * 48 * 16 + 64),
    ),
    "MBConv": (
        [2, 24, 2, 3],
        (24, 6, 6),
        (16 * 32 + 32 * 9 + 32 * 24 + 176 + 2 * 32 * 4 + 36)
        + 2 * (24 * 48 + 48 * 9 + 48 * 24 + 240 + 2 * 48 * 6 + 54),
    ),
    "FusedMBConv": (
        [2, 24, 2, 3],
        (24, 6, 6),
        (16 * 32 * 9 + 32 * 24 + 112) + 2 * (24 * 48 * 9 + 48 * 24 + 144),
    ),
    "ShuffleNetV2": (
        [2],
        (32, 6, 6),
        (2 * 16 * 9 + 3 * 256 + 5 * 32) + 2 * (16 * 9 + 2 * 256 + 3 * 32),
    ),
    "MixNetBlock": (
        [[3, 5], 2, 24, 1, 2, "ReLU"],
        (24, 6, 6),
        (16 * 32 + 16 * 34 + 32 * 24 + 176 + 2 * 32 * 8 + 40)
        + 2 * (24 * 48 + 24 * 34 + 48 * 24 + 240 + 2 * 48 * 8 + 56),
    ),
    "MaxPool": ([3, 1, 1], (16, 12, 12), 0),
    "AvgPool": ([2, 1], (16, 9, 9), 0),
    "GlobalAvgPool": ([], (16, 1, 1), 0),
    "Flatten": ([], (16 * 144,), 0),
}


def row_module(block, args, repeats=3, channels=16):
    rows = (Row(1, "FixedConv", (channels, 1)), Row(repeats, block, tuple(args)))
    tail = (Row(1, "Linear", ("classes",)),)
    head = (Row(1, "GlobalAvgPool", ()), Row(1, "Flatten", ())) if block != "Flatten" else ()
    frozen = tuple(
        Row(r.repeats, r.block, tuple(tuple(a) if isinstance(a, list) else a for a in r.args))
        for r in (*rows, *head, *tail)
    )
    module = build(NetworkSpec((12, 12), 1.0, frozen), 5).eval()
    initialize(module, 0)
    return module[1]


def test_every_block_has_a_case():
    assert set(CASES) | {"Linear"} == set(BLOCKS)


@pytest.mark.parametrize("block", CASES)
def test_block(block):
    args, shape, parameters = CASES[block]
    part = row_module(block, args)
    with torch.no_grad():
        assert tuple(part(torch.rand(2, 16, 12, 12)).shape) == (2, *shape)
    assert count_parameters(part) == parameters


@pytest.mark.parametrize(
    ("block", "args", "strides"),
    [
        ("Conv", [16, 3, 2], [1, 1, 2]),
        ("FixedConv", [16, 3, 2], [1, 1, 2]),
        ("DWConv", [16, 3, 2], [1, 1, 2]),
        ("InvertedResidualv2", [16, 2, 2], [2, 1, 1]),
        ("InvertedResidualv3", [3, 2, 16, 0, 0, 2], [2, 1, 1]),
        ("MBConv", [2, 16, 2, 3], [2, 1, 1]),
        ("FusedMBConv", [2, 16, 2, 3], [2, 1, 1]),
        ("ShuffleNetV2", [2], [2, 1, 1]),
        ("MixNetBlock", [[3], 2, 16, 0, 2], [2, 1, 1]),
    ],
)
def test_the_stride_is_on_one_repeat(block, args, strides):
    found = []
    for repeat in row_module(block, args):
        convs = [part for part in repeat.modules() if isinstance(part, nn.Conv2d)]
        found.append(max(conv.stride[0] for conv in convs))
    assert found == strides


@pytest.mark.parametrize("block", ["InvertedResidualv2", "InvertedResidualv3", "MBConv"])
def test_identity_adds_the_input(block):
    args = {
        "InvertedResidualv2": [16, 2, 1],
        "InvertedResidualv3": [3, 2, 16, 1, 1, 1],
        "MBConv": [2, 16, 1, 3],
    }[block]
    (repeat,) = row_module(block, args, repeats=1)
    x = torch.rand(2, 16, 12, 12)
    with torch.no_grad():
        assert repeat.identity
        assert torch.equal(repeat(x), x + repeat.conv(x))


def test_shuffle_passes_half_and_interleaves():
    (repeat,) = row_module("ShuffleNetV2", [1], repeats=1)
    x = torch.rand(2, 16, 12, 12)
    with torch.no_grad():
        y = repeat(x)
        assert torch.equal(y[:, 0::2], x[:, :8])
        assert torch.equal(y[:, 1::2], repeat.branch2(x[:, 8:]))


def test_interleave_is_channel_shuffle():
    a, b = torch.rand(2, 6, 3, 4), torch.rand(2, 6, 3, 4)
    shuffled = nn.functional.channel_shuffle(torch.cat((a, b), 1), 2)
    assert torch.equal(interleave(a, b), shuffled)


def test_mbconv_pads_as_tensorflow_does():
    module = row_module("MBConv", [2, 16, 2, 3], repeats=1)
    with torch.no_grad():
        assert module(torch.rand(1, 16, 11, 12)).shape[2:] == (5, 6)  # k // 2 would give (6, 6)


def test_squeeze_excitation_equation():
    gate = SqueezeExcitation(8, 4, "ReLU", "Sigmoid", pool=True)
    reduce, _, expand, _ = gate.gate
    x = torch.rand(2, 8, 5, 5)
    mean = x.mean((2, 3))
    hidden = torch.relu(mean @ reduce.weight[:, :, 0, 0].T + reduce.bias)
    scale = torch.sigmoid(hidden @ expand.weight[:, :, 0, 0].T + expand.bias)
    torch.testing.assert_close(gate(x), x * scale[:, :, None, None])


@pytest.mark.parametrize(
    ("channels", "rounded"), [(1, 8), (8, 8), (9, 16), (12, 16), (20, 24), (18, 24), (17.5, 16)]
)
def test_make_divisible(channels, rounded):
    assert make_divisible(channels) == rounded


def test_only_exact_types_are_counted_types():
    module = structure(
        NetworkSpec(
            (12, 12),
            1.0,
            (
                Row(1, "MixNetBlock", ((3, 5), 2, 16, 1)),
                Row(1, "MBConv", (2, 16)),
                Row(1, "GlobalAvgPool", ()),
                Row(1, "FixedConv", ("classes",)),
            ),
        ),
        5,
    )
    for part in module.modules():
        for kind in (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.ReLU, nn.AdaptiveAvgPool2d):
            assert type(part) is kind or not isinstance(part, kind)


def test_a_convolution_before_a_norm_has_no_bias():
    for block, (args, _, _) in CASES.items():
        for chain in row_module(block, args).modules():
            layers = list(chain.conv) if isinstance(chain, Chain) else []
            for first, second in pairwise(layers):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    assert first.bias is None
