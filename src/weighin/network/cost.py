"""What a network costs, known from its rows before it has a trained weight.

A batch norm is folded into the convolution before it: the same outputs for fewer MACs, for a norm
over n numbers counts 2n by the rule, and the bias that replaces it counts n.
"""

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.fx import symbolic_trace

from weighin.grading.score import Cost
from weighin.network.blocks import BLOCKS
from weighin.network.build import arguments, build, signature, structure
from weighin.network.factorized import Factorization
from weighin.network.macs import check_macs, count_macs, count_parameters, layer_macs
from weighin.network.spec import NetworkSpec, Row, read_rows, rows_of, shipped

EXAMPLE_INPUT = (16, 32, 32)  # channels, rows, columns
EXAMPLE_ARGUMENTS = {"c": 24, "k": 3, "kernels": (3, 5), "t": 2, "se": 1, "hs": 1, "s": 2}


def cost(spec: NetworkSpec, classes: int, ranks: Mapping[str, Factorization] | None = None) -> Cost:
    """Return the MACs and the parameters of a network as it is exported, norms folded.

    Raises:
        NetworkError: the rows or ranks do not make a network.
    """
    folded = fold_batch_norms(structure(spec, classes, ranks))
    return Cost(count_macs(folded, spec.input), count_parameters(folded))


def folded_macs(
    spec: NetworkSpec, classes: int, ranks: Mapping[str, Factorization] | None = None
) -> int:
    """Return the MACs of `cost` alone."""
    return cost(spec, classes, ranks).macs


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Return a copy of `module`, in eval mode, each Conv2d's BatchNorm2d folded into it.

    With scale = gamma / sqrt(var + eps) of the norm, the weight becomes weight * scale and the bias
    (bias - mean) * scale + beta, in float64. A norm that follows anything but a convolution of its
    own stays. Folded norms become nn.Identity, so that paths stay what they were.
    """
    folded = copy.deepcopy(module).eval()
    for conv_path, norm_path in foldable_norms(folded):
        conv, norm = folded.get_submodule(conv_path), folded.get_submodule(norm_path)
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        _fold(conv, norm)
        folded.set_submodule(norm_path, nn.Identity())
    return folded


def foldable_norms(module: nn.Module) -> list[tuple[str, str]]:
    """Return (convolution, norm) paths where the norm alone reads the convolution's output.

    Both are called once: a layer that is used twice cannot absorb one use's norm.
    """
    graph = symbolic_trace(module).graph
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    pairs = []
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, torch.fx.Node) or before.op != "call_module":
            continue
        names = str(before.target), str(node.target)
        conv, norm = (module.get_submodule(name) for name in names)
        alone = len(before.users) == 1 and all(calls[name] == 1 for name in names)
        fixed = type(norm) is nn.BatchNorm2d and norm.running_mean is not None
        if alone and type(conv) is nn.Conv2d and fixed:
            pairs.append(names)
    return pairs


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    if conv.weight.is_meta:
        conv.bias = nn.Parameter(torch.empty(conv.out_channels, device="meta"))
        return
    # NumPy's sqrt is IEEE's; torch's differs between processors' instruction sets
    mean, var = _float64(norm.running_mean), _float64(norm.running_var)
    scale = 1 / np.sqrt(var + norm.eps)
    shift = -mean * scale
    if norm.affine:
        gamma = _float64(norm.weight)
        scale, shift = gamma * scale, gamma * shift + _float64(norm.bias)
    if conv.bias is not None:
        shift = shift + _float64(conv.bias) * scale
    weight = _float64(conv.weight) * scale.reshape(-1, 1, 1, 1)
    conv.weight = _parameter(weight)
    conv.bias = _parameter(shift)


def _float64(tensor: torch.Tensor | None) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    assert tensor is not None
    return tensor.detach().double().numpy()


def _parameter(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(values.astype(np.float32)))


@dataclass(frozen=True)
class BlockExample:
    """One block that a row can name: what it is, its arguments, and a row with its MACs."""

    name: str
    summary: str
    arguments: str  # `[c, k=1, ...]`; those without a default are needed
    row: str
    macs: int  # of the row on EXAMPLE_INPUT


def block_examples() -> list[BlockExample]:
    """Return an example of each block, in the order of `BLOCKS`."""
    return [_example(name) for name in BLOCKS]


def _example(name: str) -> BlockExample:
    block, kinds = BLOCKS[name], arguments(BLOCKS[name])
    args = tuple(EXAMPLE_ARGUMENTS[key] for key in takewhile(EXAMPLE_ARGUMENTS.get, kinds))
    channels, *size = EXAMPLE_INPUT
    module: nn.Module = block(channels, *args)
    if name == "Linear":  # takes features
        module, size = nn.Sequential(nn.Flatten(), module), [1, 1]
    macs = count_macs(module, (size[0], size[1]), channels)
    summary = (block.__doc__ or "").partition("\n")[0]
    return BlockExample(name, summary, signature(kinds), str(Row(1, name, args)), macs)


def cost_table(path: Path, classes: int, layers: bool) -> list[str]:
    """Return the lines that `weighin count` prints of a rows file, or of one that is shipped.

    Raises:
        NetworkError: the rows do not make a network.
        HiddenWorkError: as `check_macs`.
    """
    spec = read_rows(shipped(str(path)) if shipped(str(path)).exists() else path)
    with rows_of(path):
        module = build(spec, classes)
        by_ptflops = check_macs(module, spec.input)
    listed = layer_macs(module, spec.input) if layers else []
    lines = [f"{found.macs:>12,}  {found.kind:<18} {found.path}" for found in listed]
    return [
        *lines,
        f"{count_macs(module, spec.input):,} MACs, {count_parameters(module):,} parameters",
        f"{count_macs(fold_batch_norms(module), spec.input):,} MACs with its batch norms folded",
        f"{by_ptflops:,} MACs of convolutions and linear layers by ptflops",
    ]
