"""A recorded step computes what autograd does: outputs, gradients and statistics."""

import copy

import pytest
import torch
from torch import Tensor, nn

from weighin.golden import BLOCK_ROWS
from weighin.network.blocks import ACTIVATIONS, Mean, activation
from weighin.network.build import Factorization, Method, apply_ranks, build, initialize
from weighin.network.spec import NetworkSpec, read_spec, shipped
from weighin.training import activations, compiled, vectors
from weighin.training.kernels import Recorded, record_steps, single_step
from weighin.training.recording import Back, Recording
from weighin.training.weights import FlatModule

KERNELS = [
    value
    for module in (activations, compiled)
    for value in vars(module).values()
    if hasattr(value, "cache_clear")
]


def draw(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data = torch.rand(parameter.shape, generator=generator) - 0.3
    return module.to(memory_format=torch.channels_last)


def images(*shape: int, seed: int = 0) -> Tensor:
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 0.5
    return x.to(memory_format=torch.channels_last)


def flat(module: nn.Module, record: bool = True) -> FlatModule:
    """Return a module in flat vectors, its steps recorded or by autograd."""
    found = FlatModule(module)
    if record:
        record_steps(found)
    return found


def results(flat: FlatModule, x: Tensor) -> list[Tensor]:
    """Return the output, the gradient of every trained parameter, and the statistics."""
    module = flat.module
    y = module(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=x.dtype).view(y.shape)
    grads = torch.autograd.grad((y * weights).sum(), flat.leaves)
    if isinstance(module, Recorded):
        assert [grad.shape for grad in grads] == [(flat.trained,)]
        grads = tuple(grad.clone() for grad in module.gradients.values())
    return [y.detach(), *grads, *(b for b in module.buffers() if b.dtype == x.dtype)]


def check(module: nn.Module, x: Tensor) -> None:
    """A recorded step is as near to autograd in double precision as autograd in single is."""
    fast, plain = flat(copy.deepcopy(module)), flat(copy.deepcopy(module), record=False)
    exact = flat(copy.deepcopy(module).double(), record=False)
    before = fast.statistics.clone()
    results(fast, images(*x.shape, seed=9))  # what a step leaves in its maps changes no other
    fast.statistics.copy_(before)
    found = results(fast, x), results(plain, x), results(exact, x.double())
    for ours, theirs, wanted in zip(*found, strict=True):
        assert ours.shape == wanted.shape
        rounding = (theirs - wanted).norm() + 1e-6 * (wanted.norm() + 1)
        assert (ours - wanted).norm() <= 10 * rounding


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 4), (60, 60)])
@pytest.mark.parametrize("channels", [(16, 24), (5, 3), (33, 1)])
@pytest.mark.parametrize("bias", [False, True])
def test_pointwise_convolution(
    size: tuple[int, int], channels: tuple[int, int], bias: bool
) -> None:
    layers = nn.Conv2d(3, channels[0], 1), nn.Conv2d(*channels, 1, bias=bias)
    check(draw(nn.Sequential(*layers)), images(4, 3, *size))


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 3), (4, 4), (6, 5), (9, 17)])
def test_depthwise_convolution(
    kernel: int, stride: int, padding: int, size: tuple[int, int]
) -> None:
    if min(size) + 2 * padding < kernel:
        pytest.skip("no output")
    depthwise = nn.Conv2d(9, 9, kernel, stride, padding, groups=9, bias=False)
    check(draw(nn.Sequential(nn.Conv2d(3, 9, 1), depthwise)), images(5, 3, *size))


@pytest.mark.parametrize("act", [*ACTIVATIONS, None])
@pytest.mark.parametrize("shape", [(3, 20, 5, 7), (2, 16, 1, 1), (2, 3, 40, 40)])
def test_batch_norm_and_activation(act: str | None, shape: tuple[int, ...]) -> None:
    norm = nn.BatchNorm2d(shape[1])
    layers = nn.Conv2d(3, shape[1], 1, bias=False), norm, *activation(act)
    check(draw(nn.Sequential(*layers)), images(shape[0], 3, *shape[2:]))


def test_the_variance_of_large_numbers_is_exact() -> None:
    convolution = nn.Conv2d(2, 2, 1, bias=False)
    convolution.weight.data = torch.eye(2).view(2, 2, 1, 1)
    norm = flat(nn.Sequential(convolution, nn.BatchNorm2d(2))).module
    x = torch.tensor([4096.0, 4097.0]).repeat(100).view(1, 1, 10, 20).repeat(1, 2, 1, 1)
    assert norm(x).unique().tolist() == pytest.approx([-1, 1], abs=1e-4)


OTHER = (nn.AdaptiveAvgPool2d(1), nn.ReLU(True), nn.MaxPool2d(2, ceil_mode=True))


@pytest.mark.parametrize("layer", [Mean(), nn.Flatten(), nn.ZeroPad2d((1, 0, 2, 3)), *OTHER])
def test_other_layers(layer: nn.Module) -> None:
    check(draw(nn.Sequential(nn.Conv2d(3, 5, 1), layer)), images(2, 3, 4, 6))


@pytest.mark.parametrize("kernel, stride, padding", [(2, 2, 0), (3, 2, 1), (3, 1, 1), (5, 3, 2)])
@pytest.mark.parametrize("channels", [5, 16, 21])
def test_max_pooling_has_the_bits_of_torch(
    kernel: int, stride: int, padding: int, channels: int
) -> None:
    layer, slopes = nn.MaxPool2d(kernel, stride, padding), list[Tensor]()
    x = (images(3, channels, 9, 7) * 4).round()  # many places of a window have its largest

    def step(x: Tensor, r: Recording) -> tuple[Tensor, Back]:
        y, back = single_step(layer)(x, r)
        return y, lambda dy: slopes.append(back(dy))

    recording = Recording(step, x.shape)
    recording.images.copy_(x.requires_grad_())
    y = layer(x)
    dy = images(*y.shape, seed=1)
    recording.slope.copy_(dy)
    for call in (*recording.forward, *recording.backward):
        call()
    assert torch.equal(recording.logits, y)
    assert torch.equal(slopes[0], torch.autograd.grad(y, x, dy)[0])


def test_max_pooling_hands_nan_on() -> None:
    module = flat(nn.Sequential(nn.Conv2d(3, 1, 1), nn.MaxPool2d(2))).module
    x = images(1, 3, 4, 4)
    x[0, 0, 1, 0] = x[0, 0, 2, 3] = torch.nan
    assert module(x).isnan().flatten().tolist() == [True, False, False, True]


@pytest.mark.parametrize("name", BLOCK_ROWS)
def test_every_block(name: str) -> None:
    rows = [[1, "Conv", [16, 3, 2, None, 1, "HardSwish"]], [2, name, BLOCK_ROWS[name]]]
    rows += [[1, "GlobalAvgPool", []], [1, "Flatten", []], [1, "Linear", ["classes"]]]
    spec = NetworkSpec.from_dict({"input": [24, 32], "width": 1.0, "rows": rows})
    check(draw(build(spec, 3)), images(8, 3, 24, 32))


@pytest.mark.parametrize("wide", ["tucker", "cp", "spatial"])
@pytest.mark.parametrize("name", BLOCK_ROWS)
def test_every_block_whose_convolutions_are_factorized(name: str, wide: Method) -> None:
    rows = [[1, "Conv", [16, 3, 2, None, 1, "HardSwish"]], [1, name, BLOCK_ROWS[name]]]
    rows += [[1, "GlobalAvgPool", []], [1, "Flatten", []], [1, "Linear", ["classes"]]]
    module = build(NetworkSpec.from_dict({"input": [24, 32], "width": 1.0, "rows": rows}), 3)
    ranks = {
        path: Factorization(
            "svd" if one else wide, (2, 2) if wide == "tucker" and not one else (2,)
        )
        for path, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.groups == 1
        for one in [layer.kernel_size == (1, 1)]
    }
    apply_ranks(module, ranks)
    check(draw(module), images(8, 3, 24, 32))


@pytest.mark.parametrize("name", ["seed", "small"])
def test_whole_networks(name: str) -> None:
    spec: NetworkSpec = read_spec(shipped(name))
    module = build(spec, 5)
    initialize(module, "quick")
    x = images(16, 3, *spec.input)
    exact = flat(copy.deepcopy(module).double(), record=False)
    found, wanted = results(flat(module), x), results(exact, x.double())
    apart = sum(float((a - b).square().sum()) for a, b in zip(found, wanted, strict=True))
    assert apart <= 1e-8 * sum(float(b.square().sum()) for b in wanted)


def test_frozen_weights_have_no_gradient() -> None:
    module = draw(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU()))
    module[0].weight.requires_grad_(False)
    check(module, images(2, 3, 4, 4))


def test_another_shape_is_recorded_anew() -> None:
    module = draw(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()))
    used, fresh = flat(copy.deepcopy(module)), flat(module)
    results(used, images(4, 3, 6, 6))
    used.statistics.copy_(fresh.statistics)
    pairs = zip(results(used, images(2, 3, 5, 7)), results(fresh, images(2, 3, 5, 7)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_validation_between_two_steps_changes_neither() -> None:
    depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False)
    network = flat(draw(nn.Sequential(nn.Conv2d(3, 8, 1), depthwise, nn.BatchNorm2d(8), Mean())))
    before, weights = results(network, images(4, 3, 6, 6)), depthwise.weight.detach().clone()
    with torch.inference_mode():
        depthwise.weight.mul_(2)
        network.module.eval()(images(2, 3, 6, 6))
        depthwise.weight.copy_(weights)
    network.module.train()
    after = results(network, images(4, 3, 6, 6))
    assert all(torch.equal(a, b) for a, b in zip(before[:6], after[:6], strict=True))


def test_gradients_are_those_of_the_last_images_or_none() -> None:
    module = flat(draw(nn.Sequential(nn.Conv2d(3, 8, 1), Mean()))).module
    first, second = module(images(2, 3, 4, 4)), module(images(2, 3, 4, 4, seed=1))
    second.sum().backward()
    with pytest.raises(RuntimeError, match="last images"):
        first.sum().backward()


def step_bytes(monkeypatch: pytest.MonkeyPatch, cpu: str) -> bytes:
    """Return what a step of every block computes with code for a processor."""
    if cpu:
        monkeypatch.setattr(vectors, "host", lambda: vectors.target(cpu))
    for kernel in KERNELS:
        kernel.cache_clear()
    found = []
    for act in ("HardSwish", "SiLU", "ReLU6"):
        layers = nn.Conv2d(3, 37, 1), nn.Conv2d(37, 37, 3, 1, 1, groups=37, bias=False)
        down = nn.Conv2d(37, 37, 5, 2, 2, groups=37, bias=False)
        norms = nn.BatchNorm2d(37), *activation(act)
        module = draw(nn.Sequential(*layers, *norms, down, nn.Conv2d(37, 20, 1)))
        found += [x.numpy().tobytes() for x in results(flat(module), images(6, 3, 9, 13))]
    monkeypatch.undo()
    for kernel in KERNELS:
        kernel.cache_clear()
    return b"".join(found)


def test_the_bits_are_those_of_every_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    here = step_bytes(monkeypatch, "")
    assert step_bytes(monkeypatch, "haswell") == here
    assert step_bytes(monkeypatch, "x86-64") == here  # has no fma, and calls the C library's
    for count in (8, 32):
        monkeypatch.setattr(compiled, "registers", lambda count=count: count)
        assert step_bytes(monkeypatch, "") == here
    monkeypatch.setattr(vectors.Kernel, "fma", lambda k, a, b, c: a * b + c)
    assert step_bytes(monkeypatch, "") != here  # the control: two roundings


def test_a_weight_that_no_step_writes_is_told() -> None:
    module = draw(nn.Sequential(nn.Conv2d(3, 8, 1), Mean()))
    module.register_parameter("unused", nn.Parameter(torch.zeros(3)))
    with pytest.raises(RuntimeError, match="each gradient once"):
        flat(module).module(images(2, 3, 4, 4))
