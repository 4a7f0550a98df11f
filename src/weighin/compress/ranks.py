"""How the ranks of a whole network are chosen: one function a rule, each named in params.yaml."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from weighin.compress.evbmf import by_evbmf
from weighin.compress.ladder import Candidate, by_energy, by_ratio
from weighin.compress.memo import Memo
from weighin.compress.probe import Probe
from weighin.compress.sensitivity import cheapest_damage
from weighin.network.factorised import Factorisation
from weighin.params import Params

Ranks = dict[str, Factorisation]


@dataclass(frozen=True)
class Question:
    """A trained network to choose ranks for."""

    candidates: tuple[Candidate, ...]
    macs: int
    probe: Probe
    params: Params
    scratch: Path


def choose(question: Question) -> Ranks:
    """Return the ranks that `decompose.ranks` chooses; each lowers its layer's exact MACs."""
    return RULES[question.params.decompose.ranks](question)


def ratio(question: Question) -> Ranks:
    """Keep `decompose.ratio` of each side's full rank."""
    share = question.params.decompose.ratio
    return _each(question, lambda candidate: by_ratio(candidate, share))


def energy(question: Question) -> Ranks:
    """Keep `decompose.energy` of the squared singular values."""
    share = question.params.decompose.energy
    return _each(question, lambda candidate: by_energy(candidate, share))


def evbmf(question: Question) -> Ranks:
    """Keep what stands out from noise."""
    return _each(question, by_evbmf)


def sensitivity(question: Question) -> Ranks:
    """Spend `decompose.budget` where the labels change least a MAC."""
    memo = Memo(question.scratch / "sensitivity.json")
    most = question.params.decompose.budget * question.macs
    return cheapest_damage(question.candidates, question.probe, question.macs - most, memo)


RULES: dict[str, Callable[[Question], Ranks]] = {
    "ratio": ratio,
    "energy": energy,
    "evbmf": evbmf,
    "sensitivity": sensitivity,
}


def _each(question: Question, rule: Callable[[Candidate], Factorisation | None]) -> Ranks:
    chosen = {c.site.path: rule(c) for c in question.candidates}
    return {path: how for path, how in chosen.items() if how is not None}
