"""The stage as a whole: the same bytes from any process, splits that hold, whole or not at all."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import encoded, photo, tree, write
from PIL import Image

from weighin.data.faults import RECORD, hexadecimal
from weighin.data.pack import (
    COLUMNS,
    packed_finer,
    packed_sizes,
    read_packed,
    read_splits,
    read_table,
    validation_groups,
    write_splits,
    write_table,
)
from weighin.data.prepare import prepare
from weighin.data.versioning import pack_data
from weighin.errors import DataError, OutputError, WorkerError
from weighin.files import read_json, sha256_tree
from weighin.images import load
from weighin.params import Prepare

RUN = """
import json, sys
from pathlib import Path
from weighin.data.prepare import prepare
from weighin.params import Prepare
from weighin.validation import read

if __name__ == "__main__":
    source, out, seed, workers, params = sys.argv[1:]
    params = read(Prepare, json.loads(params), "params")
    prepare(Path(source), Path(out), params, int(seed), int(workers))
"""


def in_process(
    source: Path, out: Path, params: Prepare, seed: int, workers: int, **environment: str
) -> str:
    """Prepare in a process of its own; return the hash of what it wrote."""
    script = write(out.parent / "run.py", RUN.encode())
    facts = json.dumps(asdict(params))
    command = [sys.executable, str(script), str(source), str(out), str(seed), str(workers), facts]
    subprocess.run(command, check=True, env=os.environ | environment, capture_output=True)
    return sha256_tree(out)


def faulty(root: Path) -> Path:
    """Return data with faults, groups, near-duplicates and more than one chunk of images."""
    source = tree(root, {"a": 40, "b": 30, "c": 30})
    write(source / "train/a/copy.jpg", (source / "train/a/000.jpg").read_bytes())
    write(source / "train/b/other.jpg", (source / "train/a/001.jpg").read_bytes())
    write(source / "train/c/again.jpg", encoded(photo(75).resize((80, 60)), quality=60))
    write(source / "train/c/empty.jpg", b"")
    write(source / "train/c/cut.jpg", encoded(photo(1))[:900])
    write(source / "train/c/street/1.png", encoded(photo(500), "PNG"))
    write(source / "train/c/street/2.webp", encoded(photo(501), "WEBP"))
    return source


def splits(out: Path) -> dict[str, str]:
    return {row["name"]: row["split"] for row in read_table(out)}


# --- bytes


def test_the_same_bytes_for_any_workers_process_and_place(tmp_path: Path, params: Prepare) -> None:
    source = faulty(tmp_path / "data")
    first = in_process(source, tmp_path / "one/work", params, 0, 1)
    odd = {"TZ": "Asia/Tokyo", "LANG": "tr_TR.UTF-8", "PYTHONHASHSEED": "7"}
    assert in_process(source, tmp_path / "two/deeper/work", params, 0, 2, **odd) == first
    moved = source.rename(tmp_path / "moved")
    assert in_process(moved, tmp_path / "four/work", params, 0, 4) == first
    assert in_process(moved, tmp_path / "seed/work", params, 1, 1) != first


def test_what_is_written(tmp_path: Path, params: Prepare) -> None:
    out = tmp_path / "work"
    report = prepare(faulty(tmp_path / "data"), out, params, 0, 1)
    assert sorted(path.name for path in out.iterdir()) == [
        "classes.json",
        "faults.csv",
        "images.csv",
        "pictures",
        "report.json",
        "splits.npy",
        "train_16x16.2.npy",
        "train_16x16.npy",
        "train_24x32.2.npy",
        "train_24x32.npy",
        "validation_16x16.2.npy",
        "validation_16x16.npy",
        "validation_24x32.2.npy",
        "validation_24x32.npy",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "work"]
    assert report == read_json(out / "report.json")
    assert report["files"] == 107
    assert report["images"] == 107 - 5  # a copy, two that contradict, two unreadable
    assert report["classes"] == {"a": 39, "b": 30, "c": 33}
    assert report["imbalance"] == 1.3
    assert report["fault_counts"] == {
        "contradiction": 2,
        "duplicate": 1,
        "near-duplicate": 1,
        "truncated": 1,
        "zero-byte": 1,
    }
    assert report["near_duplicates"] == {
        "pairs": 1,
        "across_classes": 0,
        "across_splits": 0,
        "shown": [["alike", "c/005.jpg", "c/again.jpg"]],
    }
    for label in "abc":
        both = [report["splits"][split][label] for split in ("train", "validation")]
        assert sum(both) == report["classes"][label]
    assert report["pictures"] == ["a.jpg", "b.jpg", "c.jpg", "-pairs.jpg"]
    assert sorted(path.name for path in (out / "pictures").iterdir()) == sorted(report["pictures"])
    assert packed_sizes(out) == [(16, 16), (24, 32)]


def test_further_splits_index_what_is_packed(tmp_path: Path, params: Prepare) -> None:
    """Groups stay together, every class is on both sides, and the rows are those of the arrays."""
    source, out = faulty(tmp_path / "data"), tmp_path / "work"
    for number, file in enumerate(sorted((source / "train/a").iterdir())):
        folder = source / "train/a" / f"scene {number // 6}"
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    prepare(source, out, replace(params, group="folder", validation=0.25), 0, 1)
    table, size = read_table(out), params.sizes[0]
    whole = [read_packed(out, side, size) for side in ("train", "validation")]
    images = np.concatenate([pack.images for pack in whole])
    further = read_splits(out)
    assert further.shape == (4, len(table))
    first = np.array([row["split"] == "validation" for row in table])
    counts = np.sum([first, *further[:3]], axis=0)
    assert np.mean(counts == 1) > 0.9  # at a quarter, four splits validate every image once
    groups = validation_groups(out, 5)
    assert [len(found) for found in groups] == [first.sum(), *further.sum(axis=1)]
    for split, validates in enumerate(further, 1):
        sides = [read_packed(out, side, size, split) for side in ("train", "validation")]
        for pack, flags in zip(sides, (~validates, validates), strict=True):
            assert pack.names == [row["name"] for row in np.array(table)[flags]]
            assert [pack.classes[k] for k in pack.labels] == [
                r["class"] for r in np.array(table)[flags]
            ]
            assert pack.images.shape == (flags.sum(), *size, 3)
            chosen = np.array([2, 0, 1])
            assert pack.images[chosen].tobytes() == images[flags][chosen].tobytes()
            assert np.array(pack.images).tobytes() == images[flags].tobytes()
            assert set(pack.labels) == {0, 1, 2}
        torn = {row["group"] for row in np.array(table)[validates]} - {""}
        assert torn and not torn & {row["group"] for row in np.array(table)[~validates]}


def test_a_split_that_is_given_has_no_further_ones(tmp_path: Path) -> None:
    write_table(tmp_path / "images.csv", [("train", 0, "a", "a.png", "", "")], COLUMNS)
    write_splits(tmp_path, np.zeros((0, 1), bool))
    with pytest.raises(DataError) as caught:
        validation_groups(tmp_path, 3)
    assert "1 split, which train.csv gives, and 3 are asked for" in caught.value.problem
    assert "set search.splits and tune.splits to 1" in caught.value.fix


def test_the_pack(tmp_path: Path, params: Prepare) -> None:
    source, out = faulty(tmp_path / "data"), tmp_path / "work"
    report = prepare(source, out, params, 0, 2)
    table = read_table(out)
    assert tuple(table[0]) == COLUMNS
    for split in ("train", "validation"):
        mine = [row for row in table if row["split"] == split]
        assert [int(row["row"]) for row in mine] == list(range(len(mine)))
        assert [row["name"] for row in mine] == sorted(row["name"] for row in mine)
        for size in params.sizes:
            packed = read_packed(out, split, size)
            assert packed.classes == ("a", "b", "c")
            assert packed.names == [row["name"] for row in mine]
            assert [packed.classes[label] for label in packed.labels] == [
                n[0] for n in packed.names
            ]
            assert len(packed.labels) == sum(report["splits"][split].values())
            for name, pixels in zip(packed.names, packed.images, strict=True):
                data = (source / "train" / name).read_bytes()
                assert np.array_equal(pixels, load(data, size).pixels)


def test_crops_have_larger_images_beside_each_size(tmp_path: Path, params: Prepare) -> None:
    source, out = faulty(tmp_path / "data"), tmp_path / "work"
    prepare(source, out, replace(params, supersample=3), 0, 2)
    assert packed_sizes(out) == [(16, 16), (24, 32)]
    assert packed_finer(out) == 3
    for split in ("train", "validation"):
        packed = read_packed(out, split, (24, 32), finer=3)
        assert packed.images.shape == (len(packed.names), 72, 96, 3)
        for name, pixels in zip(packed.names, packed.images, strict=True):
            data = (source / "train" / name).read_bytes()
            assert np.array_equal(pixels, load(data, (72, 96)).pixels)
    further = read_packed(out, "train", (24, 32), 1, finer=3)
    whole = {name: k for k, name in enumerate(packed.names)}
    k, name = next((k, name) for k, name in enumerate(further.names) if name in whole)
    assert np.array_equal(further.images[np.array([k])][0], packed.images[whole[name]])


def test_reading_a_pack_that_is_not_there(tmp_path: Path, params: Prepare) -> None:
    out = tmp_path / "work"
    with pytest.raises(DataError) as caught:
        read_table(out)
    assert str(caught.value) == (
        f"{out}/images.csv does not exist\n  to fix: run `dvc repro prepare`"
    )
    prepare(tree(tmp_path / "data", {"a": 8, "b": 8}), out, params, 0, 1)
    with pytest.raises(DataError) as caught:
        read_packed(out, "train", (48, 48))
    assert str(caught.value) == (
        f"{out}/train_48x48.npy does not exist\n  to fix: "
        "add [48, 48] to prepare.sizes in params.yaml, then run `dvc repro prepare`"
    )
    lines = (out / "images.csv").read_text().splitlines(keepends=True)
    (out / "images.csv").write_text("".join(lines[:-1]))
    held = len(np.load(out / "validation_16x16.npy"))
    with pytest.raises(DataError) as caught:
        read_packed(out, "validation", (16, 16))
    assert str(caught.value) == (
        f"{out}/validation_16x16.npy holds ({held}, 16, 16, 3) uint8, images.csv {held - 1} rows\n"
        "  to fix: run `dvc repro prepare`"
    )


def test_sheets_are_pictures_of_the_classes(tmp_path: Path, params: Prepare) -> None:
    out = tmp_path / "work"
    prepare(faulty(tmp_path / "data"), out, params, 0, 1)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        with Image.open(out / "pictures" / name) as sheet:
            assert sheet.size == (8 * 112, 18 + 4 * 112)
            assert len(sheet.getcolors(10**6) or []) > 1000
    with Image.open(out / "pictures/-pairs.jpg") as sheet:
        assert sheet.size == (8 * 112, 112 + 3 * 14 + 6)


def test_turning_tall_pictures(tmp_path: Path, params: Prepare) -> None:
    source = tree(tmp_path / "data", {"a": 8, "b": 8})
    write(source / "train/a/tall.png", encoded(photo(99, 96, 72), "PNG"))
    rows = []
    for turn in (False, True):
        prepare(source, tmp_path / "work", replace(params, turn_tall=turn), 0, 1)
        splitted = [read_packed(tmp_path / "work", s, (24, 32)) for s in ("train", "validation")]
        (row,) = (
            images
            for part in splitted
            for name, images in zip(part.names, part.images, strict=True)
            if name == "a/tall.png"
        )
        rows.append(np.array(row))
    upright = photo(99, 96, 72)
    for row, picture in zip(rows, (upright, upright.rotate(90, expand=True)), strict=True):
        wanted = np.asarray(picture.resize((32, 24), Image.Resampling.BILINEAR))
        assert np.array_equal(row, wanted)


# --- splits


def test_adding_an_image_moves_no_other(tmp_path: Path, params: Prepare) -> None:
    source = faulty(tmp_path / "data")
    prepare(source, tmp_path / "work", params, 0, 1)
    before = splits(tmp_path / "work")
    sides = set()
    for number in range(10):
        added = write(source / "train/a" / f"{'z' * number}new.jpg", encoded(photo(600 + number)))
        prepare(source, tmp_path / "work", params, 0, 1)
        after = splits(tmp_path / "work")
        sides.add(after.pop(f"a/{added.name}"))
        assert after == before
        added.unlink()
    assert sides == {"train", "validation"}


def test_names_do_not_decide(tmp_path: Path, params: Prepare) -> None:
    source = tree(tmp_path / "data", {"a": 40, "b": 40})
    prepare(source, tmp_path / "work", params, 0, 1)
    before = {row["sha256"]: row["split"] for row in read_table(tmp_path / "work")}
    for number, path in enumerate(sorted(source.rglob("*.jpg"))):
        path.rename(path.with_name(f"{997 * number % 1009}.jpeg"))
    prepare(source, tmp_path / "work", params, 0, 1)
    assert {row["sha256"]: row["split"] for row in read_table(tmp_path / "work")} == before
    prepare(source, tmp_path / "work", params, 1, 1)
    assert {row["sha256"]: row["split"] for row in read_table(tmp_path / "work")} != before


def grouped(root: Path, column: bool) -> Path:
    """Return 20 groups of 4 images in two classes, told by a folder or by train.csv."""
    rows = ["filename,class,group\n"]
    for number in range(80):
        label, group = "ab"[number % 2], f"g{number // 4}"
        name = f"{label}/{number}.jpg" if column else f"{label}/{group}/{number}.jpg"
        write(root / "train" / name, encoded(photo(number)))
        rows.append(f"{name},{label},{group}\n")
    if column:
        write(root / "train.csv", "".join(rows).encode())
    return root


@pytest.mark.parametrize("kind", ["column", "folder"])
def test_groups_stay_in_one_split(tmp_path: Path, params: Prepare, kind: str) -> None:
    source = grouped(tmp_path / "data", kind == "column")
    report = prepare(source, tmp_path / "work", replace(params, group=kind), 0, 1)
    assert report["groups"] == 20
    sides: dict[str, set[str]] = {}
    for row in read_table(tmp_path / "work"):
        sides.setdefault(row["group"], set()).add(row["split"])
    assert len(sides) == 20
    assert all(len(side) == 1 for side in sides.values())
    assert {next(iter(side)) for side in sides.values()} == {"train", "validation"}
    # not by chance
    prepare(source, tmp_path / "work", replace(params, group="none"), 0, 1)
    free: dict[str, set[str]] = {}
    for name, split in splits(tmp_path / "work").items():
        free.setdefault(str(int(Path(name).stem) // 4), set()).add(split)
    assert any(len(side) == 2 for side in free.values())


def test_a_column_needs_its_table(tmp_path: Path, params: Prepare) -> None:
    source = tree(tmp_path / "data", {"a": 8, "b": 8})
    column = replace(params, group="column")
    assert prepare(source, tmp_path / "work", column, 0, 1)["groups"] == 0  # no table: no groups
    write(source / "train.csv", b"filename,class\n")
    with pytest.raises(DataError) as caught:
        prepare(source, tmp_path / "work", column, 0, 1)
    assert str(caught.value) == (
        f"{source}/train.csv has no columns filename and group\n"
        "  to fix: add the column, or set prepare.group: none in params.yaml"
    )


def clip(folder: Path, number: int, frames: int = 12) -> None:
    """Write the frames of a clip: one picture, on which a dot wanders."""
    pixels = np.asarray(photo(number))
    for frame in range(frames):
        dotted = pixels.copy()
        dotted[0, frame] = 255
        write(folder / f"frame_{frame:03}.png", encoded(Image.fromarray(dotted), "PNG"))


def held(report: dict[str, Any]) -> dict[str, tuple[int, int]]:
    splits = report["splits"]
    return {name: (splits["train"][name], splits["validation"][name]) for name in splits["train"]}


@pytest.mark.parametrize("seed", range(8))
def test_a_class_of_one_clip_has_both_splits(
    tmp_path: Path, params: Prepare, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    clip(tmp_path / "data/train/Cup", 1)
    clip(tmp_path / "data/train/Pen", 2)
    tree(tmp_path / "data", {"Other": 12}, 10)
    report = prepare(tmp_path / "data", tmp_path / "work", params, seed, 1)
    assert all(train >= 6 and validates >= 1 for train, validates in held(report).values())
    assert report["gave_way"] == [
        {"class": name, "guess": "near-duplicates"} for name in ("Cup", "Pen")
    ]
    told = [line for line in capsys.readouterr().err.splitlines() if "near-duplicates" in line]
    assert [line.split(":")[1].strip() for line in told] == ["class Cup", "class Pen"]


def test_near_duplicates_of_other_classes_stay_in_one_split(
    tmp_path: Path, params: Prepare
) -> None:
    """Where the guess gives way for one class, another's families still hang together."""
    clip(tmp_path / "data/train/Cup", 1)
    for number in range(8):
        clip(tmp_path / f"data/train/Pen/{number}", 20 + number, 3)
    report = prepare(tmp_path / "data", tmp_path / "work", params, 0, 1)
    assert report["gave_way"] == [{"class": "Cup", "guess": "near-duplicates"}]
    sides: dict[str, set[str]] = {}
    for name, side in splits(tmp_path / "work").items():
        sides.setdefault(name.rsplit("/", 1)[0], set()).add(side)
    assert len(sides.pop("Cup")) == 2
    assert [len(side) for side in sides.values()] == [1] * 8


@pytest.mark.parametrize("kind", ["folder", "column"])
def test_a_sub_folder_as_group_gives_way(tmp_path: Path, params: Prepare, kind: str) -> None:
    """As `cats/s1/*` is read by an import: told by the name alone, in a column or not."""
    rows = ["filename,class,group\n"]
    for number in range(36):
        label, group = ("cats", "s1") if number < 12 else ("dogs", f"s{2 + number % 4}")
        write(tmp_path / f"data/train/{label}/{group}/{number}.jpg", encoded(photo(number)))
        rows.append(f"{label}/{group}/{number}.jpg,{label},{group}\n")
    write(tmp_path / "data/train.csv", "".join(rows).encode())
    for seed in range(5):
        report = prepare(tmp_path / "data", tmp_path / "work", replace(params, group=kind), seed, 1)
        assert report["gave_way"] == [{"class": "cats", "guess": "sub-folders"}]
        assert min(min(both) for both in held(report).values()) >= 1
        sides: dict[str, set[str]] = {}
        for name, side in splits(tmp_path / "work").items():
            sides.setdefault("/".join(name.split("/")[:2]), set()).add(side)
        assert {group: len(side) for group, side in sides.items()} == {
            "cats/s1": 2,
            **{f"dogs/s{number}": 1 for number in (2, 3, 4, 5)},
        }


def test_sub_folders_that_cross_classes_give_way(tmp_path: Path, params: Prepare) -> None:
    """Three classes, each two of three sessions: no two splits of whole sessions serve them all."""
    for number in range(60):
        label = "abc"[number % 3]
        group = {"a": "xy", "b": "yz", "c": "zx"}[label][number // 3 % 2]
        write(tmp_path / f"data/train/{label}/{group}/{number}.jpg", encoded(photo(number)))
    for seed in range(5):
        folder = replace(params, group="folder")
        report = prepare(tmp_path / "data", tmp_path / "work", folder, seed, 1)
        assert min(min(both) for both in held(report).values()) >= 1
        assert 1 <= len(report["gave_way"]) <= 2


@pytest.mark.parametrize("below", ["images", "DCIM/100CANON"])
@pytest.mark.parametrize("kind", ["folder", "column"])
def test_a_folder_of_every_class_is_no_group(
    tmp_path: Path, params: Prepare, below: str, kind: str
) -> None:
    rows = ["filename,class,group\n"]
    for number in range(24):
        label, data = "abc"[number % 3], encoded(photo(number))
        write(tmp_path / f"flat/train/{label}/{number}.jpg", data)
        write(tmp_path / f"data/train/{label}/{below}/{number}.jpg", data)
        rows.append(f"{label}/{below}/{number}.jpg,{label},{below.split('/')[0]}\n")
    write(tmp_path / "data/train.csv", "".join(rows).encode())
    prepare(tmp_path / "flat", tmp_path / "flat.work", params, 0, 1)
    report = prepare(tmp_path / "data", tmp_path / "work", replace(params, group=kind), 0, 1)
    assert (report["groups"], report["gave_way"]) == (0, [])
    sides = {name.replace(f"{below}/", ""): s for name, s in splits(tmp_path / "work").items()}
    assert sides == splits(tmp_path / "flat.work")


def test_a_folder_of_two_classes_gives_way_for_both(tmp_path: Path, params: Prepare) -> None:
    for number in range(24):
        folder = ("a/images", "b/images", "c")[number % 3]
        write(tmp_path / f"data/train/{folder}/{number}.jpg", encoded(photo(number)))
    for seed in range(5):
        folders = replace(params, group="folder")
        report = prepare(tmp_path / "data", tmp_path / "work", folders, seed, 1)
        assert report["gave_way"] == [{"class": name, "guess": "sub-folders"} for name in "ab"]
        assert all(min(both) >= 1 for both in held(report).values())


def test_a_clip_of_two_classes_gives_way(tmp_path: Path, params: Prepare) -> None:
    clip(tmp_path / "data/train/Cup", 1)
    for path in sorted((tmp_path / "data/train/Cup").iterdir())[::2]:
        write(tmp_path / "data/train/Pen" / path.name, path.read_bytes())
        path.unlink()
    report = prepare(tmp_path / "data", tmp_path / "work", params, 0, 1)
    assert report["gave_way"][0]["guess"] == "near-duplicates"
    assert all(min(both) >= 1 for both in held(report).values())


@pytest.mark.parametrize(
    ("group", "problem"),
    [
        ("clip 1", 'all 12 images of class Cup are of one group, "clip 1"'),
        ("", ""),  # its own images are groups then
    ],
)
def test_a_group_that_is_given_is_kept_or_refused(
    tmp_path: Path, params: Prepare, group: str, problem: str
) -> None:
    source = tree(tmp_path / "data", {"Cup": 12, "Pen": 12})
    rows = [f"Cup/{number:03}.jpg,Cup,{group}\n" for number in range(12)]
    write(source / "train.csv", ("filename,class,group\n" + "".join(rows)).encode())
    column = replace(params, group="column")
    if not problem:
        assert prepare(source, tmp_path / "work", column, 0, 1)["gave_way"] == []
        return
    for seed in range(4):
        with pytest.raises(DataError) as caught:
            prepare(source, tmp_path / "work", column, seed, 1)
        assert caught.value.problem.startswith(problem)
        assert "images of Cup of another group" in caught.value.fix
        assert "prepare.group: none" in caught.value.fix
    assert not (tmp_path / "work").exists()


def test_groups_that_tie_classes_are_refused_where_one_lacks_a_split(
    tmp_path: Path, params: Prepare
) -> None:
    source = tree(tmp_path / "data", {"a": 20, "b": 20, "c": 20})
    tied = {"a": "xy", "b": "yz", "c": "zx"}
    rows = [f"{n}/{i:03}.jpg,{n},{tied[n][i % 2]}\n" for n in "abc" for i in range(20)]
    write(source / "train.csv", ("filename,class,group\n" + "".join(rows)).encode())
    with pytest.raises(DataError, match=r"all 20 images of class . hang together by their groups"):
        prepare(source, tmp_path / "work", replace(params, group="column"), 0, 1)


def test_groups_of_several_classes_are_moved_until_each_has_both_splits(
    tmp_path: Path, params: Prepare
) -> None:
    """Four sessions, each of two of four classes: half of the ways to split them serve all."""
    source = tree(tmp_path / "data", {"a": 10, "b": 10, "c": 10, "d": 10})
    tied = {"a": "wx", "b": "xy", "c": "yz", "d": "zw"}
    rows = [f"{n}/{i:03}.jpg,{n},{tied[n][i % 2]}\n" for n in "abcd" for i in range(10)]
    write(source / "train.csv", ("filename,class,group\n" + "".join(rows)).encode())
    for seed in range(10):
        report = prepare(source, tmp_path / "work", replace(params, group="column"), seed, 1)
        assert set(held(report).values()) == {(5, 5)}


def test_a_class_of_one_picture_is_refused(tmp_path: Path, params: Prepare) -> None:
    kept = replace(params, faults=replace(params.faults, small_class="keep", duplicate="keep"))
    source = tree(tmp_path / "data", {"a": 8, "b": 8, "Lone": 1})
    with pytest.raises(DataError) as caught:
        prepare(source, tmp_path / "work", kept, 0, 1)
    assert caught.value.problem == "class Lone has one image, which cannot train and validate"
    assert "small_class: drop" in caught.value.fix
    for number in range(5):
        write(source / f"train/Lone/{number}.jpg", (source / "train/Lone/000.jpg").read_bytes())
    with pytest.raises(DataError) as caught:
        prepare(source, tmp_path / "work", kept, 0, 1)
    assert caught.value.problem == "all 6 images of class Lone are copies of one"


# --- a split that the data came with


def with_split(source: Path, validation: set[str]) -> Path:
    names = sorted(path.relative_to(source / "train") for path in source.rglob("*.jpg"))
    lines = [
        f"{name},{name.parent},,{'validation' if name.as_posix() in validation else 'train'}\n"
        for name in names
    ]
    write(source / "train.csv", ("filename,class,group,split\n" + "".join(lines)).encode())
    return source


@pytest.mark.parametrize("kind", ["none", "folder", "column"])
def test_a_split_that_is_given_is_taken(tmp_path: Path, params: Prepare, kind: str) -> None:
    source = tree(tmp_path / "data", {"a": 8, "b": 8})
    chosen = {"a/001.jpg", "a/007.jpg", "b/000.jpg"}
    given = replace(params, group=kind)
    for seed in (0, 1):
        report = prepare(with_split(source, chosen), tmp_path / "work", given, seed, 1)
        found = {name for name, side in splits(tmp_path / "work").items() if side == "validation"}
        assert (found, report["split_is_given"]) == (chosen, True)
    (source / "train.csv").unlink()
    report = prepare(source, tmp_path / "work", replace(params, group="none"), 0, 1)
    found = {name for name, side in splits(tmp_path / "work").items() if side == "validation"}
    assert (found != chosen, report["split_is_given"]) == (True, False)


@pytest.mark.parametrize(
    ("saved", "note"),
    [
        (lambda text: text.encode("cp1252"), "train.csv: it is read as CP1252, such as"),
        (lambda text: text.encode("utf-16"), "train.csv: it is read as UTF-16"),
        (lambda text: text.replace(",", ";").encode("utf-8-sig"), ""),
        (lambda text: text.replace(",validation", ", VAL").encode(), ""),
        (lambda text: text.replace("/0", "\\0").replace("filename", "Filename").encode(), ""),
        (
            lambda text: (text + "Mül/9.jpg,Mül,,train\nMül/8.jpg,Mül,,\n").encode(),
            "train.csv: 2 rows name no image of {train}, such as Mül/9.jpg",
        ),
        (
            lambda text: text.replace("a/003.jpg,a,", "a/003.jpg,Mül,").encode(),
            "train.csv: 1 rows say another class than the folder of their image, such as "
            "a/003.jpg (Mül); the folder counts: move the image to change its class",
        ),
    ],
)
def test_a_table_that_a_spreadsheet_saved_gives_the_same_split(
    tmp_path: Path,
    params: Prepare,
    capsys: pytest.CaptureFixture[str],
    saved: Callable[[str], bytes],
    note: str,
) -> None:
    chosen = {"a/001.jpg", "a/007.jpg", "Mül/000.jpg"}
    source = with_split(tree(tmp_path / "data", {"a": 8, "Mül": 8}), chosen)
    table = source / "train.csv"
    table.write_bytes(saved(table.read_text(encoding="utf-8")))
    prepare(source, tmp_path / "work", params, 0, 1)
    found = {name for name, side in splits(tmp_path / "work").items() if side == "validation"}
    assert found == chosen
    told = [line for line in capsys.readouterr().err.splitlines() if "train.csv" in line]
    assert len(told) == bool(note)
    assert all(f"prepare: {note.format(train=source / 'train')}" in line for line in told)
    assert pack_data(source, 10**6, 1)
    with tarfile.open(source / "train/shard-000000.tar") as tar:
        facts = [json.load(tar.extractfile(one)) for one in tar if one.name.endswith("json")]  # type: ignore[arg-type]
    assert {fact["name"] for fact in facts if fact["split"] == "validation"} == chosen


@pytest.mark.parametrize(
    ("change", "problem", "fix"),
    [
        (
            (",b,,validation", ",b,,maybe"),
            '{csv}, line 10: the split of b/000.jpg is "maybe"',
            "write train or validation into the column split of {csv}",
        ),
        (
            (",b,,validation", ",b,,test"),
            '{csv}, line 10: the split of b/000.jpg is "test"',
            "write train or validation into the column split of {csv}",
        ),
        (
            ("b/001.jpg", "b/000.jpg"),
            "{csv}, line 11: b/000.jpg is of the validation split above",
            "remove the wrong row",
        ),
        (
            ("/0", "/9"),
            "none of the 16 files that {csv} names is in {train}, such as a/900.jpg",
            "import the data again, or remove {csv}: prepare then chooses a split",
        ),
        (
            ("filename", "photo"),
            "{csv} has no column filename; it has photo, class, group, split",
            "name the column of its files so, or import the data again",
        ),
    ],
)
def test_a_table_that_says_what_it_cannot_mean(
    tmp_path: Path, params: Prepare, change: tuple[str, str], problem: str, fix: str
) -> None:
    source = with_split(tree(tmp_path / "data", {"a": 8, "b": 8}), {"a/001.jpg", "b/000.jpg"})
    table = source / "train.csv"
    table.write_text(table.read_text().replace(*change))
    with pytest.raises(DataError) as caught:
        prepare(source, tmp_path / "work", params, 0, 1)
    assert caught.value.problem == problem.format(csv=table, train=source / "train")
    assert caught.value.fix == fix.format(csv=table)


def test_what_is_alike_across_a_given_split_is_said(
    tmp_path: Path, params: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tree(tmp_path / "data", {"a": 8, "b": 8})
    write(source / "train/a/again.jpg", encoded(photo(3).resize((80, 60)), quality=60))
    report = prepare(
        with_split(source, {"a/003.jpg", "b/000.jpg"}), tmp_path / "work", params, 0, 1
    )
    assert report["near_duplicates"]["across_splits"] == 1
    assert "1 pairs of near-duplicates lie across the split" in capsys.readouterr().err


def test_a_group_that_a_given_split_tears_apart_is_said(
    tmp_path: Path, params: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    source = with_split(tree(tmp_path / "data", {"a": 8, "b": 8}), {"a/003.jpg", "b/000.jpg"})
    table = source / "train.csv"
    table.write_text(table.read_text().replace("a,,", "a,walk,").replace("0.jpg,b,,", "0.jpg,b,b,"))
    report = prepare(source, tmp_path / "work", replace(params, group="column"), 0, 1)
    assert report["groups_across_splits"] == ["walk"]
    said = "1 groups lie across the split that train.csv gives, such as walk;"
    assert said in capsys.readouterr().err
    report = prepare(source, tmp_path / "work", params, 0, 1)
    assert report["groups_across_splits"] == []
    assert said not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        ({"a/001.jpg"}, "train.csv puts no image of class b into the validation split"),
        (
            {"a/001.jpg", *(f"b/{number:03}.jpg" for number in range(8))},
            "train.csv puts no image of class b into the train split",
        ),
    ],
)
def test_a_given_split_without_a_class_is_refused(
    tmp_path: Path, params: Prepare, chosen: set[str], problem: str
) -> None:
    source = with_split(tree(tmp_path / "data", {"a": 8, "b": 8}), chosen)
    with pytest.raises(DataError) as caught:
        prepare(source, tmp_path / "work", params, 0, 1)
    assert caught.value.problem == problem
    assert "--split-column none" in caught.value.fix


def test_a_given_split_of_copies_is_refused(tmp_path: Path, params: Prepare) -> None:
    source = tree(tmp_path / "data", {"a": 8, "b": 8})
    copies = [f"a/{number:03}_2.jpg" for number in range(3)]
    for name in copies:
        write(source / "train" / name, (source / "train" / name.replace("_2", "")).read_bytes())
    with_split(source, {*copies, "b/000.jpg"})
    with pytest.raises(DataError) as caught:
        prepare(source, tmp_path / "work", params, 0, 1)
    assert caught.value.problem == (
        "none of the 3 images of class a that train.csv puts into the validation split can be "
        "used: 3 duplicate, such as a/000_2.jpg (a/000.jpg)"
    )
    assert "import other images of a for validation" in caught.value.fix


def test_near_duplicates_tie_groups_together(tmp_path: Path, params: Prepare) -> None:
    source = grouped(tmp_path / "data", column=False)
    again = encoded(photo(0).resize((80, 60)), quality=60)  # number 0 is of group g0
    write(source / "train/a/g7/again.jpg", again)
    for seed in range(5):
        prepare(source, tmp_path / "work", replace(params, group="folder"), seed, 1)
        tied = {r["split"] for r in read_table(tmp_path / "work") if r["group"] in ("g0", "g7")}
        assert len(tied) == 1


@pytest.mark.growth
def test_the_split_of_waste7(tmp_path: Path, params: Prepare, real: Path) -> None:
    """How far from its fifth each class is, over seeds; and that a new photograph moves none."""
    from weighin.data.importing import import_data

    data, out = tmp_path / "data", tmp_path / "work"
    import_data(real / "waste7/train.csv", data)
    column = replace(params, group="column", sizes=((8, 8),))
    shares = []
    for seed in range(10):
        report = prepare(data, out, column, seed, 2)
        held = report["splits"]["validation"]
        shares.append([held[label] / many for label, many in report["classes"].items()])
    assert np.min(shares) >= 0.1
    assert np.max(shares) <= 0.3
    assert abs(np.mean(shares) - 0.2) < 0.01
    assert np.std(shares) < 0.04  # 0.036; 0.021 were it by single images, not scenes
    before = splits(out)
    for path in sorted((real / "waste7/public").iterdir())[:30]:
        write(data / "train/Glass" / path.name, path.read_bytes())
    prepare(data, out, column, 9, 2)
    after = splits(out)
    assert {name: after[name] for name in before} == before


# --- whole, or not at all


def test_an_earlier_pack_stays_when_a_later_one_fails(tmp_path: Path, params: Prepare) -> None:
    source, out = tree(tmp_path / "data", {"a": 8, "b": 8}), tmp_path / "work"
    prepare(source, out, params, 0, 1)
    before = sha256_tree(out)
    write(source / "train/a/empty.jpg", b"")
    failing = replace(params, faults=replace(params.faults, unreadable="fail"))
    with pytest.raises(DataError):
        prepare(source, out, failing, 0, 1)
    assert sha256_tree(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "work"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk(tmp_path: Path, params: Prepare, workers: int) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(small)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root mounts a small disk")
    try:
        source = tree(tmp_path / "data", {"a": 40, "b": 40})
        with pytest.raises(OutputError) as caught:
            prepare(source, small / "work", replace(params, sizes=((64, 64),)), 0, workers)
        assert str(caught.value) == (
            f"cannot write {small}/work: No space left on device\n  to fix: "
            "free some space or make its folder writable, then run the same command again"
        )
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_worker_that_is_killed(tmp_path: Path, params: Prepare) -> None:
    source = tree(tmp_path / "data", {"a": 100, "b": 100})
    script = write(tmp_path / "run.py", RUN.encode())
    facts = json.dumps(asdict(params))
    command = [sys.executable, str(script), str(source), str(tmp_path / "work"), "0", "2", facts]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (workers := _workers(process.pid)):
            assert process.poll() is None
        os.kill(workers[0], signal.SIGKILL)
        error = process.stderr.read() if process.stderr else ""
    assert process.returncode == 1
    assert WorkerError.__name__ in error
    assert "a worker process went away while it read images" in error
    assert not (tmp_path / "work").exists()
    assert not (tmp_path / ".work.draft").exists()


def _workers(parent: int) -> list[int]:
    """Return a process's pool of workers."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            facts = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(facts[1]) == parent and b"spawn_main" in command:
            found.append(int(folder.name))
    return found


def test_a_killed_run_leaves_nothing_to_the_next(tmp_path: Path, params: Prepare) -> None:
    source = tree(tmp_path / "data", {"a": 8, "b": 8})
    write(tmp_path / ".work.draft/16x16.rows", b"torn")
    write(tmp_path / ".work.draft/old/stale", b"torn")
    prepare(source, tmp_path / "work", params, 0, 1)
    first = sha256_tree(tmp_path / "work")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "work"]
    prepare(source, tmp_path / "work", params, 0, 1)
    assert sha256_tree(tmp_path / "work") == first


def test_progress_is_told(
    tmp_path: Path, params: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tree(tmp_path / "data", {"a": 50, "b": 50}), tmp_path / "work", params, 0, 1)
    lines: list[Any] = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "prepare 64/100",
        "prepare 100/100",
    ]


def test_a_digest_that_ends_in_zeros_is_told_whole() -> None:
    digest = bytes(range(30)) + b"\0\0"
    record = np.array([(digest, 0, 0)], RECORD)["sha256"][0]
    assert len(record) == 30  # what NumPy makes of it
    assert hexadecimal(record) == digest.hex()
