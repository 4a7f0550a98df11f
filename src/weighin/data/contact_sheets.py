"""Pictures of the data that people look at: a contact sheet for each class, the suspicious pairs.

JPEG files with the same bytes for the same data: libjpeg and FreeType work in integers, and which
images a sheet shows follows from their content, so it hardly changes when images are added.
"""

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from weighin.data.faults import Images, Verdict
from weighin.data.listing import Listing, Place, opened
from weighin.data.near_duplicates import Pairs
from weighin.images import Source, UnreadableImageError

TILE = 112  # pixels a side
LINE = 14  # pixels a line of text
COLUMNS, ROWS = 8, 4
PAIRS = 24
PAPER, INK = (255, 255, 255), (40, 40, 40)


def draw_pictures(
    listing: Listing, out: Path, images: Images, verdict: Verdict, pairs: Pairs, pool: Executor
) -> list[Future[str]]:
    """Have `out`/<Class>.jpg and `out`/-pairs.jpg written; each gives its name when it is there."""
    root, drawn = listing.root.absolute(), []
    for label, name in enumerate(images.classes):
        mine = np.flatnonzero(images.labels == label)
        # those of the smallest hashes: the choice hardly changes when images are added
        some = mine[np.argsort(images.records["sha256"][mine], kind="stable")[: COLUMNS * ROWS]]
        title = f"{name}: {len(mine)} images"
        chosen = [listing.place(images.names[place]) for place in some]
        drawn.append(pool.submit(contact_sheet, root, title, chosen, out / f"{name}.jpg"))
    contradictions = {
        tuple(sorted((name, other)))
        for fault, name, _, other in verdict.rows
        if fault == "contradiction"
    }
    doubtful = [("same bytes, two classes", a, b) for a, b in sorted(contradictions)]
    doubtful += suspicious(images, pairs)
    if doubtful:
        shown = [(*row, listing.place(row[1]), listing.place(row[2])) for row in doubtful[:PAIRS]]
        drawn.append(pool.submit(pair_sheet, root, shown, out / "-pairs.jpg"))
    return drawn


def suspicious(images: Images, pairs: Pairs) -> list[tuple[str, str, str]]:
    """Return (what, name, name) of the near-duplicates, those of two classes first."""
    named = [
        (int(images.labels[a] == images.labels[b]), images.names[a], images.names[b])
        for a, b in pairs.tolist()
    ]
    return [("alike" if same else "alike, two classes", a, b) for same, a, b in sorted(named)]


def contact_sheet(root: Path, title: str, places: Sequence[Place], path: Path) -> str:
    """Write the pictures at `places` as a grid of tiles under a title; return its name."""
    rows = -(-len(places) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE, LINE + 4 + rows * TILE), PAPER)
    _write(sheet, (4, 1), title, COLUMNS * TILE)
    for number, place in enumerate(places):
        row, column = divmod(number, COLUMNS)
        sheet.paste(_tile(root, place), (column * TILE, LINE + 4 + row * TILE))
    return _save(sheet, path)


def pair_sheet(root: Path, pairs: Sequence[tuple[str, str, str, Place, Place]], path: Path) -> str:
    """Write pairs (what is suspicious, names, places) side by side, each under its words."""
    height = TILE + 3 * LINE + 6
    columns = 4
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * 2 * TILE, rows * height), PAPER)
    for number, (*words, left, right) in enumerate(pairs):
        row, column = divmod(number, columns)
        x, y = column * 2 * TILE, row * height
        for line, text in enumerate(words):
            _write(sheet, (x + 4, y + line * LINE), text, 2 * TILE - 8)
        sheet.paste(_tile(root, left), (x, y + 3 * LINE + 2))
        sheet.paste(_tile(root, right), (x + TILE, y + 3 * LINE + 2))
    return _save(sheet, path)


def _tile(root: Path, place: Place) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), PAPER)
    try:
        with opened(root, place) as (file, size):
            source = Source(file.read(size))
        least = TILE * min(source.shape) // max(source.shape)  # its longer side fills the tile
        image = source.image(max(1, least)).copy()
    except (OSError, UnreadableImageError):
        return tile
    image.thumbnail((TILE - 4, TILE - 4), Image.Resampling.BILINEAR)
    tile.paste(image, ((TILE - image.width) // 2, (TILE - image.height) // 2))
    return tile


def _write(sheet: Image.Image, place: tuple[int, int], text: str, width: int) -> None:
    font = ImageFont.load_default(10)
    draw = ImageDraw.Draw(sheet)
    plain = text.replace("\n", " ")
    while len(plain) > 4 and draw.textlength(plain, font) > width:
        plain = "…" + plain[2:]  # the end of a file name tells more than its beginning
    draw.text(place, plain, INK, font)


def _save(sheet: Image.Image, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "JPEG", quality=85)
    return path.name
