"""2,000 damaged files: no crash, no file that takes two seconds, no row without an explanation."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
from photos import photo
from PIL import Image

from weighin.data.faults import MARKS, UNREADABLE
from weighin.data.prepare import Scan, scan_part
from weighin.determinism import generator
from weighin.images import UnreadableImageError, decode, load

SIZES = ((24, 32), (96, 96))
KINDS = ("JPEG", "PNG", "WEBP")


def seeds() -> list[bytes]:
    """Return whole files of each kind: several sizes, modes and options."""
    files = []
    for number in range(4):
        picture = photo(number, 60 + 70 * number, 90 + 50 * number)
        exif = Image.Exif()
        exif[0x0112] = 1 + number * 2
        for kind in KINDS:
            for mode in ("RGB", "L") if number % 2 else ("RGB",):
                out = io.BytesIO()
                options = {"progressive": number % 2 == 1} if kind == "JPEG" else {}
                picture.convert(mode).save(out, kind, exif=exif, **options)
                files.append(out.getvalue())
    return files


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Return `data` changed as disks, networks and people change files, once or twice."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 3)):
        place = int(rng.integers(0, max(1, len(out))))
        head = int(rng.integers(0, max(1, min(len(out), 200))))  # where the sizes are
        length = int(rng.integers(1, 1 + min(400, max(1, len(out) // 4))))
        match int(rng.integers(0, 8)):
            case 0:
                del out[place:]
            case 1:
                del out[place : place + length]
            case 2:
                out[place:place] = rng.bytes(length)
            case 3:
                out[place : place + length] = bytes(length)
            case 4:
                out[place : place + length] = out[head : head + length]
            case 5 if out:
                out[head] = int(rng.integers(0, 256))
            case 6 if out:
                out[head] = 255
            case _ if out:
                out[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(out)


def damaged_files(count: int) -> list[bytes]:
    files = seeds()
    return [mutated(files[n % len(files)], generator("fuzz", n)) for n in range(count)]


@pytest.mark.parametrize("part", range(4))
def test_damaged_files(tmp_path: Path, part: int) -> None:
    files = damaged_files(2000)[500 * part : 500 * (part + 1)]
    drafts = tuple(tmp_path / f"{h}x{w}" for h, w in SIZES)
    job = Scan(tmp_path, drafts, SIZES, True, 10)
    readable = 0
    for number, data in enumerate(files):
        (tmp_path / f"{number}").write_bytes(data)
        for draft in drafts:
            draft.write_bytes(b"")
        start = time.process_time()
        (record,) = scan_part([f"{number}"], 0, job)
        assert time.process_time() - start < 2, f"file {500 * part + number} hangs"
        faults = {mark for bit, mark in enumerate(MARKS) if int(record["marks"]) >> bit & 1}
        bad = faults & set(UNREADABLE)
        for draft, size in zip(drafts, SIZES, strict=True):
            if bad:
                assert draft.read_bytes() == b""
                with pytest.raises(UnreadableImageError, match=f"^{next(iter(bad))}$"):
                    load(data, size, turn=True)
            else:  # and what is packed is still what is labelled
                row = np.frombuffer(draft.read_bytes(), np.uint8).reshape(*size, 3)
                assert np.array_equal(row, load(data, size, turn=True).pixels)
        assert len(bad) <= 1
        readable += not bad
    assert 80 < readable < 400  # neither everything nor nothing gets through


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "PPM"])
def test_other_kinds(kind: str) -> None:
    out = io.BytesIO()
    photo(1).save(out, kind)
    faults = set()
    for number in range(150):
        try:
            decode(mutated(out.getvalue(), generator("fuzz", kind, number)))
        except UnreadableImageError as error:
            faults.add(error.fault)
    assert "truncated" in faults
    assert faults <= set(UNREADABLE)
