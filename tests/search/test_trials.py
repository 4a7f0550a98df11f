"""A finished study as Optuna reads it."""

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from weighin.errors import OutputError
from weighin.files import write_json
from weighin.search.trials import write_journal

TRIALS = [
    {
        "number": 0, "state": "complete", "macs": 1_000, "f1": 0.7, "score": 0.2, "expected": 0.2,
        "under_floor": 0.0, "params": {"stem.c": 8, "stage.block": "pass"},
    },
    {"number": 3, "state": "pruned", "macs": 900, "f1": 0.3, "params": {"stem.c": 16}},
    {"number": 4, "state": "over-budget", "macs": 9_000, "f1": None, "params": {"stem.c": 8}},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_json(tmp_path / "search" / "trials.json", {"trials": TRIALS, "chosen": 0, "why": ""})
    return tmp_path / "search"


def test_optuna_reads_it(folder: Path, tmp_path: Path) -> None:
    write_journal(folder, tmp_path / "study.log")
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
    study = optuna.load_study(study_name="search", storage=storage)
    assert study.metric_names == ["F1", "MACs"]
    assert [t.state.name for t in study.trials] == ["COMPLETE", "PRUNED", "FAIL"]
    assert [t.user_attrs["number"] for t in study.trials] == [0, 3, 4]
    assert study.trials[0].values == [0.7, 1000.0]
    assert study.trials[1].params == {"stem.c": "16"}
    assert [t.number for t in study.best_trials] == [0]


def test_a_file_that_exists_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "study.log").write_text("mine")
    with pytest.raises(OutputError) as caught:
        write_journal(folder, tmp_path / "study.log")
    assert str(caught.value) == (
        f"{tmp_path / 'study.log'} exists\n  to fix: name a new file, or remove it first"
    )
    assert (tmp_path / "study.log").read_text() == "mine"
