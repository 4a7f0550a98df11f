"""Files made to be counted at less than they do, to mix images, or to end the grader."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from tests.grading.oracle import measured_macs

from weighin.errors import HiddenWorkError, ModelError, WeighinError
from weighin.grading import graph, runtime
from weighin.grading.model import open_model
from weighin.grading.operators import OPERATORS
from weighin.grading.recount import recount
from weighin.grading.runtime import Runner

Build = Callable[..., Path]
Parts = dict[str, Any]


def op(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), name=outputs, **attributes)


def crop(*sizes: Any, **weights: Any) -> Parts:
    """Arithmetic that makes `end`, the side that a crop leaves, and a convolution of it."""
    return {
        "size": (16, 16),
        "before": [
            *sizes,
            op("Concat", "end end", "ends", axis=0),
            op("Slice", "images zeros ends sides", "cropped"),
            op("Conv", "cropped kernel", "x", pads=[1, 1, 1, 1]),
        ],
        "weights": {
            "zeros": [0, 0],
            "sides": [2, 3],
            "kernel": np.ones((3, 3, 3, 3)),
            "one": [1],
            **weights,
        },
    }


BATCH_SIZE = op("Shape", "images", "n", start=0, end=1)
# what the grader once computed by rules of its own: counted small, run whole
SHAPE_TRICKS: dict[str, Parts] = {
    "truncating division": crop(
        op("Div", "minus two", "half"), op("Add", "half big", "end"), minus=[-31], two=[2], big=[31]
    ),
    "remainder of a negative": crop(op("Mod", "minus seven", "end"), minus=[-12], seven=[14]),
    "wraps in int32": crop(
        op("Cast", "huge", "h", to=6),
        op("Add", "h h", "hh"),
        op("Cast", "hh", "h64", to=7),
        op("Add", "h64 more", "end"),
        huge=[2**31 - 1],
        more=[18],
    ),
    "wraps in uint8": crop(
        op("Cast", "huge", "u", to=2), op("Cast", "u", "end", to=7), huge=[256 + 16]
    ),
    "a truth value": crop(
        op("Cast", "sixteen", "yes", to=9),
        op("Cast", "yes", "whole", to=7),
        op("Mul", "whole sixteen", "end"),
        sixteen=[16],
    ),
    "a fraction": crop(
        op("Cast", "sixteen", "f", to=1),
        op("Mul", "f half", "h"),
        op("Cast", "h", "end", to=7),
        sixteen=[21],
        half=np.array([0.8]),
    ),
    "slice along another axis": crop(
        op("Slice", "table from to second", "row"),
        op("Reshape", "row one", "end"),
        table=[[2, 16]],
        to=[2],
        second=[1],
        **{"from": [1]},
    ),
    "reduction over no axes": crop(
        op("ReduceSum", "five nothing", "p", keepdims=1),
        op("Add", "p ten", "end"),
        ten=[10],
        five=[2, 3],
        nothing=np.zeros(0, np.int64),
    ),
    "size of a batch": crop(
        BATCH_SIZE,
        op("Sub", "n one", "a"),
        op("Sub", "c61 n", "d"),
        op("Mul", "a d", "ab"),
        op("Add", "ab one", "end"),
        c61=[61],
    ),
    "size of a batch, limited": crop(
        BATCH_SIZE,
        op("Sub", "n one", "a"),
        op("Sub", "c61 n", "d"),
        op("Mul", "a d", "ab"),
        op("Min", "ab sixteen", "c"),
        op("Max", "c one", "end"),
        c61=[61],
        sixteen=[16],
    ),
    "where the batch is": crop(
        BATCH_SIZE, op("Equal", "n one", "is"), op("Where", "is one sixteen", "end"), sixteen=[16]
    ),
    "end of the axis": crop(op("Identity", "far", "end"), far=[2**63 - 1]),
    "from the end": crop(op("Identity", "far", "end"), far=[-3]),
}


def set_batch(model: Any, size: int) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size


def macs_or_refusal(path: Path) -> int | WeighinError:
    try:
        model = open_model(path)
        Runner(model).check(np.zeros((1, *model.size, 3), np.uint8))
        return recount(model).macs
    except WeighinError as error:
        return error


@pytest.mark.parametrize("trick", SHAPE_TRICKS)
def test_arithmetic_on_shapes_cannot_lower_the_count(build: Build, trick: str) -> None:
    path = build(**SHAPE_TRICKS[trick])
    found = macs_or_refusal(path)
    if isinstance(found, int):
        assert {measured_macs(path.read_bytes(), batch) for batch in (2, 32)} == {found}
    else:
        assert path.name in str(found)


@pytest.mark.parametrize("trick", [name for name in SHAPE_TRICKS if "batch" in name])
def test_what_acts_on_the_size_of_the_batch_is_refused(build: Build, trick: str) -> None:
    found = macs_or_refusal(build(**SHAPE_TRICKS[trick]))
    assert "in a batch of 1 and" in str(found)


ROWS = {"back": [-1, 3, 8, 8], "turned": [3, -1, 8, 8], "single": [1, -1, 8, 8]}
# each makes the label of an image depend on others
MIXING: dict[str, Parts] = {
    "reshape": {
        "before": [
            op("Reshape", "images single", "s"),
            op("Softmax", "s", "m", axis=1),
            op("Reshape", "m back", "x"),
        ]
    },
    "reshape that exchanges": {
        "before": [
            op("Reshape", "images turned", "t"),
            op("Transpose", "t", "u", perm=[1, 0, 2, 3]),
            op("Reshape", "u back", "x"),
        ]
    },
    "transpose": {
        "before": [
            op("Transpose", "images", "t", perm=[3, 1, 2, 0]),
            op("Softmax", "t", "s", axis=3),
            op("Transpose", "s", "x", perm=[3, 1, 2, 0]),
        ]
    },
    "softmax": {"before": [op("Softmax", "images", "x", axis=0)]},
    "softmax from the end": {"before": [op("LogSoftmax", "images", "x", axis=-4)]},
    "mean": {"before": [op("ReduceMean", "images", "m", axes=[0]), op("Sub", "images m", "x")]},
    "mean of everything": {"before": [op("ReduceMean", "images", "m"), op("Sub", "images m", "x")]},
    "sum over no axes": {
        "before": [op("ReduceSum", "images none", "m"), op("Sub", "images m", "x")],
        "weights": {"none": np.zeros(0, np.int64)},
    },
    "slice": {
        "before": [op("Slice", "images m far z m", "x")],
        "weights": {"m": [-1], "far": [-(2**40)], "z": [0]},
    },
    "slice of one image": {
        "before": [op("Slice", "images z e z", "one"), op("Add", "images one", "x")],
        "weights": {"z": [0], "e": [1]},
    },
    "gather": {
        "before": [op("Gather", "images i", "one", axis=0), op("Add", "images one", "x")],
        "weights": {"i": [0]},
    },
    "gather in another order": {
        "before": [op("Gather", "images i", "x", axis=0)],
        "weights": {"i": list(range(31, -1, -1))},
    },
    "pad": {
        "before": [op("Pad", "images p", "x")],
        "weights": {"p": [1, 0, 0, 0, -1, 0, 0, 0]},
    },
    "concat": {
        "before": [
            op("Concat", "images images", "y", axis=0),
            op("Reshape", "y both", "z"),
            op("ReduceMean", "z", "x", axes=[1], keepdims=0),
        ],
        "weights": {"both": [-1, 2, 3, 8, 8]},
    },
    "flatten": {
        "before": [
            op("Flatten", "images", "f", axis=0),
            op("Softmax", "f", "s", axis=1),
            op("Reshape", "s back", "x"),
        ]
    },
    "batch norm in training": {
        "before": [op("BatchNormalization", "images v v v v", "x m s", training_mode=1)],
        "weights": {"v": np.ones(3)},
    },
    "dropout in training": {
        "before": [op("Dropout", "images ratio yes", "x")],
        "weights": {"ratio": 0.5, "yes": np.array(True)},
    },
    "product of two activations": {
        "before": [
            op("Flatten", "images", "f"),
            op("Transpose", "f", "t"),
            op("MatMul", "f t", "g"),
            op("MatMul", "g f", "h"),
            op("Reshape", "h back", "x"),
        ]
    },
    "stored on the left": {
        "before": [
            op("Flatten", "images", "f"),
            op("MatMul", "left f", "h"),
            op("Reshape", "h back", "x"),
        ],
        "weights": {"left": np.ones((32, 32))},
    },
    "transposed Gemm": {
        "before": [
            op("Flatten", "images", "f"),
            op("Gemm", "f square", "h", transA=1),
            op("Reshape", "h back", "x"),
        ],
        "weights": {"square": np.ones((32, 32))},
    },
    "a number for each place": {
        "before": [op("Mul", "images each", "x")],
        "weights": {"each": np.arange(32.0).reshape(32, 1, 1, 1)},
    },
    "a slope for each place": {
        "before": [op("PRelu", "images each", "x")],
        "weights": {"each": np.arange(32.0).reshape(32, 1, 1, 1)},
    },
    "a channel for each place": {
        "before": [op("Concat", "images each", "y", axis=1), op("Conv", "y k", "x")],
        "weights": {
            "each": np.arange(32.0 * 64).reshape(32, 1, 8, 8),
            "k": np.ones((3, 4, 1, 1)),
        },
    },
    "a bias for each place": {
        "nodes": [
            op("GlobalAveragePool", "images", "p"),
            op("Flatten", "p", "f"),
            op("Gemm", "f w each", "logits", transB=1),
        ],
        "weights": {"each": np.arange(96.0).reshape(32, 3)},
    },
    "against the batch": {
        "before": [
            op("ReduceMean", "images", "m", axes=[1, 2, 3], keepdims=0),
            op("Add", "wide m", "y"),
            op("ReduceMean", "y", "z", axes=[1]),
            op("Reshape", "z column", "c"),
            op("Mul", "images c", "x"),
        ],
        "weights": {"wide": np.zeros((32, 32)), "column": [-1, 1, 1, 1]},
    },
    "images as weights": {
        "before": [op("Conv", "images images", "c"), op("Slice", "c zero three first", "x")],
        "weights": {"zero": [0], "three": [3], "first": [1]},
    },
    "layer norm": {
        "before": [op("LayerNormalization", "images scale", "x", axis=0)],
        "weights": {"scale": np.ones((32, 3, 8, 8))},
    },
    "split": {
        "before": [
            op("Split", "images", "s1 s2", axis=0),
            op("Concat", "s2 s1", "x", axis=0),
        ]
    },
    "sequence of images": {
        "before": [
            op("Unsqueeze", "images z", "u"),
            op("Conv", "u k", "c", pads=[1, 0, 0] * 2),
            op("Squeeze", "c z", "x"),
        ],
        "weights": {"z": [0], "k": np.ones((32, 32, 3, 1, 1))},
    },
}


# what its refusal says; all else would be refused at a batch of 1 for a shape that does not fit
WORDS = "mixes images|moves the batch|adds images|differ from image to image|may mix|training mode|"
WORDS += "only its first output|transA|is computed from the images"


@pytest.mark.parametrize("trick", MIXING)
def test_images_cannot_be_mixed(build: Build, trick: str) -> None:
    parts = MIXING[trick] | {"weights": {**ROWS, **MIXING[trick].get("weights", {})}}
    path = build(lambda model: set_batch(model, 32), **parts)
    with pytest.raises(ModelError, match=WORDS):
        open_model(path)


def test_a_run_tells_what_the_proof_missed(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the proof, running images in other company finds each of them out."""
    monkeypatch.setattr(
        graph,
        "OPERATORS",
        {name: replace(kind, check=lambda node: None) for name, kind in OPERATORS.items()},
    )
    random = np.random.default_rng(0)
    for trick in ("softmax", "slice", "gather in another order", "a number for each place"):
        parts = MIXING[trick] | {"weights": {**ROWS, **MIXING[trick].get("weights", {})}}
        model = open_model(build(lambda m: set_batch(m, 32), **parts))
        with pytest.raises(ModelError, match="depend on the other images"):
            Runner(model).check(random.integers(0, 256, (32, 8, 8, 3), np.uint8))


def test_the_rounding_of_a_mean_is_no_other_image(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The maps of an odd number of pixels begin elsewhere in memory for each image of a batch."""
    random = np.random.default_rng(0)
    nodes = [
        op("Conv", "images kernel", "maps", strides=[2, 2]),
        op("ReduceMean", "maps", "means", axes=[2, 3], keepdims=0),
        op("Gemm", "means head b", "logits", transB=1),
    ]
    weights = {"kernel": random.normal(size=(5, 3, 3, 3)), "head": random.normal(size=(3, 5))}
    runner = Runner(open_model(build(nodes=nodes, weights=weights)))
    pixels = random.integers(0, 256, (32, 8, 8, 3), np.uint8)
    runner.check(pixels)
    found, moved = runner.logits(pixels), runner.logits(pixels[::-1])[::-1]
    assert (found != moved).any() and (found.argmax(1) == moved.argmax(1)).all()
    for name in ("ROUNDING", "SHARE"):
        with monkeypatch.context() as strict:
            strict.setattr(runtime, name, 0.0)
            with pytest.raises(ModelError, match="depend on the other images"):
                runner.check(pixels)


def test_a_shape_that_the_runtime_did_not_produce(build: Build) -> None:
    model = open_model(build())
    Runner(model).check(np.zeros((3, 8, 8, 3), np.uint8))
    forged = replace(model.graph, shapes=model.graph.shapes | {"pooled": (32, 3, 1, 2)})
    with pytest.raises(ModelError, match=r"pooled was counted as \(32, 3, 1, 2\) and came out as"):
        Runner(replace(model, graph=forged)).check(np.zeros((3, 8, 8, 3), np.uint8))


HOSTILE = "\x1b[2J\nerror: all is well"
BROKEN: dict[str, tuple[Parts, Callable[[Any], None], str]] = {}


def broken(words: str, **parts: Any) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    def note(change: Callable[[Any], None]) -> Callable[[Any], None]:
        BROKEN[change.__name__] = (parts, change, words)
        return change

    return note


@broken("Attribute 'axis' appeared multiple times")
def attribute_twice(model: Any) -> None:
    model.graph.node[1].attribute.append(helper.make_attribute("axis", 1))
    model.graph.node[1].attribute.append(helper.make_attribute("axis", 2))


@broken("Unrecognized attribute: axes")
def unknown_attribute(model: Any) -> None:
    model.graph.node[1].attribute.append(helper.make_attribute("axes", 1))


@broken("pool: it gives pads and auto_pad")
def pads_twice(model: Any) -> None:
    model.graph.node[0].CopyFrom(
        helper.make_node(
            "AveragePool",
            ["images"],
            ["pooled"],
            "pool",
            kernel_shape=[8, 8],
            pads=[0] * 4,
            auto_pad="SAME_UPPER",
        )
    )


@broken("duplicate keys in metadata_props")
def classes_twice(model: Any) -> None:
    model.metadata_props.add(key="classes", value='["x", "y", "z"]')


@broken("its metadata claims \\x1b[2J\\x0aerror: all is well MACs", metadata={"macs": HOSTILE})
def claim_for_a_terminal(model: Any) -> None: ...


@broken("Loop \\x1b[2J\\x0aerror: all is well: it holds a graph of its own")
def name_for_a_terminal(model: Any) -> None:
    body = helper.make_graph([], "g", [], [])
    model.graph.node.append(helper.make_node("Loop", ["images"], ["q"], HOSTILE, body=body))


@broken("is no printable text", metadata={"classes": '["a", "b", "\\ud800"]', "fallback": "a"})
def class_half_a_character(model: Any) -> None: ...


@broken("is no printable text", metadata={"classes": '["a", "b", "c\\u001b[2J"]', "fallback": "a"})
def class_for_a_terminal(model: Any) -> None: ...


@broken("is no printable text", metadata={"classes": '["a", "b", "\\u202egpj"]', "fallback": "a"})
def class_that_turns_the_line(model: Any) -> None: ...


@broken("is no printable text", metadata={"classes": f'["a", "b", "{"c" * 201}"]', "fallback": "a"})
def class_of_a_page(model: Any) -> None: ...


@broken(
    "it divides whole numbers by 0 or -1",
    before=[op("Div", "k z", "q"), op("Reshape", "images q", "x")],
    weights={"k": [1], "z": [0]},
)
def division_by_zero(model: Any) -> None: ...


@broken(
    "operator ConstantOfShape q: it makes 8,388,608 numbers of stored ones, over 4,194,304",
    before=[
        op("ConstantOfShape", "k", "q"),
        op("Slice", "q zero one", "s"),
        op("Mul", "images s", "x"),
    ],
    weights={"k": [2**23], "zero": [0], "one": [1]},
)
def absurd_constant(model: Any) -> None: ...


@broken(
    "Cast i: its work cannot be counted",
    before=[
        op("Add", "images two", "q"),
        op("Identity", "two", "back2"),
        op("Cast", "q", "i", to=7),
        op("Identity", "i", "back"),
        op("Cast", "back", "x", to=1),
    ],
    weights={"two": 2.0},
)
def whole_number_work(model: Any) -> None: ...


@broken(
    "its scale differs along the tensor",
    before=[
        op("QuantizeLinear", "images three", "q", axis=1),
        op("DequantizeLinear", "q tenth", "x"),
    ],
    weights={"three": [0.1, 0.2, 0.3], "tenth": 0.1},
)
def products_in_a_quantization(model: Any) -> None: ...


@broken("is damaged")
def damaged_tensor(model: Any) -> None:
    model.graph.initializer[0].raw_data = b"123"


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_get_a_sentence(build: Build, case: str) -> None:
    parts, change, words = BROKEN[case]
    found = macs_or_refusal(build(change, **parts))
    assert words in str(found)
    assert "\x1b" not in str(found)


def test_text_that_is_not_utf8(build: Build) -> None:
    path = build()
    path.write_bytes(path.read_bytes().replace(b"fallback", b"fall\xff\xfeck"))
    assert "its metadata is not valid UTF-8" in str(macs_or_refusal(path))
    path.write_bytes(build().read_bytes().replace(b"flatten", b"flat\xff\xfen"))
    assert "the name of an operator or of a tensor is not valid text" in str(macs_or_refusal(path))


def test_logits_that_overflow(build: Build) -> None:
    model = open_model(build(weights={"w": np.full((3, 3), 3e38)}))
    with pytest.raises(ModelError, match="its logits are not finite"):
        Runner(model).logits(np.full((1, 8, 8, 3), 255, np.uint8))


def test_hidden_work_is_refused_and_the_ceiling_is_said(build: Build) -> None:
    """A pooling of windows as large as the picture, and a chain of error functions."""
    window = op("AveragePool", "images", "x", kernel_shape=[15, 15], pads=[7] * 4)
    chain = [op("Erf", f"e{i}" if i else "images", f"e{i + 1}") for i in range(9)]
    for before in ([window], [*chain, op("Identity", "e9", "x")]):
        with pytest.raises(HiddenWorkError, match=r"at most 0\.5 for each MAC"):
            recount(open_model(build(before=before)))


def test_chance_is_refused_in_a_batch_of_one_too(build: Build) -> None:
    parts = MIXING["dropout in training"]
    with pytest.raises(ModelError, match="training mode"):
        open_model(build(lambda model: set_batch(model, 1), **parts))


def test_names_that_the_grader_might_use(build: Build) -> None:
    names = ["images", *(f"{i} ".ljust(i + 1, "#") for i in range(2, 9)), "x"]
    steps = [helper.make_node("Identity", [a], [b]) for a, b in pairwise(names)]
    plain, model = open_model(build()), open_model(build(before=steps))
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    Runner(model).check(pixels)
    np.testing.assert_array_equal(Runner(model).logits(pixels), Runner(plain).logits(pixels))
