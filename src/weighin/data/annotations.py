"""What annotation files ask for; and what tools export: Label Studio's JSON and CVAT's XML.

Formats: https://labelstud.io/guide/export (JSON and JSON-MIN) and "for images" of
https://docs.cvat.ai/docs/manual/advanced/xml_format. Both are read as a COCO file is (coco.py):
classes of whole images, boxes, and polygons as their boxes. What tools and people leave odd in an
entry leaves out that entry, counted by reason, and not the file.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from weighin.errors import DataError
from weighin.file_names import IMAGE_SUFFIXES, TEST, TRAIN, VALIDATION
from weighin.images import Size
from weighin.label_csv import split_of
from weighin.text_table import CLASSES, column_key, read_table

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
BARE = "an image without annotations"
SHAPES = ("rectanglelabels", "polygonlabels")
# (class, box or None for the whole image, annotated size) or why an annotation is left out
Found = tuple[str, Box | None, Size] | str


@dataclass(frozen=True)
class Crop:
    """One annotated object; without a box it is the whole image."""

    annotation: str
    label: str
    box: Box | None
    size: Size  # annotated (H, W) of its image; 0 where it is not known
    group: str = ""
    split: str = ""  # train, validation or test; empty where the file does not say


@dataclass(kw_only=True)
class LeftOut:
    """What of a data set is left out."""

    skipped: Counter[str] = field(default_factory=Counter)  # reason: images, rows or annotations
    such_as: dict[str, str] = field(default_factory=dict)  # reason: the first one

    def skip(self, reason: str, name: str, count: int = 1) -> None:
        """Count what is left out."""
        self.skipped[reason] += count
        self.such_as.setdefault(reason, name)


@dataclass
class Coco(LeftOut):
    """What an annotation file asks for, COCO or another."""

    crops: dict[str, list[Crop]] = field(default_factory=dict)  # file name: its crops
    splits: dict[str, str] = field(default_factory=dict)  # file name: what the file calls its split

    def settle(self) -> None:
        """Leave out images that are of several classes as a whole; tie an image to its boxes."""
        for name, crops in self.crops.items():
            boxes = [crop for crop in crops if crop.box]
            whole = [crop for crop in crops if not crop.box]
            if len({crop.label for crop in whole}) > 1:
                self.skip("several classes", name)
                whole = []
            if boxes:
                whole = [replace(crop, group=boxes[0].group) for crop in whole]
            self.crops[name] = whole + boxes
        self.crops = {name: crops for name, crops in self.crops.items() if crops}

    def take_splits(self) -> tuple[Counter[str], set[str]]:
        """Give crops the splits that the file names; return words that name none, and the splits.

        The boxes of test images are left out: a test is of whole images.
        """
        said = {name: self.splits.get(name, "") for name in self.crops}
        splits = {name: split_of(word) for name, word in said.items()}
        unknown = Counter(word for name, word in said.items() if word and not splits[name])
        for name, crops in self.crops.items():
            split = splits[name]
            if split == TEST and any(crop.box for crop in crops):
                self.skip("a box of the test, which is of whole images", name, len(crops))
                crops = []
            if split != TEST and VALIDATION in splits.values():
                split = split or TRAIN
            self.crops[name] = [replace(crop, split=split) for crop in crops]
        self.crops = {name: crops for name, crops in self.crops.items() if crops}
        return unknown, {*splits.values()}

    def words(self, with_skipped: bool = True) -> str:
        """Return what the file asks for in a line, and what of it is left out."""
        labels = Counter(crop.label for crops in self.crops.values() for crop in crops)
        listed = "".join(f", {label} {count:,}" for label, count in sorted(labels.items()))
        left = left_out(self.skipped) if with_skipped else ""
        return f"annotations of a class: {labels.total():,}{listed}{left}"


def left_out(skipped: Mapping[str, int]) -> str:
    """Return the reasons why entries were left out, and how many, to go on a sentence with."""
    return "".join(f"; {many:,} left out: {why}" for why, many in sorted(skipped.items()))


def read_mapping(path: Path, categories: dict[str, str]) -> dict[str, str]:
    """Return {category id: class}; the CSV's columns are guessed by what they hold.

    The category column is the one with most of the file's category names in it, else most of
    their ids; of the others the class column is the one that is called class, label or the like,
    the likeliest of these names first, as it is where two columns hold categories alike.
    """
    table = read_table(path, header=True)
    rows, header = table.records(), table.header
    by_name = {name: key for key, name in categories.items()}
    by_id = {key: key for key in categories}
    likely = [(CLASSES.index(key), n) for n in header if (key := column_key(n)) in CLASSES]
    choices = [
        (len({row[title] for row in rows} & known.keys()), known, title, target)
        for known in (by_name, by_id)
        for _, target in sorted(likely)
        for title in header
        if title != target
    ]
    none: tuple[int, dict[str, str], str, str] = (0, {}, "", "")
    hits, known, source, target = max(choices, key=lambda choice: choice[0], default=none)
    if hits == 0:
        raise DataError(
            f"{path} maps no category to a class; its columns are {', '.join(header)}",
            "give it the columns category,class with these categories",
        )
    mapped: dict[str, str] = {}
    for row in rows:
        name, label = row[source], row[target]
        if name in known and mapped.setdefault(known[name], label) != label:
            problem = f"{path} maps {name} to {mapped[known[name]]} and to {label}"
            raise DataError(problem, "remove the wrong line")
    return mapped


# --- the exports of tools


def read_label_studio(
    path: Path, tasks: list[Any], mapping: Path | None = None, named_field: str | None = None
) -> Coco:
    """Return what a Label Studio export asks for.

    Of several annotations of a task the ground truth is taken, else the first that says anything;
    a task is left out if others of these name other classes.

    `named_field` is the field (`from_name`) that holds the classes, where there are several.

    Raises:
        DataError: no task of it names an image, or several fields may hold the classes.
    """
    coco = Coco()
    named = 0
    fields: Counter[str] = Counter()  # of choices
    for number, task in enumerate(tasks):
        entry = f"task {task.get('id', number) if isinstance(task, dict) else number}"
        data = task.get("data", task) if isinstance(task, dict) else {}
        image = _image_of(data) if isinstance(data, dict) else ""
        if not image:
            coco.skip("a task without an image", entry)
            continue
        named += 1
        given = (
            [result for result in results if named_field in (None, _field(result))]
            for results in _annotations(task, named_field)
        )
        said = [results for results in given if results]
        results = said[0] if said else []
        fields.update({_field(r) for r in results if r.get("type") == "choices"})
        own = {(r.get("type") == "choices", _field(r)) for r in results if _gives_class(r)}
        if len(fields) > 1 or len({of for of, _ in own}) > 1 < len({name for _, name in own}):
            listed = sorted({*fields, *(name for _, name in own)})
            raise DataError(
                f"{path}: the fields {', '.join(listed)} may each hold the classes ({entry})",
                f"name the one that does: --class-column {listed[0]}",
            )
        if not results:
            coco.skip(BARE, entry)
        if len({_classes(one) for one in said} - {frozenset()}) > 1:
            coco.skip("several classes", entry)
            continue
        for result in results:
            _add(coco, image, entry, _label_studio(result))
    if not named:
        fix = "export it from Label Studio as JSON, or give a COCO file"
        raise DataError(f"{path} is a list of which no entry names an image", fix)
    return _mapped(coco, mapping)


def read_cvat(path: Path, mapping: Path | None = None) -> Coco:
    """Return what a CVAT export "for images" asks for.

    Raises:
        DataError: it is not XML, or holds no image.
    """
    fix = 'export it from CVAT as "CVAT for images 1.1" or as COCO'
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, LookupError) as error:
        raise DataError(f"{path} is not XML: {error}", fix) from None
    if root.tag == "annotation" and root.find("object") is not None:
        other = "make one COCO file of all of them, as voc2coco does"
        raise DataError(f"{path} is what Pascal VOC says of one image", other)
    images = root.findall("image")
    if not images and root.find("track") is not None:
        raise DataError(f"{path} holds the tracks of a video", fix)
    if not images:
        raise DataError(f"{path} holds no image of CVAT", fix)
    coco = Coco()
    for image in images:
        name, size = image.get("name", ""), (_side(image, "height"), _side(image, "width"))
        coco.splits[name] = image.get("subset", "").replace("default", "")
        if not len(image):
            coco.skip(BARE, name)
        for number, shape in enumerate(image):
            _add(coco, name, f"{shape.tag} {number} of {name}", _cvat(shape, size))
    return _mapped(coco, mapping)


def _add(coco: Coco, image: str, entry: str, found: Found) -> None:
    if isinstance(found, str):
        coco.skip(found, entry)
        return
    crops = coco.crops.setdefault(image, [])
    label, box, size = found
    if box or not any(crop.box is None and crop.label == label for crop in crops):
        crops.append(Crop(str(len(crops)), label, box, size, image if box else ""))


def _mapped(coco: Coco, mapping: Path | None) -> Coco:
    labels = {crop.label for crops in coco.crops.values() for crop in crops}
    words = read_mapping(mapping, {label: label for label in labels}) if mapping else None
    crops, coco.crops = coco.crops, {}
    for name in sorted(crops):
        for crop in crops[name]:
            label = crop.label if words is None else words.get(crop.label, "")
            entry = f'annotation {crop.annotation} of {name}, "{crop.label}"'
            own = (label, crop.box, crop.size) if label else "its category has no class"
            _add(coco, name, entry, own)
    return coco


def _image_of(data: dict[str, Any]) -> str:
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    named = [texts[key] for key in ("image", "img", "photo", "picture") if key in texts]
    named += [text for text in texts.values() if text.lower().endswith(IMAGE_SUFFIXES)]
    return named[0] if named else ""


def _field(result: dict[str, Any]) -> str:
    return str(result.get("from_name", ""))


def _gives_class(result: dict[str, Any]) -> bool:
    return str(result.get("type")) in ("choices", *SHAPES)


def _classes(results: list[dict[str, Any]]) -> frozenset[str]:
    """Return what an annotation names: each class, with the field that it stands in."""
    values = [(r, r.get("value")) for r in results if _gives_class(r)]
    return frozenset(
        f"{_field(r)}: {value.get(r['type'])}" for r, value in values if isinstance(value, dict)
    )


def _annotations(task: dict[str, Any], choice: str | None) -> list[list[dict[str, Any]]]:
    """Return the results of each annotation of a task, or of those that are its ground truth.

    A result has its kind under `type` and its facts under `value`. `choice` is the field of choices
    in JSON-MIN, which tells them from other texts by no sign.
    """
    if "data" not in task:
        return [[*_of_json_min(task, choice or "choice")]]
    given = task.get("annotations") or task.get("completions")
    given = [a for a in given if isinstance(a, dict)] if isinstance(given, list) else []
    given = [a for a in given if not a.get("was_cancelled") and isinstance(a.get("result"), list)]
    truth = [a for a in given if a.get("ground_truth") and a["result"]]
    return [[r for r in a["result"] if isinstance(r, dict)] for a in truth or given]


def _of_json_min(task: dict[str, Any], choice: str) -> Iterator[dict[str, Any]]:
    for name, value in task.items():  # a choice by itself, shapes in a list
        for shape in value if isinstance(value, list) else ():
            if not isinstance(shape, dict):
                continue
            kind = next((key for key in shape if str(key).endswith("labels")), "")
            yield {**shape, "type": kind, "value": shape, "from_name": name}
    if isinstance(own := task.get(choice), str | dict):
        choices = [own] if isinstance(own, str) else own.get("choices")
        yield {"type": "choices", "value": {"choices": choices}, "from_name": choice}


def _label_studio(result: dict[str, Any]) -> Found:
    kind, value = str(result.get("type")), result.get("value")
    labels = value.get(kind) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(labels, list) or not labels:
        return "no class"
    if len(labels) > 1:
        return "several classes"
    if kind == "choices" and not value.keys() & {"x", "points"}:  # else of a region
        return str(labels[0]), None, (0, 0)

    def corners() -> tuple[Box, Size]:
        tall, wide = (int(result[f"original_{side}"]) for side in ("height", "width"))
        if "points" in value:
            xs, ys = zip(*((float(x), float(y)) for x, y in value["points"]), strict=True)
            box = min(xs), min(ys), max(xs), max(ys)
        else:
            x, y, w, h = (float(value[side]) for side in ("x", "y", "width", "height"))
            box = x, y, x + w, y + h
        across, down = wide / 100, tall / 100  # from percent
        left, top, right, bottom = box
        return (left * across, top * down, right * across, bottom * down), (tall, wide)

    if not _gives_class(result):
        return "no box or polygon"
    if result.get("image_rotation"):
        return "a box of a picture that was turned in Label Studio"
    return _placed(str(labels[0]), value.get("rotation"), corners)


def _cvat(shape: ElementTree.Element, size: Size) -> Found:
    label = shape.get("label", "")
    if not label:
        return "no class"
    if shape.get("outside") == "1":
        return "marked as outside of the picture"
    if shape.tag == "tag":
        return label, None, (0, 0)

    def corners() -> tuple[Box, Size]:
        if shape.tag == "box":
            left, top, right, bottom = (
                float(shape.attrib[s]) for s in ("xtl", "ytl", "xbr", "ybr")
            )
            return (left, top, right, bottom), size
        points = [tuple(map(float, pair.split(","))) for pair in shape.attrib["points"].split(";")]
        xs, ys = zip(*points, strict=True)
        return (min(xs), min(ys), max(xs), max(ys)), size

    if shape.tag not in ("box", "polygon"):
        return "no box or polygon"
    return _placed(label, shape.get("rotation"), corners)


def _placed(label: str, rotation: Any, corners: Callable[[], tuple[Box, Size]]) -> Found:
    try:
        if float(rotation or 0) % 360:
            return "a box that is turned"
        box, size = corners()
    except (KeyError, TypeError, ValueError, OverflowError):
        return "its box is not four numbers"
    area = all(map(math.isfinite, box)) and box[0] < box[2] and box[1] < box[3]
    return (label, box, size) if area else "no box with an area"


def _side(image: ElementTree.Element, name: str) -> int:
    text = image.get(name, "")
    return int(text) if text.isdecimal() else 0
