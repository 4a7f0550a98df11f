"""From a file's bytes to the pixels a network sees; training and grading share every line.

A `Size` is (H, W) in pixels. Pixels are uint8 RGB, (H, W, 3).
"""

import io
import re
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
# what begins like this and does not open was a picture once
SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|II\*\0|MM\0\*", re.S
)
EXIF_ORIENTATION = 0x0112
TURNS = {  # what makes a picture of an EXIF orientation upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MAX_SEGMENTS = 100  # before a JPEG's pixels; a file that has more goes the slow way
LEAST = 64  # pixels: every smaller size comes from the decode of this one
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


class UnreadableImageError(Exception):
    """A file is not a usable picture; the message is the fault's name."""


@dataclass(frozen=True)
class Picture:
    """A decoded file: its pixels, and what was unusual about it."""

    pixels: Pixels  # (H, W, 3)
    notes: tuple[str, ...] = ()


class Source:
    """A file that is opened once, and decoded at most once for each scale that is asked of it.

    Plain JPEGs go through libjpeg-turbo (simplejpeg), whose pixels equal Pillow's at every scale;
    everything else, and a JPEG that libjpeg warns of, through Pillow.

    Raises:
        UnreadableImageError: zero-byte, not-an-image, bomb; the methods: truncated.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._done = data, dict[int, Image.Image]()
        self.notes: tuple[str, ...] = ()
        self._turn: Image.Transpose | None = None
        plain = _plain_jpeg(data)
        self._jpeg = plain is not None
        if plain is not None:
            self.shape: Size = plain  # as stored, maybe not upright
            return
        file = _open(data)
        self.shape, self.notes = (file.height, file.width), _notes(file)
        self._jpeg = file.format in ("JPEG", "MPO") and file.mode in ("RGB", "L")
        self._turn = TURNS.get(_orientation(file)) if self._jpeg else None

    def image(self, least: int = MAX_PIXELS) -> Image.Image:
        """Return the picture, upright, as RGB, its shorter side `least` pixels if it has them.

        A plain JPEG comes out at an eighth, a quarter or a half where that is enough: scaled in
        its DCT, so that other pixels come in a third less time than decoding whole.
        """
        scales = (8, 4, 2) if self._jpeg else ()
        scale = next((s for s in scales if -(-min(self.shape) // s) >= least), 1)
        try:
            if scale not in self._done:
                self._done[scale] = self._decode(scale)
            return self._done[scale]
        except Exception:  # a damaged stream: whatever the codec says, the user's word is this
            raise UnreadableImageError("truncated") from None

    def fitted(self, size: Size, turn: bool = False) -> Pixels:
        """Return the picture resized to `size`; `turn` first lays a tall one on its side.

        Pillow's bilinear filter with antialiasing, in integer arithmetic: the same on every
        processor.
        """
        image = self.image(max(*size, LEAST))
        if turn and image.height > image.width:
            image = image.transpose(Image.Transpose.ROTATE_90)
        return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))

    def _decode(self, scale: int) -> Image.Image:
        if not self._jpeg:
            return _decode_any(_open(self._data))
        try:
            pixels = simplejpeg.decode_jpeg(
                self._data,
                colorspace="RGB",
                fastdct=False,
                fastupsample=False,
                min_height=-(-self.shape[0] // scale),
                min_width=-(-self.shape[1] // scale),
            )
        except ValueError:  # where libjpeg warns, Pillow decides whether the picture is complete
            self.notes += ("damaged",)
            return _decode_any(_open(self._data))
        image = Image.fromarray(pixels)
        return image if self._turn is None else image.transpose(self._turn)


def decode(data: bytes) -> Picture:
    """Return the whole picture in `data`, upright, as RGB.

    Raises:
        UnreadableImageError: zero-byte, not-an-image, truncated, bomb.
    """
    source = Source(data)
    return Picture(np.asarray(source.image()), source.notes)


def load(data: bytes, size: Size, turn: bool = False) -> Picture:
    """Return the picture in `data` fitted to `size`: what is trained on and what is labelled.

    Raises:
        UnreadableImageError: as `decode`.
    """
    source = Source(data)
    return Picture(source.fitted(size, turn), source.notes)


def normalize(batch: Pixels) -> npt.NDArray[np.float32]:
    """Return uint8 (B, H, W, 3) as the network's float32 input (B, 3, H, W), from -1 to 1."""
    scaled = batch.astype(np.float32) * np.float32(2 / 255) - np.float32(1)
    return scaled.transpose(0, 3, 1, 2)


def _plain_jpeg(data: bytes) -> Size | None:
    """Return the size of a JPEG that says nothing but its pixels; None for any other file.

    Such a file has no EXIF and no XMP (both in APP1), so nothing that would turn it, and needs no
    second reader: opening it takes 5 microseconds instead of 45.
    """
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    for _ in range(MAX_SEGMENTS):
        if data[at : at + 1] != b"\xff" or data[at + 1 : at + 2] in (b"\xe1", b"\xda"):
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if data[at : at + 2] != b"\xff\xda":  # where the pixels begin
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    plain = colours in ("YCbCr", "Gray", "RGB") and height * width <= MAX_PIXELS
    return (height, width) if plain else None


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
        fault = "truncated" if SIGNATURE.match(data) else "not-an-image"
        raise UnreadableImageError(fault) from None
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
    if _orientation(image) in TURNS:
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


def _decode_any(image: "ImageFile") -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.seek(0)
        image.load()
        upright = ImageOps.exif_transpose(image) if _orientation(image) in TURNS else image
        if upright.mode.startswith("I") or upright.mode == "F":
            return Image.fromarray(_from_deep(np.asarray(upright)))
        if upright.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in upright.info:
            upright = upright.convert("RGBA")
        if upright.mode == "RGBA":
            paper = Image.new("RGBA", upright.size, (255, 255, 255, 255))
            upright = Image.alpha_composite(paper, upright)
        return upright.convert("RGB")


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
