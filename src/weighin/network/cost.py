"""What a network costs, known from its rows before it has a trained weight."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from weighin.determinism import generator
from weighin.grading.graph import static_graph
from weighin.grading.recount import count, file_cost
from weighin.grading.score import Cost, needs_file
from weighin.network.blocks import BLOCKS
from weighin.network.build import arguments, build, initialize, signature, structure
from weighin.network.export import fold_batch_norms, onnx_bytes
from weighin.network.factorized import Factorization
from weighin.network.macs import check_macs, count_macs, count_parameters, layer_macs
from weighin.network.quantized import quantized
from weighin.network.spec import NetworkSpec, Row, read_spec, shipped
from weighin.params import Contest, Quantize

EXAMPLE_INPUT = (16, 32, 32)  # channels, rows, columns
EXAMPLE_ARGUMENTS = {"c": 24, "k": 3, "kernels": (3, 5), "t": 2, "se": 1, "hs": 1, "s": 2}


def cost(spec: NetworkSpec, classes: int, ranks: Mapping[str, Factorization] | None = None) -> Cost:
    """Return the MACs and the parameters of a network as it is exported, norms folded.

    Raises:
        NetworkError: the rows or ranks do not make a network.
    """
    folded = fold_batch_norms(structure(spec, classes, ranks))
    return Cost(count_macs(folded, spec.input), count_parameters(folded))


def exported_cost(
    spec: NetworkSpec,
    classes: Sequence[str],
    knobs: Quantize,
    ranks: Mapping[str, Factorization] | None = None,
) -> Cost:
    """Return what the file of a network costs, with every layer in 8 bits if `knobs.enabled`.

    The graph is exported (and quantized) as it will be, of arbitrary weights, and counted as it is
    graded; none of the counts depends on a weight. `bytes` may be over by a few: of the class that
    the file names for unreadable images, the longest name is counted.

    Raises:
        NetworkError: as `cost`.
    """
    module = build(spec, len(classes), ranks)
    initialize(module, "cost")
    with torch.no_grad():
        for name, array in [*module.named_parameters(), *module.named_buffers()]:
            if array.ndim == 1:  # no two alike: equal arrays would be stored once
                values = generator("cost", name).uniform(0.5, 1.5, len(array))
                array.copy_(torch.from_numpy(values.astype(np.float32)))
    data = onnx_bytes(module, spec.input, file_metadata(classes, max(classes, key=_length), False))
    if knobs.enabled:
        sample = generator("cost").integers(0, 256, (1, *spec.input, 3)).astype(np.uint8)
        data = quantized(onnx.load_model_from_string(data), sample, knobs)
    graph = static_graph(onnx.load_model_from_string(data), 1)
    return file_cost(graph, count(graph), len(data))


def file_metadata(classes: Sequence[str], fallback: str, turn_tall: bool) -> dict[str, str]:
    """Return what an exported file says of its images and labels (grading/contract.py)."""
    names = json.dumps(classes, ensure_ascii=False)
    return {"classes": names, "fallback": fallback, "turn_tall": json.dumps(turn_tall)}


def _length(name: str) -> int:
    return len(name.encode())


def contest_cost(
    spec: NetworkSpec,
    classes: Sequence[str],
    contest: Contest,
    knobs: Quantize,
    ranks: Mapping[str, Factorization] | None = None,
    axis: str = "macs",
) -> Cost:
    """Return the costs of a network that its contest or the `axis` of a search asks for.

    Those of a file take a second, and are not counted of a network over `contest.max_macs`.

    Raises:
        NetworkError: as `cost`.
    """
    found = cost(spec, len(classes), ranks)
    asked = needs_file(contest, knobs.enabled) or axis not in ("macs", "parameters")
    if not asked or found.macs > contest.max_macs:
        return found
    return exported_cost(spec, classes, knobs, ranks)


def folded_macs(
    spec: NetworkSpec, classes: int, ranks: Mapping[str, Factorization] | None = None
) -> int:
    """Return the MACs of `cost` alone."""
    return cost(spec, classes, ranks).macs


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
    spec = read_spec(shipped(str(path)) if shipped(str(path)).exists() else path)
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
