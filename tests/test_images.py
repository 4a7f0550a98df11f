"""Pixels: right side up, at the cheapest scale, the same as Pillow's."""

import io
import os
import subprocess
import sys
import time
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from weighin import images
from weighin.determinism import generator
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


@pytest.mark.parametrize("kind", ["PDF", "EPS", "ICO", "TGA"])
def test_other_formats_do_not(kind: str) -> None:
    with pytest.raises(UnreadableImageError, match=r"^not-an-image$"):
        decode(encoded(quarters(), kind))


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
    with pytest.raises(UnreadableImageError, match=rf"^{fault}$"):
        decode(data)
    with pytest.raises(UnreadableImageError, match=rf"^{fault}$"):
        load(data, (46, 64))
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
