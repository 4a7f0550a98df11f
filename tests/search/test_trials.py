"""A finished study as Optuna reads it."""

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from weighin.errors import DataError, OutputError
from weighin.files import write_json
from weighin.search.trials import explain, verdict, write_journal

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


def test_where_nothing_can_be_written_or_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write /proc/study"):
        write_journal(folder, Path("/proc/study.log"))
    with pytest.raises(DataError) as caught:
        explain(tmp_path / "train")
    assert caught.value.fix == "name the folder of a study: work/search or work/tune"


NONE = {"f1": None, "score": None, "params": {}, "parameters": 5}
EXPLAINED = [
    {
        "number": 0, "state": "complete", "macs": 1_000_000, "f1": 0.7, "score": 0.2354,
        "expected": 0.24, "under_floor": 0.0, "params": {"stem.c": 8}, "parameters": 9,
    },
    NONE | {"number": 1, "state": "over-budget", "macs": 30_000_000},
    NONE | {"number": 2, "state": "pruned", "macs": 500_000, "f1": 0.3},
    {
        "number": 3, "state": "complete", "macs": 2_345_678, "f1": 0.805, "score": 0.2069,
        "expected": 0.21, "under_floor": 0.012, "params": {"stem.c": 16}, "parameters": 9,
    },
]  # fmt: skip


def test_the_reason_the_counts_and_the_table(tmp_path: Path) -> None:
    write_json(tmp_path / "trials.json", {"trials": EXPLAINED, "chosen": 3, "why": "Because."})
    assert explain(tmp_path) == (
        "Because.\n"
        "\n"
        "4 trials: 2 trained to the end, 1 stopped early, 1 over the gate\n"
        "\n"
        "  trial         MACs      F1    score  expected   risk\n"
        "*     3    2,345,678   0.805   0.2069    0.2100   1.2%\n"
        "      0    1,000,000   0.700   0.2354    0.2400   0.0%\n"
        "\n"
        "The chosen trial's draws:\n"
        "  stem.c: 16\n"
    )


def test_a_folder_without_a_study(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    with pytest.raises(DataError) as caught:
        explain(folder)
    assert str(caught.value) == (
        f"{folder}/trials.json does not exist\n"
        "  to fix: run `dvc repro search` with search.enabled: true"
    )


@pytest.mark.parametrize(
    "text", ["", "[]", '{"trials": []}', '{"trials": [{}], "chosen": 1, "why": ""}']
)
def test_a_file_that_is_no_study(tmp_path: Path, text: str) -> None:
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "trials.json").write_text(text)
    with pytest.raises(DataError) as caught:
        explain(tmp_path / "tune")
    assert "trials.json is not what tune writes" in caught.value.problem
    assert caught.value.fix == "run `dvc repro --force tune`"


def test_how_sure_the_choice_is(tmp_path: Path) -> None:
    rival = {"number": 0, "difference": 0.03, "low": -0.0123, "high": 0.08, "better": 0.613}
    splits = [
        {"number": 3, "scores": [0.21, 0.23], "mean": 0.22, "error": 0.01},
        {"number": 0, "scores": [0.24, 0.24], "mean": 0.24, "error": 0.0},
    ]
    study = {
        "trials": EXPLAINED,
        "chosen": 3,
        "why": "Because.",
        "rivals": [rival],
        "splits": splits,
    }
    write_json(tmp_path / "trials.json", study)
    assert explain(tmp_path).splitlines()[1:3] == [
        "Trial 3 is chosen over trial 0 by 0.0300 of score (95 % between -0.0123 and 0.0800): a "
        "paired bootstrap of the same validation images says 61%, a toss-up.",
        "Mean score on 2 splits, +- standard error: trial 3 0.2200 +- 0.0100, trial 0 0.2400 +- "
        "0.0000.",
    ]


def test_a_probability_in_words() -> None:
    words = [verdict(better) for better in (0.3, 0.79, 0.8, 0.94, 0.95)]
    assert words == ["a toss-up", "a toss-up", "likely", "likely", "clear"]
