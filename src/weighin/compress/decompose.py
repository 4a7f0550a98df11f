"""The decompose stage: a trained network cut, its layers factorised, never with more MACs."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

from torch import nn

from weighin.compress.algebra import factorised, weight_of
from weighin.compress.cutting import Shears, cut
from weighin.compress.ladder import Candidate, candidate
from weighin.compress.probe import Probe
from weighin.compress.ranks import Question, choose
from weighin.compress.sites import Site, find_sites
from weighin.compress.store import Ranks, Trained, write_network
from weighin.compress.table import LayerRow, layer_table, untouched
from weighin.files import read_json, write_json
from weighin.network.factorised import Method
from weighin.network.folding import folded_macs
from weighin.network.spec import NetworkSpec
from weighin.params import Params, Recipe
from weighin.progress import say
from weighin.training.team import is_first
from weighin.training.weights import Weights, module_weights


def decompose(
    packed: Path,
    spec: NetworkSpec,
    weights: Weights,
    recipe: Recipe,
    params: Params,
    out: Path,
    scratch: Path,
) -> None:
    """Write network.yaml, ranks.yaml, weights.safetensors and layers.json into the folder `out`.

    Where `decompose.enabled` is false they are the trained network's own. `recipe` trains after
    cuts; `scratch` keeps what was measured and trained, for a run that was killed.

    Raises:
        NetworkError: the weights are not those of the rows.
        WorkerError, OutputError: run again, it goes on.
    """
    trained = Trained(spec, weights)
    classes = len(read_json(packed / "classes.json"))
    if not params.decompose.enabled:
        return _write(out, trained, [untouched(site) for site in find_sites(spec, classes)])
    trained = cut(Shears(packed, trained, classes, recipe, params, scratch))
    sites = find_sites(trained.spec, classes)
    probe = Probe(packed, trained.spec, trained.weights, params.seed)
    candidates = _candidates(sites, trained.module(classes), cast(Method, params.decompose.method))
    macs = folded_macs(trained.spec, classes)
    ranks = choose(Question(candidates, trained, classes, probe, params, scratch))
    left = folded_macs(trained.spec, classes, ranks)
    say(f"decompose  {len(ranks)} of {len(sites)} layers, {macs:,} -> {left:,} MACs")
    table = layer_table(sites, candidates, ranks, probe)
    return _write(out, factorise_network(trained, ranks, classes), table)


def factorise_network(trained: Trained, ranks: Ranks, classes: int) -> Trained:
    """Return a network with the layers that `ranks` names factorised.

    Raises:
        NetworkError: there is no such layer, or it cannot be factorised so.
    """
    filled = trained.module(classes)
    target = replace(trained, ranks=ranks)
    for path, how in ranks.items():
        filled.set_submodule(path, factorised(filled.get_submodule(path), how, path))
    return replace(target, weights=module_weights(filled))


def _candidates(sites: list[Site], module: nn.Module, method: Method) -> tuple[Candidate, ...]:
    kinds = [(site, site.method(method)) for site in sites]
    return tuple(
        candidate(site, kind, weight_of(module.get_submodule(site.path)))
        for site, kind in kinds
        if kind is not None
    )


def _write(out: Path, network: Trained, table: list[LayerRow]) -> None:
    if is_first():
        write_network(out, network)
        write_json(out / "layers.json", [asdict(row) for row in table])
