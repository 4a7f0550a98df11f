"""A network's numbers by name, on disk and in three flat vectors; and the state of its training.

By name they are float32 arrays of a module's parameters and norm statistics. On disk they are
safetensors without metadata (which safetensors writes in random order), so equal weights give equal
bytes.

In training, weights, gradients and batch-norm statistics are views into one vector each: clearing,
summing over shards, averaging, stepping and saving touch three tensors whatever the number of
layers.

The state of a training run is a file that is either whole or not there: 32 bytes of SHA-256, then
safetensors; the history travels inside as JSON bytes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from weighin.errors import NetworkError
from weighin.files import sha256, sweep, write_bytes
from weighin.network.build import Factorization, build, initialize
from weighin.network.spec import NetworkSpec
from weighin.progress import say

Weights = Mapping[str, npt.NDArray[np.float32]]
OWN_FIX = (
    "set train.weights to a file of float32 safetensors of the rows that are trained "
    "(search.enabled: false and search.network name them), or to null"
)
COUNTER = "num_batches_tracked"  # of a batch norm: nothing depends on it
FIX = "rebuild the stage that wrote the weights: dvc repro"
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Trained:
    """A network with its weights, and how some of its layers are factorized."""

    spec: NetworkSpec
    weights: Weights = field(repr=False)
    ranks: Mapping[str, Factorization] = field(default_factory=dict)

    def module(self, classes: int) -> nn.Module:
        """Return the torch module, in eval mode.

        Raises:
            NetworkError: rows, ranks and weights do not belong together.
        """
        module = build(self.spec, classes, self.ranks)
        load_weights(module, self.weights)
        return module.eval()


def write_weights(path: Path, weights: Weights) -> None:
    """Write weights to `path`, whole or not at all.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    write_bytes(path, packed_weights(weights))


def weights_hash(weights: Weights) -> str:
    """Return the SHA-256 of the file that `write_weights` writes."""
    return sha256(packed_weights(weights))


def packed_weights(weights: Weights) -> bytes:
    """Return weights as the bytes of a file."""
    # safetensors writes the memory of an array, whatever the order of its sides in there
    ordered = {name: np.ascontiguousarray(weights[name]) for name in sorted(weights)}
    return safetensors.numpy.save(ordered)


def read_weights(path: Path, fix: str = FIX) -> dict[str, npt.NDArray[np.float32]]:
    """Return the weights in a file, without counters of batch norms.

    Raises:
        NetworkError: it cannot be read, is not safetensors, or holds other numbers than float32.
    """
    try:
        arrays = safetensors.numpy.load(Path(path).read_bytes())
    except FileNotFoundError:
        raise NetworkError(f"{path} does not exist", fix) from None
    except OSError as error:
        raise NetworkError(f"{path} cannot be read: {error.strerror}", fix) from None
    except (SafetensorError, KeyError) as error:  # a KeyError names a type that NumPy has not
        raise NetworkError(f"{path} is not a file of float32 safetensors: {error}", fix) from None
    arrays = {name: array for name, array in arrays.items() if COUNTER not in name}
    odd = sorted(name for name, array in arrays.items() if array.dtype != np.float32)
    if odd:
        raise NetworkError(f"{path}: {odd[0]} is {arrays[odd[0]].dtype}, not float32", fix)
    return arrays


def module_weights(module: nn.Module) -> dict[str, npt.NDArray[np.float32]]:
    """Return a copy of every parameter and statistic by name, in the usual layout."""
    return {k: v.detach().cpu().contiguous().clone().numpy() for k, v in _named(module).items()}


def load_weights(module: nn.Module, weights: Weights) -> None:
    """Copy named arrays into a module of the same shapes.

    Raises:
        NetworkError: a name or a shape differs.
    """
    own = _named(module)
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())[0]
        raise NetworkError(f"weights and network differ: {odd} is in one only", FIX)
    for name, target in own.items():
        if tuple(target.shape) != weights[name].shape:
            shapes = f"{tuple(target.shape)} in the network, {weights[name].shape} in the weights"
            raise NetworkError(f"weights and network differ: {name} is {shapes}", FIX)
        target.data.copy_(torch.from_numpy(np.ascontiguousarray(weights[name])))


def initial_weights(
    path: Path, spec: NetworkSpec, classes: int, *address: int | str, trained: bool = True
) -> Weights:
    """Return the weights in a file for a network of these rows; its head may be another one.

    The head (the last convolution or linear layer) is initialized from `address` where the file
    holds one of other shapes, or none.

    Raises:
        NetworkError: another layer is missing, unknown or of another shape, or is not finite.
    """
    module = build(spec, classes)
    initialize(module, *address)
    given, own = read_weights(path, OWN_FIX), module_weights(module)
    head = {name for name in own if name.rpartition(".")[0] == head_name(module)}
    new_head = any(name not in given or given[name].shape != own[name].shape for name in head)
    if new_head:
        given |= {name: own[name] for name in head}
    shared = sorted(own.keys() & given.keys())
    shapes = {name: (given[name].shape, own[name].shape) for name in shared}
    faults = {
        "missing": sorted(own.keys() - given.keys()),
        "unknown": sorted(given.keys() - own.keys()),
        "of another shape": [f"{n}: {a} for {b}" for n, (a, b) in shapes.items() if a != b],
        "not finite": [name for name in shared if not np.isfinite(given[name]).all()],
    }
    told = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in faults.items()
        if names
    ]
    if told:
        raise NetworkError(f"{path} does not fit the network: {'; '.join(told)}", OWN_FIX)
    if new_head and not trained:
        problem = f"{path}: its head is for other classes, and train.epochs: 0 trains none"
        raise NetworkError(problem, "set train.epochs above 0, or bring weights of these classes")
    if new_head:
        say(f"{path}: its head is for other classes, so the head is trained from the start")
    return given


def head_name(module: nn.Module) -> str:
    """Return the name of the layer that gives the logits: the last convolution or linear one."""
    layers = dict(module.named_modules())
    heads: list[str] = [name for name, x in layers.items() if isinstance(x, nn.Conv2d | nn.Linear)]
    return heads[-1]


def _named(module: nn.Module) -> dict[str, Tensor]:
    named = dict(module.named_parameters()) | dict(module.named_buffers())
    return {name: named[name] for name in sorted(named) if COUNTER not in name}


class FlatModule:
    """A module whose parameters and batch-norm statistics live in flat vectors.

    weights (P,) holds first the decayed parameters, then those that are not (norms, biases), then
    the frozen ones; grads (T,) covers the first two; statistics (Q,) holds running means and
    variances. Convolution weights lie in channels-last order. `leaves` are what a gradient is
    taken of, in the order of grads: the trained parameters, or one vector of them all.
    """

    def __init__(self, module: nn.Module, freeze: str = "nothing") -> None:
        self.module = module.to(memory_format=torch.channels_last)
        named = dict(module.named_parameters())
        groups = _groups(module, freeze)
        order = sorted(named, key=lambda name: groups[name])  # stable: the module's own order
        sizes = [sum(named[n].numel() for n in order if groups[n] == g) for g in range(3)]
        self.decayed, self.trained = sizes[0], sizes[0] + sizes[1]
        self.weights = next(iter(named.values())).new_zeros(sum(sizes))
        self.grads = self.weights.new_zeros(self.trained)
        self.leaves: list[Tensor] = [named[name] for name in order if groups[name] < 2]
        views = _views(self.weights, [named[name] for name in order])
        for name, view in zip(order, views, strict=True):
            view.copy_(named[name].data)
            named[name].data = view
            named[name].requires_grad_(groups[name] < 2)
        self.statistics = self._adopt_statistics()

    @property
    def vectors(self) -> tuple[Tensor, Tensor]:
        """The weights and the statistics: what a copy of the network needs."""
        return self.weights, self.statistics

    def copy_(self, vectors: Sequence[Tensor]) -> None:
        """Take the values of other weights and statistics."""
        for own, other in zip(self.vectors, vectors, strict=True):
            own.copy_(other)

    def views(self, vector: Tensor) -> list[Tensor]:
        """Return views of a vector (T,) in the shapes and order of `leaves`."""
        return _views(vector, self.leaves)

    def _adopt_statistics(self) -> Tensor:
        norms = [m for m in self.module.modules() if isinstance(m, NORMS) and m.track_running_stats]
        names = [(norm, name) for norm in norms for name in ("running_mean", "running_var")]
        parts = [getattr(norm, name) for norm, name in names]
        flat = torch.cat([*parts, self.weights.new_zeros(0)])
        for (norm, name), view in zip(names, _views(flat, parts), strict=True):
            norm.num_batches_tracked = None  # momentum is fixed: the counter serves nobody
            setattr(norm, name, view)
        return flat


def _views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.split(flat, [tensor.numel() for tensor in like])
    shaped = []
    for part, shape in zip(parts, [tensor.shape for tensor in like], strict=True):
        if len(shape) == 4:
            out, into, height, width = shape
            shaped.append(part.view(out, height, width, into).permute(0, 3, 1, 2))
        else:
            shaped.append(part.view(shape))
    return shaped


def _groups(module: nn.Module, freeze: str) -> dict[str, int]:
    """Return 0 for each decayed parameter, 1 for an undecayed one, 2 for a frozen one."""
    layers = dict(module.named_modules())
    head = head_name(module)
    groups = {}
    for name, parameter in module.named_parameters():
        owner = name.rpartition(".")[0]
        kept = {
            "nothing": True,
            "all-but-convolutions": isinstance(layers[owner], nn.Conv2d),
            "all-but-norms-and-head": owner == head or isinstance(layers[owner], NORMS),
        }
        groups[name] = (0 if parameter.ndim > 1 else 1) if kept[freeze] else 2
    return groups


@dataclass(frozen=True)
class State:
    """What a run needs to go on: arrays by name, finished epochs, history."""

    arrays: Mapping[str, npt.NDArray[Any]]
    epoch: int
    history: list[dict[str, float]]


def pack_state(state: State) -> bytes:
    """Return a state as bytes."""
    facts = json.dumps({"epoch": state.epoch, "history": state.history}).encode()
    body = safetensors.numpy.save({**state.arrays, "facts": np.frombuffer(facts, np.uint8)})
    return hashlib.sha256(body).digest() + body


def unpack_state(data: bytes) -> State | None:
    """Return the state in `data`, or None where the bytes are not whole."""
    digest, body = data[:32], data[32:]
    if hashlib.sha256(body).digest() != digest:
        return None
    arrays = safetensors.numpy.load(body)
    facts = json.loads(arrays.pop("facts").tobytes())
    return State(arrays, facts["epoch"], facts["history"])


def load_state(path: Path) -> bytes:
    """Return the packed state at `path`; empty where there is none or it is not whole."""
    sweep(path)
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return b""
    if unpack_state(data) is None:
        say(f"{path.name} is damaged: beginning again")
        return b""
    return data
