"""A finished study as an Optuna journal, for optuna-dashboard and Optuna's own plots.

The stage's output is trials.json, which holds no dates; a journal holds them, so it is written on
demand and nowhere else:

    weighin explain --journal study.log
    optuna-dashboard study.log
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from weighin.errors import OutputError
from weighin.search.explain import read_study

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


def write_journal(folder: Path, path: Path) -> None:
    """Write the study of a stage's folder to the new file `path`: F1 up, MACs down.

    Raises:
        DataError: there is no trials.json, or it is not one.
        OutputError: `path` exists.
    """
    trials = read_study(folder)["trials"]
    if path.exists():
        raise OutputError(f"{path} exists", "name a new file, or remove it first")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    study = optuna.create_study(storage=storage, study_name=folder.name, directions=directions)
    with warnings.catch_warnings():  # Optuna calls the names experimental
        warnings.simplefilter("ignore")
        study.set_metric_names(["F1", "MACs"])
    choices = _choices(trials)
    study.add_trials([_frozen(row, choices) for row in trials])


def _choices(trials: Sequence[Mapping[str, Any]]) -> dict[str, CategoricalDistribution]:
    """Return every value that a parameter took, as text, in the order of their first use."""
    seen: dict[str, dict[str, None]] = {}
    for row in trials:
        for name, value in row["params"].items():
            seen.setdefault(name, {})[str(value)] = None
    return {name: CategoricalDistribution(tuple(values)) for name, values in seen.items()}


def _frozen(row: Mapping[str, Any], choices: Mapping[str, CategoricalDistribution]) -> FrozenTrial:
    state = STATES.get(row["state"], TrialState.FAIL)
    notes = {name: row[name] for name in ("number", "state", "network", "score") if name in row}
    return create_trial(
        state=state,
        params={name: str(value) for name, value in row["params"].items()},
        distributions={name: choices[name] for name in row["params"]},
        values=[row["f1"], row["macs"]] if state == TrialState.COMPLETE else None,
        user_attrs=notes,
    )
