"""From a file's bytes to the pixels a network sees; training and grading share every line.

A `Size` is (H, W) in pixels. Pixels are uint8 RGB, (H, W, 3).
"""

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]

MAX_PIXELS = 64_000_000  # 192 MB of RGB: more than any camera of the contest, less than a bomb
EXIF_ORIENTATION = 0x0112
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


class UnreadableImageError(Exception):
    """A file is not a usable picture; the message is the fault's name."""


@dataclass(frozen=True)
class Picture:
    """A decoded file: its pixels, and what was unusual about it."""

    pixels: Pixels  # (H, W, 3)
    notes: tuple[str, ...] = ()


def decode(data: bytes) -> Picture:
    """Return the picture in `data`, upright, as RGB.

    Plain JPEGs go through libjpeg-turbo (simplejpeg), whose pixels equal Pillow's; everything
    else, and every JPEG with an orientation or another colour space, through Pillow.

    Raises:
        UnreadableImageError: zero-byte, not-an-image, truncated, bomb.
    """
    if not data:
        raise UnreadableImageError("zero-byte")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise UnreadableImageError("bomb") from None
    except UnidentifiedImageError:
        raise UnreadableImageError("not-an-image") from None
    except Exception:  # Pillow's readers raise anything from struct.error to SyntaxError
        raise UnreadableImageError("not-an-image") from None
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImageError("bomb")
    notes = _notes(image)
    try:
        if image.format == "JPEG" and image.mode == "RGB" and not notes:
            return Picture(_decode_jpeg(data))
        return Picture(_decode_any(image), notes)
    except Exception:  # a damaged stream: whatever the codec calls it, the user's word is this
        raise UnreadableImageError("truncated") from None


def fit(pixels: Pixels, size: Size, turn: bool = False) -> Pixels:
    """Return `pixels` resized to `size`; `turn` first lays a tall picture on its side.

    Pillow's bilinear filter with antialiasing, in integer arithmetic: the same on every processor.
    """
    height, width = size
    if turn and pixels.shape[0] > pixels.shape[1]:
        pixels = np.rot90(pixels)
    if pixels.shape[:2] == size:
        return np.ascontiguousarray(pixels)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def normalise(batch: Pixels) -> npt.NDArray[np.float32]:
    """Return uint8 (B, H, W, 3) as the network's float32 input (B, 3, H, W), from -1 to 1."""
    scaled = batch.astype(np.float32) * np.float32(2 / 255) - np.float32(1)
    return scaled.transpose(0, 3, 1, 2)


def _notes(image: "ImageFile") -> tuple[str, ...]:
    notes = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append("animated")
    if image.mode == "CMYK":
        notes.append("cmyk")
    if image.mode.startswith("I") or image.mode == "F":
        notes.append("16-bit")
    if image.mode == "P" and "transparency" in image.info:
        notes.append("palette-transparency")
    if _orientation(image) not in (0, 1):
        notes.append("exif-rotated")
    return tuple(notes)


def _orientation(image: "ImageFile") -> Any:
    try:
        return image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1


def _decode_jpeg(data: bytes) -> Pixels:
    pixels: Pixels = simplejpeg.decode_jpeg(
        data, colorspace="RGB", fastdct=False, fastupsample=False
    )
    return pixels


def _decode_any(image: "ImageFile") -> Pixels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.seek(0)
        image.load()
        upright = ImageOps.exif_transpose(image) if _orientation(image) not in (0, 1) else image
        if upright.mode.startswith("I") or upright.mode == "F":
            return _from_deep(np.asarray(upright))
        if upright.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in upright.info:
            upright = upright.convert("RGBA")
        if upright.mode == "RGBA":
            paper = Image.new("RGBA", upright.size, (255, 255, 255, 255))
            upright = Image.alpha_composite(paper, upright)
        return np.asarray(upright.convert("RGB"))


def _from_deep(values: npt.NDArray[Any]) -> Pixels:
    """Return a grey picture of more than eight bits as RGB, its 16-bit range scaled to 8 bits."""
    top = 65535.0 if values.max(initial=0) > 255 else 255.0
    grey = np.clip(values.astype(np.float64) * (255.0 / top), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
