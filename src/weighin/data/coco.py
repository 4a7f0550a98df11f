"""A COCO file: boxes or polygons become crops with a margin, categories become classes.

Format: https://cocodataset.org/#format-data ("images", "annotations", "categories"). An annotation
with neither box nor mask labels its whole image, as in COCO Camera Traps. What tools and people
leave odd in an entry leaves out that entry, counted by reason, and not the file.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from weighin.errors import DataError
from weighin.file_names import TEST, TRAIN, VALIDATION
from weighin.images import Size
from weighin.label_csv import split_of
from weighin.text_table import CLASSES, read_table

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
SLACK = 2  # pixels that a box may reach out of its picture
BARE = "an image without annotations"
FORM = "give a JSON file with the lists images, annotations and categories"


@dataclass(frozen=True)
class Crop:
    """One annotated object; without a box it is the whole image."""

    annotation: str
    label: str
    box: Box | None
    size: Size  # annotated (H, W) of its image; 0 where it is not known
    group: str = ""
    split: str = ""  # train, validation or test; empty where the file does not say


@dataclass
class Coco:
    """What a COCO file asks for."""

    crops: dict[str, list[Crop]] = field(default_factory=dict)  # file name: its crops
    skipped: Counter[str] = field(default_factory=Counter)  # reason: entries
    such_as: dict[str, str] = field(default_factory=dict)  # reason: the first such entry
    splits: dict[str, str] = field(default_factory=dict)  # file name: what the file calls its split

    def skip(self, reason: str, entry: str, count: int = 1) -> None:
        """Count an entry that is left out."""
        self.skipped[reason] += count
        self.such_as.setdefault(reason, entry)

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


def read_coco(
    path: Path, facts: Any, mapping: Path | None = None, group: str | None = None
) -> Coco:
    """Return the crops of a COCO file that holds `facts`; `mapping` is a CSV: category to class.

    Without a mapping a category is its own class. With one, a category whose class is empty or
    that is not listed is left out and counted. `group` is the key of an image's group; without it
    the crops of one image are one.

    Raises:
        DataError: not a COCO file, an id of two files or of two categories, or a mapping that
            names no category of it.
    """
    lists = _lists(path, facts)
    coco = Coco()
    names = _categories(path, lists["categories"], coco)
    images = _images(path, lists["images"], group, coco)
    corners = _Corners()
    labels = read_mapping(mapping, names) if mapping else names
    crops: dict[str, list[Crop]] = defaultdict(list)
    bare = {name: None for name, *_ in images.values()}
    boxed = any(isinstance(item, dict) and _has_box(item) for item in lists["annotations"])
    for number, item in enumerate(lists["annotations"]):
        if not isinstance(item, dict):
            coco.skip("an annotation that is no object", f"annotation number {number}")
            continue
        name, size, own_group = images.get(_key(item.get("image_id")), ("", (0, 0), ""))
        bare.pop(name, None)
        category = _key(item.get("category_id"))
        label = labels.get(category, "")
        box, fault = box_of(item, boxed)
        if not name:
            fault = "its image is not listed"
        elif not label:
            fault = "its category has no class"
        corners.look(item.get("bbox"), size)
        own = _key(item.get("id")) or str(number)
        if fault:
            known = label or not category
            coco.skip(fault, f"annotation {own}" + ("" if known else f" of category {category}"))
        elif box or not any(c.box is None and c.label == label for c in crops[name]):
            crops[name].append(Crop(own, label, box, size, own_group or (name if box else "")))
    for name in bare:
        coco.skip(BARE, name)
    coco.crops = {name: crops[name] for name in sorted(crops) if crops[name]}
    corners.check(path)
    boxes = [crop.box for found in crops.values() for crop in found if crop.box]
    if boxes and all(0 <= edge <= 1 for box in boxes for edge in box):
        raise DataError(
            f"{path}: all boxes lie between 0 and 1, as shares of a picture; COCO's are in pixels",
            "multiply left and width by the picture's width, top and height by its height",
        )
    return coco


class _Corners:
    """Counts the boxes of a file that do not fit their images, but would as two corners."""

    def __init__(self) -> None:
        self._out = self._seen = 0
        self._as_corners = True

    def look(self, bbox: Any, size: Size) -> None:
        """Take up a box as the file gives it."""
        numbers = _numbers(bbox) if isinstance(bbox, list) else None
        if not numbers or len(numbers) != 4 or not all(size):
            return
        left, top, right, bottom = numbers
        tall, wide = size
        self._seen += 1
        self._out += left + right > wide + SLACK or top + bottom > tall + SLACK
        inside = right <= wide + SLACK and bottom <= tall + SLACK
        self._as_corners &= left < right and top < bottom and inside

    def check(self, path: Path) -> None:
        """Refuse a file of which half of the boxes or more are no boxes but as corners."""
        if self._as_corners and 0 < self._seen <= 2 * self._out:
            raise DataError(
                f"{path}: {self._out:,} of {self._seen:,} boxes reach out of their pictures, as "
                "where they are left, top, right, bottom; COCO's are left, top, width, height",
                "subtract left from the third number of each box and top from the fourth",
            )


def read_mapping(path: Path, categories: dict[str, str]) -> dict[str, str]:
    """Return {category id: class}; the CSV's columns are guessed by what they hold.

    The category column is the one with most of the file's category names in it, else most of
    their ids; the class column is called class, label or the like.
    """
    table = read_table(path, header=True)
    rows, header = table.records(), table.header
    by_name = {name: key for key, name in categories.items()}
    by_id = {key: key for key in categories}
    choices = [
        (len({row[title] for row in rows} & known.keys()), known, title)
        for known in (by_name, by_id)
        for title in header
    ]
    hits, known, source = max(choices, key=lambda choice: choice[0])
    target = next((n for n in header if n.lower() in CLASSES and n != source), None)
    if target is None or hits == 0:
        raise DataError(
            f"{path} maps no category to a class; its columns are {', '.join(header)}",
            "give it the columns category,class with the COCO file's category names",
        )
    mapped: dict[str, str] = {}
    for row in rows:
        name, label = row[source], row[target]
        if name in known and mapped.setdefault(known[name], label) != label:
            problem = f"{path} maps {name} to {mapped[known[name]]} and to {label}"
            raise DataError(problem, "remove the wrong line")
    return mapped


def box_of(item: dict[str, Any], boxed: bool = True) -> tuple[Box | None, str]:
    """Return an annotation's box, and why it has none; neither where it labels the whole image.

    The box of an annotation without one is that of its polygons. `boxed` says whether any of the
    file has a box: where none has, empty ones stand for whole images too.
    """
    bbox, mask = item.get("bbox"), item.get("segmentation")
    if str(item.get("iscrowd") or 0) not in ("0", "False", "false"):
        return None, "a crowd, not an object"
    if (bbox is None and mask is None) or not boxed:
        return None, ""
    if _is_turned(item):
        return None, "a box that is turned"
    numbers = _numbers(bbox) if isinstance(bbox, list) else None
    if numbers and len(numbers) == 4:
        left, top, width, height = numbers
        corners = (left, top, left + width, top + height)
    elif isinstance(mask, list) and (points := _points(mask)):
        xs, ys = points[0::2], points[1::2]
        corners = (min(xs), min(ys), max(xs), max(ys))
    elif isinstance(mask, dict) and not bbox:
        return None, "a run-length mask without a box"
    else:
        return None, "its box is not four numbers" if bbox else "no box with an area"
    finite = all(abs(edge) < 1e9 for edge in corners)  # also False for NaN
    if finite and corners[0] < corners[2] and corners[1] < corners[3]:
        return corners, ""
    return None, "no box with an area"


def read_json(path: Path) -> Any:
    """Return what a JSON file in any encoding holds.

    Raises:
        DataError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "name a COCO file") from None
    except (ValueError, RecursionError) as error:
        lines = str(error).startswith("Extra data: line 2")
        fix = f"call it {path.stem}.jsonl if each line is an object of its own" if lines else FORM
        raise DataError(f"{path} is not JSON: {error}", fix) from None


def _lists(path: Path, facts: Any) -> dict[str, list[Any]]:
    if not isinstance(facts, dict):
        raise DataError(f"{path} is not a COCO file: it holds no object", FORM)
    parts = [value for value in facts.values() if isinstance(value, dict)]
    via = "_via_img_metadata" in facts or any("regions" in part for part in parts)
    if via and "images" not in facts:
        raise DataError(f"{path} is a project of VIA", "export its annotations from VIA as COCO")
    if {"shapes", "imagePath"} <= facts.keys():
        fix = "make one COCO file of all of them, as labelme2coco does"
        raise DataError(f"{path} is what LabelMe says of one image", fix)
    for name in ("images", "annotations", "categories"):
        if not isinstance(facts.get(name), list):
            raise DataError(f"{path} is not a COCO file: it has no list `{name}`", FORM)
    return facts


def _key(value: Any) -> str:
    """Return an id as text, so that 7, 7.0 and "7" are one; empty if there is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None or isinstance(value, dict | list) else str(value).strip()


def _entries(items: list[Any], what: str, name: str, coco: Coco) -> Iterable[tuple[str, str, Any]]:
    """Yield (id, name, entry) of the entries that have both; others are left out."""
    for number, item in enumerate(items):
        key = _key(item.get("id")) if isinstance(item, dict) else ""
        named = str(item.get(name) or "").strip() if isinstance(item, dict) else ""
        if key and named:
            yield key, named, item
        else:
            lacks = name.replace("_", " ") if key else "id"
            coco.skip(f"{what} without {lacks}", f"{what} {key or f'number {number}'}")


def _categories(path: Path, items: list[Any], coco: Coco) -> dict[str, str]:
    names: dict[str, str] = {}
    for key, name, _ in _entries(items, "category", "name", coco):
        if names.setdefault(key, name) != name:
            raise _twice(path, f"category id {key}", names[key], name)
    return names


def _images(
    path: Path, items: list[Any], group: str | None, coco: Coco
) -> dict[str, tuple[str, Size, str]]:
    images: dict[str, tuple[str, Size, str]] = {}
    for key, name, item in _entries(items, "image", "file_name", coco):
        size = (_side(item.get("height")), _side(item.get("width")))
        own = _key(item.get(group)) if group else ""
        coco.splits[name] = _key(item.get("split") or item.get("subset"))
        if images.setdefault(key, (name, size, own))[0] != name:
            raise _twice(path, f"image id {key}", images[key][0], name)
    return images


def _twice(path: Path, what: str, one: str, other: str) -> DataError:
    return DataError(
        f"{path}: {what} stands for {one} and for {other}, as where two files were put together",
        "give each its own id, in the annotations too, or export the parts anew as one file",
    )


def _side(value: Any) -> int:
    numbers = _numbers([value])
    return round(numbers[0]) if numbers and 0 < numbers[0] < 1e9 else 0


def _numbers(values: Iterable[Any]) -> list[float] | None:
    """Return values, which may be written as texts, as numbers; None if one is none."""
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return None


def _points(mask: list[Any]) -> list[float]:
    """Return the points x, y, x, y... of polygons, or of one that is not in a list of its own."""
    polygons = mask if all(isinstance(part, list) for part in mask) else [mask]
    numbers = [_numbers(polygon) or [] for polygon in polygons]
    return [value for polygon in numbers for value in polygon[: len(polygon) // 2 * 2]]


def _is_turned(item: dict[str, Any]) -> bool:
    """Return whether a box is turned by the angle that CVAT writes beside it, in degrees."""
    attributes = item.get("attributes")
    angle = attributes.get("rotation") if isinstance(attributes, dict) else None
    numbers = _numbers([angle])
    return bool(numbers and numbers[0] % 360 and not _points(item.get("segmentation") or []))


def _has_box(item: dict[str, Any]) -> bool:
    """Return whether an annotation says anything about a place, be it readable or not."""
    bbox, mask = item.get("bbox"), item.get("segmentation")
    placed = any(_numbers(bbox) or (1,)) if isinstance(bbox, list) and bbox else bool(bbox)
    return placed or isinstance(mask, dict) or bool(isinstance(mask, list) and _points(mask))
