"""Exports of Label Studio and CVAT come in as COCO files do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import encoded, photo, write
from PIL import Image

from weighin.data.importing import Options, import_data
from weighin.errors import DataError

LEFT, TOP, RIGHT, BOTTOM = 24, 9, 72, 36  # of 96 x 72 pixels: 25 to 75 % and 12.5 to 50 %


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(6):
        write(tmp_path / f"photos/{number}.png", encoded(photo(number), "PNG"))
    return tmp_path / "photos"


def is_cut(data: Path, name: str, number: int) -> bool:
    """Return whether a crop is the box above of a picture, but for JPEG's loss."""
    crop = np.asarray(Image.open(data / "train" / name)).astype(int)
    wanted = np.asarray(photo(number)).astype(int)[TOP:BOTTOM, LEFT:RIGHT]
    return crop.shape == wanted.shape and float(np.abs(crop - wanted).mean()) < 3


def choice(*classes: str) -> dict[str, Any]:
    return {"type": "choices", "value": {"choices": list(classes)}}


def shape(kind: str, label: str, **more: Any) -> dict[str, Any]:
    value = {"x": 25, "y": 12.5, "width": 50, "height": 37.5, kind: [label], **more}
    return {"type": kind, "value": value, "original_width": 96, "original_height": 72}


def test_label_studio(tmp_path: Path, pictures: Path) -> None:
    corners = [[25, 12.5], [75, 12.5], [50, 50]]
    results: list[list[Any]] = [
        [choice("Cat")],
        [choice("Dog"), choice("Dog")],
        [shape("rectanglelabels", "Cat"), shape("rectanglelabels", "Dog", rotation=12)],
        [shape("polygonlabels", "Dog", points=corners)],
        [
            choice("Cat", "Dog"),
            shape("brushlabels", "Cat"),
            shape("rectanglelabels", "Cat", x=None),
        ],
        [],
    ]
    tasks: list[Any] = [
        {
            "id": 10 + number,
            "data": {"image": f"/data/upload/1/0a1b2c3d-{number}.png"},
            "annotations": [{"was_cancelled": True, "result": [choice("Dog")]}, {"result": found}],
        }
        for number, found in enumerate(results)
    ]
    source = write(tmp_path / "a.json", json.dumps([*tasks, {"id": 99, "data": {}}]).encode())
    report = import_data(source, tmp_path / "data", Options(pictures, margin=0))
    assert (report["kind"], report["classes"]) == ("label-studio", {"Cat": 2, "Dog": 2})
    assert report["such_as"] == {
        "a box that is turned": "task 12",
        "a task without an image": "task 99",
        "its box is not four numbers": "task 14",
        "no box or polygon": "task 14",
        "several classes": "task 14",
    }
    data = tmp_path / "data"
    assert (data / "train/Cat/0.png").read_bytes() == (pictures / "0.png").read_bytes()
    assert is_cut(data, "Cat/2_0.jpg", 2)
    assert is_cut(data, "Dog/3_0.jpg", 3)


def test_label_studio_json_min(tmp_path: Path, pictures: Path) -> None:
    box = {"x": 25, "y": 12.5, "width": 50, "height": 37.5, "rectanglelabels": ["Dog"]}
    box |= {"original_width": 96, "original_height": 72}
    tasks = [{"image": "0.png", "id": 1, "choice": "Cat"}, {"image": "1.png", "label": [box]}]
    write(tmp_path / "map.csv", b"category,class\nCat,Feline\nDog,Canine\n")
    source = write(tmp_path / "a.json", json.dumps(tasks).encode())
    options = Options(pictures, mapping=tmp_path / "map.csv", margin=0)
    report = import_data(source, tmp_path / "data", options)
    assert report["classes"] == {"Canine": 1, "Feline": 1}
    assert is_cut(tmp_path / "data", "Canine/1_0.jpg", 1)


def test_cvat(tmp_path: Path, pictures: Path) -> None:
    text = """<?xml version="1.0"?><annotations><version>1.1</version>
    <image id="0" name="0.png" width="96" height="72"><tag label="Cat"/><tag label="Cat"/></image>
    <image id="1" name="1.png" width="96" height="72">
      <box label="Cat" xtl="24" ytl="9" xbr="72" ybr="36"/>
      <box label="Cat" xtl="24" ytl="9" xbr="72" ybr="36" rotation="30"/>
      <polygon label="Dog" points="24,9;72,9;40,36"/><mask label="Dog" rle="1"/>
      <box label="Dog" xtl="24"/></image></annotations>"""
    source = write(tmp_path / "a.xml", text.encode())
    report = import_data(source, tmp_path / "data", Options(pictures, margin=0))
    assert (report["kind"], report["classes"]) == ("cvat", {"Cat": 2, "Dog": 1})
    assert report["skipped"] == {
        "a box that is turned": 1,
        "its box is not four numbers": 1,
        "no box or polygon": 1,
    }
    assert is_cut(tmp_path / "data", "Cat/1_0.jpg", 1)
    assert is_cut(tmp_path / "data", "Dog/1_1.jpg", 1)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.json", "[]", "is a list of which no entry names an image"),
        ("a.json", "[3, null]", "is a list of which no entry names an image"),
        ("a.xml", "<annotations/>", "holds no image of CVAT"),
        ("a.xml", "<a", "is not XML"),
    ],
)
def test_what_is_no_export(tmp_path: Path, name: str, text: str, problem: str) -> None:
    source = write(tmp_path / name, text.encode())
    with pytest.raises(DataError) as caught:
        import_data(source, tmp_path / "data")
    assert caught.value.problem.startswith(f"{source} {problem}")
    assert not (tmp_path / "data").exists()
