"""What is kept of a search is whole or absent, and is found by the same evaluation alone."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.pipeline.closure import ROOT, closure
from tests.search.measures import measured

import weighin
from weighin.network.spec import NetworkSpec, Row
from weighin.params import Params
from weighin.search import evaluation
from weighin.search.evaluation import EVALUATING, EvaluationCache, Outcome, Task
from weighin.training.trainer import Job

OUTCOME = Outcome(measured(2, 75, 100), b"state")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "train.npy").write_bytes(b"pixels")
    return tmp_path / "packed"


@pytest.fixture
def kept(tmp_path: Path, images: Path) -> EvaluationCache:
    return EvaluationCache(tmp_path / "kept", images)


@pytest.fixture
def task(params: Params) -> Task:
    spec = NetworkSpec((8, 8), 1.0, (Row(1, "Conv", (8, 3)),))
    return Task(3, Job(spec, params.recipe, 4, Path("packed"), (0, "search", 3)), 2)


def test_what_is_kept_is_found(kept: EvaluationCache, task: Task) -> None:
    assert kept.find(task) is None and kept.state(task) is None
    kept.add(task, OUTCOME)
    assert kept.find(task) == OUTCOME.measured
    assert kept.state(task) == b"state"
    kept.trim()
    assert kept.find(task) == OUTCOME.measured and kept.state(task) is None


def test_the_state_that_it_goes_on_from_does_not_matter(kept: EvaluationCache, task: Task) -> None:
    kept.add(task, OUTCOME)
    assert kept.find(replace(task, state=b"something")) == OUTCOME.measured


def test_another_evaluation_is_not_found(kept: EvaluationCache, task: Task) -> None:
    kept.add(task, OUTCOME)
    job = task.job
    others = [
        replace(task, number=4),
        replace(task, until=4),
        replace(task, job=replace(job, epochs=8)),
        replace(task, job=replace(job, recipe=replace(job.recipe, lr=job.recipe.lr * 2))),
        replace(task, job=replace(job, spec=replace(job.spec, input=(8, 16)))),
        replace(task, job=replace(job, address=(1, "search", 3))),
    ]
    assert [kept.find(other) for other in others] == [None] * len(others)


def test_nothing_is_found_for_other_images(
    tmp_path: Path, kept: EvaluationCache, images: Path, task: Task
) -> None:
    kept.add(task, OUTCOME)
    assert EvaluationCache(tmp_path / "kept", images).find(task) == OUTCOME.measured
    (images / "train.npy").write_bytes(b"pixelz")
    assert EvaluationCache(tmp_path / "kept", images).find(task) is None


CHANGES = """
import json, sys
from pathlib import Path
from weighin import files
from weighin.search.evaluation import EvaluationCache

def context():
    files.source_hash.cache_clear()
    return EvaluationCache(Path("kept"), Path(sys.argv[1]))._context

first, seen = context(), {}
for name in sys.argv[2:]:
    path = Path(files.__file__).parent / name
    text = path.read_text()
    path.write_text(text + "# changed")
    seen[name] = context() != first
    path.write_text(text)
print(json.dumps([seen, context() == first]))
"""


def test_nothing_is_found_for_other_code(tmp_path: Path, images: Path) -> None:
    """In a process of its own, on a copy of the package in which one file at a time is another."""
    copy = tmp_path / "src" / "weighin"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(weighin.__file__).parent, copy, ignore=ignored)

    names = ["report/__init__.py", "network/blocks.py", "training/trainer.py", "files.py"]
    done = subprocess.run(
        [sys.executable, "-c", CHANGES, str(images), *names],
        env={**os.environ, "PYTHONPATH": str(copy.parent)},
        check=True,
        capture_output=True,
    )
    changed, back = json.loads(done.stdout)
    assert list(changed.values()) == [False, True, True, True] and back


def test_other_versions_are_another_evaluation(
    tmp_path: Path, kept: EvaluationCache, images: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.add(task, OUTCOME)
    monkeypatch.setattr(evaluation, "version", lambda name: "0.0")
    assert EvaluationCache(tmp_path / "kept", images).find(task) is None


def test_what_was_used_last_stays_within_the_limit(
    kept: EvaluationCache, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [replace(task, number=number) for number in range(6)]
    for each in tasks:
        kept.add(each, OUTCOME)
    size = max(path.stat().st_size for path in kept._folder.glob("*.json"))
    assert kept.find(tasks[0])
    monkeypatch.setattr(evaluation, "MAX_BYTES", 3 * size)
    kept.trim()
    assert [kept.find(each) is not None for each in tasks] == [True, *[False] * 3, True, True]


@pytest.mark.parametrize("bytes_left", [0, 1, 40])
def test_torn_files_are_absent(kept: EvaluationCache, task: Task, bytes_left: int) -> None:
    kept.add(task, OUTCOME)
    state, measure = sorted(kept._folder.iterdir(), key=lambda path: path.suffix, reverse=True)
    state.write_bytes(b"stat")
    assert kept.state(task) is None and kept.find(task) == OUTCOME.measured
    measure.write_bytes(measure.read_bytes()[:bytes_left])
    assert kept.find(task) is None


def test_a_measure_of_another_form_is_absent(kept: EvaluationCache, task: Task) -> None:
    kept.add(task, OUTCOME)
    measure = next(kept._folder.glob("*.json"))
    for text in (
        "[]",
        "{}",
        '{"measured": {"epochs": 1}}',
        '{"measured": {"epochs": "x"}}',
        '{"measured": {"epochs": 1, "classes": ["a"], "truth": [0], "labels": []}}',
        "5",
    ):
        measure.write_text(text)
        assert kept.find(task) is None
        assert kept.state(task) is None


def test_the_hash_covers_all_the_code_that_evaluates() -> None:
    needed = closure(ROOT / "src/weighin/search/evaluation.py")
    packages = {name.split("/")[2] for name in needed if name.count("/") > 2}
    assert packages <= set(EVALUATING)
