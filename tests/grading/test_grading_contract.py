"""Models from elsewhere: what they mean is told beside them, or written into them."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from weighin.errors import ModelError
from weighin.grading.contract import Contract, from_file
from weighin.grading.model import open_model
from weighin.grading.predict import predict
from weighin.grading.recount import count_file
from weighin.grading.wrapping import wrapped
from weighin.images import Source, normalize

Build = Callable[..., Path]
BARE = {"classes": None, "fallback": None, "turn_tall": None}
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 7, 3), np.uint8)
ENTRY = {"classes": ["cat", "dog", "elk"], "fallback": "dog"}


def contract(**fields: Any) -> Contract:
    return Contract(("a", "b"), "a", **fields)


def test_the_default_is_how_this_project_trains() -> None:
    assert np.array_equal(contract().tensor(PIXELS), normalize(PIXELS))


def test_mean_and_std_are_torchvisions() -> None:
    """torchvision: ToTensor, then Normalize."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    want = (PIXELS / 255 - mean) / std
    found = contract(mean=mean, std=std).tensor(PIXELS)
    assert found.dtype == np.float32
    assert np.allclose(found, want.transpose(0, 3, 1, 2), atol=1e-6)
    scaled = contract(scale=255.0, mean=(127.0,) * 3, std=(128.0,) * 3, layout="NHWC")
    assert np.allclose(scaled.tensor(PIXELS), (PIXELS - 127.0) / 128, atol=1e-6)
    plain = contract(mean=(0.0,) * 3, std=(1.0,) * 3, channels="BGR")
    assert np.allclose(plain.tensor(PIXELS)[:, 0], PIXELS[..., 2] / 255, atol=1e-6)


def test_a_crop_keeps_the_middle() -> None:
    """Of 40 x 20 pixels the middle half of the largest square is columns 15 to 25, rows 5 to 15."""
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[5:15, 15:25] = 255
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    data = out.getvalue()
    assert (Source(data).fitted((10, 10), crop=0.5) == 255).all()
    assert Source(data).fitted((10, 10)).mean() < 40


def test_a_model_from_elsewhere_is_counted_and_graded(
    build: Build, pictures: Path, tmp_path: Path
) -> None:
    def foreign(model: Any) -> None:
        graph = model.graph
        graph.input[0].name = graph.node[0].input[0] = "input.1"
        graph.output[0].name = graph.node[-1].output[0] = "495"
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1

    path = build(foreign, metadata=BARE)
    assert count_file(path).macs == 204
    with pytest.raises(ModelError) as caught:
        open_model(path)
    assert "its metadata has no `classes`" in caught.value.problem
    assert "weighin wrap" in caught.value.fix
    beside = tmp_path / "contract.json"
    beside.write_text(json.dumps(ENTRY))
    first = predict(open_model(path, from_file(beside)), pictures)
    assert first.labels == ("cat", "dog", "elk") * 2
    target = tmp_path / "wrapped.onnx"
    count, kept = wrapped(path, target, None, {"classes": "cat,dog,elk", "mean": "0,0,0"})
    assert (count.macs, kept) == (204, None)
    model = open_model(target)
    assert (model.contract.mean, model.fallback) == ((0.0, 0.0, 0.0), "cat")
    assert predict(model, pictures).labels == first.labels


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "nobody says what its outputs mean"),
        ({"classes": "names.txt"}, "--classes names.txt is no file, and no two classes"),
        ({"classes": "a,b"}, "not one number for each of 2 classes"),
        ({"classes": "a,b,c", "mean": "1,2"}, "mean is [1.0, 2.0]; it must be a list of 3"),
        ({"classes": "a,b,c", "std": "x"}, "std is ['x']; it must be a list of 3"),
        (
            {"classes": ",".join(f"class{n}" for n in range(60))},
            "one number for each of 60 classes",
        ),
    ],
)
def test_what_cannot_be_graded_is_not_wrapped(
    build: Build, tmp_path: Path, given: dict[str, str], words: str
) -> None:
    with pytest.raises(ModelError) as caught:
        wrapped(build(metadata=BARE), tmp_path / "out.onnx", None, given)
    assert words in caught.value.problem
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_wrong_claim_is_told_of_the_file_that_was_given(build: Build, tmp_path: Path) -> None:
    path = build(metadata=BARE | {"macs": "1"})
    with pytest.raises(ModelError) as caught:
        wrapped(path, tmp_path / "out.onnx", None, {"classes": "a,b,c"})
    assert caught.value.problem == f"{path}: its metadata claims 1 MACs, its graph does 204"


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        ("[1]", "holds no fields of a contract"),
        ("null", "holds no fields of a contract"),
        ('{"classes": 3}', "`classes` is not a list of names"),
        ('{"classes": {"a": 1}}', "`classes` is not a list of names"),
        ('{"classes": [1, 2, 3]}', "`classes` is not a list of names"),
    ],
)
def test_a_contract_of_another_form_is_refused(
    build: Build, tmp_path: Path, held: str, problem: str
) -> None:
    beside = tmp_path / "contract.json"
    beside.write_text(held)
    with pytest.raises(ModelError) as caught:
        wrapped(build(metadata=BARE), tmp_path / "out.onnx", beside, {})
    assert str(beside) in caught.value.problem and problem in caught.value.problem


@pytest.mark.parametrize(
    ("given", "problem", "to_255"),
    [
        (
            {"mean": "123.675,116.28,103.53"},
            "mean is 123.675, 116.28, 103.53, not within 0 to 1",
            True,
        ),
        ({"std": "58.395,57.12,57.375"}, "std is 58.395, 57.12, 57.375, not within 0 to 2", True),
        ({"mean": "0.5,0.5,-0.1"}, "mean is 0.5, 0.5, -0.1, not within 0 to 1", True),
        ({"scale": 255.0, "mean": "0,0,256"}, "mean is 0, 0, 256, not within 0 to 255", False),
        ({"scale": 256.0}, "scale is 256; it must be 1 or 255", False),
    ],
)
def test_a_mean_of_another_scale_is_refused(
    build: Build, tmp_path: Path, given: dict[str, Any], problem: str, to_255: bool
) -> None:
    """With (pixel / 255 - 123.675) / 58.395 every picture is about -2.1, and has one label."""
    given = {"classes": "a,b,c", **given}
    with pytest.raises(ModelError) as caught:
        wrapped(build(metadata=BARE), tmp_path / "out.onnx", None, given)
    assert caught.value.problem == f"the options: {problem}"
    assert ("--scale 255" in caught.value.fix) == to_255
    whole = {"scale": 255.0, "mean": "123.675,116.28,103.53", "std": "58.395,57.12,256"}
    wrapped(build(metadata=BARE), tmp_path / "out.onnx", None, {"classes": "a,b,c", **whole})


def test_classes_of_a_file_of_lines(build: Build, tmp_path: Path) -> None:
    """With the mark that Windows puts first, and its line ends; a contract may have it too."""
    lines = tmp_path / "classes.txt"
    lines.write_text("\ufeffcat\r\ndog, wild\nelk\n", encoding="utf-8", newline="")
    wrapped(build(metadata=BARE), tmp_path / "out.onnx", None, {"classes": str(lines)})
    assert open_model(tmp_path / "out.onnx").classes == ("cat", "dog, wild", "elk")
    beside = tmp_path / "contract.json"
    beside.write_text("\ufeff" + json.dumps(ENTRY), encoding="utf-8")
    assert from_file(beside).classes == ("cat", "dog", "elk")


def test_what_is_left_out_is_the_default(build: Build, tmp_path: Path) -> None:
    """A contract takes the place of another one whole; what else the metadata says stays."""
    first, again = tmp_path / "first.onnx", tmp_path / "again.onnx"
    turned = {"crop": 0.5, "channels": "BGR", "mean": "0.4,0.4,0.4", "turn_tall": True}
    source = build(metadata=BARE | {"author": "somebody"})
    wrapped(source, first, None, {"classes": "a,b,c", **turned})
    assert open_model(first).contract.crop == 0.5
    wrapped(first, again, None, {"classes": "a,b,c", "channels": "RGB", "mean": "0.5,0.5,0.5"})
    assert open_model(again).contract == Contract(("a", "b", "c"), "a")
    assert {e.key: e.value for e in onnx.load(again).metadata_props}["author"] == "somebody"


def test_blanks_round_a_name_are_none_of_it(build: Build, tmp_path: Path) -> None:
    wrapped(build(metadata=BARE), tmp_path / "out.onnx", None, {"classes": " cat, wild dog ,elk"})
    assert open_model(tmp_path / "out.onnx").classes == ("cat", "wild dog", "elk")


def test_classes_of_a_file_of_another_form(build: Build, tmp_path: Path) -> None:
    names, path = tmp_path / "classes.json", build(metadata=BARE)
    names.write_text('["cat", "dog, wild", "elk"]\n')
    wrapped(path, tmp_path / "out.onnx", None, {"classes": str(names)})
    assert open_model(tmp_path / "out.onnx").classes == ("cat", "dog, wild", "elk")
    names.write_text("[other]\ncat\ndog\n")
    wrapped(path, tmp_path / "out.onnx", None, {"classes": str(names)})
    assert open_model(tmp_path / "out.onnx").classes == ("[other]", "cat", "dog")
    names.write_bytes("caf\u00e9\ncat\ndog\n".encode("latin-1"))
    with pytest.raises(ModelError) as caught:
        wrapped(path, tmp_path / "out.onnx", None, {"classes": str(names)})
    assert caught.value.problem == f"{names} is not text in UTF-8"
    assert caught.value.fix == "save it as UTF-8, a class a line"
    names.write_text("cat\ncat\ndog\n")
    with pytest.raises(ModelError, match=f"{names}: classes names a class twice"):
        wrapped(path, tmp_path / "out.onnx", None, {"classes": str(names)})


@pytest.mark.parametrize("after", [(), ("Identity",), ("Identity", "Flatten")])
def test_probabilities_of_a_model_that_gives_them(
    build: Build, pictures: Path, tmp_path: Path, after: tuple[str, ...]
) -> None:
    def ends(*operators: str) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            graph = model.graph
            last = graph.node[-1].output[0]
            for place, name in enumerate(operators):
                out = f"end{place}"
                graph.node.append(helper.make_node(name, [last], [out]))
                last = out
            graph.output[0].name = last

        return change

    logits = predict(open_model(build()), pictures)
    found = predict(open_model(build(ends("Softmax", *after))), pictures)
    np.testing.assert_allclose(found.probabilities, logits.probabilities, rtol=1e-5)
    twice = predict(open_model(build(ends("Softmax", "Sigmoid"))), pictures)  # the control
    assert np.abs(twice.probabilities - logits.probabilities).max() > 0.01
    np.testing.assert_allclose(twice.probabilities.sum(1), 1, rtol=1e-5)


def test_a_power_of_stored_numbers_is_a_number(build: Build, pictures: Path) -> None:
    """As PyTorch's older exporter writes y * (channels ** -0.5), of attention."""

    def scaled(model: Any) -> None:
        graph, result = model.graph, model.graph.output[0].name
        for name, value in (("channels", 4.0), ("exponent", -0.5)):
            graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
        graph.node.insert(0, helper.make_node("Pow", ["channels", "exponent"], ["power"]))
        graph.node.append(helper.make_node("Mul", [result, "power"], ["half"]))
        graph.output[0].name = "half"

    whole, half = (predict(open_model(build(*change)), pictures) for change in ((), (scaled,)))
    np.testing.assert_allclose(half.margins * 2, whole.margins, rtol=1e-5)


def test_an_input_in_another_order_is_told_with_the_option(build: Build) -> None:
    def turned(model: Any) -> None:
        sides = model.graph.input[0].type.tensor_type.shape.dim
        for side, value in zip(sides, (1, 8, 8, 3), strict=True):
            side.dim_value = value

    with pytest.raises(ModelError) as caught:
        open_model(build(turned))
    assert "not NCHW of 3 colors" in caught.value.problem
    assert caught.value.fix.endswith("--layout NHWC")


def test_a_file_that_is_there_is_kept_aside(build: Build, tmp_path: Path) -> None:
    path, given = build(metadata=BARE), {"classes": "a,b,c"}
    before = path.read_bytes()
    kept = tmp_path / "model.before-1.onnx"
    assert wrapped(path, path, None, given)[1] == kept
    assert (kept.read_bytes(), open_model(path).classes) == (before, ("a", "b", "c"))
    assert wrapped(path, path, None, given)[1] is None  # the same bytes
    with pytest.raises(ModelError):
        wrapped(path, path, None, {"classes": "a,b"})
    assert sorted(file.name for file in tmp_path.iterdir()) == [kept.name, path.name]
    out = tmp_path / "out.onnx"
    out.write_text("mine")
    said = subprocess.run(
        [sys.executable, "-m", "weighin", "wrap", kept, out, "--classes", "a,b,c"],
        capture_output=True,
        text=True,
    )
    aside = tmp_path / "out.before-1.onnx"
    assert said.stderr == f"{out} was there and says something else; it is kept as {aside}\n"
    assert aside.read_text() == "mine"


def test_counting_needs_neither_metadata_nor_known_operators(build: Build, tmp_path: Path) -> None:
    unknown = [helper.make_node("Sin", ["images"], ["x"], name="sin")]
    path = build(metadata=BARE, before=unknown)
    capitals = path.rename(path.with_suffix(".ONNX"))
    assert count_file(capitals).unknown == ("Sin",)
    said = subprocess.run(
        [sys.executable, "-m", "weighin", "count", capitals], capture_output=True, text=True
    ).stdout
    assert said.splitlines() == [
        "204 MACs, 12 parameters",
        "the work of one image",
        "the rule gives 0 MACs to: Sin",
    ]
