"""From rows to a torch module: its layers, factorized where the ranks say so, and first weights.

The module is an nn.Sequential of rows, each an nn.Sequential of its repeats, so that a layer's path
is `row.repeat.conv.index`, counted from 0. It is first built on torch's meta device, which holds
shapes and no memory: nothing is computed, and no random number is drawn.

What stands for a layer under each factorization is here too; the algebra is in compress/. A
(C_out, C_in, k, k) convolution with stride s becomes, with ranks r:

    tucker (r1, r2)  1x1 C_in -> r1, kxk r1 -> r2 stride s, 1x1 r2 -> C_out
    cp (r,)          1x1 C_in -> r, kx1 then 1xk on each of the r maps stride s, 1x1 r -> C_out
    spatial (r,)     kx1 C_in -> r stride (s, 1), 1xk r -> C_out stride (1, s)
    svd (r,)         for a 1x1 convolution or a linear layer: C_in -> r stride s, r -> C_out

The last piece alone carries the layer's bias. Tucker-2: Kim et al. (ICLR 2016); CP: Lebedev et al.
(ICLR 2015); spatial pairs: Jaderberg et al. (BMVC 2014).
"""

import contextlib
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_type_hints

import torch
from torch import Tensor, nn

from weighin.determinism import generator
from weighin.errors import NetworkError, did_you_mean
from weighin.images import Size
from weighin.network.blocks import BLOCKS, Block, Channels, make_divisible
from weighin.network.spec import NetworkSpec, Row
from weighin.validation import check_value

FIX = "edit that row of the rows file"
RANKS_FIX = "edit the ranks file, or `dvc repro --force --single-item decompose` writes it anew"
TOO_SMALL = ("too small", "greater than actual input size")  # what torch says of such maps
LINEAR_STD = 0.01
MAX_PARAMETERS = 10**9  # 4 GB of float32, before gradients
SAME_SHAPE = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid)
Arguments = dict[str, Any]
ModuleT = TypeVar("ModuleT", bound=nn.Module)
Method = Literal["tucker", "cp", "svd", "spatial"]


@dataclass(frozen=True)
class Factorization:
    """How one layer is factorized: two ranks for tucker, one for the others."""

    method: Method
    ranks: tuple[int, ...]


Ranks = Mapping[str, Factorization]  # by the path of the layer


def build(spec: NetworkSpec, classes: int, ranks: Ranks | None = None) -> nn.Sequential:
    """Return the network: float32 images (B, 3, H, W) to logits (B, classes).

    Weights are zero and batch norms fresh; `initialize` or a weights file fills them.

    Raises:
        NetworkError: a row or a rank that does not make a network; the message names it.
    """
    return blank(structure(spec, classes, ranks), "cpu")


def structure(spec: NetworkSpec, classes: int, ranks: Ranks | None = None) -> nn.Sequential:
    """Return the same network on the meta device: shapes alone, for counting.

    Raises:
        NetworkError: as `build`.
    """
    module, x = nn.Sequential(), torch.empty(1, 3, *spec.input, device="meta")
    for number, (row, args) in enumerate(zip(spec.rows, check(spec, classes), strict=True), 1):
        part, x = _row(f"row {number} ({row.block})", row, args, x)
        module.append(part)
    if x.dim() == 4:
        module.append(nn.Flatten())
    if x.flatten(1).shape[1] != classes:
        problem = f"row {len(spec.rows)} gives {_shape(x)}, not {classes} classes"
        raise NetworkError(problem, "end the rows in [1, Linear, [classes]]")
    apply_ranks(module, ranks or {})
    if count_parameters(module) > MAX_PARAMETERS:
        problem = f"the rows hold {count_parameters(module):,} parameters, over {MAX_PARAMETERS:,}"
        raise NetworkError(problem, "lower the width or the channels")
    return module


def check(spec: NetworkSpec, classes: int) -> list[Arguments]:
    """Return each row's arguments by name, with `classes` and the width put in.

    Raises:
        NetworkError: one line for every unknown block and wrong argument.
    """
    faults: list[str] = []
    result = [
        _arguments(row, spec.width, classes, f"row {number}", faults)
        for number, row in enumerate(spec.rows, 1)
    ]
    if faults:
        raise NetworkError("\n".join(faults), "edit these rows of the rows file")
    return result


def initialize(module: nn.Module, *address: int | str) -> None:
    """Draw the first weights of `module` in place, each from its own address.

    Convolutions: normal with variance 2 / fan-out (He et al., ICCV 2015), fan-out being
    k * k * C_out / groups; linear layers: normal with deviation 0.01; biases 0; norms 1 and 0.
    """
    for path, layer in module.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            _draw(layer, f"{path}.weight", address)


def _draw(layer: nn.Conv2d | nn.Linear, name: str, address: tuple[int | str, ...]) -> None:
    std = LINEAR_STD
    if isinstance(layer, nn.Conv2d):
        fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
        std = math.sqrt(2 / fan_out)
    values = generator(*address, name).standard_normal(tuple(layer.weight.shape)) * std
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(values.astype("float32")))
        if layer.bias is not None:
            layer.bias.zero_()


def _row(name: str, row: Row, args: Arguments, x: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
    """Return a row's module and its output for `x`, both on the meta device."""
    part, block = nn.Sequential(), BLOCKS[row.block]
    for given in block.repeats(x.shape[1], args, row.repeats):
        try:
            with torch.device("meta"):
                repeat = block(x.shape[1], **given)
        except ValueError as error:
            raise NetworkError(f"{name}: {error}", FIX) from None
        try:
            with shaping(repeat):
                y: torch.Tensor = repeat(x)
        except (RuntimeError, IndexError) as error:
            shrinks = any(sign in str(error) for sign in TOO_SMALL)
            fault = (
                f"shrinks {_shape(x)} below one pixel" if shrinks else f"cannot take {_shape(x)}"
            )
            raise NetworkError(f"{name} {fault}", FIX) from None
        part.append(repeat)
        x = y
    return part, x


def _shape(x: torch.Tensor) -> str:
    return " x ".join(map(str, x.shape[1:]))


def _arguments(row: Row, width: float, classes: int, name: str, faults: list[str]) -> Arguments:
    block = BLOCKS.get(row.block)
    if block is None:
        faults.append(f"{name}: unknown block {row.block}{did_you_mean(row.block, BLOCKS)}")
        return {}
    kinds, name = arguments(block), f"{name} ({row.block})"
    needed = [key for key, (_, default) in kinds.items() if default is inspect.Parameter.empty]
    if not len(needed) <= len(row.args) <= len(kinds):
        faults.append(f"{name} has {len(row.args)} arguments; it takes {signature(kinds)}")
        return {}
    given: Arguments = {key: default for key, (_, default) in kinds.items()}
    for (key, (hint, _)), value in zip(kinds.items(), row.args, strict=False):
        value = classes if value == "classes" else value
        given[key], found = check_value(hint, value, f"{name}: {key}")
        faults += found
        if hint == Channels and not found:
            given[key] = make_divisible(given[key] * width)
    return given


def arguments(block: type[Block]) -> dict[str, tuple[Any, Any]]:
    """Return {argument: (annotation, default)} of a block, without the input's channels."""
    hints = get_type_hints(block.__init__, include_extras=True)
    parameters = list(inspect.signature(block.__init__).parameters.values())[2:]
    return {p.name: (hints[p.name], p.default) for p in parameters}


def signature(kinds: dict[str, tuple[Any, Any]]) -> str:
    """Return the arguments of a block as text, with the default of those that have one."""
    parts = []
    for key, (_, default) in kinds.items():
        text = default if isinstance(default, str) else json.dumps(default, default=str)
        parts.append(key if default is inspect.Parameter.empty else f"{key}={text}")
    return f"[{', '.join(parts)}]"


def count_parameters(module: nn.Module) -> int:
    """Return how many numbers training can change."""
    return sum(parameter.numel() for parameter in module.parameters())


def blank_image(module: nn.Module, size: Size, channels: int = 3) -> Tensor:
    """Return one zero image (1, channels, H, W) on the device of `module`."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return torch.zeros(1, channels, *size, device=device)


@contextlib.contextmanager
def watching(
    layers: Mapping[str, nn.Module], note: Callable[[str, nn.Module, Tensor, Tensor], None]
) -> Iterator[None]:
    """Call `note` with path, layer, input and output after every call of the layers."""

    def hook(path: str) -> Any:
        return lambda layer, inputs, named, output: note(
            path, layer, [*inputs, *named.values()][0], output
        )

    with contextlib.ExitStack() as hooks:
        for path, layer in layers.items():
            hooks.callback(layer.register_forward_hook(hook(path), with_kwargs=True).remove)
        yield


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put `module` in eval mode for a block; every part returns to its own mode."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextlib.contextmanager
def shaping(module: nn.Module) -> Iterator[None]:
    """Be `evaluating`; on the meta device, layers that keep a shape hand their input on.

    Torch works out their shapes in Python, which took most of the time of a count.
    """
    on_meta = any(parameter.is_meta for parameter in module.parameters())
    parts = [part for part in module.modules() if on_meta and type(part) in SAME_SHAPE]
    for part in parts:
        part.forward = lambda x: x
    try:
        with evaluating(module):
            yield
    finally:
        for part in parts:
            del part.forward


def factorized_structure(
    layer: nn.Module, how: Factorization, path: str = "layer"
) -> nn.Sequential:
    """Return the pieces that stand for `layer`, zero-weighted, on its device.

    Raises:
        NetworkError: `layer` is of another kind, grouped, or not the method's; a rank is too large.
    """
    fault = _fault(layer, how)
    if fault:
        raise NetworkError(f"{path} cannot be factorized by {how.method}: {fault}", RANKS_FIX)
    with torch.device("meta"):
        pieces = _linear(layer, how) if isinstance(layer, nn.Linear) else _conv(layer, how)
    return blank(nn.Sequential(*pieces), next(layer.parameters()).device)


Pieces = Callable[[nn.Module, Factorization, str], nn.Sequential]  # of a layer, by its path


def apply_ranks(module: nn.Module, ranks: Ranks, pieces: Pieces = factorized_structure) -> None:
    """Replace each named layer of `module` by its pieces, in place.

    Raises:
        NetworkError: `module` has no such layer, or the layer cannot be factorized so.
    """
    layers = dict(module.named_modules())
    for path in sorted(ranks):
        if path not in layers:
            raise NetworkError(f"the network has no layer {path}, which the ranks name", RANKS_FIX)
        module.set_submodule(path, pieces(layers[path], ranks[path], path))


def ranks_to_dict(ranks: Ranks) -> dict[str, dict[str, Any]]:
    """Return ranks as values for a YAML or JSON file, sorted by layer."""
    return {p: {"method": how.method, "ranks": list(how.ranks)} for p, how in sorted(ranks.items())}


def ranks_from_dict(values: Any, source: str = "the ranks") -> dict[str, Factorization]:
    """Return the ranks that `ranks_to_dict` wrote.

    Raises:
        NetworkError: the values are of another form; the message names the layer.
    """
    if not isinstance(values, Mapping):
        raise NetworkError(f"{source}: must be a mapping of layers", RANKS_FIX)
    return {str(path): _entry(str(path), values[path], source) for path in values}


def blank(module: ModuleT, device: torch.device | str) -> ModuleT:
    """Return `module` with real memory on `device`: zero weights, fresh batch norms, no random."""
    module.to_empty(device=device)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.reset_parameters()
    return module


def _entry(path: str, value: Any, source: str) -> Factorization:
    well = isinstance(value, Mapping) and set(value) == {"method", "ranks"}
    if not well or value["method"] not in get_args(Method) or not _are_ranks(value["ranks"]):
        known = " | ".join(get_args(Method))
        form = f"{{method: {known}, ranks: [r, ...]}}, r from 1"
        problem = f"{source}: {path} is {value}; it must be {form}"
        raise NetworkError(problem, RANKS_FIX)
    return Factorization(value["method"], tuple(value["ranks"]))


def _are_ranks(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(type(r) is int and r > 0 for r in value)


def _fault(layer: nn.Module, how: Factorization) -> str:
    if type(layer) not in (nn.Conv2d, nn.Linear):
        return f"it is a {type(layer).__name__}, not a convolution or a linear layer"
    wanted = 2 if how.method == "tucker" else 1
    if len(how.ranks) != wanted or not _are_ranks(how.ranks):
        return f"its ranks are {list(how.ranks)}; {wanted} of 1 or more are needed"
    if isinstance(layer, nn.Linear):
        return "" if how.method == "svd" else "a linear layer takes svd"
    return _conv_fault(layer, how) if isinstance(layer, nn.Conv2d) else ""


def _conv_fault(layer: nn.Conv2d, how: Factorization) -> str:
    if layer.groups != 1:
        return f"it has {layer.groups} groups; depthwise and grouped layers stay as they are"
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return "its padding is not a number of zeros"
    pointwise = layer.kernel_size == (1, 1)
    if pointwise != (how.method == "svd"):
        return "a 1 x 1 convolution takes svd, and only it does"
    bounds = (layer.in_channels, layer.out_channels)
    if how.method == "tucker" and (how.ranks[0] > bounds[0] or how.ranks[1] > bounds[1]):
        return f"its ranks {list(how.ranks)} exceed its channels {list(bounds)}"
    return ""


def _linear(layer: nn.Linear, how: Factorization) -> list[nn.Module]:
    (r,) = how.ranks
    head = nn.Linear(layer.in_features, r, bias=False)
    return [head, nn.Linear(r, layer.out_features, bias=layer.bias is not None)]


def _conv(layer: nn.Module, how: Factorization) -> list[nn.Module]:
    assert isinstance(layer, nn.Conv2d)
    c_in, c_out, bias = layer.in_channels, layer.out_channels, layer.bias is not None
    (kh, kw), (sh, sw) = layer.kernel_size, layer.stride
    assert not isinstance(layer.padding, str)
    (ph, pw), (dh, dw) = layer.padding, layer.dilation
    first, last = how.ranks[0], how.ranks[-1]
    tail = nn.Conv2d(last, c_out, 1, bias=bias)
    if how.method == "svd":
        return [nn.Conv2d(c_in, first, 1, (sh, sw), (ph, pw), bias=False), tail]
    head = nn.Conv2d(c_in, first, 1, bias=False)
    if how.method == "tucker":
        core = nn.Conv2d(first, last, (kh, kw), (sh, sw), (ph, pw), (dh, dw), bias=False)
        return [head, core, tail]
    cp = how.method == "cp"
    ins, outs, groups = (first, last, first) if cp else (c_in, c_out, 1)
    rows = nn.Conv2d(ins, first, (kh, 1), (sh, 1), (ph, 0), (dh, 1), groups, bias=False)
    columns = nn.Conv2d(
        first, outs, (1, kw), (1, sw), (0, pw), (1, dw), groups, bias=bias and not cp
    )
    return [head, rows, columns, tail] if cp else [rows, columns]
