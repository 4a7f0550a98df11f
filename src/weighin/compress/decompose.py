"""The decompose stage: a trained network pruned, its layers factorized, never with more MACs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

from weighin.compress.candidates import FactorizableLayer, Layer, find_factorizable, find_layers
from weighin.compress.context import CompressionContext, Ranks, write_network
from weighin.compress.factorize import factorize_network, relative_error
from weighin.compress.probe import Probe
from weighin.compress.pruning import prune
from weighin.compress.ranks import choose_ranks
from weighin.files import write_json
from weighin.network.factorized import Method
from weighin.parallel import say
from weighin.training.device import record_device
from weighin.training.process_group import is_first
from weighin.training.weights import Trained


@dataclass(frozen=True)
class LayerRow:
    """A layer of the exported network; `method` and what follows is None where it was left."""

    path: str
    shape: tuple[int, ...]  # of its weight
    macs_before: int
    macs_after: int
    method: str | None = None
    ranks: tuple[int, ...] | None = None
    error: float | None = None  # of the weights, relative, Frobenius
    sensitivity: float | None = None  # F1 lost on the validation split by this layer alone


def decompose(context: CompressionContext, out: Path) -> None:
    """Write network.yaml, ranks.yaml, weights.safetensors and layers.json into the folder `out`.

    Where `decompose.enabled` is false they are the trained network's own.

    Raises:
        NetworkError: the weights are not those of the rows.
        WorkerError, OutputError: run again, it goes on.
    """
    if context.params.decompose.enabled:
        network, table = _factorized(context, prune(context))
    else:
        network = context.trained
        table = [_untouched(layer) for layer in find_layers(network.spec, context.classes)]
    if is_first():
        write_network(out, network)
        record_device(out, context.recipe if context.params.decompose.enabled else None)
        write_json(out / "layers.json", [asdict(row) for row in table])


def _factorized(context: CompressionContext, network: Trained) -> tuple[Trained, list[LayerRow]]:
    layers = find_layers(network.spec, context.classes)
    probe = Probe(context.packed, network, context.params.seed)
    found = find_factorizable(layers, cast(Method, context.params.decompose.method), probe)
    ranks = choose_ranks(context, probe, found)
    table = layer_table(layers, found, ranks, probe)
    before, after = sum(row.macs_before for row in table), sum(row.macs_after for row in table)
    say(f"decompose  {len(ranks)} of {len(layers)} layers, {before:,} -> {after:,} MACs")
    factors = {
        layer.path: layer.factors(ranks[layer.path]) for layer in found if layer.path in ranks
    }
    return factorize_network(network, ranks, context.classes, factors), table


def layer_table(
    layers: Sequence[Layer], found: Sequence[FactorizableLayer], ranks: Ranks, probe: Probe
) -> list[LayerRow]:
    """Return a row for every layer, in the order of their calls."""
    rows = {layer.path: _untouched(layer) for layer in layers}
    f1 = probe.confusion().f1
    for layer in found:
        how = ranks.get(layer.path)
        if how is not None:
            dense = layer.approximation(how)
            rows[layer.path] = replace(
                rows[layer.path],
                macs_after=layer.layer.macs_with(how),
                method=how.method,
                ranks=how.ranks,
                error=round(relative_error(layer.weight, dense), 6),
                sensitivity=round(f1 - probe.confusion({layer.path: dense}).f1, 6),
            )
    return list(rows.values())


def _untouched(layer: Layer) -> LayerRow:
    return LayerRow(layer.path, layer.weight_shape, layer.macs, layer.macs)
