"""The structure that stands for a layer under each factorization; the algebra is in compress/.

A (C_out, C_in, k, k) convolution with stride s becomes, with ranks r:

    tucker (r1, r2)  1x1 C_in -> r1, kxk r1 -> r2 stride s, 1x1 r2 -> C_out
    cp (r,)          1x1 C_in -> r, kx1 then 1xk on each of the r maps stride s, 1x1 r -> C_out
    spatial (r,)     kx1 C_in -> r stride (s, 1), 1xk r -> C_out stride (1, s)
    svd (r,)         for a 1x1 convolution or a linear layer: C_in -> r stride s, r -> C_out

The last piece alone carries the layer's bias. Tucker-2: Kim et al. (ICLR 2016); CP: Lebedev et al.
(ICLR 2015); spatial pairs: Jaderberg et al. (BMVC 2014).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import nn

from weighin.errors import NetworkError

ModuleT = TypeVar("ModuleT", bound=nn.Module)
Method = Literal["tucker", "cp", "svd", "spatial"]
FIX = "run the decompose stage again, or edit the ranks file"


@dataclass(frozen=True)
class Factorization:
    """How one layer is factorized: two ranks for tucker, one for the others."""

    method: Method
    ranks: tuple[int, ...]


def factorized_structure(
    layer: nn.Module, how: Factorization, path: str = "layer"
) -> nn.Sequential:
    """Return the pieces that stand for `layer`, zero-weighted, on its device.

    Raises:
        NetworkError: `layer` is of another kind, grouped, or not the method's; a rank is too large.
    """
    fault = _fault(layer, how)
    if fault:
        raise NetworkError(f"{path} cannot be factorized by {how.method}: {fault}", FIX)
    with torch.device("meta"):
        pieces = _linear(layer, how) if isinstance(layer, nn.Linear) else _conv(layer, how)
    return blank(nn.Sequential(*pieces), next(layer.parameters()).device)


Pieces = Callable[[nn.Module, Factorization, str], nn.Sequential]  # of a layer, by its path


def apply_ranks(
    module: nn.Module, ranks: Mapping[str, Factorization], pieces: Pieces = factorized_structure
) -> None:
    """Replace each named layer of `module` by its pieces, in place.

    Raises:
        NetworkError: `module` has no such layer, or the layer cannot be factorized so.
    """
    layers = dict(module.named_modules())
    for path in sorted(ranks):
        if path not in layers:
            raise NetworkError(f"the network has no layer {path}, which the ranks name", FIX)
        module.set_submodule(path, pieces(layers[path], ranks[path], path))


def ranks_to_dict(ranks: Mapping[str, Factorization]) -> dict[str, dict[str, Any]]:
    """Return ranks as values for a YAML or JSON file, sorted by layer."""
    return {p: {"method": how.method, "ranks": list(how.ranks)} for p, how in sorted(ranks.items())}


def ranks_from_dict(values: Any, source: str = "the ranks") -> dict[str, Factorization]:
    """Return the ranks that `ranks_to_dict` wrote.

    Raises:
        NetworkError: the values are of another form; the message names the layer.
    """
    if not isinstance(values, Mapping):
        raise NetworkError(f"{source}: must be a mapping of layers", FIX)
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
        problem = f"{source}: {path} is {value}; it must be {{method: {known}, ranks: [r, ...]}}"
        raise NetworkError(problem, FIX)
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
