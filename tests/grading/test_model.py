"""What an ONNX file may not hold, and the words that say so."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from weighin.determinism import generator
from weighin.errors import ModelError
from weighin.grading import model as module
from weighin.grading.model import open_model

Build = Callable[..., Path]


def outside(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def half(model: Any) -> None:
    model.graph.initializer[0].data_type = TensorProto.FLOAT16


def domain(model: Any) -> None:
    model.opset_import.add(domain="evil", version=1)
    model.graph.node[0].domain = "evil"


def custom(model: Any) -> None:
    model.graph.node[0].domain = "com.microsoft"


def functions(model: Any, calls: dict[str, tuple[str, str]], opset: int = 17) -> None:
    """Add functions of two operators each, and put the first in place of the pooling."""
    model.opset_import.add(domain="own", version=1)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    for name, (first, second) in calls.items():
        nodes = [
            helper.make_node(op, [a], [b], domain="own" if op in calls else "")
            for op, a, b in ((first, "a", "b"), (second, "b", "c"))
        ]
        model.functions.append(helper.make_function("own", name, ["a"], ["c"], nodes, opsets))
    model.graph.node[0].domain, model.graph.node[0].op_type = "own", next(iter(calls))


def circle(model: Any) -> None:
    functions(model, {"F": ("Relu", "G"), "G": ("F", "Relu")})


def doubling(model: Any) -> None:
    calls = {f"F{n}": (f"F{n + 1}", f"F{n + 1}") for n in range(40)}
    functions(model, calls | {"F40": ("Relu", "Relu")})


def other_opset(model: Any) -> None:
    functions(model, {"F": ("Relu", "GlobalAveragePool")}, 18)


def old(model: Any) -> None:
    model.opset_import[0].version = 9


def opsets(model: Any) -> None:
    model.opset_import.add(domain="ai.onnx", version=13)


def two_inputs(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", 1, ["n", 3]))


def many(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1025


def doubles(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def two_outputs(model: Any) -> None:
    model.graph.output.append(helper.make_tensor_value_info("flat", 1, ["n", 3]))


def no_size(model: Any) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def no_type(model: Any) -> None:
    model.graph.output[0].ClearField("type")


def twice(model: Any) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


FAULTS: list[tuple[Callable[[Any], None], str]] = [
    (outside, "tensor w is kept in another file"),
    (half, "tensor w is FLOAT16; only FLOAT and whole numbers are counted"),
    (domain, 'operators of the domain "evil"; only ONNX\'s are allowed'),
    (custom, 'operator GlobalAveragePool pool: it is of the domain "com.microsoft"'),
    (circle, "its function F calls itself"),
    (other_opset, "its function F is of another opset than its graph"),
    (opsets, "opset 17 and 13; one of 13 to 23 is known"),
    (old, "opset 9; one of 13 to 23 is known"),
    (two_inputs, "it has not one input of float32 images"),
    (doubles, "it has not one input of float32 images"),
    (two_outputs, "its outputs are logits, flat; a classifier has one"),
    (no_size, "its input images has no shape"),
    (no_type, "its output logits has no type"),
    (twice, "not valid ONNX: w initializer name is not unique"),
    (many, "its batch is fixed at 1,025; up to 1024 or none is allowed"),
]


@pytest.mark.parametrize(("change", "words"), FAULTS, ids=lambda v: getattr(v, "__name__", ""))
def test_refused(build: Build, change: Callable[[Any], None], words: str) -> None:
    path = build(change)
    with pytest.raises(ModelError) as caught:
        open_model(path)
    assert caught.value.problem == f"{path}: {words}"


def test_weights_in_another_file_are_put_into_one(build: Build) -> None:
    with pytest.raises(ModelError) as caught:
        open_model(build(outside))
    assert "external_data=False), or dynamo=False" in caught.value.fix


def test_functions_are_put_in_place_of_their_calls(build: Build) -> None:
    calls = {"F": ("Relu", "G"), "G": ("GlobalAveragePool", "Relu")}
    graph = open_model(build(lambda model: functions(model, calls))).graph
    operators = ["Relu", "GlobalAveragePool", "Relu", "Flatten", "Gemm"]
    assert [node.op for node in graph.nodes] == operators


def test_functions_are_measured_before_they_are_written_out(build: Build) -> None:
    with pytest.raises(ModelError, match="written out are 4,398,046,511,105 operators and up"):
        open_model(build(doubling))


def test_an_import_that_nothing_uses(build: Build) -> None:
    change = lambda model: model.opset_import.add(domain="pkg.torch", version=1)  # noqa: E731
    assert open_model(build(change)).graph.proto == open_model(build()).graph.proto


def test_an_output_needs_no_shape(build: Build) -> None:
    """It is inferred, as a claimed one is not believed."""
    path = build(lambda model: model.graph.output[0].type.tensor_type.ClearField("shape"))
    found = open_model(path).graph
    plain = open_model(build()).graph
    assert (found.shapes, found.proto) == (plain.shapes, plain.proto)
    with pytest.raises(ModelError) as caught:
        open_model(build(no_size))
    assert caught.value.fix.endswith("torch.onnx.export(model, torch.zeros(1, 3, H, W), FILE)")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("classes", None, "its metadata has no `classes`"),
        ("classes", "{", "its metadata `classes` is not JSON"),
        ("classes", "[" * 100_000, "its metadata `classes` is not JSON"),
        ("classes", "[1, 2, 3]", "its metadata: `classes` is not a list of names"),
        ("classes", '["a", "b", "a"]', "its metadata: classes names a class twice"),
        ("classes", '["a"]', "its metadata: 1 classes; 2 to 100,000 are allowed"),
        ("classes", '["a", "green"]', "comes out as (32, 3), not one number for each of 2 classes"),
        ("fallback", None, "its metadata: fallback is missing"),
        ("fallback", "Z", "its metadata: fallback is not one of the classes"),
        ("turn_tall", "yes", "its metadata `turn_tall` is not JSON"),
        ("turn_tall", "1", "its metadata: turn_tall is 1; it must be true or false"),
        ("std", "[1, 1, 0]", "its metadata: std is [1, 1, 0]; it must be a list of 3"),
        ("mean", "[1, 1, 1e999]", "its metadata: mean is [1, 1, inf]; it must be a list of 3"),
        ("layout", "NCWH", 'its metadata: layout is "NCWH"; it must be one of NCHW, NHWC'),
        ("layout", "NHWC", "its input images is [0, 3, 8, 8]: not NHWC of 3 colors"),
        ("crop", "7", "its metadata: crop is not 0.1 to 1"),
    ],
)
def test_metadata(build: Build, key: str, value: str | None, words: str) -> None:
    path = build(metadata={key: value})
    with pytest.raises(ModelError) as caught:
        open_model(path)
    assert caught.value.problem.startswith(f"{path}: ")
    assert words in caught.value.problem


def test_absurd_sides(build: Build) -> None:
    with pytest.raises(ModelError, match=r"its input images is \[0, 3, 8, 1025\]"):
        open_model(build(size=(8, 1025)))


@pytest.mark.parametrize("data", [b"", b"\x00", b"not a model at all", b"\x08\x08" * 50])
def test_not_a_model(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="not an ONNX file"):
        open_model(path)


def test_missing_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "no.onnx", tmp_path):
        with pytest.raises(ModelError) as caught:
            open_model(path)
        assert caught.value.problem == f"{path} is not a file"


def test_too_large(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    with pytest.raises(ModelError, match=r"model\.onnx is \d+ bytes, over 100"):
        open_model(build())


def test_every_truncation_is_refused_or_opened(build: Build) -> None:
    """No prefix of a model makes anything but a ModelError."""
    path = build()
    data = path.read_bytes()
    outcomes = set()
    for length in range(0, len(data), 3):
        path.write_bytes(data[:length])
        try:
            open_model(path)
            outcomes.add("opened")
        except ModelError:
            outcomes.add("refused")
    assert outcomes == {"refused"}


def test_flipped_bits_are_refused_or_run(build: Build, pictures: Path) -> None:
    """Whatever a bit says, the outcome is a ModelError, or labels of a network that was counted."""
    from weighin.grading.predict import predict
    from weighin.grading.recount import recount

    path = build()
    data, random = path.read_bytes(), generator("flips")
    outcomes = Counter()
    for place in random.choice(8 * len(data), 400, replace=False):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            model = open_model(path)
            recount(model)
            assert len(predict(model, pictures, workers=1).labels) == 6
            outcomes["ran"] += 1
        except ModelError:
            outcomes["refused"] += 1
    assert outcomes["ran"] > 50 < outcomes["refused"]


def test_accepted(build: Build) -> None:
    model = open_model(build())
    assert (model.size, model.classes, model.fallback, model.turn_tall, model.claimed_macs) == (
        (8, 8),
        ("blue", "green", "red"),
        "green",
        False,
        None,
    )
