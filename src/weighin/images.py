"""From a file's bytes to the pixels a network sees; training and grading share every line.

A `Size` is (H, W) in pixels. Pixels are uint8 RGB, (H, W, 3).
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from weighin.image_formats import (
    FORMATS,
    MAX_PIXELS,
    UnreadableImageError,
    jpeg_segments,
    open_image,
    too_little_memory,
)

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = ["FORMATS", "MAX_PIXELS", "Source", "UnreadableImageError", "decode", "load"]

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]

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
QUARTER_TURNS = (5, 6, 7, 8)  # which exchange height and width
LEAST = 64  # pixels: every smaller size comes from the decode of this one
SCALES = (8, 4, 2)  # that a JPEG is decoded at, one in so many
BITS_PER_SAMPLE, PHOTOMETRIC, MAX_SAMPLE, S_MAX_SAMPLE = 258, 262, 281, 341  # TIFF tags
SAMPLE_FORMAT = 339
# what Pillow reads the samples of a TIFF as, where these are others: {(mode, format, bits): type}
SAMPLE_TYPES = {("L", 2, 8): np.int8, ("I", 2, 16): np.int16, ("I", 1, 32): np.uint32}
# the largest values of 10 to 16 bits: what cameras and microscopes keep in 16
DEPTHS = (1023.0, 4095.0, 16383.0, 65535.0)
DARK = 32.0  # of 255: a picture that is nowhere brighter is hardly one of that range
OTHER_BYTE = {"16L": "16B", "16B": "16L", "16N": "16B"}  # an unpacking of 16 bits: the low byte's
BLOCK = 2**20  # pixels of more than eight bits that are scaled at once


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
        WeighinError: the methods: there is too little memory.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._done = data, dict[int, Image.Image]()
        self.notes: tuple[str, ...] = ()
        self._turn: Image.Transpose | None = None
        plain = _plain_jpeg(data)
        self._jpeg = plain is not None
        if plain is not None:
            self.shape: Size = plain  # as stored, maybe not upright
            self.upright: Size = plain  # of the whole picture, whatever the scale
            return
        file = open_image(data)
        self.shape, self.notes = stored_size(file), _notes(file)
        self.upright = self.shape[::-1] if exif_orientation(file) in QUARTER_TURNS else self.shape
        self._jpeg = file.format in ("JPEG", "MPO") and file.mode in ("RGB", "L")
        self._turn = TURNS.get(exif_orientation(file)) if self._jpeg else None

    def scale(self, least: int = MAX_PIXELS) -> int:
        """Return the scale, one in so many, at which `image` decodes.

        A JPEG's shorter side keeps `least` pixels where it has them; of MAX_PIXELS there are never
        more.
        """
        scale = 1
        if self._jpeg:
            scale = next((s for s in SCALES if -(-min(self.shape) // s) >= least), 1)
        while self.shape[0] * self.shape[1] > MAX_PIXELS * scale * scale:
            scale *= 2
        return scale

    def image(self, least: int = MAX_PIXELS) -> Image.Image:
        """Return the picture, upright, as RGB, its shorter side `least` pixels if it has them.

        A plain JPEG comes out at an eighth, a quarter or a half where that is enough: scaled in
        its DCT, so that other pixels come in a third less time than decoding whole. So does one
        of more than MAX_PIXELS where it is not.
        """
        scale = self.scale(least)
        try:
            if scale not in self._done:
                self._done[scale] = self._decode(scale)
            return self._done[scale]
        except MemoryError:
            height, width = self.shape
            raise too_little_memory(f"{width:,} x {height:,} pixels") from None
        except Exception:  # a damaged stream: whatever the codec says, the user's word is this
            raise UnreadableImageError("truncated") from None

    def fitted(self, size: Size, turn: bool = False, crop: float | None = None) -> Pixels:
        """Return the picture resized to `size`; `turn` first lays a tall one on its side.

        Pillow's bilinear filter with antialiasing, in integer arithmetic: the same on every
        processor. The whole picture is stretched, or, with `crop`, that share (0 to 1) of the
        largest part in its middle that has the proportions of `size`.
        """
        image = self.image(max(*size, LEAST) if crop is None else math.ceil(max(size) / crop))
        if turn and image.height > image.width:
            image = image.transpose(Image.Transpose.ROTATE_90)
        box = None
        if crop is not None:
            part = crop * min(image.height / size[0], image.width / size[1])
            left, top = (image.width - part * size[1]) / 2, (image.height - part * size[0]) / 2
            box = (left, top, left + part * size[1], top + part * size[0])
        return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR, box=box))

    def _decode(self, scale: int) -> Image.Image:
        if not self._jpeg:
            return self._decode_by_pillow(scale)
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
            return self._decode_by_pillow(scale)
        image = Image.fromarray(pixels)
        return image if self._turn is None else image.transpose(self._turn)

    def _decode_by_pillow(self, scale: int) -> Image.Image:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = open_image(self._data)
            if self.shape[0] * self.shape[1] > MAX_PIXELS:
                image.draft(image.mode, (image.width // scale, image.height // scale))
            image.seek(0)
            image.load()
            wide = "16-bit" in self.notes or _sample_type(image)
            deep = _deep_values(image, self._data) if wide else None
            upright: Image.Image = image
            if deep is not None:
                largest = _largest_value(image)
                pixels, guessed = _eight_bits(deep[:, :, :3] if deep.ndim == 3 else deep, largest)
                if _white_is_zero(image):
                    pixels = 255 - pixels
                self.notes += ("range-guessed",) * guessed
                upright = Image.fromarray(pixels)
                if deep.shape[2:] == (4,):  # opacity may have another range than the colors
                    opacity, _ = _eight_bits(deep[:, :, 3], largest)
                    upright.putalpha(Image.fromarray(opacity[:, :, 0]))
            if (turn := TURNS.get(exif_orientation(image))) is not None:
                upright = upright.transpose(turn)
            return _on_white(upright)


def decode(data: bytes) -> Picture:
    """Return the picture in `data`, upright, as RGB: whole, or a JPEG at most MAX_PIXELS of it.

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
    segments = jpeg_segments(data)
    if segments is None or 0xE1 in segments:
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    plain = colors in ("YCbCr", "Gray", "RGB") and height * width <= MAX_PIXELS
    return (height, width) if plain else None


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
    if exif_orientation(image) in TURNS:
        notes.append("exif-rotated")
    return tuple(notes)


def _animated(image: "ImageFile") -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a second frame too broken to count says nothing about the first
        return False


def exif_orientation(image: "ImageFile") -> int:
    """Return the EXIF orientation of an open picture, 1 to 8; 1 where it has none."""
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1
    return orientation if orientation in TURNS else 1


def stored_size(image: "ImageFile") -> Size:
    """Return the size of an open picture before its orientation turns it."""
    size = image.height, image.width
    if image.format == "TIFF" and exif_orientation(image) in QUARTER_TURNS:
        return size[::-1]  # of a TIFF Pillow gives the size that it will have
    return size


def _on_white(image: Image.Image) -> Image.Image:
    """Return a picture of any mode as RGB, what is transparent as white."""
    if image.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(paper, image)
    return image.convert("RGB")


def _deep_values(image: "ImageFile", data: bytes) -> npt.NDArray[Any] | None:
    """Return the values of a loaded picture of more than eight bits, or signed.

    They are (H, W), or (H, W, 3) of colors, or (H, W, 4) with opacity. Of colors Pillow keeps the
    high bytes. Where these are all under 64, as of 10 to 14 bits in 16, the low bytes are read as
    well; None: the high bytes are enough, or all that can be had.
    """
    if kind := _sample_type(image):
        return np.asarray(image).astype(kind)
    if image.mode[0] in "IF":
        return np.asarray(image)
    stored = np.asarray(image)
    if image.mode not in ("RGB", "RGBA") or stored[:, :, :3].max(initial=0) >= 64:
        return None
    again = open_image(data)
    tiles = [tile._replace(args=_of_low_bytes(tile.args)) for tile in again.tile]
    kind = str(again.tile)
    if tiles == again.tile or ("RGBa" in kind and stored[:, :, 3].min(initial=255) < 255):
        return None
    again.tile = tiles
    again.load()
    high, low = stored.astype(np.uint16), np.asarray(again).astype(np.uint16)
    if "LA;16B" in kind:  # both bytes of grey and both of opacity
        high, low = low[:, :, [0, 0, 0, 2]], low[:, :, [1, 1, 1, 3]]
    values: npt.NDArray[Any] = high * 256 + low
    return values


def _sample_type(image: "ImageFile") -> Any:
    """Return the type of a TIFF's samples where Pillow's mode is not theirs; else None."""
    tags = getattr(image, "tag_v2", {})
    form, bits = (tags.get(tag, (1,)) for tag in (SAMPLE_FORMAT, BITS_PER_SAMPLE))
    return SAMPLE_TYPES.get((image.mode, *form[:1], *bits[:1])) if len(bits) == 1 else None


def _of_low_bytes(arguments: Any) -> Any:
    """Return a decoder's arguments with the byte order of 16 bits swapped."""
    if isinstance(arguments, tuple):
        return tuple(_of_low_bytes(value) for value in arguments)
    if arguments == "LA;16B":  # there is no other order of it
        return "RGBA"
    mode, _, order = arguments.partition(";") if isinstance(arguments, str) else ("", "", "")
    return f"{mode};{OTHER_BYTE[order]}" if order in OTHER_BYTE else arguments


def _largest_value(image: "ImageFile") -> float | None:
    """Return the largest value that the samples of a TIFF of over eight bits may have, if said."""
    tags = getattr(image, "tag_v2", {})
    bits, *said = (tags.get(tag, 0) for tag in (BITS_PER_SAMPLE, S_MAX_SAMPLE, MAX_SAMPLE))
    try:
        tops = [float(np.max(value)) for value in (*said, 2.0 ** np.max(bits) - 1)]
    except (TypeError, ValueError, OverflowError):  # a tag that holds something else
        return None
    return next((top for top in tops[:2] if top > 255), tops[2] if 255 < tops[2] < 65535 else None)


def _white_is_zero(image: "ImageFile") -> bool:
    """Return whether a TIFF's values mean darkness, as of scanned films; Pillow turns 8 bits."""
    tags = getattr(image, "tag_v2", {})
    return image.mode[0] in "IF" and tags.get(PHOTOMETRIC) == 0


def _eight_bits(values: npt.NDArray[Any], largest: float | None) -> tuple[Pixels, bool]:
    """Return values (H, W) or (H, W, 3) scaled to 8 bits as RGB, and whether the range was guessed.

    The range begins at 0 and ends at the `largest` value that the file names. Where it names none,
    or a smaller one than it holds, it ends at the first that is large enough: 1 for floats, 255 but
    for 16-bit integers, then those of 10, 12, 14 and 16 bits (15 of signed ones, 7 of 8), then the
    picture's own. Floats may reach beyond a range by a quarter, as where a picture was resized;
    where they are of no range but far too dark for 255, it is the picture's own. Values below 0 or
    that are no numbers are black.
    """
    blocks = list(_blocks(values))
    most = max((float(_finite(values[rows]).max(initial=0)) for rows in blocks), default=0.0)
    kind, floats = values.dtype.str[1:], values.dtype.kind == "f"
    usual = () if kind in ("u2", "i1") else (1.0, 255.0) if floats else (255.0,)
    beyond = 1.25 if floats else 1.0
    full = {"i1": 127.0, "i2": 32767.0}.get(kind, DEPTHS[-1])
    depths = (*(top for top in DEPTHS if top < full), full)
    guess = next((top for top in (*usual, *depths) if most <= beyond * top), most)
    if floats and beyond < most < DARK:
        guess = most
    top = largest if largest is not None and most <= largest else guess
    pixels = np.empty((*values.shape[:2], 3), np.uint8)
    for rows in blocks:
        scaled = np.clip(_finite(values[rows]) * (255.0 / top), 0, 255).astype(np.uint8)
        pixels[rows] = scaled if scaled.ndim == 3 else scaled[:, :, None]
    return pixels, most > top or top not in (*usual, full, largest)


def _blocks(values: npt.NDArray[Any]) -> Iterator[slice]:
    step = max(1, BLOCK // max(1, values.shape[1]))
    return (slice(start, start + step) for start in range(0, len(values), step))


def _finite(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
