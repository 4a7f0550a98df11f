"""What `weighin explain` says about a search or a tuning that was done."""

from pathlib import Path
from typing import Any

from weighin.errors import DataError
from weighin.files import read_json

MOST = 12  # lines of the table
ALWAYS = ("number", "state", "macs", "params")
MEASURED = ("f1", "score", "expected", "under_floor")
HEADER = f"{'trial':>7}{'MACs':>13}{'F1':>8}{'score':>9}{'expected':>10}{'risk':>7}"


def explain(folder: Path) -> str:
    """Return why the chosen trial of a stage's folder was chosen, and what the others were.

    Raises:
        DataError: there is no trials.json, or it is not one.
    """
    found = read_study(folder)
    return _text(found["trials"], found["chosen"], found["why"])


def read_study(folder: Path) -> dict[str, Any]:
    """Return the trials.json of a stage's folder.

    Raises:
        DataError: there is none, or it is not one.
    """
    path, stage = folder / "trials.json", folder.name
    try:
        found: dict[str, Any] = read_json(path)
        _check(found)
    except FileNotFoundError:
        problem = f"{path} does not exist"
        raise DataError(problem, f"run `dvc repro {stage}` with {stage}.enabled: true") from None
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{path} is not what {stage} writes: {error}"
        raise DataError(problem, f"run `dvc repro --force {stage}`") from None
    return found


def _check(found: dict[str, Any]) -> None:
    """Raise KeyError or TypeError where something that is told of a trial is missing."""
    for row in found["trials"]:
        for name in (*ALWAYS, *(MEASURED if row["state"] == "complete" else ())):
            row[name]
    if found["chosen"] not in {row["number"] for row in found["trials"]} or not isinstance(
        found["why"], str
    ):
        raise KeyError("chosen")


def _text(trials: list[dict[str, Any]], chosen: int, why: str) -> str:
    done = sorted((t for t in trials if t["state"] == "complete"), key=lambda t: t["expected"])
    states = [trial["state"] for trial in trials]
    counts = f"{len(trials)} trials: {states.count('complete')} trained to the end, "
    counts += f"{states.count('pruned')} stopped early, {states.count('over-budget')} over the gate"
    lines = [why, "", counts, "", HEADER, *(_line(t, chosen) for t in done[:MOST])]
    if len(done) > MOST:
        lines.append(f"... and {len(done) - MOST} more")
    lines += ["", "The chosen trial's draws:"]
    lines += [f"  {name}: {value}" for name, value in _drawn(trials, chosen).items()]
    return "\n".join(lines) + "\n"


def _line(trial: dict[str, Any], chosen: int) -> str:
    mark = "*" if trial["number"] == chosen else " "
    return (
        f"{mark}{trial['number']:>6}{trial['macs']:>13,}{trial['f1']:>8.3f}{trial['score']:>9.4f}"
        f"{trial['expected']:>10.4f}{trial['under_floor']:>7.1%}"
    )


def _drawn(trials: list[dict[str, Any]], chosen: int) -> dict[str, Any]:
    return dict(next(t for t in trials if t["number"] == chosen)["params"])
