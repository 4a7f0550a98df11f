"""The fast kernels compute what torch's own do, gradients included."""

import copy

import pytest
import torch
from torch import Tensor, nn

from weighin.network.build import build, initialize
from weighin.network.layers import Mean
from weighin.network.spec import NetworkSpec, read_spec, shipped
from weighin.training import kernels
from weighin.training.kernels import depthwise_weight_gradient, use_fast_kernels


def both(layer: nn.Module, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return (plain, fast) pairs: the output, the gradient of x and of every parameter."""
    found = []
    for module in (copy.deepcopy(layer), copy.deepcopy(layer)):
        if found:
            use_fast_kernels(module)
            assert any(m.__class__.__module__ == kernels.__name__ for m in module.modules())
        inputs = x.clone().requires_grad_()
        y = module(inputs)
        weights = torch.linspace(-1, 1, y.numel()).view(y.shape)
        found.append([y, *torch.autograd.grad((y * weights).sum(), [inputs, *module.parameters()])])
    return list(zip(*found, strict=True))


def values(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.rand(*shape, generator=generator) - 0.5
    return x.to(memory_format=torch.channels_last)


def draw(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        parameter.data = torch.linspace(-0.5, 0.5, parameter.numel()).view(parameter.shape)
    return layer


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 4), (60, 60)])
@pytest.mark.parametrize("bias", [False, True])
def test_pointwise_convolution(size: tuple[int, int], bias: bool) -> None:
    for plain, fast in both(draw(nn.Conv2d(16, 24, 1, bias=bias)), values(4, 16, *size)):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 3), (4, 4), (6, 5)])
def test_depthwise_convolution(kernel: int, stride: int, size: tuple[int, int]) -> None:
    layer = draw(nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=8, bias=False))
    for plain, fast in both(layer, values(3, 8, *size)):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)


def test_depthwise_weight_gradient_without_padding_by_hand() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3)  # 0 1 2 / 3 4 5
    grad = torch.tensor([[[[1.0, 10.0]]]])
    found = depthwise_weight_gradient(x, grad, (2, 2), (1, 1), (0, 0))
    assert found.flatten().tolist() == [0 + 10, 1 + 20, 3 + 40, 4 + 50]


@pytest.mark.parametrize("layer", [Mean(), nn.AdaptiveAvgPool2d(1)])
def test_mean(layer: nn.Module) -> None:
    for plain, fast in both(layer, values(2, 5, 3, 7)):
        torch.testing.assert_close(fast, plain)


def test_other_layers_stay_what_they_are() -> None:
    layers = [
        nn.Conv2d(4, 4, 1, 2),
        nn.Conv2d(4, 8, 3, groups=2),
        nn.Conv2d(4, 4, 3, groups=4, dilation=2, bias=False),
        nn.AdaptiveAvgPool2d(2),
        nn.Linear(2, 2),
    ]
    before = [type(layer) for layer in layers]
    use_fast_kernels(nn.ModuleList(layers))
    assert [type(layer) for layer in layers] == before


@pytest.mark.parametrize("name", ["seed", "small"])
def test_whole_networks(name: str) -> None:
    spec: NetworkSpec = read_spec(shipped(name))
    module = build(spec, 5)
    initialize(module, "quick")
    x = values(8, 3, *spec.input)
    for plain, fast in both(module.train(), x):
        torch.testing.assert_close(fast, plain, rtol=2e-3, atol=2e-3)
