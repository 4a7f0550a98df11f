"""The formats that are read, and what a file that cannot be opened is instead.

Every format is decoded by one thread and by whole numbers, or by code that is the same on every
processor, so that a picture gives the same pixels everywhere.
"""

import io
import logging
import re
import warnings
from typing import TYPE_CHECKING

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from weighin.errors import WeighinError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 64_000_000  # decoded: 192 MB of RGB; a larger picture is called a bomb
# of a JPEG, in times MAX_PIXELS: it is decoded at a half, a quarter or an eighth
MAX_JPEG, MAX_BUFFERED_JPEG = 16, 2
MAX_HEAD = 2**20  # bytes of a file that tell what it is
MAX_SEGMENTS = 100  # before a JPEG's pixels; a file that has more goes the slow way
# none that runs programs; imported, for Pillow opens no format it has not loaded; MPO comes as JPEG
READERS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    TiffImagePlugin.TiffImageFile,
    PpmImagePlugin.PpmImageFile,
    AvifImagePlugin.AvifImageFile,
    Jpeg2KImagePlugin.Jpeg2KImageFile,
)
FORMATS = tuple(reader.format for reader in READERS)
# what begins like this and does not open was a picture once
SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|II[*+]\0|MM\0[*+]|....ftypavi[fs]"
    rb"|\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    re.S,
)
TIFF = re.compile(rb"II[*+]\0|MM\0[*+]")
# what else people keep among their pictures
OTHERS = {
    rb"....ftyp(hei[cmsx]|hev[cx]|mif1|msf1)": "a HEIC file; convert it to JPEG",
    rb"....ftypcrx |FUJIFILMCCD-RAW|IIRO|IIRS|IIU\0": "a camera's raw file; convert it to JPEG",
    rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI |\0\0\x01\xba": "a video",
    rb"\0\0\0\x0cJXL |\xff\x0a": "a JPEG XL file; convert it to PNG",
    rb"8BPS": "a Photoshop file; convert it to PNG",
    rb"%PDF": "a PDF file",
    rb"%!PS|\xc5\xd0\xd3\xc6": "an EPS file; convert it to PNG",
    rb"\0\0\x01\0": "an icon; convert it to PNG",
    rb".{128}DICM": "a DICOM file; convert it to PNG",
    rb"SIMPLE  =": "a FITS file; convert it to PNG",
    rb"\x89HDF": "an HDF5 file",
    rb"\x93NUMPY": "a NumPy file",
    rb"version https://git-lfs": "a Git LFS pointer; run `git lfs pull` where it comes from",
    rb"\s*(<!doctype html|<html)": "a web page, not the file that it was to be",
    rb"\s*(<\?xml|<svg)": "an SVG or XML file",
    rb"\s*[{\[]": "a JSON file",
    rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf": "an archive; unpack it",
}
# its usual limit of 1 MB calls a picture with a long description or colour profile broken
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it writes to standard error


SAMPLES = {1: "unsigned", 2: "signed", 3: "floating-point"}  # by the tag SampleFormat


class UnreadableImageError(Exception):
    """A file is not a usable picture: the fault's name, and what is known of the file."""

    def __init__(self, fault: str, detail: str = "") -> None:
        super().__init__(fault, detail)
        self.fault, self.detail = fault, detail

    def __str__(self) -> str:
        return f"{self.fault}: {self.detail}" if self.detail else self.fault


def too_little_memory(size: str) -> WeighinError:
    """Return the error for a picture of that size, which may well be whole."""
    return WeighinError(
        f"there is too little memory for a picture of {size}",
        "free some memory, or set WEIGHIN_WORKERS to a smaller number, then run again",
    )


def open_image(data: bytes) -> "ImageFile":
    """Return a picture whose pixels are not read yet, and are few enough to be.

    Raises:
        UnreadableImageError: zero-byte, not-an-image, truncated (at its beginning), bomb.
        WeighinError: there is too little memory.
    """
    if not data:
        raise UnreadableImageError("zero-byte")
    jpeg = data.startswith(b"\xff\xd8\xff")
    try:  # Pillow's own limit knows nothing of the scales of a JPEG
        file = io.BytesIO(data)
        with warnings.catch_warnings(action="ignore"):
            image = (
                JpegImagePlugin.jpeg_factory(file) if jpeg else Image.open(file, formats=FORMATS)
            )
    except MemoryError:
        raise too_little_memory(f"{len(data):,} bytes") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError("bomb") from None
    except Exception:  # Pillow's readers raise anything from struct.error to SyntaxError
        raise _unopened(data) from None
    limit = 1 if not jpeg else MAX_BUFFERED_JPEG if _is_buffered(data) else MAX_JPEG
    if image.width * image.height > limit * MAX_PIXELS:
        raise UnreadableImageError("bomb")
    return image


def jpeg_segments(data: bytes) -> dict[int, int] | None:
    """Return {marker: place} of a JPEG's segments up to its pixels (0xDA); None for other files."""
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    found: dict[int, int] = {}
    for _ in range(MAX_SEGMENTS):
        if data[at : at + 1] != b"\xff" or at + 1 >= len(data):
            return None
        found[data[at + 1]] = at
        if data[at + 1] == 0xDA:
            return found
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _is_buffered(data: bytes) -> bool:
    """Return whether a JPEG comes in several scans, all of whose coefficients are kept: 6 B/pixel.

    So it is if it is progressive, or its first scan holds fewer colors than the picture.
    """
    segments = jpeg_segments(data) or {}
    frame = next((segments[marker] for marker in (0xC0, 0xC1) if marker in segments), None)
    if frame is None or 0xDA not in segments:
        return True
    return data[frame + 9 : frame + 10] != data[segments[0xDA] + 4 : segments[0xDA] + 5]


def kind_of(head: bytes) -> str:
    """Return what a file that is no image is, by its first MAX_HEAD bytes; empty if not known."""
    return _unopened(head).detail


def _unopened(data: bytes) -> UnreadableImageError:
    if TIFF.match(data) and (kind := _unread_tiff(data)):
        return UnreadableImageError("not-an-image", kind)
    if SIGNATURE.match(data):
        return UnreadableImageError("truncated")
    kinds = (kind for start, kind in OTHERS.items() if re.match(start, data[:400], re.S | re.I))
    return UnreadableImageError("not-an-image", next(kinds, ""))


def _unread_tiff(data: bytes) -> str:
    """Return what keeps a whole TIFF from being read; empty if it is not whole, or not known."""
    try:
        entries = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(entries.next)
        entries.load(file)
        bands = int(entries.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))
        if bands > 4:
            return f"{bands} bands; keep three of them"
        starts, sizes = (
            entries.get(strips) or entries.get(tiles, ())
            for strips, tiles in (
                (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS),
                (TiffImagePlugin.STRIPBYTECOUNTS, TiffImagePlugin.TILEBYTECOUNTS),
            )
        )
        ends = [start + size for start, size in zip(starts, sizes, strict=True)]
        if not ends or max(ends) > len(data):
            return ""
        bits = max(entries.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
        form = SAMPLES.get(max(entries.get(TiffImagePlugin.SAMPLEFORMAT, (1,))), "other")
        return f"a TIFF of {bits}-bit {form} samples; save it as PNG, or as a TIFF of 8 bits"
    except Exception:  # a directory that is broken too
        return ""
