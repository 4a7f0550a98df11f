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
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]

MAX_PIXELS = 64_000_000  # 192 MB of RGB: more than any camera of the contest, less than a bomb
# none that runs programs; imported, for Pillow opens no format it has not loaded; MPO comes as JPEG
READERS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    TiffImagePlugin.TiffImageFile,
    PpmImagePlugin.PpmImageFile,
)
FORMATS = tuple(reader.format for reader in READERS)
EXIF_ORIENTATION = 0x0112
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


class UnreadableImageError(Exception):
    """A file is not a usable picture; the message is the fault's name."""


@dataclass(frozen=True)
class Picture:
    """A decoded file: its pixels, and what was unusual about it."""

    pixels: Pixels  # (H, W, 3)
    notes: tuple[str, ...] = ()


def decode(data: bytes, size: Size = (0, 0), turn: bool = False) -> Picture:
    """Return the picture in `data`, upright, as RGB.

    With `size`, a plain JPEG comes out at the smallest scale of its own DCT (eighths) that still
    covers what `fit` will make of it: other pixels than decoding whole, in half the time.

    Plain JPEGs go through libjpeg-turbo (simplejpeg), whose pixels equal Pillow's; everything
    else, and every JPEG with an orientation or another colour space, through Pillow.

    Raises:
        UnreadableImageError: zero-byte, not-an-image, truncated, bomb.
    """
    image = _open(data)
    notes = _notes(image)
    try:
        if image.format in ("JPEG", "MPO") and image.mode == "RGB" and not notes:
            least = size[::-1] if turn and image.height > image.width else size
            return _decode_jpeg(data, image, least)
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


def load(data: bytes, size: Size, turn: bool = False) -> Picture:
    """Return the picture in `data` fitted to `size`: what is trained on and what is labelled.

    Measured on 2,000 photographs of 384 x 512 pixels, to 46 x 64: 0.24 ms each, against 1.1 ms for
    decoding whole and fitting, and on average 1.6 of 255 away from its pixels (bench/).

    Raises:
        UnreadableImageError: as `decode`.
    """
    picture = decode(data, size, turn)
    return Picture(fit(picture.pixels, size, turn), picture.notes)


def normalise(batch: Pixels) -> npt.NDArray[np.float32]:
    """Return uint8 (B, H, W, 3) as the network's float32 input (B, 3, H, W), from -1 to 1."""
    scaled = batch.astype(np.float32) * np.float32(2 / 255) - np.float32(1)
    return scaled.transpose(0, 3, 1, 2)


def _open(data: bytes) -> "ImageFile":
    if not data:
        raise UnreadableImageError("zero-byte")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise UnreadableImageError("bomb") from None
    except Exception:  # Pillow's readers raise anything from struct.error to SyntaxError
        raise UnreadableImageError("not-an-image") from None
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImageError("bomb")
    return image


def _notes(image: "ImageFile") -> tuple[str, ...]:
    notes = []
    # an MPO is a JPEG with a second view behind it, as phones write them
    if image.format != "MPO" and _animated(image):
        notes.append("animated")
    if image.mode == "CMYK":
        notes.append("cmyk")
    if image.mode[0] in "IF" or any(";16" in str(tile[3]) for tile in image.tile):
        notes.append("16-bit")
    if image.mode == "P" and "transparency" in image.info:
        notes.append("palette-transparency")
    if _orientation(image) not in (0, 1):
        notes.append("exif-rotated")
    return tuple(notes)


def _animated(image: "ImageFile") -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a second frame too broken to count says nothing about the first
        return False


def _orientation(image: "ImageFile") -> Any:
    try:
        return image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1


def _decode_jpeg(data: bytes, image: "ImageFile", least: Size) -> Picture:
    """Return a plain JPEG; where libjpeg warns, Pillow decides whether the picture is complete."""
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data,
            colorspace="RGB",
            fastdct=False,
            fastupsample=False,
            min_height=least[0],
            min_width=least[1],
        )
    except ValueError:
        return Picture(_decode_any(image), ("damaged",))
    return Picture(pixels)


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
    """Return a grey picture of more than eight bits as RGB, its 16-bit range scaled to 8 bits.

    Values that are no numbers are black. Wider modes do not say their range: up to 1 it is read as
    0 to 1, up to 255 as 8 bits, else as 16.
    """
    wide = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    most = wide.max(initial=0)
    top = 65535.0 if values.dtype == np.uint16 or most > 255 else 255.0
    if values.dtype.kind == "f" and most <= 1:
        top = 1.0
    grey = np.clip(wide * (255.0 / top), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
