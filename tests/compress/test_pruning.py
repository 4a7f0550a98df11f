"""Cuts: what remains is the old network without the part, and a cut stays only if it pays."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import CLASSES, RECIPE, ROWS, SPEC, make_params, untrained
from torch import nn

from weighin.compress.context import CompressionContext, read_network
from weighin.compress.decompose import decompose
from weighin.compress.pruning import narrower, prune, removable_blocks, strongest
from weighin.network.build import structure
from weighin.network.cost import folded_macs
from weighin.network.spec import NetworkSpec
from weighin.training.weights import Trained, load_weights, module_weights

DEAR = 400_000  # MACs that cost a point
X = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype("float32"))


def spec_of(*middle: list) -> NetworkSpec:
    rows = [[1, "Conv", [16, 3, 2, None, 1, "ReLU"]], *middle, *ROWS[-3:]]
    return NetworkSpec.from_dict({"input": [16, 16], "width": 1.0, "rows": rows})


def logits(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return module(X)


def lively(spec: NetworkSpec) -> Trained:
    """A network whose norms are no longer fresh, and whose logits are far apart."""
    network, rng = untrained(spec), np.random.default_rng(0)
    for name, array in network.weights.items():
        if name.endswith("running_mean"):
            array[:] = rng.uniform(-0.1, 0.1, array.shape)
        elif array.ndim == 1 and "bias" not in name:
            array[:] = rng.uniform(0.5, 1.5, array.shape)
        elif array.ndim == 2:
            array *= 100  # the head begins near 0
    return network


def test_blocks_that_can_go_are_those_that_keep_the_shape():
    names = [block.name for block in removable_blocks(SPEC, len(CLASSES))]
    assert names == [
        "row 2 (FusedMBConv), repeat 1",
        "row 2 (FusedMBConv), repeat 2",
        "row 3 (InvertedResidualv3), repeat 1",
        "row 3 (InvertedResidualv3), repeat 2",
    ]


def test_a_strided_block_and_one_that_would_change_the_others_stay():
    spec = spec_of([2, "Conv", [16, 3, 2]], [3, "InvertedResidualv2", [24, 2, 2]])
    assert [block.name for block in removable_blocks(spec, 3)] == [
        "row 2 (Conv), repeat 1",
        "row 3 (InvertedResidualv2), repeat 2",
        "row 3 (InvertedResidualv2), repeat 3",
    ]
    # on maps of one pixel a stride keeps the shape, but the block behind it would then be strided
    tiny = spec_of([1, "GlobalAvgPool", []], [2, "InvertedResidualv2", [16, 2, 2]])
    assert [block.name for block in removable_blocks(tiny, 3)] == [
        "row 3 (InvertedResidualv2), repeat 2"
    ]


@pytest.mark.parametrize("which", range(4))
def test_the_smaller_network_is_the_old_one_without_the_block(which):
    network = lively(SPEC)
    chosen = removable_blocks(SPEC, 3)[which]
    whole = network.module(3)
    number, repeat = chosen.place
    whole.get_submodule(str(number))[repeat] = nn.Identity()
    smaller = chosen.remove(network)
    assert torch.equal(logits(smaller.module(3)), logits(whole))
    assert smaller.spec.rows[number].repeats == 1
    assert folded_macs(smaller.spec, 3) < folded_macs(SPEC, 3)


def test_a_row_of_one_block_goes_as_a_row():
    spec = spec_of([1, "ShuffleNetV2", [1]], [1, "MBConv", [2, 16, 1, 3]])
    network = lively(spec)
    first = next(block for block in removable_blocks(spec, 3) if "ShuffleNetV2" in block.name)
    smaller = first.remove(network)
    assert [row.block for row in smaller.spec.rows] == [
        "Conv",
        "MBConv",
        "GlobalAvgPool",
        "Flatten",
        "Linear",
    ]
    whole = network.module(3)
    whole.get_submodule("1")[0] = nn.Identity()
    assert torch.equal(logits(smaller.module(3)), logits(whole))


HIDDEN = [
    [2, "InvertedResidualv2", [16, 4, 1]],
    [1, "InvertedResidualv2", [24, 4, 2]],
    [2, "InvertedResidualv3", [3, 2, 16, 1, 1, 1]],  # its gate's own width is 8 before and after
    [1, "InvertedResidualv3", [5, 2, 24, 1, 0, 2]],
    [2, "MBConv", [4, 16, 1, 3]],
    [1, "MBConv", [4, 24, 2, 3]],
    [2, "FusedMBConv", [4, 16, 1, 3]],
    [2, "Bottleneck", [16, True, 1, 1.0]],
]


@pytest.mark.parametrize("row", HIDDEN, ids=lambda row: f"{row[1]}-{row[0]}")
def test_channels_that_do_nothing_go_without_a_trace(row):
    """Half of the hidden channels give 0, scattered: a quarter goes, and the outputs stay."""
    spec = spec_of(row)
    network, rng = lively(spec), np.random.default_rng(1)
    module = network.module(3)
    for repeat in module[1]:
        hidden = [part for part in repeat.conv if isinstance(part, nn.BatchNorm2d)][:-1]
        width = hidden[0].num_features
        dead = np.sort(rng.permutation(width)[: width // 2])
        for norm in hidden:
            norm.weight.data[dead] = 0
            norm.bias.data[dead] = 0
    network = replace(network, weights=module_weights(module))
    smaller = narrower(network, 0.25, 3)
    assert folded_macs(smaller.spec, 3) < folded_macs(spec, 3)
    assert [r.block for r in smaller.spec.rows] == [r.block for r in spec.rows]
    got, wanted = logits(smaller.module(3)), logits(network.module(3))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    # the negative control: other channels do leave a trace
    assert not torch.allclose(logits(narrower(lively(spec), 0.25, 3).module(3)), wanted, atol=1e-3)


def test_the_rows_say_the_new_width():
    spec = spec_of([1, "InvertedResidualv2", [16, 4, 1]])
    smaller = narrower(lively(spec), 0.25, 3)
    assert smaller.spec.rows[1].args == (16, 3.0, 1)
    assert structure(smaller.spec, 3).get_submodule("1.0.conv.0").out_channels == 48
    load_weights(smaller.module(3), smaller.weights)


@pytest.mark.parametrize(
    "row",
    [
        [1, "ShuffleNetV2", [1]],
        [1, "MixNetBlock", [[3, 5], 4, 16, 0, 1]],
        [1, "InvertedResidualv3", [3, 1, 16, 0, 1, 1]],
        [1, "FusedMBConv", [1, 16, 1, 3]],
        [1, "Bottleneck", [16, True, 2, 1.0]],
    ],
    ids=lambda row: row[1],
)
def test_rows_without_a_hidden_width_to_cut_stay(row):
    network = lively(spec_of(row))
    assert narrower(network, 0.3, 3).spec == network.spec


def test_the_strongest_keep_their_order():
    scales = np.array([0.2, 0.9, 0.1, 0.9, 0.5])
    assert strongest(scales, 3).tolist() == [1, 3, 4]
    assert strongest(scales, 1).tolist() == [1]


def context(packed, network, folder, price, **knobs) -> CompressionContext:
    params = make_params(decompose=knobs, contest={"reference_macs": price})
    return CompressionContext(packed, network, RECIPE, params, folder)


def test_a_cut_stays_while_the_score_falls(packed, network, tmp_path, capsys):
    dear = prune(context(packed, network, tmp_path / "dear", DEAR, prune_blocks=2))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("prune  ")]
    assert [(" goes: " in line) for line in lines] == [True] * len(lines)
    assert len(lines) == 2
    assert sum(row.repeats for row in dear.spec.rows) == sum(row[0] for row in ROWS) - 2
    free = prune(
        context(packed, network, tmp_path / "free", 10**12, prune_blocks=9, prune_epochs=0)
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("prune  ")]
    assert [(" stays: " in line) for line in lines] == [False] * (len(lines) - 1) + [True]
    assert (
        sum(row.repeats for row in free.spec.rows) == sum(row[0] for row in ROWS) - len(lines) + 1
    )


def test_channels_are_cut_in_steps_of_the_whole_width(packed, network, tmp_path, capsys):
    """The last step would leave both kinds of block without their expansion, so they stay."""
    small = prune(context(packed, network, tmp_path, 1000, prune_channels=0.5, prune_epochs=0))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("prune  ")]
    assert [line.split()[1] for line in told] == ["12%", "25%", "38%"]
    module = small.module(3)
    assert [small.spec.rows[row].args[at] for row, at in ((1, 0), (2, 1))] == [1.25, 1.5]
    assert module.get_submodule("1.0.conv.0").out_channels == 20
    assert module.get_submodule("2.0.conv.0").out_channels == 24


def test_the_stage_writes_the_cut_network_and_resumes(packed, network, tmp_path):
    knobs = {"prune_blocks": 1, "prune_channels": 0.25, "ratio": 0.25}
    params = make_params(decompose=knobs, contest={"reference_macs": DEAR})

    def run(out, scratch):
        decompose(CompressionContext(packed, network, RECIPE, params, scratch), out)
        return {path.name: path.read_bytes() for path in out.iterdir()}

    whole = run(tmp_path / "one", tmp_path / "a")
    small = read_network(tmp_path / "one")
    assert len(small.spec.rows) <= len(SPEC.rows) and small.spec != SPEC
    layers = json.loads(whole["layers.json"])
    assert sum(row["macs_after"] for row in layers) == folded_macs(small.spec, 3, small.ranks)
    assert small.module(3) is not None
    states = sorted(path.name for path in (tmp_path / "a").glob("*.state"))
    assert states[0] == "cut-block-1.state"
    # a run that was killed in the second cut, half its state written
    for name in states[1:]:
        path = tmp_path / "a" / name
        path.write_bytes(path.read_bytes()[:100])
    assert run(tmp_path / "two", tmp_path / "a") == whole
