"""What is kept of a search is either whole or as good as absent."""

from dataclasses import replace
from pathlib import Path

import pytest

from weighin.network.spec import NetworkSpec, Row
from weighin.params import Params
from weighin.search.evaluation import Measured, Outcome, Task
from weighin.search.evaluation_cache import EvaluationCache
from weighin.training.trainer import Job

OUTCOME = Outcome(Measured(2, ("a", "b"), ((3, 1), (0, 4))), b"state")


@pytest.fixture
def task(params: Params) -> Task:
    spec = NetworkSpec((8, 8), 1.0, (Row(1, "Conv", (8, 3)),))
    return Task(3, Job(spec, params.recipe, 4, Path("packed"), (0, "search", 3)), 2)


def test_what_is_kept_is_found(tmp_path: Path, task: Task) -> None:
    kept = EvaluationCache(tmp_path)
    assert kept.find(task) is None and kept.state(task) is None
    kept.add(task, OUTCOME)
    assert kept.find(task) == OUTCOME.measured
    assert kept.state(task) == b"state"
    kept.drop_states()
    assert kept.find(task) == OUTCOME.measured and kept.state(task) is None


def test_the_state_that_it_goes_on_from_does_not_matter(tmp_path: Path, task: Task) -> None:
    assert replace(task, state=b"something").key() == task.key()


def test_another_evaluation_is_not_found(tmp_path: Path, task: Task) -> None:
    EvaluationCache(tmp_path).add(task, OUTCOME)
    job = task.job
    others = [
        replace(task, number=4),
        replace(task, until=4),
        replace(task, job=replace(job, epochs=8)),
        replace(task, job=replace(job, recipe=replace(job.recipe, lr=job.recipe.lr * 2))),
        replace(task, job=replace(job, spec=replace(job.spec, input=(8, 16)))),
        replace(task, job=replace(job, address=(1, "search", 3))),
    ]
    assert [EvaluationCache(tmp_path).find(other) for other in others] == [None] * len(others)


@pytest.mark.parametrize("bytes_left", [0, 1, 40])
def test_torn_files_are_absent(tmp_path: Path, task: Task, bytes_left: int) -> None:
    kept = EvaluationCache(tmp_path)
    kept.add(task, OUTCOME)
    state, measure = sorted(tmp_path.iterdir(), key=lambda path: path.suffix, reverse=True)
    state.write_bytes(b"stat")
    assert kept.state(task) is None and kept.find(task) == OUTCOME.measured
    measure.write_bytes(measure.read_bytes()[:bytes_left])
    assert kept.find(task) is None


def test_a_measure_of_another_form_is_absent(tmp_path: Path, task: Task) -> None:
    kept = EvaluationCache(tmp_path)
    kept.add(task, OUTCOME)
    measure = next(tmp_path.glob("*.json"))
    for text in ("[]", "{}", '{"measured": {"epochs": 1}}', '{"measured": {"epochs": "x"}}', "5"):
        measure.write_text(text)
        assert kept.find(task) is None
        assert kept.state(task) is None
