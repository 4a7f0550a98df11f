"""Pictures made for tests: smooth, all different, small."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from weighin.determinism import generator


def photo(number: int, height: int = 72, width: int = 96) -> Image.Image:
    """Return a picture like no other number's: colours that flow into each other."""
    spots = generator("photo", number).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 90} if kind == "JPEG" else {}) | options)
    return out.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def tree(root: Path, counts: dict[str, int], start: int = 0) -> Path:
    """Write `counts` photos a class as root/train/<Class>/<number>.jpg; return `root`."""
    number = start
    for label, count in counts.items():
        for index in range(count):
            write(root / "train" / label / f"{index:03}.jpg", encoded(photo(number)))
            number += 1
    return root
