"""The walks of docs/ARCHITECTURE.md: each function is called, in the order that is said."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from weighin.params import load

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
SOURCE = str(ROOT / "src/weighin") + "/"


def steps(title: str) -> list[str]:
    """Return the functions of a walk, in order."""
    section = TEXT.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"`([a-z_/]+\.py:[a-z_]+)`", section)


@contextmanager
def followed() -> Iterator[list[str]]:
    """Yield the package's functions in the order of their calls, while the block runs."""
    calls: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(SOURCE):
            file = frame.f_code.co_filename.removeprefix(SOURCE)
            calls.append(f"{file}:{frame.f_code.co_name}")

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def in_order(said: list[str], calls: list[str]) -> None:
    """Check that the steps are a part of the calls, in their order."""
    rest = iter(calls)
    for step in said:
        assert any(call == step for call in rest), f"{step} was not called after the step before"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    from weighin.data.demo import draw_demo

    draw_demo(tmp_path / "data", 90, 32, 0, 1)
    return tmp_path / "data"


def test_an_image(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weighin.data.prepare import prepare
    from weighin.grading.grade import submission_text
    from weighin.grading.model import open_model
    from weighin.grading.predict import predict
    from weighin.network.export import export_onnx
    from weighin.network.spec import NetworkSpec
    from weighin.training.process_group import ProcessGroup
    from weighin.training.trainer import Job, fit
    from weighin.training.weights import Trained

    monkeypatch.setattr("weighin.grading.predict.cores", lambda: 1, raising=False)
    params = load(ROOT / "params.yaml")
    faults = replace(params.prepare.faults, min_per_class=2)
    pack, out = tmp_path / "pack", tmp_path / "model.onnx"
    rows = [[1, "Conv", [8, 3, 2, None, 1, "ReLU"]], [1, "GlobalAvgPool", []]]
    rows += [[1, "Flatten", []], [1, "Linear", ["classes"]]]
    spec = NetworkSpec.from_dict({"input": [24, 24], "width": 1.0, "rows": rows})
    recipe = replace(params.recipe, shards=1, shard_size=8)
    with followed() as calls:
        prepare(data, pack, replace(params.prepare, sizes=((24, 24),), faults=faults), 0, 1)
        found = fit(ProcessGroup(), Job(spec, recipe, 1, pack, (0, "train")))
        classes = json.loads((pack / "classes.json").read_text())
        facts = {"classes": json.dumps(classes), "fallback": classes[0], "turn_tall": "false"}
        export_onnx(
            Trained(spec, found.weights).module(len(classes)).eval(), spec.input, out, facts
        )
        with on_this_thread(monkeypatch):
            submission_text(predict(open_model(out), data / "test"))
    in_order(steps("The walk of one image"), calls)
    with pytest.raises(AssertionError, match="was not called after"):
        in_order(steps("The walk of one image")[::-1], calls)


@contextmanager
def on_this_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the labelling threads' work be done by this one, which is followed."""
    from concurrent.futures import Executor, Future

    class Here(Executor):
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def submit(self, work: Callable[..., Any], /, *args: Any, **more: Any) -> "Future[Any]":
            future: Future[Any] = Future()
            future.set_result(work(*args, **more))
            return future

    with monkeypatch.context() as patch:
        patch.setattr("weighin.grading.predict.ThreadPoolExecutor", Here)
        yield


def test_a_row_of_the_network(tmp_path: Path) -> None:
    from torch import nn

    from weighin.compress.factorize import factorize_network
    from weighin.grading.model import open_model
    from weighin.grading.recount import recount
    from weighin.network.build import Factorization, build, initialize
    from weighin.network.cost import cost
    from weighin.network.export import export_onnx
    from weighin.network.spec import read_spec
    from weighin.search.space import read_space, sample_network
    from weighin.training.weights import Trained, module_weights

    class First:
        """Takes the first of all choices."""

        def suggest_categorical(self, name: str, choices: Any) -> Any:
            return choices[0]

        def suggest_int(self, name: str, low: int, high: int) -> int:
            return low

    path, out = tmp_path / "network.yaml", tmp_path / "model.onnx"
    facts = {"classes": '["a", "b"]', "fallback": "a", "turn_tall": "false"}
    with followed() as calls:
        space = read_space("tiny", [(24, 24)])
        sampled, _ = sample_network(space, First())
        path.write_text(sampled.to_yaml(), encoding="utf-8")
        spec = read_spec(path)
        module = build(spec, 2)
        initialize(module, 0)
        folded = cost(spec, 2).macs
        layer = next(n for n, m in module.named_modules() if type(m) is nn.Linear)
        ranks = {layer: Factorization("svd", (1,))}
        made = factorize_network(Trained(spec, module_weights(module)), ranks, 2)
        export_onnx(made.module(2).eval(), spec.input, out, facts)
        counted = recount(open_model(out)).macs
    in_order(steps("The walk of one row of network.yaml"), calls)
    assert counted == cost(spec, 2, ranks).macs
    assert folded > 0
