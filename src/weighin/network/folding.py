"""Batch norms folded into the convolutions before them: the same outputs for fewer MACs.

A norm over n numbers counts 2n by the rule; the bias that replaces it counts n.
"""

import copy
from collections import Counter

import numpy as np
import torch
from torch import nn
from torch.fx import symbolic_trace


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Return a copy of `module`, in eval mode, each Conv2d's BatchNorm2d folded into it.

    With scale = gamma / sqrt(var + eps) of the norm, the weight becomes weight * scale and the bias
    (bias - mean) * scale + beta, in float64. A norm that follows anything but a convolution of its
    own stays. Folded norms become nn.Identity, so that paths stay what they were.
    """
    folded = copy.deepcopy(module).eval()
    for conv_path, norm_path in _pairs(folded):
        conv, norm = folded.get_submodule(conv_path), folded.get_submodule(norm_path)
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        _fold(conv, norm)
        folded.set_submodule(norm_path, nn.Identity())
    return folded


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
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
        if alone and type(conv) is nn.Conv2d and _is_fixed(norm):
            pairs.append(names)
    return pairs


def _is_fixed(norm: nn.Module) -> bool:
    return type(norm) is nn.BatchNorm2d and norm.running_mean is not None


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
