"""What `weighin explain` says about a search or a tuning that was done."""

from pathlib import Path

from weighin.search.trials import StudyRecord, TrialRecord, read_trials

MOST = 12  # lines of the table
HEADER = f"{'trial':>7}{'MACs':>13}{'F1':>8}{'score':>9}{'expected':>10}{'risk':>7}"


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
        *_certainty(study),
        "",
        counts,
        "",
        HEADER,
        *(_line(t, study.chosen) for t in done[:MOST]),
    ]
    if len(done) > MOST:
        lines.append(f"... and {len(done) - MOST} more")
    (chosen,) = (trial for trial in study.trials if trial.number == study.chosen)
    lines += ["", "The chosen trial's draws:"]
    lines += [f"  {name}: {value}" for name, value in chosen.params.items()]
    return "\n".join(lines) + "\n"


def _certainty(study: StudyRecord) -> list[str]:
    found = study.runner_up
    if found is None:
        return []
    return [
        f"Against trial {found.number}, on resamples of the same validation images: trial "
        f"{study.chosen} is better in {found.better:.1%}, its score lower by "
        f"{found.difference:.4f} (95 % between {found.low:.4f} and {found.high:.4f})."
    ]


def _line(trial: TrialRecord, chosen: int) -> str:
    mark = "*" if trial.number == chosen else " "
    return (
        f"{mark}{trial.number:>6}{trial.macs:>13,}{trial.f1:>8.3f}{trial.score:>9.4f}"
        f"{trial.expected:>10.4f}{trial.under_floor:>7.1%}"
    )
