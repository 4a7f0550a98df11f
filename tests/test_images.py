"""Pixels: right side up, at the cheapest scale, the same as Pillow's."""

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from weighin import images
from weighin.determinism import generator
from weighin.errors import WeighinError
from weighin.images import (
    FORMATS,
    LEAST,
    MAX_PIXELS,
    TURNS,
    Source,
    UnreadableImageError,
    decode,
    load,
    normalize,
)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def photo(height: int, width: int, number: int = 0) -> Image.Image:
    spots = generator("images", number).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC)


def quarters() -> Image.Image:
    """Return 16 x 24 pixels: red and green above, blue and white below."""
    picture = Image.new("RGB", (24, 16), RED)
    for colour, box in ((GREEN, (12, 0, 24, 8)), (BLUE, (0, 8, 12, 16)), (WHITE, (12, 8, 24, 16))):
        picture.paste(colour, box)
    return picture


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def corners(pixels: npt.NDArray[np.uint8]) -> list[tuple[int, ...]]:
    """Return the four quarters' colours, each channel 0 or 255."""
    rows, columns = pixels.shape[0] // 4, pixels.shape[1] // 4
    found = pixels[[rows, rows, -rows, -rows], [columns, -columns, columns, -columns]]
    return [tuple(255 * (channel > 127) for channel in colour) for colour in found.tolist()]


def drafted(data: bytes, scale: int) -> npt.NDArray[np.uint8]:
    """Return Pillow's own decode of a JPEG at 1/scale of its size."""
    image = Image.open(io.BytesIO(data))
    image.draft(image.mode, (image.width // scale, image.height // scale))
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 5}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_a_jpeg_at_each_scale_is_pillows(scale: int, mode: str, options: dict[str, Any]) -> None:
    data = encoded(photo(517, 701).convert(mode), **options)
    source = Source(data)
    ours = np.asarray(source.image(-(-517 // scale)))
    assert ours.shape == (-(-517 // scale), -(-701 // scale), 3)
    assert np.array_equal(ours, drafted(data, scale))
    assert source.notes == ()


@pytest.mark.parametrize(
    ("height", "width", "size", "scale"),
    [
        (512, 700, (48, 48), 8),  # 64 x 88: what LEAST asks for
        (511, 700, (16, 16), 8),
        (500, 700, (48, 48), 4),  # an eighth would be 63
        (700, 512, (65, 32), 4),
        (384, 512, (96, 96), 4),
        (384, 512, (96, 128), 2),
        (384, 512, (200, 200), 1),
        (96, 96, (48, 48), 1),
        (130, 4000, (46, 64), 2),
        (8, 8, (64, 64), 1),
    ],
)
def test_the_scale_is_the_smallest_that_is_enough(
    height: int, width: int, size: tuple[int, int], scale: int
) -> None:
    data = encoded(photo(height, width))
    whole = Image.fromarray(drafted(data, scale))
    wanted = whole.resize(size[::-1], Image.Resampling.BILINEAR)
    assert np.array_equal(load(data, size).pixels, np.asarray(wanted))
    short = -(-min(height, width) // scale)
    assert scale == 1 or short >= max(*size, LEAST)
    assert scale == 8 or -(-min(height, width) // (2 * scale)) < max(*size, LEAST)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_plain_jpeg_is_the_same_with_and_without_a_second_reader(mode: str) -> None:
    plain = encoded(photo(300, 400).convert(mode), quality=80)
    exif = Image.Exif()
    exif[0x010F] = "A camera"  # nothing that turns it, but a reason to look
    told = encoded(photo(300, 400).convert(mode), quality=80, exif=exif)
    assert (images._plain_jpeg(plain), images._plain_jpeg(told)) == (
        None if mode == "CMYK" else (300, 400),
        None,
    )
    for size in ((46, 64), (300, 400)):
        assert np.array_equal(load(plain, size).pixels, load(told, size).pixels)
    assert decode(plain).notes == decode(told).notes == (("cmyk",) if mode == "CMYK" else ())


def test_what_is_no_plain_jpeg_is_found_out_at_once() -> None:
    endless = b"\xff\xd8" + b"\xff\xd0\x00\x02" * 2**22
    start = time.process_time()
    assert images._plain_jpeg(endless) is None
    assert time.process_time() - start < 0.1
    for data in (b"", b"\xff\xd8", b"\xff\xd8\xff\xda", b"\xff\xd8\xff", b"BM\xff\xda"):
        assert images._plain_jpeg(data) is None


def test_each_scale_is_decoded_once() -> None:
    source = Source(encoded(photo(400, 512)))
    assert source.image(64) is source.image(70)
    assert source.image(64) is not source.image(101)
    assert source.image().size == (512, 400)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, *TURNS])
def test_an_orientation_is_undone(orientation: int, kind: str) -> None:
    upright = quarters()
    back = {6: 8, 8: 6}.get(orientation, orientation)
    stored = upright.transpose(TURNS[back]) if back in TURNS else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    data = encoded(stored, kind, exif=exif, **options)
    picture = decode(data)
    assert picture.pixels.shape == (16, 24, 3)
    assert corners(picture.pixels) == [RED, GREEN, BLUE, WHITE]
    assert picture.notes == (("exif-rotated",) if orientation > 1 else ())
    assert np.array_equal(picture.pixels, _by_pillow(data))
    assert np.array_equal(load(data, (16, 24), turn=True).pixels, picture.pixels)


def _by_pillow(data: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def test_a_large_turned_jpeg_is_scaled_like_an_upright_one() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    data = encoded(photo(600, 800), exif=exif)
    assert Source(data).image(64).size == (75, 100)
    assert np.array_equal(np.asarray(Source(data).image()), _by_pillow(data))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_is_no_fault(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode(encoded(quarters(), exif=exif)).notes == ()


def test_turn_lays_tall_pictures_on_their_side() -> None:
    tall = encoded(quarters().rotate(-90, expand=True), "PNG")
    assert corners(load(tall, (8, 12), turn=True).pixels) == [RED, GREEN, BLUE, WHITE]
    assert corners(load(tall, (12, 8)).pixels) == [BLUE, RED, WHITE, GREEN]
    wide = encoded(quarters(), "PNG")
    assert corners(load(wide, (8, 12), turn=True).pixels) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_opens(kind: str) -> None:
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    picture = decode(encoded(quarters(), kind, **options))
    assert corners(picture.pixels) == [RED, GREEN, BLUE, WHITE]
    assert picture.notes == ()


@pytest.mark.parametrize(
    ("kind", "what"),
    [("PDF", "a PDF file"), ("EPS", "an EPS file"), ("ICO", "an icon"), ("TGA", "")],
)
def test_other_formats_do_not(kind: str, what: str) -> None:
    with pytest.raises(UnreadableImageError, match=rf"^not-an-image(: {what}|$)") as caught:
        decode(encoded(quarters(), kind))
    assert (caught.value.fault, caught.value.detail[: len(what)]) == ("not-an-image", what)


def test_a_second_view_of_a_phone_is_passed_over() -> None:
    data = encoded(quarters(), "MPO", save_all=True, append_images=[photo(16, 24)], quality=95)
    picture = decode(data)
    assert corners(picture.pixels) == [RED, GREEN, BLUE, WHITE]
    assert picture.notes == ()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(quarters(), kind, save_all=True, append_images=[photo(16, 24)], **options)
    picture = decode(data)
    assert picture.notes == ("animated",)
    assert corners(picture.pixels) == [RED, GREEN, BLUE, WHITE]


def test_cmyk() -> None:
    picture = decode(encoded(quarters().convert("CMYK"), "JPEG", quality=95, subsampling=0))
    assert picture.notes == ("cmyk",)
    assert corners(picture.pixels) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_their_high_byte(kind: str) -> None:
    values = np.array([[0, 256, 32768], [40000, 65279, 65535]], np.uint16)
    picture = decode(encoded(Image.fromarray(values), kind))
    assert picture.notes == ("16-bit",)
    grey = (values * (255 / 65535)).astype(np.uint8)
    assert np.array_equal(picture.pixels, np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0.0, 0.5, 1.0], [0, 127, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 32768.0, 65535.0], [0, 127, 255]),
        ([np.nan, np.inf, 1.0], [0, 0, 255]),
        ([-5.0, 0.25, 1.0], [0, 63, 255]),
    ],
)
def test_floating_pixels(values: list[float], wanted: list[int]) -> None:
    picture = decode(encoded(Image.fromarray(np.array([values], np.float32)), "TIFF"))
    assert picture.notes == ("16-bit",)
    assert picture.pixels[0, :, 0].tolist() == wanted


@pytest.mark.parametrize(
    ("values", "wanted", "notes"),
    [
        ([0.0, 0.5, 1.0001], [0, 127, 255], ("16-bit", "range-guessed")),
        ([-0.1, 0.5, 1.1], [0, 127, 255], ("16-bit", "range-guessed")),
        ([0.0, 100.0, 256.5], [0, 100, 255], ("16-bit", "range-guessed")),
        ([0.0, 2.0, 8.0], [0, 63, 255], ("16-bit", "range-guessed")),  # light, without an end
        ([0.0, 2.0, 100.0], [0, 2, 100], ("16-bit",)),
    ],
)
def test_floating_pixels_beyond_a_range(
    values: list[float], wanted: list[int], notes: tuple[str, ...]
) -> None:
    picture = decode(encoded(Image.fromarray(np.array([values], np.float32)), "TIFF"))
    assert (picture.notes, picture.pixels[0, :, 0].tolist()) == (notes, wanted)


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert decode(encoded(clear, "PNG")).pixels.min() == 255
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert decode(encoded(half, "PNG")).pixels[0, 0].tolist() == [255, 127, 127]
    grey = Image.new("LA", (4, 4), (0, 0))
    assert decode(encoded(grey, "PNG")).pixels.min() == 255


def test_a_transparent_palette() -> None:
    picture = quarters().quantize(4)
    clear = picture.getpixel((0, 0))
    found = decode(encoded(picture, "PNG", transparency=clear))
    assert found.notes == ("palette-transparency",)
    assert corners(found.pixels) == [WHITE, GREEN, BLUE, WHITE]
    opaque = decode(encoded(picture, "PNG"))
    assert (opaque.notes, corners(opaque.pixels)) == ((), [RED, GREEN, BLUE, WHITE])


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["little", "big", "rgb little", "rgb big", "rgb png", "png"])
def test_ten_to_fourteen_bits_in_sixteen(kind: str, bits: int) -> None:
    """A ramp comes out from black to white, whatever of its 16 bits it fills."""
    ramp = np.linspace(0, 2**bits - 1, 256).astype(np.uint16).reshape(8, 32)
    values = np.stack([ramp, ramp // 2, ramp[::-1]], 2) if "rgb" in kind else ramp
    data = png16(values) if "png" in kind else tiff16(values, ">" if "big" in kind else "<")
    picture = decode(data)
    expected = (values * (255 / (2**bits - 1))).astype(np.uint8)
    if kind.startswith("rgb") and bits == 16:
        expected = (values >> 8).astype(np.uint8)  # Pillow's own high bytes
    wanted = expected if expected.ndim == 3 else np.repeat(expected[:, :, None], 3, axis=2)
    assert np.array_equal(picture.pixels, wanted)
    assert picture.notes == (("16-bit",) if bits == 16 else ("16-bit", "range-guessed"))


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("kind", ["png", "grey png", "tiff little", "tiff big", "tiff multiplied"])
def test_ten_to_fourteen_bits_with_opacity(kind: str, full: bool, bits: int) -> None:
    """They come out as they do without it, whatever of its 16 bits opacity fills."""
    top = 2**bits - 1
    ramp = np.linspace(0, top, 256).astype(np.uint16).reshape(8, 32)
    colors = np.stack([ramp] * 3 if "grey" in kind else [ramp, ramp // 2, ramp[::-1]], 2)
    opaque = np.full_like(ramp, 65535 if full or "multiplied" in kind else top)
    if not full and "multiplied" not in kind:
        opaque[0] = 0
    values = np.dstack([colors[:, :, :1] if "grey" in kind else colors, opaque])
    order = ">" if "big" in kind else "<"
    extra = [(338, 3, 1, 1 if "multiplied" in kind else 2)]
    data = png16(values) if "png" in kind else tiff16(values, order, extra=extra)
    picture = decode(data)
    wanted = (colors * (255 / top)).astype(np.uint8)
    wanted[opaque == 0] = 255
    assert np.array_equal(picture.pixels, wanted)
    assert picture.notes == ("16-bit", "range-guessed")


def test_a_range_that_the_file_names_is_not_guessed() -> None:
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64) // 2
    for tag in (281, 341):  # MaxSampleValue, SMaxSampleValue
        picture = decode(tiff16(ramp, extra=[(tag, 3, 1, 4095)]))
        assert picture.notes == ("16-bit",)
        assert picture.pixels.max() == 2047 * 255 // 4095
    assert decode(tiff16(ramp, extra=[(281, 3, 1, 65535)])).pixels.max() == 2047 * 255 // 65535
    for said in (7, 255, 1000):  # fewer than it holds
        picture = decode(tiff16(ramp, extra=[(281, 3, 1, said)]))
        assert (picture.notes[1], picture.pixels.max()) == ("range-guessed", 2047 * 255 // 4095)


def test_twelve_packed_bits_are_not_guessed() -> None:
    dark = np.array([[0, 1000], [2000, 2047]])
    packed = b"".join((int(a) << 12 | int(b)).to_bytes(3, "big") for a, b in dark)
    picture = decode(tiff16(dark, bits=12, body=packed))
    assert picture.notes == ("16-bit",)
    assert picture.pixels[:, :, 0].tolist() == (dark * 255 // 4095).tolist()


@pytest.mark.parametrize(
    ("largest", "guessed"), [(255, False), (3000, True), (65535, False), (70_000, True)]
)
def test_the_range_of_wider_modes(largest: int, guessed: bool) -> None:
    values = np.array([[0, largest]])
    for kind in (np.int32, np.float32):
        picture = decode(encoded(Image.fromarray(values.astype(kind)), "TIFF"))
        top = {3000: 4095}.get(largest, largest)
        assert picture.pixels[0, :, 0].tolist() == [0, largest * 255 // top]
        assert picture.notes == ("16-bit",) + ("range-guessed",) * guessed


def tiff16(
    values: npt.NDArray[Any],
    order: str = "<",
    bits: int = 16,
    body: bytes | None = None,
    extra: list[tuple[int, int, int, int]] | None = None,
) -> bytes:
    """Return (H, W) or (H, W, C) values of 16 bits as a plain TIFF."""
    height, width, *bands = values.shape
    count = bands[0] if bands else 1
    body = values.astype(f"{order}u2").tobytes() if body is None else body
    depth = (258, 3, 1, bits) if count == 1 else (258, 3, count, 8 + len(body))
    tags = [
        *((256, 4, 1, width), (257, 4, 1, height), depth, (259, 3, 1, 1)),
        *((262, 3, 1, 2 if count in (3, 4) else 1), (273, 4, 1, 8), (277, 3, 1, count)),
        *((278, 4, 1, height), (279, 4, 1, len(body)), *(extra or [])),
    ]
    depths = struct.pack(f"{order}{count}H", *[bits] * count) if count > 1 else b""
    start = 8 + len(body) + len(depths)
    out = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, start) + body + depths
    out += struct.pack(f"{order}H", len(tags))
    for tag, kind, many, value in sorted(tags):
        short = kind == 3 and many == 1
        packed = struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
        out += struct.pack(f"{order}HHI", tag, kind, many) + packed
    return out + bytes(4)


def png16(values: npt.NDArray[Any]) -> bytes:
    """Return (H, W) or (H, W, C) values as a PNG of 16 bits a sample."""
    height, width, *bands = values.shape
    rows = values.astype(">u2").reshape(height, -1)
    kind = (0, 4, 2, 6)[sum(bands or [1]) - 1]
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(name, data) for name, data in ((b"IHDR", head), (b"IDAT", pixels), (b"IEND", b""))
    )


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("bits", [12, 16])
def test_a_tiff_whose_zero_is_white_is_turned(bits: int) -> None:
    top = 2**bits - 1
    ramp = np.array([[0, top // 3, top]])
    plain = tiff16(ramp, extra=[(281, 3, 1, top)])
    film = plain.replace(*(struct.pack("<HHIHH", 262, 3, 1, zero, 0) for zero in (1, 0)))
    assert plain != film
    assert decode(plain).pixels[0, :, 0].tolist() == [0, 85, 255]
    assert decode(film).pixels[0, :, 0].tolist() == [255, 170, 0]
    assert decode(film).notes == ("16-bit",)


@pytest.mark.parametrize(
    ("kind", "values", "wanted"),
    [
        ("i1", [-128, 0, 42, 127], [0, 0, 84, 255]),
        ("i2", [-32768, 0, 8192, 32767], [0, 0, 63, 255]),
        ("i2", [-1000, 0, 2048, 4095], [0, 0, 127, 255]),  # 12 bits, as of computed tomography
        ("u4", [0, 2**31 - 1, 2**31, 2**32 - 1], [0, 127, 127, 255]),
    ],
)
@pytest.mark.parametrize("order", "<>")
def test_the_range_of_signed_and_long_samples(
    kind: str, values: list[int], wanted: list[int], order: str
) -> None:
    order = "<" if kind == "u4" else order  # Pillow opens no other
    body = np.array([values], f"{order}{kind}")
    form = [(339, 3, 1, 2 if kind[0] == "i" else 1)]
    bits = 8 * body.itemsize
    data = tiff16(body, order, bits=bits, body=body.tobytes(), extra=form)
    assert decode(data).pixels[0, :, 0].tolist() == wanted


@pytest.mark.parametrize(("kind", "words"), [("f2", "16-bit"), ("f8", "64-bit")])
def test_a_whole_tiff_of_samples_that_are_not_read_is_named(kind: str, words: str) -> None:
    values = np.zeros((4, 4))
    bits, body = int(words[:2]), values.astype(f"<{kind}").tobytes()
    whole = tiff16(values, bits=bits, body=body, extra=[(339, 3, 1, 3)])
    told = f"a TIFF of {words} floating-point samples; save it as PNG, or as a TIFF of 8 bits"
    part = whole.replace(struct.pack("<I", len(body)), struct.pack("<I", 10**6))  # its byte count
    for data, said in ((whole, f"not-an-image: {told}"), (part, "truncated")):
        with pytest.raises(UnreadableImageError) as caught:
            decode(data)
        assert str(caught.value) == said


@pytest.mark.parametrize("bands", [5, 13])
def test_many_bands_are_named(bands: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        decode(tiff16(np.zeros((4, 4, bands))))
    assert str(caught.value) == f"not-an-image: {bands} bands; keep three of them"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\0\0\0\x28ftypheic\0\0\0\0mif1heic", "a HEIC file; convert it to JPEG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC file; convert it to JPEG"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", "a video"),
        (b"\n <!DOCTYPE html><p>", "a web page, not the file that it was to be"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer; run `git lfs pull`"),
        (b"PK\x03\x04", "an archive; unpack it"),
        (bytes(128) + b"DICM", "a DICOM file"),
        (b"hello", ""),
    ],
)
def test_a_file_that_is_no_picture_is_named(data: bytes, what: str) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        Source(data + b"x" * 2000)
    assert (caught.value.fault, caught.value.detail[: len(what) or 1]) == ("not-an-image", what)


def test_an_avif_or_jpeg_2000_that_ends_early_is_truncated() -> None:
    for kind in ("AVIF", "JPEG2000"):
        data = encoded(photo(64, 64), kind)
        for end in (60, len(data) // 2):
            with pytest.raises(UnreadableImageError, match=r"^truncated$"):
                decode(data[:end])


def test_long_texts_and_profiles_of_a_png() -> None:
    text = zlib.compress(b"x" * 3 * 2**20)
    plain = encoded(quarters(), "PNG")
    for chunk_ in (
        chunk(b"zTXt", b"Comment\0\0" + text),
        chunk(b"iCCP", b"profile\0\0" + text),
        chunk(b"tEXt", b"Comment\0" + b"x" * 3 * 2**20),
    ):
        for place in (33, len(plain) - 12):  # behind the header, and behind the pixels
            picture = decode(plain[:place] + chunk_ + plain[place:])
            assert (picture.notes, corners(picture.pixels)) == ((), [RED, GREEN, BLUE, WHITE])


def phone(height: int, width: int, **options: Any) -> bytes:
    """Return a JPEG of that many pixels: white, with a dark middle."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[height // 4 : -height // 4, width // 4 : -width // 4] = 30
    return encoded(Image.fromarray(pixels), quality=80, subsampling=2, **options)


@pytest.mark.parametrize(
    ("height", "width", "turned"), [(9000, 12000, False), (9000, 12000, True), (12288, 16320, True)]
)
def test_a_phones_hundred_megapixels(height: int, width: int, turned: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = phone(height, width, **({"exif": exif} if turned else {}))
    picture = load(data, (48, 64))  # in 0.3 s of 108, and 0.6 s of 200 megapixels
    assert picture.notes == (("exif-rotated",) if turned else ())
    assert (picture.pixels[0, 0, 0], picture.pixels[24, 32, 0]) == (255, 30)
    assert Source(data).scale(64) == 8
    whole = decode(data).pixels  # as much of it as MAX_PIXELS are
    assert whole.shape[:2] == (
        (-(-width // 2), -(-height // 2)) if turned else (-(-height // 2), -(-width // 2))
    )


def test_a_phones_picture_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(phone(9000, 12000))
    code = (
        "import resource, sys; from weighin.images import load\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "load(open(sys.argv[1], 'rb').read(), (48, 64))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "p.jpg")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 60_000  # kB; whole it would be 324,000


def test_a_jpeg_that_cannot_be_scaled_in_little_memory_is_a_bomb() -> None:
    data = bytearray(encoded(photo(64, 64), progressive=True))
    place = data.index(b"\xff\xc2")
    for height, width, fault in ((11_000, 11_000, ""), (12_000, 12_000, "bomb")):
        data[place + 5 : place + 9] = struct.pack(">HH", height, width)
        assert found_fault(bytes(data)) == fault
    data = bytearray(encoded(photo(64, 64)))
    place = data.index(b"\xff\xc0")
    for height, width, fault in ((31_000, 33_000, ""), (40_000, 40_000, "bomb")):
        data[place + 5 : place + 9] = struct.pack(">HH", height, width)
        assert found_fault(bytes(data)) == fault


def found_fault(data: bytes) -> str:
    try:
        Source(data)
    except UnreadableImageError as error:
        return error.fault
    return ""


def test_a_large_jpeg_in_other_colors_is_scaled_too() -> None:
    data = encoded(Image.new("CMYK", (9000, 8000), (0, 255, 255, 0)))
    picture = decode(data)
    assert (picture.notes, picture.pixels.shape) == (("cmyk",), (4000, 4500, 3))
    assert corners(picture.pixels) == [RED] * 4


def test_too_little_memory_is_no_fault_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(images.simplejpeg, "decode_jpeg", full)
    with pytest.raises(WeighinError, match="too little memory for a picture of 64 x 48") as caught:
        load(encoded(photo(48, 64)), (46, 64))
    assert "WEIGHIN_WORKERS" in caught.value.fix


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_newer_formats_give_the_same_pixels_in_another_process(kind: str, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(encoded(photo(301, 403), kind))
    code = "import sys, zlib; from weighin.images import decode\n"
    code += "print(zlib.crc32(decode(open(sys.argv[1], 'rb').read()).pixels.tobytes()))"
    here = zlib.crc32(decode((tmp_path / "p").read_bytes()).pixels.tobytes())
    command = ["taskset", "-c", "0", sys.executable, "-c", code, str(tmp_path / "p")]
    for switch in ({}, {"OPJ_NUM_THREADS": "2"}):
        environment = {**os.environ, **switch}
        done = subprocess.run(command, env=environment, check=True, capture_output=True)
        assert int(done.stdout) == here


def huge(width: int, height: int) -> bytes:
    """Return the beginning of a PNG that says it is that large."""
    data = bytearray(encoded(Image.new("L", (1, 1)), "PNG"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "zero-byte"),
        (b"\0", "not-an-image"),
        (b"<html>404</html>", "not-an-image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not-an-image"),
        (encoded(photo(64, 64))[:2], "not-an-image"),
        (encoded(photo(64, 64))[:20], "truncated"),
        (encoded(photo(64, 64))[:900], "truncated"),
        (encoded(photo(64, 64), "PNG")[:900], "truncated"),
        (encoded(photo(64, 64), "WEBP")[:300], "truncated"),
        (huge(8001, 8000), "bomb"),
        (huge(2**31 - 1, 2**31 - 1), "bomb"),
        (huge(8000, 8000), "truncated"),
    ],
)
def test_unreadable(data: bytes, fault: str) -> None:
    for read in (decode, lambda data: load(data, (46, 64))):
        with pytest.raises(UnreadableImageError, match=rf"^{fault}(: |$)") as caught:
            read(data)
        assert caught.value.fault == fault
    assert MAX_PIXELS == 8000 * 8000


def test_a_jpeg_with_an_error_in_it_is_kept_and_said() -> None:
    data = bytearray(encoded(photo(300, 300), quality=90))
    middle = len(data) // 2
    data[middle : middle + 4] = b"\xff\xd3\xff\xd5"
    picture = decode(bytes(data))
    assert picture.notes == ("damaged",)
    assert np.array_equal(picture.pixels, _by_pillow(bytes(data)))
    assert load(bytes(data), (46, 64)).notes == ("damaged",)


def test_normalize() -> None:
    batch = np.array([[[[0, 51, 255]], [[255, 255, 0]]]], np.uint8)
    wanted = np.array([[[[-1.0], [1.0]], [[-0.6], [1.0]], [[1.0], [-1.0]]]], np.float32)
    found = normalize(batch)
    assert (found.dtype, found.shape) == (np.float32, (1, 3, 2, 1))
    assert np.allclose(found, wanted, atol=1e-7)


PIXELS = """
import hashlib, io
import numpy as np
from PIL import Image
from weighin.determinism import generator
from weighin.images import load

hashed = hashlib.sha256()
for number in range(24):
    spots = generator("images", number).integers(0, 256, (30, 40, 3), np.uint8)
    picture = Image.fromarray(spots).resize((401 + number, 303 - number))
    out = io.BytesIO()
    options = {"progressive": number % 2 == 1, "subsampling": number % 3}
    picture.save(out, "JPEG", quality=30 + 2 * number, **options)
    for size in ((16, 16), (46, 64), (100, 130), (200, 200), (400, 300)):
        hashed.update(load(out.getvalue(), size).pixels.tobytes())
print(hashed.hexdigest())
"""


def test_a_scaled_jpeg_is_the_same_on_processors_without_vector_instructions() -> None:
    """libjpeg-turbo's switches: no SIMD at all, SSE2, AVX2."""
    found = set()
    for switch in ("JSIMD_FORCENONE", "JSIMD_FORCESSE2", "JSIMD_FORCEAVX2"):
        environment = {**os.environ, switch: "1"}
        command = [sys.executable, "-c", PIXELS]
        found.add(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
    assert len(found) == 1
