"""From rows to a torch module, and its first weights.

The module is an nn.Sequential of rows, each an nn.Sequential of its repeats, so that a layer's path
is `row.repeat.conv.index`, counted from 0. It is first built on torch's meta device, which holds
shapes and no memory: nothing is computed, and no random number is drawn.
"""

import inspect
import json
import math
from collections.abc import Mapping
from typing import Any, get_type_hints

import torch
from torch import nn

from weighin.determinism import generator
from weighin.errors import NetworkError, did_you_mean
from weighin.network.blocks import BLOCKS, Block, Channels
from weighin.network.factorized import Factorization, apply_ranks, blank
from weighin.network.layers import make_divisible
from weighin.network.macs import count_parameters, shaping
from weighin.network.spec import NetworkSpec, Row
from weighin.validation import check_value

FIX = "edit that row of the rows file"
TOO_SMALL = ("too small", "greater than actual input size")  # what torch says of such maps
LINEAR_STD = 0.01
MAX_PARAMETERS = 10**9  # 4 GB of float32, before gradients
Arguments = dict[str, Any]


def build(
    spec: NetworkSpec, classes: int, ranks: Mapping[str, Factorization] | None = None
) -> nn.Sequential:
    """Return the network: float32 images (B, 3, H, W) to logits (B, classes).

    Weights are zero and batch norms fresh; `initialize` or a weights file fills them.

    Raises:
        NetworkError: a row or a rank that does not make a network; the message names it.
    """
    return blank(structure(spec, classes, ranks), "cpu")


def structure(
    spec: NetworkSpec, classes: int, ranks: Mapping[str, Factorization] | None = None
) -> nn.Sequential:
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
