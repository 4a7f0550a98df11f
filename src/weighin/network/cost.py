"""What a network costs, by the contest's rule: known from its rows, before it has trained weights.

A batch norm is folded into the convolution before it: the same outputs for fewer MACs, for a norm
over n numbers counts 2n by the rule, and the bias that replaces it counts n.

The rule for multiply-accumulates, as ptflops 0.6.4 counted them, batch 1:

| module, by exact type | MACs |
|---|---|
| Conv2d | prod(kernel) * C_in * (C_out / groups) * H_out * W_out, and outputs with a bias |
| Linear | inputs * out, and outputs with a bias |
| BatchNorm2d | 2 * inputs if affine, else inputs |
| MaxPool2d, AvgPool2d, AdaptiveMaxPool2d, AdaptiveAvgPool2d | inputs |
| everything else, subclasses of the above included | 0 |

The rule alone can be fooled (a subclass of nn.Conv2d counts nothing), so a network is accepted only
if neither torch's operators nor ptflops see more work than the rule.

`reject_hidden_work` watches the operators that really run. Every product of a convolution or matrix
multiplication must be one that the rule counted, in the same module: both are integers from the
same shapes, so nothing is tolerated. Operators are counted by torch's own formulas
(`torch.utils.flop_counter.flop_registry`, in FLOPs: two a product), which see F.conv2d, matmul,
einsum and subclasses alike. Three gaps are closed here: a plain product with a weight or a constant
counts one a result, a batch norm counts as the rule would, and an operator that is not on the list
of cheap ones is refused, whatever it does.
"""

import contextlib
import copy
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import symbolic_trace
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from weighin.errors import HiddenWorkError
from weighin.grading.score import Cost
from weighin.images import Size
from weighin.network.blocks import BLOCKS
from weighin.network.build import (
    Ranks,
    arguments,
    blank_image,
    build,
    count_parameters,
    evaluating,
    shaping,
    signature,
    structure,
    watching,
)
from weighin.network.spec import NetworkSpec, Row, read_rows, rows_file, rows_of

EXAMPLE_INPUT = (16, 32, 32)  # channels, rows, columns
EXAMPLE_ARGUMENTS = {"c": 24, "k": 3, "kernels": (3, 5), "t": 2, "se": 1, "hs": 1, "s": 2}
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)
COUNTED = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, *POOLS)
# What the rule prices itself (pools), prices at nothing (activations), or only moves data.
NAMES = """
    relu relu_ hardtanh hardtanh_ hardswish hardswish_ hardsigmoid hardsigmoid_ silu silu_ sigmoid
    sigmoid_ leaky_relu leaky_relu_ elu elu_ prelu _prelu_kernel gelu tanh softmax _softmax
    _log_softmax clamp clamp_ clamp_min clamp_max add add_ sub mean sum amax max
    max_pool2d max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d
    view _unsafe_view reshape _reshape_alias permute transpose t squeeze unsqueeze expand alias
    slice select split split_with_sizes chunk cat stack clone contiguous detach constant_pad_nd
    channel_shuffle native_channel_shuffle copy_ _to_copy lift_fresh empty zeros dropout
"""
CHEAP = frozenset(NAMES.split())
NORMS = frozenset({"native_batch_norm", "_native_batch_norm_legit_no_training"})
PRODUCTS = frozenset({"mul", "mul_", "div", "div_", "addcmul", "addcmul_", "addcdiv", "lerp"})
FIX = "use plain nn.Conv2d and nn.Linear modules for all weighted sums, so that they are counted"
TOLERANCE = 0.02  # ptflops prices biases in its own way
Key = tuple[str, str]  # module path, operator


def cost(spec: NetworkSpec, classes: int, ranks: Ranks | None = None) -> Cost:
    """Return the MACs and the parameters of a network as it is exported, norms folded.

    Raises:
        NetworkError: the rows or ranks do not make a network.
    """
    folded = fold_batch_norms(structure(spec, classes, ranks))
    return Cost(count_macs(folded, spec.input), count_parameters(folded))


def folded_macs(spec: NetworkSpec, classes: int, ranks: Ranks | None = None) -> int:
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
    spec = read_rows(rows_file(path))
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


@dataclass(frozen=True)
class LayerCost:
    """One call of one layer; `products` are the MACs of its convolution or matrix product alone."""

    path: str
    kind: str
    macs: int
    products: int
    params: int
    shape: tuple[int, ...]  # of the output, without the batch


def count_macs(module: nn.Module, size: Size, channels: int = 3) -> int:
    """Return the MACs of `module` for one image (channels, H, W) of `size`."""
    return sum(layer.macs for layer in layer_macs(module, size, channels))


def layer_macs(module: nn.Module, size: Size, channels: int = 3) -> list[LayerCost]:
    """Return the cost of every layer that the rule counts, in the order of their calls."""
    costs: list[LayerCost] = []

    def note(path: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        costs.append(_cost(path, layer, x, y))

    parts = {path: part for path, part in module.named_modules() if type(part) in COUNTED}
    with watching(parts, note), shaping(module), torch.no_grad():
        module(blank_image(module, size, channels))
    return costs


def _cost(path: str, layer: nn.Module, x: Tensor, y: Tensor) -> LayerCost:
    products, extra = _work(layer, x, y)
    params = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
    kind, shape = type(layer).__name__, tuple(y.shape[1:])
    return LayerCost(path, kind, products + extra, products, params, shape)


def _work(layer: nn.Module, x: Tensor, y: Tensor) -> tuple[int, int]:
    """Return the products of a convolution or linear layer, and what the rule adds to them."""
    if isinstance(layer, nn.Conv2d):
        products = math.prod(layer.kernel_size) * layer.in_channels // layer.groups * y.numel()
        return products, 0 if layer.bias is None else y.numel()
    if isinstance(layer, nn.Linear):
        return x.numel() * layer.out_features, 0 if layer.bias is None else y.numel()
    if isinstance(layer, nn.BatchNorm2d):
        return 0, (2 if layer.affine else 1) * x.numel()
    return 0, x.numel()


def check_macs(module: nn.Module, size: Size) -> int:
    """Return what ptflops counts of an honest network (operators of ATen, multiply-accumulates).

    Raises:
        HiddenWorkError: the operators that ran, or ptflops, see work that the rule does not.
    """
    reject_hidden_work(module, size)
    counted = ptflops_macs(module, size)
    rule = sum(c.macs for c in layer_macs(module, size) if c.kind in ("Conv2d", "Linear"))
    if counted > rule * (1 + TOLERANCE):
        problem = f"ptflops counts {counted:,} MACs in convolutions and linear layers, the rule"
        raise HiddenWorkError(f"{problem} {rule:,}", FIX)
    return counted


def ptflops_macs(module: nn.Module, size: Size) -> int:
    """Return ptflops' count of convolutions and linear layers, whatever runs them."""
    from ptflops import get_model_complexity_info

    with evaluating(module):
        counted, _ = get_model_complexity_info(
            module,
            (3, *size),
            backend="aten",
            as_strings=False,
            print_per_layer_stat=False,
            verbose=False,
        )
    return int(counted)


def reject_hidden_work(module: nn.Module, size: Size) -> None:
    """Pass a network whose operators do only what the rule counts for one image of `size`.

    Raises:
        HiddenWorkError: names the number of products that nothing counted, the operators and the
            innermost modules that ran them.
    """
    seen: Counter[str] = Counter()
    for layer in layer_macs(module, size):
        seen[layer.path] += layer.macs if layer.kind == "BatchNorm2d" else layer.products
    watch, image = _Watch(module), blank_image(module, size)
    with evaluating(module), torch.no_grad(), watch.paths(), watch:
        module(image)
    if watch.strange:
        where = ", ".join(f"{op} in {_name(path)}" for path, op in sorted(watch.strange))
        raise HiddenWorkError(f"the MAC rule has no price for {where}", FIX)
    done: Counter[str] = Counter()
    for (path, _), products in watch.products.items():
        done[path] += products
    hidden = {path: done[path] - seen[path] for path in sorted(done) if done[path] > seen[path]}
    if hidden:
        ops = {path: sorted(op for where, op in watch.products if where == path) for path in hidden}
        where = "; ".join(f"{hidden[p]:,} by {', '.join(ops[p])} in {_name(p)}" for p in hidden)
        total = sum(hidden.values())
        raise HiddenWorkError(f"{total:,} MACs are hidden from the rule: {where}", FIX)


def _name(path: str) -> str:
    return path or "the network's own forward"


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts products by the module that is running."""

    def __init__(self, module: nn.Module) -> None:
        from torch.utils.flop_counter import flop_registry  # brings triton, which no worker needs

        super().__init__()  # type: ignore[no-untyped-call]
        self.module, self._formulas = module, flop_registry
        self.products: Counter[Key] = Counter()
        self.strange: set[Key] = set()
        self._running = [""]
        self._weights = [*module.parameters(), *module.buffers()]  # kept: a storage's id is reused
        self._learned = {_storage(tensor) for tensor in self._weights}

    @contextlib.contextmanager
    def paths(self) -> Iterator[None]:
        """Keep track of the innermost running module for a block."""
        with contextlib.ExitStack() as stack:
            for path, part in self.module.named_modules():
                enter = part.register_forward_pre_hook(self._enter(path), prepend=True)
                leave = part.register_forward_hook(self._leave)
                stack.callback(enter.remove)
                stack.callback(leave.remove)
            yield

    def _enter(self, path: str) -> Any:
        return lambda part, inputs: self._running.append(path)

    def _leave(self, part: nn.Module, inputs: Any, output: Any) -> None:
        self._running.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func._overloadpacket
        key, name = (self._running[-1], packet.__name__), packet.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        learned = [_storage(tensor) in self._learned for tensor in tensors]
        if all(learned):  # made of weights or constants alone: a weight too
            self._keep(out)
        elif packet in self._formulas:
            self.products[key] += self._formulas[packet](*args, **kwargs, out_val=out) // 2
        elif name in NORMS:
            self.products[key] += args[0].numel() * (1 if args[1] is None else 2)
        elif name in PRODUCTS:
            scaled = any(type(leaf) in (int, float) for leaf in tree_leaves((args, kwargs)))
            grown = all(tensor.numel() < out.numel() for tensor in tensors)
            self.products[key] += out.numel() if scaled or grown or any(learned) else 0
        elif name not in CHEAP:
            self.strange.add(key)
        elif kwargs.get("alpha", 1) != 1:
            self.products[key] += out.numel()
        return out

    def _keep(self, out: Any) -> None:
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self._weights += made
        self._learned |= {_storage(tensor) for tensor in made}


def _storage(tensor: Tensor) -> int:
    storage: int = tensor.untyped_storage()._cdata
    return storage
