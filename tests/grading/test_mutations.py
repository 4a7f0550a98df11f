"""Each rule of the checker, switched off, is noticed: some hostile file gets another verdict.

The proofs and prices are those of operators.py: a new one needs a file that only it refuses.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.grading.test_hostile import (
    BROKEN,
    MIXING,
    ROWS,
    SHAPE_TRICKS,
    WORDS,
    macs_or_refusal,
    op,
    set_batch,
)

from weighin.grading import contract, graph, model, operators, recount, runtime
from weighin.grading.model import open_model
from weighin.grading.operators import OPERATORS

Build = Callable[..., Path]


def verdicts(build: Build) -> Iterator[tuple[str, bool]]:
    """Yield each hostile file and whether it gets what it must get."""
    for name, parts in MIXING.items():
        weights = {**ROWS, **parts.get("weights", {})}
        path = build(lambda m: set_batch(m, 32), **(parts | {"weights": weights}))
        yield name, bool(re.search(WORDS, str(verdict(path))))
    for name, (parts, change, words) in BROKEN.items():
        yield name, words in str(macs_or_refusal(build(change, **parts)))
    for name in ("size of a batch", "where the batch is"):
        yield name, "in a batch of 1 and" in str(verdict(build(**SHAPE_TRICKS[name])))


def verdict(path: Path) -> object:
    """Return what opening says; what a crash of the mutant says counts as noticed too."""
    try:
        return open_model(path)
    except Exception as error:
        return error


def test_every_verdict_holds(build: Build) -> None:
    assert [name for name, holds in verdicts(build) if not holds] == []


SHARED = OPERATORS["Relu"].check  # the first input alone is an activation: Conv stands for all
PROOFS = [name for name, kind in OPERATORS.items() if kind.check is not SHARED or name == "Conv"]
# several operators share a proof, and one hostile file is enough for it
STAND_FOR = {operators.OPERATORS[name].check: name for name in reversed(PROOFS)}


@pytest.mark.parametrize("check", STAND_FOR, ids=STAND_FOR.values())
def test_each_proof_is_needed(
    build: Build, monkeypatch: pytest.MonkeyPatch, check: Callable[..., None]
) -> None:
    blind = {
        name: replace(kind, check=lambda node: None) if kind.check is check else kind
        for name, kind in OPERATORS.items()
    }
    monkeypatch.setattr(graph, "OPERATORS", blind)
    assert any(not holds for _, holds in verdicts(build))


RULES: list[tuple[Any, str, Any]] = [
    (model, "check_plain", lambda proto: None),
    (model, "check_valid", lambda proto: None),
    (model, "_check_operator", lambda node: None),
    (model, "_check_tensor", lambda tensor: None),
    (contract, "_unprintable", lambda character: False),
    (graph, "_check_batches", lambda one, other: None),
    (graph, "MAX_FOLDED", 2**40),
    (recount, "printable", str),
    (operators, "printable", str),
]


@pytest.mark.parametrize(("module", "name", "off"), RULES, ids=[rule[1] for rule in RULES])
def test_each_rule_is_needed(
    build: Build, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, off: Any
) -> None:
    assert hasattr(module, name)
    monkeypatch.setattr(module, name, off)
    assert any(not holds for _, holds in verdicts(build))


WORK = {
    "Conv": [op("Conv", "images k", "x")],
    "Gemm": [op("Flatten", "images", "f"), op("Gemm", "f square", "g"), op("Reshape", "g r", "x")],
    "MatMul": [op("MatMul", "images eight", "x")],
    "BatchNormalization": [op("BatchNormalization", "images v v v v", "x")],
    "MaxPool": [op("MaxPool", "images", "x", kernel_shape=[3, 3])],
    "AveragePool": [op("AveragePool", "images", "x", kernel_shape=[3, 3])],
    "GlobalAveragePool": [op("GlobalAveragePool", "images", "x")],
    "GlobalMaxPool": [op("GlobalMaxPool", "images", "x")],
}
MACS = dict(zip(WORK, (9 * 64, 192 * 192, 8 * 192, 2 * 192, *[192] * 4), strict=True))


@pytest.mark.parametrize("kind", [name for name, kind in OPERATORS.items() if name in WORK])
def test_each_price_is_needed(build: Build, kind: str) -> None:
    """The price of each operator that has one, by hand."""
    weights = {
        "k": np.ones((3, 3, 1, 1)),
        "square": np.ones((192, 192)),
        "r": [0, 3, 8, 8],
        "eight": np.ones((8, 8)),
        "v": np.ones(3),
    }
    found = recount.count(open_model(build(before=WORK[kind], weights=weights)).graph)
    # what follows: pooling of what is left, three outputs of three inputs, and three biases
    rest = sum(layer.macs for layer in found.layers if layer.name in ("pool", "head"))
    assert found.macs - rest == MACS[kind]


def test_every_price_is_tried() -> None:
    assert {name for name, kind in OPERATORS.items() if kind.macs is not operators._nothing} == {
        *WORK
    }


UNPRICED: dict[str, int] = {
    **dict.fromkeys(["Relu", "Erf", "LeakyRelu", "HardSwish", "Sigmoid", "Clip"], 192),
    **dict.fromkeys(["Softmax", "LogSoftmax", "LayerNormalization"], 3 * 192),
    "MaxPool": 9 * 108 - 192,
    "ReduceSum": 192,
    "Add": 192,
    "Max": 2 * 192,
}


@pytest.mark.parametrize("kind", UNPRICED)
def test_each_work_without_a_price_is_counted(build: Build, kind: str) -> None:
    operands = {
        "Add": "images images",
        "Max": "images images images",
        "LayerNormalization": "images s",
    }
    attributes = {"MaxPool": {"kernel_shape": [3, 3]}}.get(kind, {})
    inputs = operands.get(kind, "images axes" if kind == "ReduceSum" else "images")
    step = op(kind, inputs, "x", **attributes)
    path = build(before=[step], weights={"s": np.ones(8), "axes": [3]})
    assert recount.count(open_model(path).graph).unpriced == UNPRICED[kind]


def test_the_checks_of_a_run_are_made(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/grading/test_hostile.py shows what each of them finds."""
    made = []
    for name in ("_check_shapes", "_check_neighbors"):
        monkeypatch.setattr(runtime.Runner, name, lambda self, pixels, name=name: made.append(name))
    runtime.Runner(open_model(build())).check(np.zeros((1, 8, 8, 3), np.uint8))
    assert made == ["_check_shapes", "_check_neighbors"]
