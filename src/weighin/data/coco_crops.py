"""Cuts what a COCO file annotates out of the pictures, upright, with a margin."""

import io
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from weighin.data.coco import Box, Coco, Crop
from weighin.data.import_index import ImportIndex
from weighin.image_formats import FORMATS, UnreadableImageError
from weighin.images import Pixels, Size, decode

Turned = tuple[Size, int]  # a picture's stored size and its EXIF orientation
ORIENTATION = 0x0112  # the EXIF tag
UNFIT = "its box does not fit its image"
SAME_ASPECT = 0.02  # a picture may be a scaled copy of the annotated one, not another shape


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
        size, orientation = _orientation(path)
        if orientation == 1 or all(crop.box is None for crop in coco.crops[name]):
            continue
        turned[name] = size, orientation
        annotated = coco.crops[name][0].size
        if orientation >= 5 and size[0] != size[1] and all(annotated):
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


def _orientation(path: Path) -> Turned:
    """Return a picture's stored size and EXIF orientation; 1 where it has none."""
    try:
        with warnings.catch_warnings(), Image.open(path, formats=FORMATS) as image:
            warnings.simplefilter("ignore")
            orientation = image.getexif().get(ORIENTATION, 1)
            return (image.height, image.width), orientation if orientation in range(2, 9) else 1
    except Exception:  # Pillow's readers raise anything; what is unreadable is said when it is cut
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
        pixels = decode(path.read_bytes()).pixels
    except UnreadableImageError as error:
        index.skip(f"its image is unreadable ({error})", name, len(crops))
        return
    except OSError as error:
        index.skip(f"its image cannot be read: {error.strerror}", name, len(crops))
        return
    for crop in crops:
        assert crop.box is not None
        box, size = crop.box, crop.size
        if turned is not None:
            size, orientation = (size if all(size) else turned[0]), turned[1]
            box = turned_box(box, size, orientation)
            size = size[::-1] if orientation >= 5 else size
        piece = cut(pixels, box, size, margin)
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
    if orientation in (5, 6, 7, 8):
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
