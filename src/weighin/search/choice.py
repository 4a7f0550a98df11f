"""Which trial is chosen, and why: the lowest expected score.

The expected score is the mean of the contest's score over bootstrap resamples of the validation
images (grading/risk.py), so a network that may fall under the floor pays for it in proportion.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np

from weighin.grading.risk import bootstrap_f1
from weighin.grading.score import score
from weighin.params import Contest
from weighin.search.halving import proxy_score
from weighin.search.study import Trial
from weighin.search.trials import StudyRecord, TrialRecord

RESAMPLES = 1000


@dataclass(frozen=True)
class ExpectedScore:
    """A complete trial's score, the 95 % interval of its F1, and the mean over resamples."""

    score: float
    low: float
    high: float
    under_floor: float
    expected: float


def expected_score(trial: Trial, contest: Contest, seed: int) -> ExpectedScore:
    """Return what a measured trial is expected to score on other images."""
    assert trial.measured is not None
    metrics = trial.metrics()
    f1s = bootstrap_f1(trial.measured.confusion, RESAMPLES, seed)
    low, high = np.quantile(f1s, (0.025, 0.975)).tolist()
    scores = [score(contest, replace(metrics, f1=f1)).value for f1 in f1s.tolist()]
    under, expected = np.mean(f1s < contest.floor_f1), np.mean(scores)
    numbers = (score(contest, metrics).value, low, high, float(under), float(expected))
    return ExpectedScore(*(round(number, 6) for number in numbers))


@dataclass(frozen=True)
class Choice:
    """The complete trials from best to worst, their expected scores, and why the first leads."""

    ranked: list[Trial]
    scores: dict[int, ExpectedScore]
    why: str


def choose(trials: list[Trial], contest: Contest, seed: int) -> Choice:
    """Return the complete trials in order of their expected score, and the reason in words.

    Where every network is likelier than not to be under the floor, the expected score depends on
    the size alone, and what is missing to the floor decides.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    scores = {trial.number: expected_score(trial, contest, seed) for trial in complete}
    all_under = all(found.under_floor > 0.5 for found in scores.values())

    def key(trial: Trial) -> tuple[float, int]:
        if all_under:
            return proxy_score(contest, trial.metrics()), trial.number
        return scores[trial.number].expected, trial.number

    ranked = sorted(complete, key=key)
    rule = "it has the lowest expected score"
    if all_under:
        rule = f"all are likely under the floor of {contest.floor_f1:g}, and it comes closest"
    first, *others = ((trial.number, _facts(trial, scores, contest)) for trial in ranked)
    why = f"Trial {first[0]} leads the {len(ranked)} that were trained to the end: {rule} "
    why += f"({first[1]})."
    if others:
        why += f" The next best is trial {others[0][0]} ({others[0][1]})."
    return Choice(ranked, scores, why)


def _facts(trial: Trial, scores: dict[int, ExpectedScore], contest: Contest) -> str:
    metrics, found = trial.metrics(), scores[trial.number]
    return (
        f"score {found.expected:.4f} expected, {found.score:.4f} measured; validation F1 "
        f"{metrics.f1:.3f}, 95 % between {found.low:.3f} and {found.high:.3f}; {metrics.macs:,} "
        f"MACs; {found.under_floor:.1%} risk of an F1 under {contest.floor_f1:g}"
    )


def study_record(trials: list[Trial], choice: Choice) -> StudyRecord:
    """Return what trials.json says: every trial, the chosen one and why."""
    records = (_trial_record(trial, choice.scores.get(trial.number)) for trial in trials)
    return StudyRecord(tuple(records), choice.ranked[0].number, choice.why)


def _trial_record(trial: Trial, scores: ExpectedScore | None) -> TrialRecord:
    proposal = trial.proposal
    cost = proposal.cost
    record = TrialRecord(trial.number, trial.state, cost.macs, proposal.params, cost.parameters)
    if trial.measured is not None:
        f1, rows = trial.metrics().f1, proposal.spec.to_yaml()
        record = replace(record, f1=f1, epochs=trial.measured.epochs, network=rows)
    return replace(record, **asdict(scores)) if scores else record
