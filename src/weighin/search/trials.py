"""trials.json, the record of a finished study: writes, reads and explains it.

    {"trials": [{"number": 0, "state": "complete", "macs": ...}, ...], "chosen": 0, "why": "...",
     "rivals": [{"number": 7, "difference": 0.004, "low": ..., "high": ..., "better": 0.61}, ...],
     "splits": [{"number": 0, "scores": [0.05, 0.06], "mean": 0.055, "error": 0.005}, ...]}

The fields are those of `TrialRecord`, `Rival` and `SplitScores`; `splits` is there where more than
one validation split decided, or networks that were trained again without the weights of others.
It holds no dates. No other code writes or reads it. `write_journal` makes an Optuna journal of it,
which holds dates.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from weighin.errors import DataError, OutputError
from weighin.files import read_json, write_bytes, write_json

STUDIES = ("search", "tune")  # the stages that write a study
STATES = ("complete", "pruned", "over-budget")
ALWAYS = ("number", "state", "macs", "parameters", "params", "f1", "score")  # null if not measured
AXES = {"macs": "MACs", "parameters": "parameters", "memory": "memory", "bytes": "bytes"}
COMPLETE = ("f1", "score", "expected", "under_floor")  # numbers, of a complete trial
MOST = 12  # lines of the table
HEADER = f"{'trial':>7}{'MACs':>13}{'F1':>8}{'score':>9}{'expected':>10}{'risk':>7}"


@dataclass(frozen=True)
class TrialRecord:
    """One network or recipe that was tried; what was not measured is None.

    `expected` is the mean score over bootstrap resamples of the validation images, `under_floor`
    the share of them whose F1 is under the floor, `low` and `high` bound 95 % of their F1.
    """

    number: int
    state: str
    macs: int | None
    params: Mapping[str, Any]
    parameters: int | None = None
    memory: int | None = None  # bytes, as in grading.score.Cost
    bytes: int | None = None
    f1: float | None = None
    epochs: int | None = None
    network: str | None = None  # rows, as YAML
    score: float | None = None
    low: float | None = None
    high: float | None = None
    under_floor: float | None = None
    expected: float | None = None
    parent: int | None = None  # the trial whose weights it started from


@dataclass(frozen=True)
class Rival:
    """One of the next best trials, and how sure the choice is: a paired bootstrap of the validation
    images (`risk.Comparison`).

    `difference` is the mean of its score minus the chosen trial's, `low` and `high` bound 95 % of
    the differences, `better` is the probability that the chosen one has the lower score.
    """

    number: int
    difference: float
    low: float
    high: float
    better: float


@dataclass(frozen=True)
class SplitScores:
    """The expected scores of a finalist that trained on each validation split.

    `error` is the standard error of their `mean`.
    """

    number: int
    scores: tuple[float, ...]
    mean: float
    error: float


@dataclass(frozen=True)
class StudyRecord:
    """A study: its trials in order, the number of the chosen one and the reason."""

    trials: tuple[TrialRecord, ...]
    chosen: int
    why: str
    rivals: tuple[Rival, ...] = ()  # the next best, best first
    splits: tuple[SplitScores, ...] = ()  # best first; none where one split decided
    axis: str = "macs"  # the cost that the front sets against F1

    def cost(self, trial: TrialRecord) -> int:
        """Return what a trial costs on the front's axis."""
        return getattr(trial, self.axis) or 0

    def certainty(self) -> list[str]:
        """Return how sure the choice is, a sentence for each of the next best, then the splits."""
        lines = [
            f"Trial {self.chosen} is chosen over trial {one.number} by {one.difference:.4f} of "
            f"score (95 % between {one.low:.4f} and {one.high:.4f}): a paired bootstrap of the "
            f"same validation images says {one.better:.0%}, {verdict(one.better)}."
            for one in self.rivals
        ]
        if not self.splits:
            return lines
        count = len(self.splits[0].scores)
        if count == 1:
            found = (f"trial {s.number} {s.mean:.4f}" for s in self.splits)
            return [*lines, f"Trained again from their own start: {', '.join(found)}."]
        means = (f"trial {s.number} {s.mean:.4f} +- {s.error:.4f}" for s in self.splits)
        return [*lines, f"Mean score on {count} splits, +- standard error: {', '.join(means)}."]

    def complete(self) -> list[TrialRecord]:
        """Return the trials that were trained to the end and measured."""
        return [t for t in self.trials if t.state == "complete" and t.f1 is not None]

    def contenders(self) -> list[TrialRecord]:
        """Return the front, and the chosen trial if it is not on it, cheapest first."""
        chosen = [t for t in self.trials if t.number == self.chosen and t not in self.front()]
        return sorted([*self.front(), *chosen], key=lambda t: (self.cost(t), t.number))

    def front(self) -> list[TrialRecord]:
        """Return the complete trials that no other beats in both F1 and cost, cheapest first."""
        best: list[TrialRecord] = []
        measured = [t for t in self.complete() if getattr(t, self.axis) is not None]
        for trial in sorted(measured, key=lambda t: (self.cost(t), -(t.f1 or 0), t.number)):
            if not best or (trial.f1 or 0) > (best[-1].f1 or 0):
                best.append(trial)
        return best


def verdict(better: float) -> str:
    """Return in words how sure a choice of this probability is."""
    return "clear" if better >= 0.95 else "likely" if better >= 0.8 else "a toss-up"


def write_trials(folder: Path, study: StudyRecord) -> None:
    """Write trials.json into a stage's folder.

    Raises:
        OutputError: the folder cannot be written.
    """
    rows = [
        {name: value for name, value in asdict(t).items() if value is not None or name in ALWAYS}
        for t in study.trials
    ]
    values: dict[str, Any] = {"trials": rows, "chosen": study.chosen, "why": study.why}
    for name in ("rivals", "splits"):
        if found := getattr(study, name):
            values[name] = [asdict(one) for one in found]
    if study.axis != "macs":
        values["axis"] = study.axis
    write_json(folder / "trials.json", values)


def read_trials(folder: Path) -> StudyRecord:
    """Return the trials.json of a stage's folder.

    Raises:
        DataError: there is none, or it is not one.
    """
    path, stage = folder / "trials.json", folder.name
    try:
        return parse_trials(read_json(path))
    except FileNotFoundError:
        problem = f"{path} does not exist"
        fix = f"run `dvc repro {stage}` with {stage}.enabled: true"
        if stage not in STUDIES:
            fix = f"name the folder of a study: {' or '.join(f'work/{one}' for one in STUDIES)}"
        raise DataError(problem, fix) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{path} is not what {stage} writes: {error}"
        raise DataError(problem, f"run `dvc repro --force {stage}`") from None


def parse_trials(values: Any) -> StudyRecord:
    """Return the study in a parsed trials.json.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is of another form.
    """
    trials = tuple(map(_parse_trial, values["trials"]))
    chosen, why = int(values["chosen"]), values["why"]
    if chosen not in {trial.number for trial in trials}:
        raise ValueError(f"the chosen trial {chosen} is not among the trials")
    if not isinstance(why, str):
        raise TypeError(f"why is {why}")
    axis = values.get("axis", "macs")
    rivals = tuple(Rival(**row) for row in values.get("rivals", ()))
    rows = values.get("splits", ())
    splits = tuple(SplitScores(**row | {"scores": tuple(row["scores"])}) for row in rows)
    if axis not in AXES:
        raise ValueError(f"its axis is {axis}")
    return StudyRecord(trials, chosen, why, rivals, splits, axis)


def _parse_trial(row: Any) -> TrialRecord:
    number, state = int(row["number"]), row["state"]
    if state not in STATES:
        raise ValueError(f'the state of trial {number} is "{state}"')
    known = {field.name: row.get(field.name) for field in fields(TrialRecord)}
    known |= {"number": number, "params": dict(row["params"])}
    numbers = {name: value for name, value in known.items() if isinstance(value, float)}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError(f"trial {number} has a number that is not finite")
    if state == "complete" and any(not isinstance(known[n], int | float) for n in COMPLETE):
        raise TypeError(f"trial {number} is complete without {', '.join(COMPLETE)}")
    return TrialRecord(**known)


def explain(folder: Path) -> str:
    """Return why the chosen trial of a stage's folder was chosen, and what the others were.

    Raises:
        DataError: there is no trials.json, or it is not one.
    """
    study = read_trials(folder)
    done = sorted(study.complete(), key=lambda trial: trial.expected or 0)
    states = [trial.state for trial in study.trials]
    counts = f"{len(states)} trials: {len(done)} trained to the end, "
    counts += f"{states.count('pruned')} stopped early, {states.count('over-budget')} over the gate"
    lines = [
        study.why,
        *study.certainty(),
        "",
        counts,
        "",
        HEADER.replace("MACs".rjust(13), AXES[study.axis].rjust(13)),
        *(_line(t, study) for t in done[:MOST]),
    ]
    if len(done) > MOST:
        lines.append(f"... and {len(done) - MOST} more")
    (chosen,) = (trial for trial in study.trials if trial.number == study.chosen)
    lines += ["", "The chosen trial's draws:"]
    lines += [f"  {name}: {value}" for name, value in chosen.params.items()]
    return "\n".join(lines) + "\n"


def _line(trial: TrialRecord, study: StudyRecord) -> str:
    mark = "*" if trial.number == study.chosen else " "
    return (
        f"{mark}{trial.number:>6}{study.cost(trial):>13,}{trial.f1:>8.3f}{trial.score:>9.4f}"
        f"{trial.expected:>10.4f}{trial.under_floor:>7.1%}"
    )


def write_journal(folder: Path, path: Path) -> None:
    """Write the study of a stage's folder to the new file `path`, for optuna-dashboard.

    Its objectives are F1 (up) and the front's cost (down). Each parameter is categorical, its
    choices the values that it took, as text, in the order of their first use.

    Raises:
        DataError: there is no trials.json, or it is not one.
        OutputError: `path` exists.
    """
    import optuna
    from optuna.distributions import CategoricalDistribution
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    from optuna.trial import TrialState, create_trial

    record = read_trials(folder)
    trials = record.trials
    if path.exists():
        raise OutputError(f"{path} exists", "name a new file, or remove it first")
    write_bytes(path, b"")  # whether it can be written is known before Optuna is read
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
    study = optuna.create_study(
        storage=storage, study_name=folder.name, directions=["maximize", "minimize"]
    )
    with warnings.catch_warnings():  # Optuna calls the names experimental
        warnings.simplefilter("ignore")
        study.set_metric_names(["F1", AXES[record.axis]])
    seen: dict[str, dict[str, None]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            seen.setdefault(name, {})[str(value)] = None
    choices = {name: CategoricalDistribution(tuple(values)) for name, values in seen.items()}
    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    for trial in trials:
        notes = {name: getattr(trial, name) for name in ("number", "state", "network", "score")}
        done = trial.state == "complete"
        study.add_trial(
            create_trial(
                state=states.get(trial.state, TrialState.FAIL),
                params={name: str(value) for name, value in trial.params.items()},
                distributions={name: choices[name] for name in trial.params},
                values=[trial.f1, record.cost(trial)] if done else None,  # type: ignore[list-item]
                user_attrs={name: note for name, note in notes.items() if note is not None},
            )
        )
