"""The contests' formulas against published rows and worked examples."""

import dataclasses
import sys
from pathlib import Path

import pytest

from weighin.errors import ParamsError
from weighin.grading.grade import read_contest
from weighin.grading.score import (
    FORMULAS,
    OUT_OF_CONTEST,
    WASTE,
    Metrics,
    has_floor,
    over_limits,
    own_formula,
    score,
)
from weighin.params import Contest
from weighin.validation import parameters

ROOT = Path(__file__).parents[2]
# f1, MACs, published score
LEADERBOARD = [
    (0.5176, 1_862_490, 0.5156),
    (0.4892, 1_862_490, 1.1343),
    (0.6207, 1_083_210, 0.3362),
    (0.6386, 1_688_940, 0.3584),
]


def rules(name: str, **changes: float) -> Contest:
    return dataclasses.replace(WASTE, score=name, **changes)


@pytest.mark.parametrize(("f1", "macs", "published"), LEADERBOARD)
def test_waste_meets_the_published_rows(f1: float, macs: int, published: float) -> None:
    result = score(WASTE, Metrics(f1, 0, macs, 0))
    assert round(result.value, 4) == published
    assert sum(result.parts.values()) == result.value


def test_waste_steps_at_the_floor_and_bends_at_the_reference() -> None:
    def quality(f1: float) -> float:
        return score(WASTE, Metrics(f1, 0, 0, 0)).value

    assert quality(0.4999) == 1.0
    assert quality(0.5) == 1 - 0.5 / 0.83656
    assert quality(0.83656) == 0.0
    assert quality(1.0) == 0.5 * (1 - 1 / 0.83656)


def test_f1_ignores_macs() -> None:
    assert score(rules("f1"), Metrics(0.75, 0, 10**9, 0)).parts == {"f1": 0.25}


def test_accuracy_is_the_error_rate_within_the_budget() -> None:
    contest = rules("accuracy", max_macs=1000)
    assert score(contest, Metrics(0, 0.75, 1000, 0)).value == 0.25
    assert score(contest, Metrics(0, 0.75, 1001, 0)).value == 0.25 + OUT_OF_CONTEST


def test_micronet_is_two_ratios_once_good_enough() -> None:
    contest = rules("micronet", reference_macs=1000, reference_params=500, floor_f1=0.6)
    assert score(contest, Metrics(0.6, 0, 250, 50)).parts == {
        "parameters": 0.1,
        "operations": 0.25,
        "under_floor": 0.0,
    }
    assert score(contest, Metrics(0.59, 0, 250, 50)).value == 0.35 + OUT_OF_CONTEST


def test_micronet_counts_bits() -> None:
    """8-bit weights are a quarter of a parameter; a MAC is a product of 8 bits and a 32-bit sum."""
    contest = rules("micronet", reference_macs=1000, reference_params=500, floor_f1=0.6)
    whole = Metrics(0.6, 0, 250, 50, parameter_bits=32 * 50, multiply_bits=32 * 250)
    assert score(contest, whole).parts == score(contest, Metrics(0.6, 0, 250, 50)).parts
    weights, biases, macs, in_float = 40, 10, 200, 50
    mixed = Metrics(
        *(0.6, 0, macs + in_float, weights + biases),
        parameter_bits=8 * weights + 32 * biases,
        multiply_bits=8 * macs + 32 * in_float,
    )
    assert score(contest, mixed).parts == {
        "parameters": (weights / 4 + biases) / 500,
        "operations": (macs * (8 / 32 + 1) + in_float * 2) / 2000,
        "under_floor": 0.0,
    }


@pytest.mark.parametrize("formula", [*FORMULAS, "own"])
@pytest.mark.parametrize(
    ("limit", "field"),
    [("max_memory", "memory"), ("max_bytes", "bytes"), ("max_params", "parameters")],
)
def test_a_model_over_a_limit_is_out(tmp_path, formula, limit, field) -> None:
    made = Metrics(0.7, 0.7, 1000, 500, memory=300, bytes=900)
    value = getattr(made, field)
    contest = own(tmp_path / "s.py", OWN) if formula == "own" else rules(formula)
    free = score(contest, made)
    assert score(dataclasses.replace(contest, **{limit: value}), made) == free
    tight = dataclasses.replace(contest, **{limit: value - 1})
    found = score(tight, made)
    assert found.parts == free.parts | {"over_limit": OUT_OF_CONTEST}
    assert found.value == sum(found.parts.values())
    said = over_limits(tight, made)[limit]
    assert f"{value:,} " in said and f"contest.{limit} is {value - 1:,}" in said


def test_every_contest_that_can_be_named_has_a_formula() -> None:
    assert set(parameters(Contest)["score"]["anyOf"][0]["enum"]) == set(FORMULAS)


OWN = '''
def score(contest, metrics):
    """Parameters in millions, and the error rate."""
    return {"size": metrics.parameters / 1e6, "error": 1 - metrics.accuracy}
'''
MADE = Metrics(0.5, 0.75, 1_000_000, 500_000)


def own(path: Path, text: str) -> Contest:
    path.write_text(text)
    own_formula.cache_clear()
    return dataclasses.replace(WASTE, score=str(path))


def test_a_score_of_ones_own(tmp_path):
    found = score(own(tmp_path / "s.py", OWN), MADE)
    assert found.parts == {"size": 0.5, "error": 0.25}
    assert found.value == 0.75
    number = own(tmp_path / "s.py", "def score(contest, metrics): return contest.floor_f1\n")
    assert score(number, MADE).parts == {"score": WASTE.floor_f1}
    assert has_floor(number)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def scor(c, m): return 1\n", "has no function `score`"),
        ("score = 1\n", "has no function `score`"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError"),
        ("def score(c, m): return 1 / 0\n", "ZeroDivisionError"),
        ("def score(c, m): return None\n", "returns None"),
        ("def score(c, m): return {'a': 'b'}\n", "returns {'a': 'b'}"),
        ("def score(c, m): return float('nan')\n", "returns nan"),
        ("def score(c, m:\n", "SyntaxError"),
    ],
)
def test_faults_of_a_score_of_ones_own(tmp_path, text, said):
    with pytest.raises(ParamsError) as caught:
        score(own(tmp_path / "s.py", text), MADE)
    assert caught.value.problem.startswith(str(tmp_path / "s.py"))
    assert said in caught.value.problem
    assert f"edit {tmp_path / 's.py'}" in caught.value.fix


def test_a_score_of_ones_own_imports_no_file_of_ones_own(tmp_path, monkeypatch):
    helper = tmp_path / "helper_of_a_score.py"
    helper.write_text("FACTOR = 100\n")
    text = f"import sys; sys.path.append({str(tmp_path)!r})\nimport fractions\n"
    text += "from helper_of_a_score import FACTOR\ndef score(c, m): return FACTOR * m.f1\n"
    monkeypatch.setattr(sys, "path", [*sys.path])
    for module in ("fractions", "helper_of_a_score"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    for _ in range(2):
        with pytest.raises(ParamsError) as caught:
            score(own(tmp_path / "s.py", text), MADE)
        assert caught.value.problem.startswith(f"{tmp_path / 's.py'} imports {helper}")
        assert caught.value.fix == f"write what it needs of {helper} into {tmp_path / 's.py'}"


def test_grading_runs_a_score_of_ones_own_only_when_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("score: waste", "score: s.py"))
    own(
        tmp_path / "s.py",
        "from pathlib import Path\nPath('ran').touch()\ndef score(c, m): return 1.5\n",
    )
    with pytest.raises(ParamsError) as caught:
        read_contest(tmp_path / "params.yaml")
    assert "s.py" in caught.value.problem
    assert "--own-score" in caught.value.fix
    contest = read_contest(tmp_path / "params.yaml", own_score=True)
    assert not Path("ran").exists()
    assert score(contest, MADE).value == 1.5
    assert Path("ran").exists()
