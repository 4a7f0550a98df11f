"""One evaluation: fewer shards a batch and a rate to match, on the device that is meant."""

from dataclasses import replace
from pathlib import Path

import pytest

from weighin.errors import WorkerError
from weighin.network.spec import read_spec, shipped
from weighin.params import Params
from weighin.search.evaluation import Task, evaluate
from weighin.search.runner import shortened
from weighin.training.trainer import Job


def test_a_quarter_of_the_batch_halves_the_rate(params: Params) -> None:
    recipe = replace(params.recipe, shards=4, lr=0.1)
    assert shortened(recipe, 1) == replace(recipe, shards=1, lr=0.05)


def test_more_shards_than_there_are_change_nothing(params: Params) -> None:
    assert shortened(params.recipe, 256) == params.recipe


def test_a_worker_with_another_gpu_is_refused(
    packed: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read_spec(shipped("small"))
    job = Job(spec, params.recipe, 1, packed, (0, "search", 0))
    facts = {"gpu": "A", "driver": "1", "cuda": "13", "cudnn": 9, "torch": "2"}
    with pytest.raises(WorkerError) as caught:
        evaluate(Task(0, job, 1, gpu=facts))
    assert caught.value.problem == (
        "a worker computes on a machine without a GPU, "
        "the search on A (driver 1, cuda 13, cudnn 9, torch 2)"
    )
    assert Task(0, job, 1).facts() != Task(0, job, 1, gpu=facts).facts()
