"""What is trained on is what is labelled: the same bytes, from the same files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import encoded, photo, tree, write
from PIL import Image
from tests.small_models import make_model

from weighin.data.pack import packed_sizes, read_packed
from weighin.data.prepare import Scan, prepare, scan
from weighin.grading.model import open_model
from weighin.grading.predict import predict
from weighin.grading.runtime import Runner
from weighin.images import Pixels, Size, load, normalize
from weighin.parallel import InProcess
from weighin.params import Prepare

SIZES: tuple[Size, ...] = ((24, 32), (32, 24), (64, 64), (80, 96), (200, 300))


def files(root: Path) -> list[str]:
    """Write pictures of every shape and make that a packed row comes from."""
    shapes = [(72, 96), (96, 72), (300, 420), (900, 640), (48, 48), (33, 1000), (1, 1)]
    names = []
    for number, (height, width) in enumerate(shapes):
        picture = photo(number, height, width)
        turned = Image.Exif()
        turned[0x0112] = 6
        kinds: dict[str, bytes] = {
            "plain.jpg": encoded(picture),
            "progressive.jpg": encoded(picture, progressive=True),
            "grey.jpg": encoded(picture.convert("L")),
            "cmyk.jpg": encoded(picture.convert("CMYK")),
            "turned.jpg": encoded(picture, exif=turned),
            "turned.png": encoded(picture, "PNG", exif=turned),
            "flat.png": encoded(picture, "PNG"),
            "alpha.webp": encoded(picture.convert("RGBA"), "WEBP", lossless=True),
        }
        for kind, data in kinds.items():
            names.append(f"a/{height}x{width} {kind}")
            write(root / names[-1], data)
    return sorted(names)


@pytest.mark.parametrize("turn", [False, True])
def test_a_packed_row_is_what_load_returns(tmp_path: Path, turn: bool) -> None:
    names = files(tmp_path)
    drafts = tuple(tmp_path / f"{h}x{w}" for h, w in SIZES)
    scan(names, Scan(tmp_path, drafts, SIZES, turn, 100), InProcess(), 1)
    for draft, size in zip(drafts, SIZES, strict=True):
        rows = np.fromfile(draft, np.uint8).reshape(-1, *size, 3)
        for name, row in zip(names, rows, strict=True):
            loaded = load((tmp_path / name).read_bytes(), size, turn).pixels
            assert np.array_equal(row, loaded), (name, size)


def test_the_hash_and_the_faults_do_not_change_with_the_sizes(tmp_path: Path) -> None:
    names = files(tmp_path)
    few = scan(names, Scan(tmp_path, (tmp_path / "x",), ((8, 8),), False, 100), InProcess(), 1)
    drafts = tuple(tmp_path / f"{h}x{w}" for h, w in SIZES)
    many = scan(names, Scan(tmp_path, drafts, SIZES, True, 100), InProcess(), 1)
    assert few.tobytes() == many.tobytes()
    assert len(np.unique(few["hash"])) >= 7  # one a picture at least


def test_splits_do_not_change_with_the_sizes(tmp_path: Path, params: Prepare) -> None:
    source = tree(tmp_path / "data", {"a": 30, "b": 30})
    tables = []
    for sizes in (((8, 8),), ((96, 64), (24, 32))):
        out = tmp_path / str(sizes)
        prepare(source, out, replace(params, sizes=sizes), 0, 1)
        tables.append((out / "images.csv").read_bytes())
        assert packed_sizes(out) == sorted(sizes)
    assert tables[0] == tables[1]


def test_the_network_sees_the_same_numbers_in_training_and_in_grading(
    tmp_path: Path, params: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tree(tmp_path / "data", {"a": 20, "b": 20})
    prepare(source, tmp_path / "pack", params, 0, 1)
    (tmp_path / "model.onnx").write_bytes(make_model(size=(24, 32)).SerializeToString())
    seen: list[Any] = []
    run = Runner.logits

    def spied(self: Runner, batch: Pixels) -> Any:
        seen.append(normalize(batch))
        return run(self, batch)

    monkeypatch.setattr(Runner, "logits", spied)
    found = predict(open_model(tmp_path / "model.onnx"), source / "train", workers=1)
    graded = dict(zip(found.names, np.concatenate(seen), strict=True))
    for split in ("train", "validation"):
        packed = read_packed(tmp_path / "pack", split, (24, 32))
        assert np.array_equal(normalize(packed.images), [graded[name] for name in packed.names])
    assert len(graded) == 40
