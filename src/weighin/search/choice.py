"""Which trial is chosen, why, and how surely: the lowest expected score (grading/risk.py).

Where one validation split leaves the choice open, the trials in question are trained again on
further splits of the same images (`decide`), and the lowest mean of their expected scores decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from statistics import mean, stdev
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from weighin.grading.risk import ExpectedScore, Labeled, Value, compare, expected_score
from weighin.grading.score import Metrics, has_floor, score
from weighin.params import Contest
from weighin.search.runner import TrialRunner
from weighin.search.study import Trial, proxy_score
from weighin.search.trials import Rival, SplitScores, StudyRecord, TrialRecord

RIVALS = 5  # that the chosen trial is compared with
FINALISTS = 4  # that train on further splits at most
SURE = 0.95  # a trial that is worse with this probability is none of them
Units = Sequence[npt.NDArray[np.int64]]  # of each split: of which group each validation image is
Further = Mapping[int, Sequence[Trial]]  # by number: as trained on each further split
NONE: Further = MappingProxyType({})


@dataclass(frozen=True)
class Choice:
    """The complete trials from best to worst, their expected scores, and why the first leads."""

    ranked: list[Trial]
    scores: dict[int, ExpectedScore]
    why: str
    rivals: tuple[Rival, ...]  # the next best
    splits: tuple[SplitScores, ...] = ()  # of the finalists, where there are several splits

    def finalists(self) -> list[Trial]:
        """Return the first trial and those that may be better, at most `FINALISTS`."""
        doubtful = {rival.number for rival in self.rivals if rival.better < SURE}
        return [self.ranked[0], *(t for t in self.ranked if t.number in doubtful)][:FINALISTS]


def decide(trials: list[Trial], runner: TrialRunner, units: Units) -> Choice:
    """Return the choice, after the finalists trained on every split that `units` has, and again on
    the first one where they had the weights of others.

    Raises:
        WorkerError: workers went away too often; finished evaluations are kept.
    """
    contest, seed = runner.contest, runner.plan.seed
    choice = choose(trials, contest, seed, units)
    # inherited weights favour later trials: the best train again without them, however sure
    warm = any(trial.parent is not None for trial in choice.ranked)
    finalists = choice.ranked[:FINALISTS] if warm else choice.finalists()
    splits = range(0 if warm else 1, len(units))
    if not splits or len(finalists) == 1:
        return choice
    further = runner.again(finalists, splits)
    return choose(trials, contest, seed, units, further)


def choose(
    trials: list[Trial], contest: Contest, seed: int, units: Units = (), further: Further = NONE
) -> Choice:
    """Return the complete trials in order of their expected score, and the reason in words.

    Those that trained again come first, by the mean of their scores on the splits. Where every
    network is likelier than not to be under the floor, the expected score depends on the size
    alone, and what is missing to the floor decides.
    """
    complete = {trial.number: trial for trial in trials if trial.state == "complete"}
    scores = {number: _expected(trial, contest, seed) for number, trial in complete.items()}
    cold = any(run.split == 0 for found in further.values() for run in found)
    runs = {number: [trial, *further.get(number, ())] for number, trial in complete.items()}
    runs |= {number: [*found] for number, found in further.items() if cold}

    def expected(trial: Trial) -> ExpectedScore:
        own = trial is complete[trial.number]
        return scores[trial.number] if own else _expected(trial, contest, seed)

    judged = further if cold else complete
    all_under = all(expected(runs[number][0]).under_floor > 0.5 for number in judged)

    def compared(metrics: Metrics) -> float:
        return proxy_score(contest, metrics) if all_under else score(contest, metrics).value

    def value(trial: Trial) -> float:
        if all_under:
            return compared(trial.metrics())
        return expected(trial).expected

    values = {number: [value(run) for run in runs[number]] for number in runs}
    order = sorted(runs, key=lambda number: (number not in further, mean(values[number]), number))
    ranked, finalists = [complete[number] for number in order], order[: len(further)]
    rule = "it has the lowest expected score"
    if all_under:
        rule = f"all are likely under the floor of {contest.floor_f1:g}, and it comes closest"
    if cold:
        rule += ", trained without the weights of others"
    if (count := len(runs[order[0]])) > 1:
        rule += f", in the mean of {count} validation splits"
    told = (runs[number][0] for number in order)
    why = _reason(rule, [(run.number, _facts(run, expected(run), contest)) for run in told])

    def rival(number: int) -> Rival:
        alike = runs if number in further or not cold else {n: [t] for n, t in complete.items()}
        return _rival(alike[order[0]], alike[number], compared, seed, units)

    rivals = map(rival, order[1:][:RIVALS])
    splits = (_split_scores(number, values[number]) for number in finalists)
    return Choice(ranked, scores, why, tuple(rivals), tuple(splits))


def _reason(rule: str, facts: list[tuple[int, str]]) -> str:
    """Return the words of a choice, given the number and the facts of each trial in order."""
    (first, said), *others = facts
    why = f"Trial {first} leads the {len(facts)} that were trained to the end: {rule} ({said})."
    if others:
        why += f" The next best is trial {others[0][0]} ({others[0][1]})."
    return why


def _split_scores(number: int, scores: list[float]) -> SplitScores:
    rounded = (round(score, 6) for score in scores)
    error = stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
    return SplitScores(number, tuple(rounded), round(mean(scores), 6), round(error, 6))


def _rival(
    first: Sequence[Trial], second: Sequence[Trial], value: Value, seed: int, units: Units
) -> Rival:
    """Return how sure the choice is, by the splits that both trained on."""
    splits = min(len(first), len(second))
    measured = [[run.measured for run in runs[:splits] if run.measured] for runs in (first, second)]
    one, other = (
        Labeled(np.concatenate([each.labels for each in found]), runs[0].proposal.cost)
        for found, runs in zip(measured, (first, second), strict=True)
    )
    truth = np.concatenate([each.truth for each in measured[0]])
    drawn = np.concatenate(units[:splits]) if units else None
    sure = compare(value, truth, one, other, seed, drawn)
    return Rival(second[0].number, *(round(number, 6) for number in astuple(sure)))


def _expected(trial: Trial, contest: Contest, seed: int) -> ExpectedScore:
    assert trial.measured is not None
    found = expected_score(contest, trial.measured.confusion, trial.proposal.cost, seed)
    return ExpectedScore(*(round(number, 6) for number in astuple(found)))


def _facts(trial: Trial, found: ExpectedScore, contest: Contest) -> str:
    metrics = trial.metrics()
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
    return StudyRecord(tuple(records), chosen, choice.why, choice.rivals, choice.splits, axis)


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
        parent=trial.parent,
    )
    if trial.measured is None:
        return record
    metrics, rows = trial.metrics(), proposal.spec.to_yaml()
    record = replace(record, f1=metrics.f1, epochs=trial.measured.epochs, network=rows)
    if trial.number not in choice.scores:
        return record
    measured = round(score(contest, metrics).value, 6)
    return replace(record, score=measured, **asdict(choice.scores[trial.number]))
