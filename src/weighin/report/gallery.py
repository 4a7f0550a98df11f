"""Thumbnails of the mistakes: small JPEGs of the original files, the same bytes everywhere."""

import io
from pathlib import Path

from PIL import Image

from weighin.images import UnreadableImageError, decode
from weighin.report.evaluation import Mistake
from weighin.report.markup import Markup, element, picture
from weighin.report.words import share

SIDE = 192  # pixels: sharp at the page's 7 rem on a dense screen


def gallery(mistakes: list[Mistake], root: Path) -> Markup:
    """Return the mistakes as a list of captioned thumbnails of the files below `root`."""
    items = (element("li", _item(mistake, root)) for mistake in mistakes)
    return element("ul", *items, class_="gallery")


def thumbnail(path: Path) -> bytes | None:
    """Return a picture file as a JPEG of at most SIDE pixels a side; None if it cannot be read."""
    try:
        image = Image.fromarray(decode(path.read_bytes()).pixels)
    except (OSError, UnreadableImageError):
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return out.getvalue()


def _item(mistake: Mistake, root: Path) -> Markup:
    data = thumbnail(root / mistake.name)
    alt = f"A picture of the class {mistake.true}: {mistake.name}"
    missing = element("div", "no picture", class_="blank")
    shown = missing if data is None else picture(data, alt)
    caption = element(
        "figcaption",
        "true ",
        element("strong", mistake.true),
        element("br"),
        "labelled ",
        element("strong", mistake.predicted),
        element("br"),
        f"{share(mistake.confidence)} sure",
    )
    return element("figure", shown, caption, title=mistake.name)
