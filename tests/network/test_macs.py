import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from weighin.network.build import build, structure
from weighin.network.factorized import blank
from weighin.network.macs import count_macs, count_parameters, layer_macs
from weighin.network.spec import read_spec, shipped


class Subclass(nn.Conv2d):
    pass


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.Conv2d(4, 6, 3, padding=1, bias=False), 9 * 4 * 6 * 10 * 8),
        (nn.Conv2d(4, 6, 3, padding=1), 9 * 4 * 6 * 10 * 8 + 6 * 10 * 8),
        (nn.Conv2d(4, 6, (3, 1), stride=2, groups=2, bias=False), 3 * 4 * 3 * 4 * 4),
        (nn.Conv2d(4, 4, 3, groups=4, bias=False), 9 * 4 * 8 * 6),
        (nn.Linear(8, 5, bias=False), 4 * 10 * 8 * 5),
        (nn.BatchNorm2d(4), 2 * 4 * 10 * 8),
        (nn.BatchNorm2d(4, affine=False), 4 * 10 * 8),
        (nn.MaxPool2d(2), 4 * 10 * 8),
        (nn.AvgPool2d(2), 4 * 10 * 8),
        (nn.AdaptiveAvgPool2d(1), 4 * 10 * 8),
        (nn.AdaptiveMaxPool2d(1), 4 * 10 * 8),
        (nn.ReLU(), 0),
        (nn.ReLU6(), 0),
        (nn.PReLU(), 0),
        (nn.Hardswish(), 0),
        (nn.Sigmoid(), 0),
        (Subclass(4, 6, 3), 0),
    ],
)
def test_one_layer(layer, macs):
    assert count_macs(nn.Sequential(layer), (10, 8), channels=4) == macs


def test_linear_on_features():
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    assert count_macs(module, (2, 2)) == 12 * 5 + 5


def test_a_layer_called_twice_costs_twice():
    conv = nn.Conv2d(3, 3, 1, bias=False)
    assert count_macs(nn.Sequential(conv, conv), (4, 4)) == 2 * 9 * 16


def test_the_table_of_layers():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    lines = [dataclasses.astuple(layer) for layer in layer_macs(module, (5, 6))]
    assert lines == [
        ("0", "Conv2d", 9 * 3 * 4 * 12, 9 * 3 * 4 * 12, 108, (4, 3, 4)),
        ("1", "BatchNorm2d", 96, 0, 8, (4, 3, 4)),
    ]


def test_counting_changes_nothing():
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1).eval())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    count_macs(module, (4, 4))
    assert (module.training, module[0].training, module[1].training) == (True, True, False)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not module[1]._forward_hooks


def spec(name, **changes):
    return dataclasses.replace(read_spec(shipped(name)), **changes)


@pytest.mark.parametrize(
    ("net", "macs", "parameters"),
    [
        (spec("mobilenetv3"), 224_128_545, 4_214_841),
        (spec("mobilenetv3", width=0.5, input=(96, 96)), 13_894_377, 1_107_089),
        (spec("seed"), 1_838_558, 250_486),
        (spec("small"), 1_498_913, 47_153),
    ],
)
def test_rows_of_nine_classes(net, macs, parameters):
    module = build(net, 9)
    assert count_macs(module, net.input) == macs
    assert count_parameters(module) == parameters


@pytest.mark.parametrize(("side", "macs"), [(128, 13_658_633), (64, 3_421_577)])
def test_torchvision_shufflenet(side, macs):
    from torchvision.models import shufflenet_v2_x0_5

    assert count_macs(shufflenet_v2_x0_5(num_classes=9), (side, side)) == macs


@pytest.mark.parametrize("name", ["seed", "small"])
def test_products_are_those_of_torchs_own_counter(name):
    net = spec(name)
    module = build(net, 9).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 3, *net.input))
    products = sum(layer.products for layer in layer_macs(module, net.input))
    assert products * 2 == counter.get_total_flops()


def test_ptflops_agrees_on_convolutions_and_linear_layers():
    from ptflops import get_model_complexity_info

    net = spec("small")
    module = build(net, 9).eval()
    counted, _ = get_model_complexity_info(
        module,
        (3, *net.input),
        backend="aten",
        as_strings=False,
        print_per_layer_stat=False,
        verbose=False,
    )
    rule = sum(c.macs for c in layer_macs(module, net.input) if c.kind in ("Conv2d", "Linear"))
    assert abs(counted / rule - 1) < 0.02


def test_shapes_alone_count_as_real_numbers_do() -> None:
    spec = read_spec(shipped("mobilenetv3"))
    empty = structure(dataclasses.replace(spec, input=(64, 64)), 9)
    before = [dict(vars(part)).keys() for part in empty.modules()]
    counted = layer_macs(empty, (64, 64))
    assert [dict(vars(part)).keys() for part in empty.modules()] == before
    assert layer_macs(blank(empty, "cpu"), (64, 64)) == counted
