"""The decompose stage: a trained network cut, its layers factorized, never with more MACs."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from weighin.compress.algebra import weight_of
from weighin.compress.cutting import Shears, cut
from weighin.compress.factorize import factorize_network
from weighin.compress.inputs import input_metrics
from weighin.compress.ladder import Candidate, candidate
from weighin.compress.probe import Probe
from weighin.compress.ranks import Question, choose
from weighin.compress.sites import Site, find_sites
from weighin.compress.store import Trained, write_network
from weighin.compress.table import LayerRow, layer_table, untouched
from weighin.files import read_json, write_json
from weighin.network.cost import folded_macs
from weighin.network.factorized import Method
from weighin.network.spec import NetworkSpec
from weighin.params import Params, Recipe
from weighin.progress import say
from weighin.training.process_group import is_first
from weighin.training.weights import Weights


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
    candidates = find_candidates(sites, cast(Method, params.decompose.method), probe)
    macs = folded_macs(trained.spec, classes)
    ranks = choose(Question(candidates, trained, classes, probe, params, scratch))
    left = folded_macs(trained.spec, classes, ranks)
    say(f"decompose  {len(ranks)} of {len(sites)} layers, {macs:,} -> {left:,} MACs")
    table = layer_table(sites, candidates, ranks, probe)
    factors = {
        c.site.path: c.factors(ranks[c.site.path]) for c in candidates if c.site.path in ranks
    }
    return _write(out, factorize_network(trained, ranks, classes, factors), table)


def find_candidates(sites: Sequence[Site], method: Method, probe: Probe) -> tuple[Candidate, ...]:
    """Return the layers that can be factorized, k x k ones by `method`, with what they hold."""
    kinds = {site.path: kind for site in sites if (kind := site.method(method)) is not None}
    metrics = input_metrics(probe.module, probe.sample, kinds)
    return tuple(
        candidate(
            site,
            kinds[site.path],
            weight_of(probe.module.get_submodule(site.path)),
            metrics[site.path],
        )
        for site in sites
        if site.path in kinds
    )


def _write(out: Path, network: Trained, table: list[LayerRow]) -> None:
    if is_first():
        write_network(out, network)
        write_json(out / "layers.json", [asdict(row) for row in table])
