"""A COCO file: boxes or polygons become crops with a margin, categories become classes.

Format: https://cocodataset.org/#format-data ("images", "annotations", "categories").
"""

import json
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weighin.data.table import CLASSES, read_csv
from weighin.errors import DataError
from weighin.images import Pixels, Size

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
SAME_ASPECT = 0.02  # a picture may be a scaled copy of the annotated one, not another shape


@dataclass(frozen=True)
class Crop:
    """One annotated object."""

    annotation: str
    label: str
    box: Box


@dataclass
class Coco:
    """What a COCO file asks for."""

    sizes: dict[str, Size] = field(default_factory=dict)  # file name: annotated (H, W)
    crops: dict[str, list[Crop]] = field(default_factory=dict)  # file name: its crops
    skipped: Counter[str] = field(default_factory=Counter)  # reason: annotations

    def counts(self) -> dict[str, int]:
        """Return how many annotations each class has."""
        labels = Counter(crop.label for crops in self.crops.values() for crop in crops)
        return dict(sorted(labels.items()))

    def words(self) -> str:
        """Return what the file asks for in a line."""
        counts = self.counts()
        listed = "".join(f", {label} {count:,}" for label, count in counts.items())
        left = "".join(f"; {many:,} left out: {why}" for why, many in sorted(self.skipped.items()))
        return f"annotations of a class: {sum(counts.values()):,}{listed}{left}"


def read_coco(path: Path, mapping: Path | None = None) -> Coco:
    """Return the crops of a COCO file; `mapping` is a CSV from category to class.

    Without a mapping a category is its own class. With one, a category whose class is empty or
    that is not listed is left out and counted.

    Raises:
        DataError: not a COCO file, or a mapping that names no category of it.
    """
    data = _load(path)
    try:
        names = {item["id"]: str(item["name"]) for item in data["categories"]}
        files = {item["id"]: item for item in data["images"]}
        labels = read_mapping(mapping, names) if mapping else names
        coco = Coco()
        crops: dict[str, list[Crop]] = defaultdict(list)
        for item in data["annotations"]:
            image, label = files.get(item["image_id"]), labels.get(item["category_id"], "")
            box = box_of(item)
            reason = _reason(image, label, box, item)
            if reason or image is None or box is None:
                coco.skipped[reason] += 1
                continue
            name = str(image["file_name"])
            coco.sizes[name] = (int(image.get("height", 0)), int(image.get("width", 0)))
            crops[name].append(Crop(str(item["id"]), label, box))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"{path} is not a COCO file: {type(error).__name__} {error}"
        raise DataError(problem, "give a JSON file with images, annotations, categories") from None
    coco.crops = dict(sorted(crops.items()))
    return coco


def read_mapping(path: Path, categories: dict[Any, str]) -> dict[Any, str]:
    """Return {category id: class}; the CSV's columns are guessed by what they hold.

    The category column is the one with most of the file's category names in it, else most of
    their ids; the class column is called class, label or the like.
    """
    header, rows = read_csv(path)
    by_name = {name: key for key, name in categories.items()}
    by_id = {str(key): key for key in categories}
    choices = [(_hits(rows, n, known), known, n) for known in (by_name, by_id) for n in header]
    hits, known, source = max(choices, key=lambda choice: choice[0])
    target = next((n for n in header if n.lower() in CLASSES and n != source), None)
    if target is None or hits == 0:
        raise DataError(
            f"{path} maps no category to a class; its columns are {', '.join(header)}",
            "give it the columns category,class with the COCO file's category names",
        )
    return {known[row[source]]: row[target] for row in rows if row[source] in known}


def box_of(item: dict[str, Any]) -> Box | None:
    """Return an annotation's box, from its polygons if it has no `bbox`; None without an area."""
    box = item.get("bbox")
    if box:
        left, top, width, height = map(float, box)
        corners = (left, top, left + width, top + height)
    else:
        polygons = item.get("segmentation")
        if not isinstance(polygons, list) or not any(polygons):
            return None
        xs = [float(x) for polygon in polygons for x in polygon[0::2]]
        ys = [float(y) for polygon in polygons for y in polygon[1::2]]
        corners = (min(xs), min(ys), max(xs), max(ys))
    finite = all(abs(edge) < 1e9 for edge in corners)  # also False for NaN
    return corners if finite and corners[0] < corners[2] and corners[1] < corners[3] else None


def cut(pixels: Pixels, box: Box, annotated: Size, margin: float) -> Pixels | None:
    """Return the box's pixels with `margin` (a share of its sides) around it, inside the picture.

    Every pixel that the box touches counts. A box drawn on a picture of another size is scaled
    with it. None: the shapes differ, or the box lies outside.
    """
    height, width = pixels.shape[:2]
    tall, wide = annotated if all(annotated) else (height, width)
    if abs((height / tall) / (width / wide) - 1) > SAME_ASPECT:
        return None
    left, top, right, bottom = box
    more_x, more_y = margin * (right - left), margin * (bottom - top)
    x0 = max(0, math.floor((left - more_x) * width / wide))
    x1 = min(width, math.ceil((right + more_x) * width / wide))
    y0 = max(0, math.floor((top - more_y) * height / tall))
    y1 = min(height, math.ceil((bottom + more_y) * height / tall))
    return pixels[y0:y1, x0:x1] if x0 < x1 and y0 < y1 else None


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", "name an existing COCO file") from None
    except (ValueError, RecursionError) as error:
        fix = "give a JSON file with images, annotations, categories"
        raise DataError(f"{path} is not JSON: {error}", fix) from None
    return data if isinstance(data, dict) else {}


def _reason(image: Any, label: str, box: Box | None, item: dict[str, Any]) -> str:
    if image is None:
        return "its image is not listed"
    if not label:
        return "its category has no class"
    if item.get("iscrowd"):
        return "a crowd, not an object"
    return "" if box else "no box with an area"


def _hits(rows: list[dict[str, str]], column: str, known: dict[str, Any]) -> int:
    return len({row[column] for row in rows} & known.keys())
