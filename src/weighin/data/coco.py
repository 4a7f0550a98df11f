"""A COCO file: boxes or polygons become crops with a margin, categories become classes.

Format: https://cocodataset.org/#format-data ("images", "annotations", "categories"). An annotation
with neither box nor mask labels its whole image, as in COCO Camera Traps.

The crops, those of other annotation files too, are cut out of the pictures upright.
"""

import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from weighin.data.annotations import BARE, Box, Coco, Crop, read_mapping
from weighin.data.import_index import ImportIndex
from weighin.errors import DataError
from weighin.image_formats import UnreadableImageError, open_image
from weighin.images import QUARTER_TURNS, Pixels, Size, Source, exif_orientation, stored_size
from weighin.label_csv import NO_GROUP

SLACK = 2  # pixels that a box may reach out of its picture
FAR = 0.25  # of a side: a slip of the hand reaches no further out
FORM = "give a JSON file with the lists images, annotations and categories"
Turned = tuple[Size, int]  # a picture's stored size and its EXIF orientation
UNFIT = "its box does not fit its image"
SAME_ASPECT = 0.02  # a picture may be a scaled copy of the annotated one, not another shape


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
    given: list[tuple[Any, Size]] = []  # boxes as the file gives them, and their images' sizes
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
        given.append((item.get("bbox"), size))
        own = _key(item.get("id")) or str(number)
        if fault:
            known = label or not category
            coco.skip(fault, f"annotation {own}" + ("" if known else f" of category {category}"))
        elif box or not any(c.box is None and c.label == label for c in crops[name]):
            crops[name].append(Crop(own, label, box, size, own_group or (name if box else "")))
    for name in bare:
        coco.skip(BARE, name)
    coco.crops = {name: crops[name] for name in sorted(crops) if crops[name]}
    taken = [crop.box for found in crops.values() for crop in found if crop.box]
    _refuse_other_boxes(path, given, taken)
    return coco


def _refuse_other_boxes(path: Path, given: list[tuple[Any, Size]], taken: list[Box]) -> None:
    """Refuse a file whose boxes are two corners each, or shares of a picture.

    They are corners where all of them could be, and half of them reach out of their pictures as
    COCO's boxes, or one by a quarter of a side.
    """
    boxes = [(_numbers(bbox) or [], size) for bbox, size in given if isinstance(bbox, list)]
    whole = [(numbers, size) for numbers, size in boxes if len(numbers) == 4]
    seen = [(*box, height, width) for box, (height, width) in whole if height and width]
    beyond = [
        max((x + right - SLACK) / wide, (y + bottom - SLACK) / tall)
        for x, y, right, bottom, tall, wide in seen
    ]
    corners = all(
        x < right <= wide + SLACK and y < bottom <= tall + SLACK
        for x, y, right, bottom, tall, wide in seen
    )
    out = sum(share > 1 for share in beyond)
    if seen and corners and (len(seen) <= 2 * out or max(beyond) > 1 + FAR):
        raise DataError(
            f"{path}: {out:,} of {len(seen):,} boxes reach out of their pictures, as where they "
            "are left, top, right, bottom; COCO's are left, top, width, height",
            "subtract left from the third number of each box and top from the fourth",
        )
    numbers = [number for box in [box for box, _ in whole] or taken for number in box]
    if any(numbers) and all(0 <= number <= 1 for number in numbers):
        raise DataError(
            f"{path}: all boxes lie between 0 and 1, as shares of a picture; COCO's are in pixels",
            "multiply left and width by the picture's width, top and height by its height; where "
            "a box begins with its center, as YOLO's do, first subtract half of width and height",
        )


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
        own = "" if own.lower() in NO_GROUP else own  # so that its picture ties its boxes
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


# --- the crops


def stored_pixels(
    coco: Coco, files: Mapping[str, Path], told: str | None, index: ImportIndex
) -> dict[str, Turned]:
    """Return {name: (stored size, orientation)} of the pictures whose boxes have yet to be turned.

    Tools draw boxes on pixels as a file stores them, or as its EXIF orientation turns them; all of
    a file do the same. `told` says which, or the annotated size of a picture turned by a quarter.
    """
    turned: dict[str, Turned] = {}
    signs: Counter[str] = Counter()
    for name, path in files.items():
        size, orientation = _stored(path)
        if orientation == 1 or all(crop.box is None for crop in coco.crops[name]):
            continue
        turned[name] = size, orientation
        annotated = coco.crops[name][0].size
        if orientation in QUARTER_TURNS and size[0] != size[1] and all(annotated):
            tall = (annotated[0] > annotated[1]) == (size[0] > size[1])
            signs["stored" if tall else "upright"] += 1
    kind = told or ("stored" if signs["stored"] > signs["upright"] else "upright")
    if turned:
        index.notes.append(
            f"{len(turned):,} pictures have an EXIF orientation; their boxes are taken as drawn on "
            + ("the stored pixels" if kind == "stored" else "the upright pictures")
            + ("" if told or signs else ", which nothing shows; --boxes says otherwise")
        )
    return turned if kind == "stored" else {}


def _stored(path: Path) -> Turned:
    """Return a picture's stored size and its EXIF orientation."""
    try:
        image = open_image(path.read_bytes())
        return stored_size(image), exif_orientation(image)
    except (UnreadableImageError, OSError):  # which is said when it is cut
        return (0, 0), 1


def write_crops(
    path: Path,
    name: str,
    crops: Sequence[Crop],
    turned: Turned | None,
    index: ImportIndex,
    margin: float,
) -> None:
    """Write the boxes `crops` of the picture at `path`, called `name`, as JPEG files.

    `turned` is its stored size and orientation, where the boxes have yet to be turned with it.
    """
    try:
        source = Source(path.read_bytes())
        pixels = np.asarray(source.image())
    except UnreadableImageError as error:
        index.skip(f"its image is unreadable ({error})", name, len(crops))
        return
    except OSError as error:
        index.skip(f"its image cannot be read: {error.strerror}", name, len(crops))
        return
    for crop in crops:
        assert crop.box is not None
        box, size = crop.box, crop.size if all(crop.size) else None
        if turned is not None:
            (height, width), orientation = size or turned[0], turned[1]
            box = turned_box(box, (height, width), orientation)
            size = (width, height) if orientation in QUARTER_TURNS else (height, width)
        piece = cut(pixels, box, size or source.upright, margin)
        if piece is None:
            index.skip(UNFIT, f"annotation {crop.annotation} of {name}")
            continue
        filename = f"{path.stem}_{crop.annotation}.jpg"
        out = io.BytesIO()
        Image.fromarray(piece).save(out, "JPEG", quality=95, subsampling=0)
        Path(index.add(index.named(crop.label, filename, crop.group, crop.split))).write_bytes(
            out.getvalue()
        )


def turned_box(box: Box, size: Size, orientation: int) -> Box:
    """Return the box of stored pixels in the upright picture.

    `size` is the stored (H, W), `orientation` the EXIF tag 0x0112 (TIFF 6.0, page 36), of which 2
    to 4 mirror or turn by half, and 5 to 8 also exchange the sides.
    """
    height, width = size
    x0, y0, x1, y1 = box
    if orientation in QUARTER_TURNS:
        x0, y0, x1, y1, height, width = y0, x0, y1, x1, width, height
    if orientation in (2, 3, 6, 7):
        x0, x1 = width - x1, width - x0
    if orientation in (3, 4, 7, 8):
        y0, y1 = height - y1, height - y0
    return x0, y0, x1, y1


def cut(pixels: Pixels, box: Box, annotated: Size, margin: float) -> Pixels | None:
    """Return the box's pixels with `margin` (a share of its sides) around it, inside the picture.

    Every pixel that the box touches counts. A box drawn on a picture of another size is scaled
    with it. None: the shapes differ, or the box lies outside.
    """
    (height, width), (tall, wide) = pixels.shape[:2], annotated
    if abs((height / tall) / (width / wide) - 1) > SAME_ASPECT:
        return None
    left, top, right, bottom = box
    more_x, more_y = margin * (right - left), margin * (bottom - top)
    x0 = max(0, math.floor((left - more_x) * width / wide))
    x1 = min(width, math.ceil((right + more_x) * width / wide))
    y0 = max(0, math.floor((top - more_y) * height / tall))
    y1 = min(height, math.ceil((bottom + more_y) * height / tall))
    return pixels[y0:y1, x0:x1] if x0 < x1 and y0 < y1 else None
