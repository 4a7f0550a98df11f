"""Where files part is told by what they hold: epoch, trial, tensor, line, byte."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from weighin.file_differences import first_difference


def told(tmp_path, name, *contents):
    """What is said of two files of a name, written by `contents`."""
    paths = []
    for folder, content in zip(("recorded", "rebuilt"), contents, strict=True):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)
        paths.append(path)
    assert first_difference(paths[0], paths[0]) is None
    return first_difference(*paths)


def as_json(value):
    return json.dumps(value).encode()


HISTORY = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.5}]
STUDY = {"chosen": 0, "trials": [{"number": 0, "f1": 0.5}, {"number": 7, "f1": 0.25}]}


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        (
            "history.json",
            HISTORY,
            [HISTORY[0], {"epoch": 2, "loss": 1.25}],
            "epoch 2.loss: 1.5 recorded, 1.25 rebuilt, a difference of 0.25",
        ),
        ("history.json", HISTORY, HISTORY[:1], "2 recorded, 1 rebuilt"),
        (
            "trials.json",
            STUDY,
            {**STUDY, "trials": [STUDY["trials"][0], {"number": 7, "f1": 0.5}]},
            "trials trial 7.f1: 0.25 recorded, 0.5 rebuilt, a difference of 0.25",
        ),
        ("a.json", {"a": [1, 2]}, {"a": [1, 3]}, "a [1]: 2 recorded, 3 rebuilt, a difference of 1"),
        ("a.json", {"a": 1}, {"b": 1}, "a is only recorded"),
        ("a.json", {"a": "x"}, {"a": None}, "a: x recorded, None rebuilt"),
        ("a.json", {"a": 1}, {"a": 1.0}, "a: 1 recorded, 1.0 rebuilt, a difference of 0"),
    ],
)
def test_records(tmp_path, name, old, new, said):
    assert told(tmp_path, name, as_json(old), as_json(new)) == said


def test_a_form_of_json(tmp_path):
    assert told(tmp_path, "a.json", b'{"a": 1}', b'{"a":1}') == "its form"


ONES = np.ones((2, 3), np.float32)


def changed(by=0.25):
    array = ONES.copy()
    array[1, 0] += by
    array[1, 2] -= by / 2
    return array


GAP = "2 of 6 numbers differ, first at (1, 0), by at most 0.25"


def test_an_array(tmp_path):
    files = (lambda path: np.save(path, ONES), lambda path: np.save(path, changed()))
    assert told(tmp_path, "logits.npy", *files) == f"array: {GAP}"


def test_the_same_nans_are_no_difference(tmp_path):
    first, second = changed(), changed()
    first[0, 0] = second[0, 0] = np.nan
    second[0, 1] += 1
    files = (lambda path: np.save(path, first), lambda path: np.save(path, second))
    assert told(tmp_path, "a.npy", *files).startswith("array: 1 of 6 numbers differ")


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"a": ONES, "b": changed()}, f"tensor b: {GAP}"),
        ({"a": ONES}, "tensor b is only recorded"),
        (
            {"a": ONES, "b": ONES[0]},
            "tensor b is (2, 3) float32 recorded, (3,) float32 rebuilt",
        ),
        ({"a": ONES, "b": ONES, "c": ONES}, "tensor c is only rebuilt"),
    ],
)
def test_weights(tmp_path, new, said):
    old = {"a": ONES, "b": ONES}
    files = (lambda path: save_file(old, path), lambda path: save_file(new, path))
    assert told(tmp_path, "weights.safetensors", *files) == said


def model(array, name="net"):
    tensor = numpy_helper.from_array(array, "w")
    out = helper.make_tensor_value_info("w", TensorProto.FLOAT, array.shape)
    graph = helper.make_graph([], name, [], [out], [tensor])
    return lambda path: onnx.save(helper.make_model(graph), path)


def test_an_onnx_file(tmp_path):
    assert told(tmp_path, "model.onnx", model(ONES), model(changed())) == f"tensor w: {GAP}"
    assert told(tmp_path, "m.onnx", model(ONES), model(ONES, "n")) == "all but its arrays"


def test_lines_and_bytes(tmp_path):
    said = 'line 2: "b" recorded, "c" rebuilt'
    assert told(tmp_path, "a.csv", b"a\nb\n", b"a\nc\n") == said
    assert told(tmp_path, "a.csv", b"a\n", b"a\nb\n") == "1 lines recorded, 2 rebuilt"
    said = "byte 1, of 2 recorded and 3 rebuilt"
    assert told(tmp_path, "a.jpg", b"\xff\xd8", b"\xff\xd9\x00") == said
    assert told(tmp_path, "b.jpg", b"\xff", b"\xff\xd9") == "byte 1, of 1 recorded and 2 rebuilt"
    said = "byte 0, of 2 recorded and 6 rebuilt"
    assert told(tmp_path, "a.npy", b"ab", b"broken") == said


def test_the_first_file_of_a_folder_that_differs(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "b.txt").write_text(folder.name)
        (folder / "c.txt").write_text(folder.name)
    assert first_difference(old, old) is None
    assert first_difference(old, new) == 'b.txt: line 1: "old" recorded, "new" rebuilt'
    (old / "a.txt").touch()
    assert first_difference(old, new) == "a.txt is recorded and was not rebuilt"
    assert first_difference(new, old) == "a.txt was rebuilt and is not recorded"
