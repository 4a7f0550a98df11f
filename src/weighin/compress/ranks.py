"""How the ranks of a whole network are chosen: one function a rule, each named in params.yaml."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from weighin.compress.evbmf import by_evbmf
from weighin.compress.ladder import Candidate, by_energy, by_ratio
from weighin.compress.memo import Memo
from weighin.compress.probe import Probe
from weighin.compress.search import search_ranks
from weighin.compress.sensitivity import cheapest_damage
from weighin.compress.store import Trained
from weighin.compress.worth import worth
from weighin.files import canonical_json
from weighin.network.cost import folded_macs
from weighin.network.factorized import Factorization, ranks_to_dict
from weighin.params import Params
from weighin.progress import say

Ranks = dict[str, Factorization]


@dataclass(frozen=True)
class Question:
    """A trained network to choose ranks for."""

    candidates: tuple[Candidate, ...]
    trained: Trained
    classes: int
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
    spec, budget = question.trained.spec, question.params.decompose.budget
    macs = folded_macs(spec, question.classes)
    ranks = cheapest_damage(question.candidates, question.probe, (1 - budget) * macs, memo)
    left = folded_macs(spec, question.classes, ranks) / macs
    if left > budget:
        least = f"factorizing leaves {left:.3f} of the MACs at least"
        say(f"decompose.budget is {budget:g}, but {least}")
    return ranks


def search(question: Question) -> Ranks:
    """Take the lowest score of `decompose.trials` sets of ranks."""
    memo = Memo(question.scratch / "ranks.json")
    params, candidates = question.params, question.candidates
    return search_ranks(
        candidates,
        lambda ranks: _judged(question, ranks, memo),
        params.decompose.trials,
        params.seed,
    )


RULES: dict[str, Callable[[Question], Ranks]] = {
    "ratio": ratio,
    "energy": energy,
    "evbmf": evbmf,
    "sensitivity": sensitivity,
    "search": search,
}


def _each(question: Question, rule: Callable[[Candidate], Factorization | None]) -> Ranks:
    chosen = {c.site.path: rule(c) for c in question.candidates}
    return {path: how for path, how in chosen.items() if how is not None}


def _judged(question: Question, ranks: Ranks, memo: Memo) -> float:
    """Return the contest's score of the network with these ranks, as it is without training."""
    name = canonical_json(ranks_to_dict(ranks))
    chosen = {c.site.path: c for c in question.candidates if c.site.path in ranks}
    f1, accuracy = memo(
        name,
        lambda: list(
            question.probe.agreement({k: c.approximation(ranks[k]) for k, c in chosen.items()})
        ),
    )
    spec, contest = question.trained.spec, question.params.contest
    return worth(contest, spec, question.classes, (f1, accuracy), ranks)
