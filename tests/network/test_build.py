import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from weighin.determinism import PINS, generator
from weighin.errors import NetworkError
from weighin.network.build import build, initialize, structure
from weighin.network.spec import NetworkSpec, Row, read_spec, shipped

HASH = """
import hashlib, sys, torch
from weighin.network.build import build, initialize
from weighin.network.spec import read_spec, shipped
torch.manual_seed(int(sys.argv[1]))
module = build(read_spec(shipped("small")), 9)
for seed in (0, 1):
    initialize(module, seed, "train")
    state = b"".join(t.numpy().tobytes() for t in module.state_dict().values())
    print(hashlib.sha256(state).hexdigest())
"""


def spec(*rows, size=(32, 32), width=1.0):
    return NetworkSpec(size, width, tuple(Row(r, b, tuple(a)) for r, b, a in rows))


def problem(*rows, classes=9, **kwargs):
    with pytest.raises(NetworkError) as error:
        build(spec(*rows, **kwargs), classes)
    return error.value.problem


HEAD = [(1, "GlobalAvgPool", []), (1, "Flatten", []), (1, "Linear", ["classes"])]


@pytest.mark.parametrize("name", ["mobilenetv3", "seed", "small"])
@pytest.mark.parametrize("classes", [2, 9])
def test_shipped_networks_give_logits(name, classes):
    net = read_spec(shipped(name))
    module = build(net, classes).eval()
    initialize(module, 0)
    with torch.no_grad():
        assert module(torch.rand(2, 3, *net.input)).shape == (2, classes)


def test_building_draws_no_random_number_and_leaves_no_garbage():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    module = build(read_spec(shipped("seed")), 9)
    initialize(module, 1)
    assert torch.equal(torch.get_rng_state(), before)
    blank = build(read_spec(shipped("seed")), 9)
    norms = [part for part in blank.modules() if isinstance(part, nn.BatchNorm2d)]
    numbers = sum(float(p.detach().abs().sum()) for p in blank.parameters())
    assert numbers == sum(norm.num_features for norm in norms)  # their ones


def test_first_weights_are_the_same_bytes_in_every_process():
    def run(torch_seed, hash_seed):
        env = os.environ | PINS | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", HASH, torch_seed]
        done = subprocess.run(command, env=env, capture_output=True, check=True, text=True)
        return done.stdout.split()

    first, other = run("1", "1")
    assert run("2", "2") == [first, other]
    assert other != first


def test_first_weights_are_he_normal_by_address():
    module = build(spec((1, "Conv", [64, 3]), (1, "DWConv", [64, 3]), *HEAD), 9)
    initialize(module, 5, "train")
    conv, depthwise, linear = module[0][0].conv[0], module[1][0].conv[0], module[4][0].conv[0]
    drawn = generator(5, "train", "0.0.conv.0.weight").standard_normal((64, 3, 3, 3))
    expected = (drawn * math.sqrt(2 / (9 * 64))).astype(np.float32)
    assert np.array_equal(conv.weight.detach().numpy(), expected)
    assert abs(float(depthwise.weight.detach().std()) / math.sqrt(2 / 9) - 1) < 0.1
    assert abs(float(linear.weight.detach().std()) / 0.01 - 1) < 0.1
    assert not linear.bias.detach().any()


def test_a_weight_does_not_depend_on_the_other_rows():
    short = build(spec((1, "Conv", [8, 3]), *HEAD), 9)
    deep = build(spec((1, "Conv", [8, 3]), (2, "Conv", [8, 3]), *HEAD), 9)
    for module in (short, deep):
        initialize(module, 1)
    assert torch.equal(short[0][0].conv[0].weight, deep[0][0].conv[0].weight)


def test_width_scales_channels_to_multiples_of_eight():
    rows = [(1, "Conv", [20, 1]), (1, "FixedConv", [20, 1]), *HEAD]
    module = structure(spec(*rows, width=0.5), 9)
    assert [module[i][0].conv[0].out_channels for i in (0, 1)] == [16, 20]


def test_maps_at_the_end_become_logits():
    module = build(spec((1, "GlobalAvgPool", []), (1, "FixedConv", ["classes", 1])), 9)
    assert module.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 9)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1, "MBconv", [2, 8]], "row 1: unknown block MBconv; did you mean MBConv?"),
        (
            [1, "Conv", []],
            "row 1 (Conv) has 0 arguments; it takes [c, k=1, s=1, p=null, g=1, act=ReLU]",
        ),
        (
            [1, "Conv", [8, "three"]],
            'row 1 (Conv): k is "three"; it must be a whole number 1 to 31 (pixels)',
        ),
        (
            [1, "Conv", [8, 3, 2, None, 1, "Relu"]],
            'row 1 (Conv): act is "Relu"; it must be one of '
            "ReLU, ReLU6, HardSwish, HardSigmoid, SiLU, Swish, Sigmoid or null",
        ),
        (
            [1, "InvertedResidualv2", [8, 2, 3]],
            "row 1 (InvertedResidualv2): s is 3; it must be a whole number 1 to 2 (pixels)",
        ),
        (
            [1, "Conv", [8, 3, 1, None, 2]],
            "row 1 (Conv): 2 groups divide neither 3 inputs nor 8 outputs evenly",
        ),
        ([1, "ShuffleNetV2", [1]], "row 1 (ShuffleNetV2): its 3 input channels do not halve"),
        ([1, "MaxPool", [31, 8, 0]], "row 1 (MaxPool) shrinks 3 x 8 x 8 below one pixel"),
        ([1, "Linear", [9]], "row 1 (Linear) cannot take 3 x 8 x 8"),
        (
            [3, "Conv", [8, 5, 2, 0]],
            "row 1 (Conv) shrinks 8 x 4 x 4 below one pixel",
        ),
    ],
)
def test_faults_name_their_row(row, message):
    assert problem(row, *HEAD, size=(8, 8)).splitlines()[0] == message


def test_a_network_that_no_memory_holds():
    rows = [(1, "Conv", [8192, 31]), (1, "Conv", [8192, 31]), *HEAD]
    message = problem(*rows, size=(64, 64), width=64.0)
    assert message == "the rows hold 264,159,186,911,241 parameters, over 1,000,000,000"


def test_every_wrong_argument_at_once():
    faults = problem([1, "Conv", [0, 3, 9]], [1, "Convv", [8]]).splitlines()
    assert [fault.split(";")[0] for fault in faults] == [
        "row 1 (Conv): c is 0",
        "row 1 (Conv): s is 9",
        "row 2: unknown block Convv",
    ]


def test_the_last_row_must_give_the_classes():
    rows = [*HEAD[:2], (1, "Linear", [9])]
    assert problem(*rows, classes=7) == "row 3 gives 9, not 7 classes"
    module = build(spec(*rows), 9)
    assert module.training
