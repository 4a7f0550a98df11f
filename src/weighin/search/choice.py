"""Which trial is chosen, and why: the lowest expected score (grading/risk.py)."""

from dataclasses import asdict, astuple, dataclass, replace

import numpy as np

from weighin.grading.risk import ExpectedScore, Labeled, compare, expected_score
from weighin.grading.score import has_floor, score
from weighin.params import Contest
from weighin.search.halving import proxy_score
from weighin.search.study import Trial
from weighin.search.trials import RunnerUp, StudyRecord, TrialRecord


@dataclass(frozen=True)
class Choice:
    """The complete trials from best to worst, their expected scores, and why the first leads."""

    ranked: list[Trial]
    scores: dict[int, ExpectedScore]
    why: str
    runner_up: RunnerUp | None  # None where one trial alone is complete


def choose(trials: list[Trial], contest: Contest, seed: int) -> Choice:
    """Return the complete trials in order of their expected score, and the reason in words.

    Where every network is likelier than not to be under the floor, the expected score depends on
    the size alone, and what is missing to the floor decides.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    scores = {trial.number: _expected(trial, contest, seed) for trial in complete}
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
    second = _runner_up(ranked[0], ranked[1], contest, seed) if others else None
    return Choice(ranked, scores, why, second)


def _runner_up(first: Trial, second: Trial, contest: Contest, seed: int) -> RunnerUp:
    assert first.measured is not None
    truth = np.array(first.measured.truth)
    found = compare(contest, truth, _labeled(first), _labeled(second), seed)
    return RunnerUp(second.number, *(round(number, 6) for number in astuple(found)))


def _labeled(trial: Trial) -> Labeled:
    assert trial.measured is not None
    return Labeled(np.array(trial.measured.labels), trial.proposal.cost)


def _expected(trial: Trial, contest: Contest, seed: int) -> ExpectedScore:
    assert trial.measured is not None
    found = expected_score(contest, trial.measured.confusion, trial.proposal.cost, seed)
    return ExpectedScore(*(round(number, 6) for number in astuple(found)))


def _facts(trial: Trial, scores: dict[int, ExpectedScore], contest: Contest) -> str:
    metrics, found = trial.metrics(), scores[trial.number]
    facts = (
        f"score {found.expected:.4f} expected, {score(contest, metrics).value:.4f} measured; "
        f"validation F1 {metrics.f1:.3f}, 95 % between {found.low:.3f} and {found.high:.3f}; "
        f"{metrics.macs:,} MACs"
    )
    if not has_floor(contest):
        return facts
    return f"{facts}; {found.under_floor:.1%} risk of an F1 under {contest.floor_f1:g}"


def study_record(
    trials: list[Trial], choice: Choice, contest: Contest, axis: str = "macs"
) -> StudyRecord:
    """Return what trials.json says: every trial, the chosen one and why."""
    records = (_trial_record(trial, choice, contest) for trial in trials)
    chosen = choice.ranked[0].number
    return StudyRecord(tuple(records), chosen, choice.why, choice.runner_up, axis)


def _trial_record(trial: Trial, choice: Choice, contest: Contest) -> TrialRecord:
    proposal, cost = trial.proposal, trial.proposal.cost
    record = TrialRecord(
        trial.number,
        trial.state,
        cost.macs,
        proposal.params,
        cost.parameters,
        cost.memory or None,
        cost.bytes or None,
    )
    if trial.measured is None:
        return record
    metrics, rows = trial.metrics(), proposal.spec.to_yaml()
    record = replace(record, f1=metrics.f1, epochs=trial.measured.epochs, network=rows)
    if trial.number not in choice.scores:
        return record
    measured = round(score(contest, metrics).value, 6)
    return replace(record, score=measured, **asdict(choice.scores[trial.number]))
