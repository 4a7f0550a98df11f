"""What annotation tools export: Label Studio's JSON and JSON-MIN, CVAT's XML "for images".

Formats: https://labelstud.io/guide/export and https://docs.cvat.ai/docs/manual/advanced/xml_format.
Both are read as a COCO file is: classes of whole images, boxes, and polygons as their boxes.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from weighin.data.coco import BARE, Box, Coco, Crop, read_mapping
from weighin.errors import DataError
from weighin.file_names import IMAGE_SUFFIXES
from weighin.images import Size

SHAPES = ("rectanglelabels", "polygonlabels")
# (class, box or None for the whole image, annotated size) or why an annotation is left out
Found = tuple[str, Box | None, Size] | str


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
