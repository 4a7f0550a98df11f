"""What `weighin explain` says, and what it says when it cannot."""

from pathlib import Path

import pytest

from weighin.errors import DataError
from weighin.files import write_json
from weighin.search.explain import explain

NONE = {"f1": None, "score": None, "params": {}, "parameters": 5}
TRIALS = [
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
    write_json(tmp_path / "trials.json", {"trials": TRIALS, "chosen": 3, "why": "Because."})
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
    second = {"number": 0, "difference": 0.03, "low": -0.0123, "high": 0.08, "better": 0.781}
    study = {"trials": TRIALS, "chosen": 3, "why": "Because.", "runner_up": second}
    write_json(tmp_path / "trials.json", study)
    assert explain(tmp_path).splitlines()[1] == (
        "Against trial 0, on resamples of the same validation images: trial 3 is better in 78.1%, "
        "its score lower by 0.0300 (95 % between -0.0123 and 0.0800)."
    )
