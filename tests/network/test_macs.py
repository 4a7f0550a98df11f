import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from weighin.errors import HiddenWorkError
from weighin.network.build import blank, build, count_parameters, structure
from weighin.network.cost import count_macs, layer_macs, reject_hidden_work
from weighin.network.spec import NetworkSpec, Row, read_spec, shipped


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


MAP = (8, 6)
PIXELS = 48


class Net(nn.Module):
    """A counted convolution, then `work` with learned weights `w` (4, 4)."""

    def __init__(self, work):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.w = nn.Parameter(torch.rand(4, 4))
        self.work = work

    def forward(self, x):
        return self.work(self.conv(x), self.w)


class SilentConv(nn.Conv2d):
    pass


class SilentNorm(nn.BatchNorm2d):
    pass


def unfold(x, w):
    columns = F.unfold(x, 3, padding=1).reshape(x.shape[0], 4, 9, -1)
    return (columns * w[:, :1, None]).sum(2)


HIDDEN = {
    "conv2d": (lambda x, w: F.conv2d(x, w[:, :, None, None]), 16 * PIXELS),
    "conv_transpose2d": (lambda x, w: F.conv_transpose2d(x, w[:, :, None, None]), 16 * PIXELS),
    "linear": (lambda x, w: F.linear(x.permute(0, 2, 3, 1), w), 16 * PIXELS),
    "matmul": (lambda x, w: w @ x.flatten(2), 16 * PIXELS),
    "einsum": (lambda x, w: torch.einsum("oc,bchw->bohw", w, x), 16 * PIXELS),
    "bmm": (lambda x, w: torch.bmm(w[None], x.flatten(2)), 16 * PIXELS),
    "attention": (lambda x, w: x.flatten(2) @ x.flatten(2).transpose(1, 2), 16 * PIXELS),
    "shift and add": (lambda x, w: sum(x[:, i] * w[0, i] for i in range(4)), 4 * PIXELS),
    "copied weight": (lambda x, w: x * (w[0] + 0)[:, None, None], 4 * PIXELS),
    "constants": (lambda x, w: x[:, 0] * 0.5 + x[:, 1] * 0.25, 2 * PIXELS),
    "alpha": (lambda x, w: torch.add(x, x, alpha=0.3), 4 * PIXELS),
    "made in forward": (lambda x, w: x * torch.arange(4.0)[:, None, None], 4 * PIXELS),
    "outer product": (lambda x, w: x[:, :1] * x.mean((2, 3), keepdim=True), 4 * PIXELS),
    "batch_norm": (
        lambda x, w: F.batch_norm(x, torch.zeros(4), torch.ones(4), w[0], w[1]),
        8 * PIXELS,
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_work(name):
    work, amount = HIDDEN[name]
    with pytest.raises(HiddenWorkError) as error:
        reject_hidden_work(Net(work), MAP)
    start = f"{amount:,} MACs are hidden from the rule: {amount:,} by "
    assert error.value.problem.startswith(start)
    assert error.value.problem.endswith(" in the network's own forward")


@pytest.mark.parametrize("work", [unfold, lambda x, w: torch.fft.rfft2(x).abs()])
def test_an_operator_without_a_price_is_refused(work):
    with pytest.raises(HiddenWorkError, match="the MAC rule has no price for "):
        reject_hidden_work(Net(work), MAP)


def test_recurrent_layers_are_refused():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x):
            return self.lstm(x.flatten(2).transpose(1, 2))[0]

    with pytest.raises(HiddenWorkError):
        reject_hidden_work(Recurrent(), MAP)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            SilentConv(3, 4, 3, padding=1),
            "5,184 MACs are hidden from the rule: 5,184 by convolution in 0",
        ),
        (
            SilentNorm(3),
            "288 MACs are hidden from the rule: 288 by native_batch_norm in 0",
        ),
        (
            nn.ConvTranspose2d(3, 4, 1),
            "576 MACs are hidden from the rule: 576 by convolution in 0",
        ),
    ],
)
def test_a_layer_that_the_rule_does_not_see_is_named(layer, message):
    with pytest.raises(HiddenWorkError) as error:
        reject_hidden_work(nn.Sequential(layer, nn.ReLU()), MAP)
    assert error.value.problem == message


def test_a_patched_forward_is_caught():
    conv = nn.Conv2d(3, 3, 1, bias=False)
    conv.forward = lambda x: F.conv2d(F.conv2d(x, conv.weight), conv.weight)
    with pytest.raises(HiddenWorkError, match="432 MACs are hidden from the rule: 432 by"):
        reject_hidden_work(nn.Sequential(conv), MAP)


def test_a_hook_is_caught():
    conv = nn.Conv2d(3, 3, 1, bias=False)
    conv.register_forward_hook(lambda part, x, y: F.conv2d(y, part.weight))
    with pytest.raises(HiddenWorkError, match="432 MACs are hidden"):
        reject_hidden_work(nn.Sequential(conv), MAP)


@pytest.mark.parametrize(
    "work",
    [
        lambda x, w: x,
        lambda x, w: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
        lambda x, w: x * x,
        lambda x, w: F.relu(x + x),
        lambda x, w: torch.cat(x.chunk(2, 1), 1),
    ],
)
def test_gates_and_sums_of_maps_pass(work):
    reject_hidden_work(Net(work), MAP)


@pytest.mark.parametrize("name", ["small", "seed", "mobilenetv3"])
def test_shipped_networks_pass(name):
    spec = read_spec(shipped(name))
    reject_hidden_work(build(spec, 9), spec.input)


def test_every_block_passes():
    rows = (
        Row(1, "Conv", (16, 3, 1, None, 1, "SiLU")),
        Row(1, "DWConv", (16, 3)),
        Row(1, "Bottleneck", (16,)),
        Row(1, "InvertedResidualv2", (16, 2, 2)),
        Row(1, "FusedMBConv", (2, 16, 1, 3)),
        Row(1, "MixNetBlock", ((3, 5), 2, 16, 1)),
        Row(1, "AvgPool", (2,)),
        Row(1, "FixedConv", (16, 1, 1, None, 1, "Sigmoid")),
        Row(1, "Flatten"),
        Row(1, "Linear", ("classes",)),
    )
    reject_hidden_work(build(NetworkSpec((16, 16), 1.0, rows), 3), (16, 16))


def test_torchvision_networks_pass():
    from torchvision.models import mobilenet_v3_small, resnet18, shufflenet_v2_x0_5

    for net in (shufflenet_v2_x0_5(), resnet18(), mobilenet_v3_small()):
        reject_hidden_work(net, (64, 64))
