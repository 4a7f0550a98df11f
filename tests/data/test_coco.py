"""COCO files as tools and people leave them: an odd entry is left out and counted, not the file."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from photos import encoded, photo, write
from PIL import Image, ImageOps

from weighin.data.coco import box_of, read_coco, read_json, turned_box
from weighin.data.importing import Options, import_data
from weighin.errors import DataError

Facts = dict[str, Any]
Change = Callable[[Facts], object]


def sound() -> Facts:
    """Return twelve images of two classes, each with a box."""
    return {
        "images": [
            {"id": n, "file_name": f"{'ab'[n % 2]}/{n}.jpg", "width": 96, "height": 72}
            for n in range(12)
        ],
        "annotations": [
            {"id": n, "image_id": n, "category_id": n % 2, "bbox": [4, 4, 40, 30]}
            for n in range(12)
        ],
        "categories": [{"id": 0, "name": "Cat"}, {"id": 1, "name": "Dog"}],
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("pictures")
    for item in sound()["images"]:
        write(folder / item["file_name"], encoded(photo(item["id"])))
    return folder


def changed(path: Path, change: Change) -> Path:
    facts = copy.deepcopy(sound())
    change(facts)
    return write(path, json.dumps(facts).encode())


NUMBERS = "its box is not four numbers"


@pytest.mark.parametrize(
    ("change", "left_out"),
    [
        (lambda f: f["images"][3].update(height=None, width=None), {}),
        (lambda f: f["images"][3].update(height="72", width="96.0"), {}),
        (lambda f: f["images"][3].update(height="tall", width=-1), {}),
        (lambda f: [i.pop("width") for i in f["images"]], {}),
        (lambda f: f["annotations"][3].update(bbox=["4", "4", "40", 30.0]), {}),
        (lambda f: f["annotations"][3].update(bbox=[None, 4, 40, 30]), {NUMBERS: "annotation 3"}),
        (lambda f: f["annotations"][3].update(bbox=[4, 40, 30]), {NUMBERS: "annotation 3"}),
        (lambda f: f["annotations"][3].update(bbox="[4, 4, 40]"), {NUMBERS: "annotation 3"}),
        (lambda f: f["annotations"][3].update(bbox={"x": 4}), {NUMBERS: "annotation 3"}),
        (
            lambda f: f["annotations"][3].update(bbox=[None], segmentation=[[4, 4, 44, 4, 44, 34]]),
            {},
        ),
        (
            lambda f: f["annotations"][3].update(bbox=[], segmentation=[4, 4, 44, 4, 44, 34]),
            {},
        ),
        (
            lambda f: f["annotations"][3].update(bbox=[4, 4, 0, 30]),
            {"no box with an area": "annotation 3"},
        ),
        (
            lambda f: f["annotations"][3].update(bbox=[], segmentation=[[]]),
            {"no box with an area": "annotation 3"},
        ),
        (
            lambda f: f["annotations"][3].update(bbox=None, segmentation={"counts": "a"}),
            {"a run-length mask without a box": "annotation 3"},
        ),
        (lambda f: f["annotations"][3].update(segmentation={"counts": "a"}), {}),
        (
            lambda f: f["annotations"][3].update(iscrowd=1),
            {"a crowd, not an object": "annotation 3"},
        ),
        (lambda f: [a.update(iscrowd=None) for a in f["annotations"]], {}),
        (
            lambda f: f["annotations"][3].pop("category_id"),
            {"its category has no class": "annotation 3"},
        ),
        (
            lambda f: f["annotations"][3].update(category_id=77),
            {"its category has no class": "annotation 3 of category 77"},
        ),
        (
            lambda f: f["annotations"][3].update(category_id=[1]),
            {"its category has no class": "annotation 3"},
        ),
        (
            lambda f: f["annotations"][3].pop("image_id"),
            {
                "its image is not listed": "annotation 3",
                "an image without annotations": "b/3.jpg",
            },
        ),
        (
            lambda f: f["annotations"].append(None),
            {"an annotation that is no object": "annotation number 12"},
        ),
        (lambda f: [a.pop("id") for a in f["annotations"]], {}),
        (lambda f: [a.update(id=7) for a in f["annotations"]], {}),
        (lambda f: [a.update(image_id=str(a["image_id"])) for a in f["annotations"]], {}),
        (lambda f: [i.update(id=float(i["id"])) for i in f["images"]], {}),
        (lambda f: [c.update(id=str(c["id"])) for c in f["categories"]], {}),
        (lambda f: f["categories"].append({"id": 3}), {"category without name": "category 3"}),
        (
            lambda f: f["categories"].append({"name": "x"}),
            {"category without id": "category number 2"},
        ),
        (lambda f: f["categories"].append(f["categories"][0]), {}),
        (lambda f: f["images"].append({"id": 99}), {"image without file name": "image 99"}),
        (lambda f: f["images"].append(3), {"image without id": "image number 12"}),
        (lambda f: f["images"].append(dict(f["images"][0])), {}),
        (lambda f: f.update(info=None, licenses=3), {}),
    ],
)
def test_one_odd_entry(
    tmp_path: Path, pictures: Path, change: Change, left_out: dict[str, str]
) -> None:
    path = changed(tmp_path / "a.json", change)
    report = import_data(path, tmp_path / "data", Options(pictures))
    lost = sum(
        entry.startswith("annotation") and "number" not in entry for entry in left_out.values()
    )
    assert report["such_as"] == left_out
    assert report["skipped"] == dict.fromkeys(left_out, 1)
    assert (report["images"], report["classes"]["Cat"]) == (12 - lost, 6)


@pytest.mark.parametrize(
    ("change", "culprits"),
    [
        (
            lambda f: f["images"].append({"id": 3, "file_name": "a/0.jpg"}),
            ("image id 3", "b/3.jpg", "a/0.jpg"),
        ),
        (
            lambda f: f["images"].append({"id": "3", "file_name": "a/0.jpg"}),
            ("image id 3", "b/3.jpg", "a/0.jpg"),
        ),
        (
            lambda f: f["categories"].append({"id": 1.0, "name": "Cow"}),
            ("category id 1", "Dog", "Cow"),
        ),
    ],
)
def test_an_id_of_two_things_is_refused(
    tmp_path: Path, pictures: Path, change: Change, culprits: tuple[str, ...]
) -> None:
    path = changed(tmp_path / "a.json", change)
    with pytest.raises(DataError) as caught:
        import_data(path, tmp_path / "data", Options(pictures))
    assert all(culprit in caught.value.problem for culprit in (str(path), *culprits))
    assert not (tmp_path / "data").exists()


def test_any_encoding_of_json(tmp_path: Path) -> None:
    names = [{"id": 0, "name": "고양이"}, {"id": 1, "name": "x"}]
    text = json.dumps(sound() | {"categories": names}, ensure_ascii=False)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        path = write(tmp_path / "a.json", text.encode(encoding))
        found = read_coco(path, read_json(path)).crops.values()
        assert {crop.label for crops in found for crop in crops} == {"고양이", "x"}


# --- annotations of whole images


@pytest.mark.parametrize(
    "empty",
    [
        {},
        {"bbox": None, "segmentation": None},
        {"bbox": [], "segmentation": [], "area": 0},
        {"bbox": [0, 0, 0, 0], "segmentation": []},
    ],
)
def test_a_file_without_boxes_labels_whole_images(
    tmp_path: Path, pictures: Path, empty: Facts
) -> None:
    def without(facts: Facts) -> None:
        facts["annotations"] = [
            {"id": a["id"], "image_id": a["image_id"], "category_id": a["category_id"], **empty}
            for a in facts["annotations"]
        ]

    report = import_data(changed(tmp_path / "a.json", without), tmp_path / "d", Options(pictures))
    assert (report["classes"], report["skipped"]) == ({"Cat": 6, "Dog": 6}, {})
    for path in (tmp_path / "d/train").rglob("*.jpg"):
        number = int(path.stem)
        assert path.read_bytes() == (pictures / f"{'ab'[number % 2]}/{number}.jpg").read_bytes()


def test_whole_images_among_boxes(tmp_path: Path, pictures: Path) -> None:
    def some(facts: Facts) -> None:
        facts["annotations"][3].pop("bbox")
        facts["annotations"].append({"id": 50, "image_id": 3, "category_id": 1})  # said twice
        facts["annotations"].append({"id": 51, "image_id": 5, "category_id": 0})  # another class

    report = import_data(changed(tmp_path / "a.json", some), tmp_path / "d", Options(pictures))
    assert report["classes"] == {"Cat": 7, "Dog": 6}
    assert (tmp_path / "d/train/Dog/3.jpg").read_bytes() == (pictures / "b/3.jpg").read_bytes()
    assert (tmp_path / "d/train/Cat/5.jpg").read_bytes() == (pictures / "b/5.jpg").read_bytes()


def test_an_image_and_its_boxes_are_one_group(tmp_path: Path, pictures: Path) -> None:
    def both(facts: Facts) -> None:
        facts["annotations"].append({"id": 51, "image_id": 5, "category_id": 0})

    import_data(changed(tmp_path / "a.json", both), tmp_path / "d", Options(pictures))
    rows = [line.split(",") for line in (tmp_path / "d/train.csv").read_text().splitlines()]
    assert [row for row in rows if "/5" in row[0]] == [
        ["Cat/5.jpg", "Cat", "b/5.jpg"],
        ["Dog/5_5.jpg", "Dog", "b/5.jpg"],
    ]


def test_an_image_of_two_classes_is_left_out(tmp_path: Path, pictures: Path) -> None:
    def two(facts: Facts) -> None:
        for item in facts["annotations"]:
            item.pop("bbox")
        facts["annotations"].append({"id": 50, "image_id": 3, "category_id": 0})
        facts["images"].append({"id": 99, "file_name": "b/5.jpg"})
        facts["annotations"].append({"id": 51, "image_id": 99, "category_id": 0})

    report = import_data(changed(tmp_path / "a.json", two), tmp_path / "d", Options(pictures))
    assert (report["classes"], report["skipped"]) == ({"Cat": 6, "Dog": 4}, {"several classes": 2})
    assert report["such_as"] == {"several classes": "b/3.jpg"}


def test_splits_of_images(tmp_path: Path, pictures: Path) -> None:
    def split(facts: Facts) -> None:
        for item in facts["images"]:
            item["split"] = "val" if item["id"] > 7 else "train"

    report = import_data(changed(tmp_path / "a.json", split), tmp_path / "d", Options(pictures))
    assert (report["images"], report["validation"]) == (12, 4)


def test_boxes_of_two_corners_are_refused(tmp_path: Path, pictures: Path) -> None:
    def corners(facts: Facts) -> None:
        for number, item in enumerate(facts["annotations"]):
            item["bbox"] = [number, 4, 60 + number, 71] if number else [0, 0, 96, 72]

    path = changed(tmp_path / "a.json", corners)
    with pytest.raises(DataError) as caught:
        import_data(path, tmp_path / "d", Options(pictures))
    assert caught.value.problem == (
        f"{path}: 11 of 12 boxes reach out of their pictures, as where they are left, top, right, "
        "bottom; COCO's are left, top, width, height"
    )
    assert caught.value.fix.startswith("subtract left from the third number")


def test_few_corners_far_out_are_corners_too(tmp_path: Path, pictures: Path) -> None:
    """Small objects: most of their corners would do as boxes. One that slips does not."""

    def one(*box: int) -> Path:
        def corners(facts: Facts) -> None:
            for item in facts["annotations"]:
                item["bbox"] = [8, 6, 30, 24]
            facts["annotations"][5]["bbox"] = list(box)

        return changed(tmp_path / "a.json", corners)

    with pytest.raises(DataError) as caught:
        import_data(one(50, 40, 76, 60), tmp_path / "d", Options(pictures))
    assert "1 of 12 boxes reach out of their pictures" in caught.value.problem
    assert caught.value.fix.startswith("subtract left from the third number")
    slip = (50, 40, 66, 50)  # 20 of 96 pixels out
    assert import_data(one(*slip), tmp_path / "d", Options(pictures))["images"] == 12
    box = (50, 40, 45, 60)  # no corner: it would be left of the other
    assert import_data(one(*box), tmp_path / "e", Options(pictures))["images"] == 12


def test_shares_of_a_picture_from_a_center_are_refused(tmp_path: Path, pictures: Path) -> None:
    def shares(facts: Facts) -> None:
        for item in facts["annotations"]:
            item["bbox"] = [0.8, 0.5, 0.4, 0.25]  # from 0.6 to 1: as left and width, to 1.2

    path = changed(tmp_path / "a.json", shares)
    with pytest.raises(DataError) as caught:
        import_data(path, tmp_path / "d", Options(pictures))
    assert caught.value.problem.startswith(f"{path}: all boxes lie between 0 and 1")
    assert "first subtract half of width and height" in caught.value.fix


def test_groups_are_images_or_a_key_of_theirs(tmp_path: Path, pictures: Path) -> None:
    def located(facts: Facts) -> None:
        for item in facts["images"]:
            item["location"] = item["id"] // 4

    path = changed(tmp_path / "a.json", located)
    crops = read_coco(path, read_json(path)).crops
    assert {name: crop.group for name, (crop,) in crops.items()} == {name: name for name in crops}
    crops = read_coco(path, read_json(path), None, "location").crops
    assert {crop.group for (crop,) in crops.values()} == {"0", "1", "2"}


def test_a_missing_group_is_that_of_the_picture(tmp_path: Path, pictures: Path) -> None:
    def located(facts: Facts) -> None:
        for item in facts["images"]:
            item["location"] = "NA" if item["id"] else None

    path = changed(tmp_path / "a.json", located)
    crops = read_coco(path, read_json(path), None, "location").crops
    assert {name: crop.group for name, (crop,) in crops.items()} == {name: name for name in crops}


def test_boxes_of_an_item() -> None:
    assert box_of({"bbox": [1, 2, 3, 4]}) == ((1, 2, 4, 6), "")
    assert box_of({"segmentation": [[1, 2, 5, 2, 5, 9], [0, 3, 2, 3, 2, 4]]}) == ((0, 2, 5, 9), "")
    assert box_of({"segmentation": [1, 2, 5, 2, 5, 9, 7]}) == ((1, 2, 5, 9), "")
    assert box_of({}) == (None, "")
    assert box_of({"bbox": [1, 2, float("inf"), 4]}) == (None, "no box with an area")


# --- pictures with an EXIF orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_turns_with_its_picture(orientation: int) -> None:
    """The pixels in the turned box of the upright picture are those in the stored one."""
    stored = np.zeros((30, 50), np.uint8)
    box = (4, 7, 21, 12)
    stored[7:12, 4:21] = 255
    image = Image.fromarray(stored)
    exif = image.getexif()
    exif[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(image))
    left, top, right, bottom = map(int, turned_box(box, (30, 50), orientation))
    assert (upright[top:bottom, left:right] == 255).all()
    assert int((upright == 255).sum()) == (right - left) * (bottom - top) == 17 * 5


def turned_set(
    folder: Path, orientations: list[int], told: Callable[[int], Facts], kind: str = "PNG"
) -> Path:
    """Write pictures whose object lies top left as stored; `told` gives each one's entry."""
    images, annotations = [], []
    for number, orientation in enumerate(orientations):
        pixels = np.zeros((48, 64, 3), np.uint8)
        pixels[4:14, 6:26] = 255
        exif = Image.Exif()
        exif[0x0112] = orientation
        name = f"{number}.{kind.lower()}"
        write(folder / name, encoded(Image.fromarray(pixels), kind, exif=exif))
        entry = told(orientation)
        box = entry.pop("bbox")
        images.append({"id": number, "file_name": name, **entry})
        annotations.append({"id": 0, "image_id": number, "category_id": number % 2, "bbox": box})
    facts = {"images": images, "annotations": annotations, "categories": sound()["categories"]}
    return write(folder / "a.json", json.dumps(facts).encode())


def stored(orientation: int) -> Facts:
    return {"height": 48, "width": 64, "bbox": [6, 4, 20, 10]}


def upright(orientation: int) -> Facts:
    left, top, right, bottom = turned_box((6, 4, 26, 14), (48, 64), orientation)
    tall, wide = (64, 48) if orientation >= 5 else (48, 64)
    return {"height": tall, "width": wide, "bbox": [left, top, right - left, bottom - top]}


def cut_right(data: Path) -> list[bool]:
    """Return for each crop, by number, whether it is the object and nothing else."""
    files = sorted((data / "train").rglob("*.jpg"), key=lambda path: int(path.stem.split("_")[0]))
    pixels = [np.asarray(Image.open(path)) for path in files]
    return [p.min() > 200 and p.size == 20 * 10 * 3 for p in pixels]


@pytest.mark.parametrize("form", ["PNG", "TIFF"])  # of a TIFF Pillow tells the upright size
@pytest.mark.parametrize(("told", "kind"), [(stored, "stored"), (upright, "upright")])
def test_a_quarter_turn_tells_which_pixels_boxes_were_drawn_on(
    tmp_path: Path, told: Callable[[int], Facts], kind: str, form: str
) -> None:
    path = turned_set(tmp_path / "set", [1, 2, 3, 4, 5, 6, 7, 8], told, form)
    report = import_data(path, tmp_path / "data", Options(margin=0))
    assert cut_right(tmp_path / "data") == [True] * 8
    assert report["skipped"] == {}
    assert report["notes"] == [
        "7 pictures have an EXIF orientation; their boxes are taken as drawn on the "
        + {"stored": "stored pixels", "upright": "upright pictures"}[kind]
    ]


def test_half_turns_alone_tell_nothing_and_that_is_said(tmp_path: Path) -> None:
    path = turned_set(tmp_path / "set", [1, 3, 3, 1], stored)
    report = import_data(path, tmp_path / "data", Options(margin=0))
    assert cut_right(tmp_path / "data") == [True, False, False, True]
    assert "--boxes" in report["notes"][0]
    report = import_data(path, tmp_path / "data", Options(margin=0, boxes="stored"))
    assert cut_right(tmp_path / "data") == [True] * 4


def test_stored_sizes_that_are_not_told(tmp_path: Path) -> None:
    path = turned_set(tmp_path / "set", [1, 6, 8, 3], lambda _: {"bbox": [6, 4, 20, 10]})
    import_data(path, tmp_path / "data", Options(margin=0, boxes="stored"))
    assert cut_right(tmp_path / "data") == [True] * 4


@pytest.mark.parametrize(("size", "orientation"), [((9248, 6936), 1), ((16320, 12288), 6)])
@pytest.mark.parametrize("known", [True, False])
def test_boxes_of_pictures_that_are_decoded_at_a_half(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    size: tuple[int, int],
    orientation: int,
    known: bool,
) -> None:
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[2000:3000, 1000:3000] = 255
    body = simplejpeg.encode_jpeg(pixels, 80)
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        block = exif.tobytes()
        body = body[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + body[2:]
    for name in "ab":
        write(tmp_path / f"p/{name}.jpg", body)
    facts = sound() | {
        "images": [{"id": n, "file_name": f"{'ab'[n]}.jpg"} for n in (0, 1)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": n, "bbox": [1000, 2000, 2000, 1000]}
            for n in (0, 1)
        ],
    }
    for item in facts["images"] if known else []:
        item.update(width=width, height=height)
    path = write(tmp_path / "a.json", json.dumps(facts).encode())
    boxes: Any = None if orientation == 1 else "stored"
    import_data(path, tmp_path / "d", Options(tmp_path / "p", margin=0, boxes=boxes))
    crops = [np.asarray(Image.open(file)) for file in (tmp_path / "d/train").rglob("*.jpg")]
    wanted = (500, 1000) if orientation == 1 else (1000, 500)
    assert [crop.shape[:2] for crop in crops] == [wanted] * 2
    assert all(crop.min() > 200 for crop in crops)
    assert "Warning" not in capsys.readouterr().err


@pytest.mark.parametrize("size", [(96, 96), (72, 96)])  # width and height; the pictures' is 96 x 72
def test_boxes_of_pictures_of_another_shape_are_told(
    tmp_path: Path, pictures: Path, size: tuple[int, int]
) -> None:
    def reshape(facts: Facts) -> None:
        for item in facts["images"]:
            item.update(width=size[0], height=size[1])

    source = changed(tmp_path / "a.json", reshape)
    with pytest.raises(DataError) as caught:
        import_data(source, tmp_path / "d", Options(pictures))
    assert caught.value.problem == (
        f"none of the 12 images that {source} annotates can be used, such as a/0.jpg in "
        f"{pictures}; annotations of a class: 12, Cat 6, Dog 6; "
        "12 left out: its box does not fit its image; "
        f"a/0.jpg was annotated as {size[0]} x {size[1]} pixels (width x height)"
    )
    assert "whose sizes are these pictures'" in caught.value.fix


def test_pictures_that_are_not_there_and_such_that_are_broken(tmp_path: Path) -> None:
    source = changed(tmp_path / "a.json", lambda facts: None)
    write(tmp_path / "empty/x.txt", b"x")
    with pytest.raises(DataError) as caught:
        import_data(source, tmp_path / "d", Options(tmp_path / "empty"))
    assert caught.value.fix == "name the folder of the images with --images"
    for item in sound()["images"]:
        write(tmp_path / "broken" / item["file_name"], b"nothing")
    with pytest.raises(DataError, match="12 left out: its image is unreadable") as caught:
        import_data(source, tmp_path / "d", Options(tmp_path / "broken"))
    assert "make these pictures readable" in caught.value.fix


def test_boxes_that_are_turned_are_left_out(tmp_path: Path, pictures: Path) -> None:
    def turn(facts: Facts) -> None:
        for item, angle in zip(facts["annotations"], [0.0, 360, None, "x", 45.5], strict=False):
            item["attributes"] = {"occluded": False, "rotation": angle}
        facts["annotations"][5]["attributes"] = "rotation"
        mask = [[4, 4, 40, 4, 40, 30]]  # is turned itself
        facts["annotations"][6].update(attributes={"rotation": 30}, segmentation=mask)

    report = import_data(changed(tmp_path / "a.json", turn), tmp_path / "d", Options(pictures))
    assert (report["images"], report["skipped"]) == (11, {"a box that is turned": 1})
    assert report["such_as"] == {"a box that is turned": "annotation 4"}


def test_boxes_of_augmented_copies_are_one_group(tmp_path: Path) -> None:
    names = [f"x_jpg.rf.{letter * 32}.jpg" for letter in "ab"]

    def rename(facts: Facts) -> None:
        for item, name in zip(facts["images"], names, strict=False):
            item["file_name"] = name
        facts["annotations"].append({**facts["annotations"][0], "id": 50, "bbox": [9, 9, 40, 30]})

    source = changed(tmp_path / "a.json", rename)
    for item in json.loads(source.read_text())["images"]:
        write(tmp_path / "set" / item["file_name"], encoded(photo(item["id"])))
    report = import_data(source, tmp_path / "d", Options(tmp_path / "set"))
    lines = (tmp_path / "d/train.csv").read_text().splitlines()
    assert [line.split(",")[2] for line in lines if ".rf." in line] == ["x_jpg.jpg"] * 3
    assert any(note.startswith("2 images are copies of 1 ") for note in report["notes"])
