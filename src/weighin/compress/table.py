"""The table of layers before and after: layers.json, which the report shows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from weighin.compress.algebra import relative_error
from weighin.compress.ladder import Candidate
from weighin.compress.probe import Probe
from weighin.compress.sites import Site
from weighin.compress.store import Ranks


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


def untouched(site: Site) -> LayerRow:
    """Return the row of a layer that was left as it was."""
    return LayerRow(site.path, site.weight_shape, site.macs, site.macs)


def layer_table(
    sites: Sequence[Site], candidates: Sequence[Candidate], ranks: Ranks, probe: Probe
) -> list[LayerRow]:
    """Return a row for every layer, in the order of their calls."""
    rows = {site.path: untouched(site) for site in sites}
    f1, _ = probe.agreement({})
    for candidate in candidates:
        site, how = candidate.site, ranks.get(candidate.site.path)
        if how is not None:
            dense = candidate.approximation(how)
            rows[site.path] = replace(
                rows[site.path],
                macs_after=site.macs_with(how),
                method=how.method,
                ranks=how.ranks,
                error=round(relative_error(candidate.weight, dense), 6),
                sensitivity=round(f1 - probe.agreement({site.path: dense})[0], 6),
            )
    return list(rows.values())
