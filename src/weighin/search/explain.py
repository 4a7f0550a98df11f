"""What `weighin explain` says about a search or a tuning that was done."""

from pathlib import Path
from typing import Any

from weighin.errors import DataError
from weighin.files import read_json

MOST = 12  # lines of the table
HEADER = f"{'trial':>7}{'MACs':>13}{'F1':>8}{'score':>9}{'expected':>10}{'risk':>7}"


def explain(folder: Path) -> str:
    """Return why the chosen trial of a stage's folder was chosen, and what the others were.

    Raises:
        DataError: there is no trials.json, or it is not one.
    """
    path = folder / "trials.json"
    stage = folder.name
    try:
        found = read_json(path)
        return _text(found["trials"], found["chosen"], found["why"])
    except FileNotFoundError:
        problem = f"{path} does not exist"
        raise DataError(problem, f"run `dvc repro {stage}` with {stage}.enabled: true") from None
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{path} is not what {stage} writes: {error}"
        raise DataError(problem, f"run `dvc repro --force {stage}`") from None


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
