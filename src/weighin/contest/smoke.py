"""A small folder of awkward images: what a test folder may hold, and a model must be able to label.

Drawn from seeds, so that it is the same wherever it is made.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from weighin.determinism import generator
from weighin.files import write_bytes

ORIENTATION = 0x0112


def write_smoke(folder: Path) -> list[str]:
    """Write the images into a new folder and return their names."""
    for name, make in IMAGES.items():
        write_bytes(folder / name, make())
    return sorted(IMAGES)


def _picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    coarse = generator(0, "smoke", height, width).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _turned() -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return _saved(_picture(60, 90), "JPEG", exif=exif)


def _sixteen_bit() -> bytes:
    ramp = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    return _saved(Image.fromarray(ramp), "PNG")


def _animated() -> bytes:
    frames = [_picture(40, 40 + more).resize((40, 40)) for more in range(3)]
    return _saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def _long_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 200_000)
    return _saved(_picture(48, 64), "PNG", pnginfo=info)


IMAGES: dict[str, Callable[[], bytes]] = {
    "plain.jpg": lambda: _saved(_picture(96, 96), "JPEG"),
    "tall.jpg": lambda: _saved(_picture(400, 20), "JPEG"),
    "wide.png": lambda: _saved(_picture(16, 500), "PNG"),
    "one pixel.png": lambda: _saved(_picture(1, 1), "PNG"),
    "large.jpg": lambda: _saved(_picture(3000, 4000), "JPEG"),
    "grey.jpg": lambda: _saved(_picture(80, 80, "L"), "JPEG"),
    "cmyk.jpg": lambda: _saved(_picture(80, 80, "CMYK"), "JPEG"),
    "palette.png": lambda: _saved(_picture(64, 64, "P"), "PNG"),
    "transparent.png": lambda: _saved(_picture(64, 64, "RGBA"), "PNG"),
    "sixteen-bit.png": _sixteen_bit,
    "long-text.png": _long_text,
    "turned.jpg": _turned,
    "animated.gif": _animated,
    "image.webp": lambda: _saved(_picture(64, 64), "WEBP"),
    "UPPER.JPG": lambda: _saved(_picture(64, 64), "JPEG"),
    "유리병.jpg": lambda: _saved(_picture(64, 64), "JPEG"),
    "folder/inside.jpg": lambda: _saved(_picture(64, 64), "JPEG"),
    "truncated.jpg": lambda: _saved(_picture(96, 96), "JPEG")[:900],
    "empty.jpg": lambda: b"",
    "text.jpg": lambda: b"this is no image\n",
}
