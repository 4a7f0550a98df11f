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
from weighin.label_csv import Columns

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
        "an image without annotations": "task 15",
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


def tasks_of(folder: Path, *results: list[dict[str, Any]]) -> Path:
    tasks = [
        {"id": n, "data": {"image": f"{n}.png"}, "annotations": [{"result": found}]}
        for n, found in enumerate(results)
    ]
    return write(folder / "a.json", json.dumps(tasks).encode())


def of(field: str, result: dict[str, Any]) -> dict[str, Any]:
    return {**result, "from_name": field}


REGION = {"type": "choices", "value": {"x": 25, "y": 12.5, "width": 50, "height": 37.5}}
REGION |= {"original_width": 96, "original_height": 72}


@pytest.mark.parametrize(
    ("second", "listed", "classes"),
    [
        (choice("good"), "animal, other", {"Cat": 1, "Dog": 1}),
        (shape("rectanglelabels", "Wheel"), "animal, other", {"Cat": 1, "Dog": 1}),
        ({**REGION, "value": REGION["value"] | {"choices": ["wet"]}}, "animal, other", {"wet": 1}),
    ],
)
def test_two_fields_of_label_studio_are_not_mixed_up(
    tmp_path: Path,
    pictures: Path,
    second: dict[str, Any],
    listed: str,
    classes: dict[str, int],
) -> None:
    first = [of("animal", choice("Cat")), of("other", second)]
    source = tasks_of(tmp_path, first, [of("animal", choice("Dog"))])
    with pytest.raises(DataError) as caught:
        import_data(source, tmp_path / "data", Options(pictures))
    assert caught.value.problem == (
        f"{source}: the fields {listed} may each hold the classes (task 0)"
    )
    assert caught.value.fix == "name the one that does: --class-column animal"
    field = "other" if "wet" in classes else "animal"
    options = Options(pictures, Columns(label=field), margin=0)
    assert import_data(source, tmp_path / "data", options)["classes"] == classes
    if field == "other":  # the choice of a region is the class of its box
        assert is_cut(tmp_path / "data", "wet/0_0.jpg", 0)


def test_a_field_of_json_min_may_be_named(tmp_path: Path, pictures: Path) -> None:
    tasks = [{"image": f"{n}.png", "animal": "Cat", "quality": "good"} for n in range(2)]
    source = write(tmp_path / "a.json", json.dumps(tasks).encode())
    with pytest.raises(DataError, match="--class-column names the field of its classes"):
        import_data(source, tmp_path / "data", Options(pictures))
    options = Options(pictures, Columns(label="animal"))
    assert import_data(source, tmp_path / "data", options)["classes"] == {"Cat": 2}


def test_a_picture_that_was_turned_in_label_studio(tmp_path: Path, pictures: Path) -> None:
    boxes = [{**shape("rectanglelabels", "Cat"), "image_rotation": turn} for turn in (90, 0)]
    whole = {**choice("Dog"), "image_rotation": 90}
    source = tasks_of(tmp_path, boxes[:1], boxes[1:], [whole])
    report = import_data(source, tmp_path / "data", Options(pictures))
    assert report["classes"] == {"Cat": 1, "Dog": 1}
    assert report["such_as"] == {"a box of a picture that was turned in Label Studio": "task 0"}


def test_a_picture_of_two_classes_is_left_out(tmp_path: Path, pictures: Path) -> None:
    text = "".join(
        f'<image id="{n}" name="{n}.png" width="96" height="72">{tags}</image>'
        for n, tags in enumerate(('<tag label="Cat"/><tag label="Dog"/>', '<tag label="Cat"/>'))
    )
    source = write(tmp_path / "a.xml", f"<annotations>{text}</annotations>".encode())
    report = import_data(source, tmp_path / "data", Options(pictures))
    assert (report["classes"], report["such_as"]) == ({"Cat": 1}, {"several classes": "0.png"})


def subsets(folder: Path, inner: str, *names: str) -> Path:
    images = "".join(
        f'<image id="{n}" name="{n}.png" subset="{name}" width="96" height="72">{inner}</image>'
        for n, name in enumerate(names)
    )
    return write(folder / "a.xml", f"<annotations>{images}</annotations>".encode())


BOX = '<box label="Cat" xtl="24" ytl="9" xbr="72" ybr="36" outside="{}"/>'


def test_subsets_of_cvat_are_splits(tmp_path: Path, pictures: Path) -> None:
    source = subsets(tmp_path, '<tag label="Cat"/>', "Train", "Validation", "Test", "Train")
    report = import_data(source, tmp_path / "data", Options(pictures))
    assert (report["validation"], report["test"]) == (1, {"images": 1, "without_truth": 0})
    rows = (tmp_path / "data/train.csv").read_text().split()[1:]
    assert rows == ["Cat/0.png,Cat,,train", "Cat/1.png,Cat,,validation", "Cat/3.png,Cat,,train"]
    whole = Options(pictures, Columns(split="none"))
    report = import_data(source, tmp_path / "whole", whole)
    assert (report["images"], report["validation"]) == (4, 0)
    source = subsets(tmp_path, BOX.format(0), "Train", "Validation", "Test")
    report = import_data(source, tmp_path / "boxes", Options(pictures))
    assert (report["images"], report["validation"]) == (2, 1)
    assert report["such_as"] == {"a box of the test, which is of whole images": "2.png"}


def test_subsets_of_cvat_that_are_no_splits(tmp_path: Path, pictures: Path) -> None:
    plain = subsets(tmp_path, BOX.format(0), "default", "default")
    alone = "all images are of one class, Cat: prepare will refuse them; two are needed"
    assert import_data(plain, tmp_path / "data", Options(pictures))["notes"] == [alone]
    source = subsets(tmp_path, BOX.format(0), "Train", "Later")
    with pytest.raises(DataError) as caught:
        import_data(source, tmp_path / "data", Options(pictures))
    problem = f'the split of images in {source} says "Later" for 1 rows, which is no split'
    assert caught.value.problem == problem


def test_what_lies_outside_in_cvat_is_left_out(tmp_path: Path, pictures: Path) -> None:
    source = subsets(tmp_path, BOX.format(1) + BOX.format(0).replace("Cat", "Dog"), "")
    report = import_data(source, tmp_path / "data", Options(pictures))
    assert report["classes"] == {"Dog": 1}
    assert report["skipped"] == {"marked as outside of the picture": 1}


def test_cvat(tmp_path: Path, pictures: Path) -> None:
    text = """<?xml version="1.0"?><annotations><version>1.1</version>
    <image id="0" name="0.png" width="96" height="72"><tag label="Cat"/><tag label="Cat"/></image>
    <image id="1" name="1.png" width="96" height="72">
      <box label="Cat" xtl="24" ytl="9" xbr="72" ybr="36"/>
      <box label="Cat" xtl="24" ytl="9" xbr="72" ybr="36" rotation="30"/>
      <polygon label="Dog" points="24,9;72,9;40,36"/><mask label="Dog" rle="1"/>
      <box label="Dog" xtl="24"/></image><image name="2.png"/></annotations>"""
    source = write(tmp_path / "a.xml", text.encode())
    report = import_data(source, tmp_path / "data", Options(pictures, margin=0))
    assert (report["kind"], report["classes"]) == ("cvat", {"Cat": 2, "Dog": 1})
    assert report["skipped"] == {
        "a box that is turned": 1,
        "an image without annotations": 1,
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
        ("a.json", '{"_via_img_metadata": {}}', "is a project of VIA"),
        ("a.json", '{"a.jpg9": {"filename": "a.jpg", "regions": []}}', "is a project of VIA"),
        ("a.json", '{"shapes": [], "imagePath": "a.jpg"}', "is what LabelMe says of one image"),
        (
            "a.xml",
            "<annotation><filename>a.jpg</filename><object/></annotation>",
            "is what Pascal VOC says of one image",
        ),
        ("a.xml", "<annotations/>", "holds no image of CVAT"),
        ("a.xml", "<a", "is not XML"),
        ("a.xml", "<annotations><track/></annotations>", "holds the tracks of a video"),
    ],
)
def test_what_is_no_export(tmp_path: Path, name: str, text: str, problem: str) -> None:
    source = write(tmp_path / name, text.encode())
    with pytest.raises(DataError) as caught:
        import_data(source, tmp_path / "data")
    assert caught.value.problem.startswith(f"{source} {problem}")
    assert not (tmp_path / "data").exists()


def test_an_annotator_who_says_nothing_is_passed_over(tmp_path: Path, pictures: Path) -> None:
    said: list[Any] = [{"result": []}, {"result": [choice("Cat")]}, {"result": [choice("Cat")]}]
    task = {"id": 1, "data": {"image": "1.png"}, "annotations": said}
    source = write(tmp_path / "a.json", json.dumps([task]).encode())
    report = import_data(source, tmp_path / "data", Options(pictures))
    assert report["classes"] == {"Cat": 1}


def test_annotators_who_disagree(tmp_path: Path, pictures: Path) -> None:
    """The ground truth decides; where there is none, nothing is taken from the task."""
    cat, dog = {"result": [choice("Cat")]}, {"result": [choice("Dog")]}
    box = [
        {"result": [shape("rectanglelabels", label, x=x)]} for label, x in (("Cat", 1), ("Dog", 2))
    ]
    moved = [{"result": [shape("rectanglelabels", "Dog", x=x)]} for x in (25, 26)]
    said: list[list[dict[str, Any]]] = [
        [cat, dog],
        [cat, {**dog, "ground_truth": True}],
        [{**cat, "ground_truth": True}, {**dog, "ground_truth": True}],
        [cat, {**dog, "ground_truth": True, "was_cancelled": True}],
        box,
        moved,
    ]
    tasks = [
        {"id": n, "data": {"image": f"{n}.png"}, "annotations": given}
        for n, given in enumerate(said)
    ]
    source = write(tmp_path / "a.json", json.dumps(tasks).encode())
    report = import_data(source, tmp_path / "data", Options(pictures, margin=0))
    assert report["classes"] == {"Cat": 1, "Dog": 2}
    assert report["skipped"] == {"several classes": 3}
    assert report["such_as"] == {"several classes": "task 0"}
    assert is_cut(tmp_path / "data", "Dog/5_0.jpg", 5)
