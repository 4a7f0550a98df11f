"""Every fault, as files make it: found, counted, named, and treated as params.yaml says."""

import csv
import os
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import encoded, photo, tree, write
from PIL import Image

from weighin.data.importing import import_data
from weighin.data.pack import read_table
from weighin.data.prepare import prepare
from weighin.errors import DataError
from weighin.files import read_json, sha256_tree
from weighin.params import Prepare

Make = Callable[[Path], None]


def jpeg_with_an_error() -> bytes:
    data = bytearray(encoded(photo(500, 300, 300)))
    data[len(data) // 2 : len(data) // 2 + 4] = b"\xff\xd3\xff\xd5"
    return bytes(data)


def large_png() -> bytes:
    """Return a picture of 64,008,000 pixels in a few kilobytes."""
    return encoded(Image.new("1", (8001, 8000)), "PNG")


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(photo(503), exif=exif)


def transparent() -> bytes:
    return encoded(photo(504).quantize(16), "PNG", transparency=3)


def animated() -> bytes:
    return encoded(photo(505), "GIF", save_all=True, append_images=[photo(506)])


def sixteen_bit() -> bytes:
    values = np.asarray(photo(507).convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(values), "PNG")


FILES: dict[str, tuple[str, bytes]] = {  # fault: the policy that decides on it, a file that has it
    "zero-byte": ("unreadable", b""),
    "not-an-image": ("unreadable", b"<html>404 Not Found</html>"),
    "truncated": ("unreadable", encoded(photo(501))[:900]),
    "bomb": ("unreadable", large_png()),
    "damaged": ("damaged", jpeg_with_an_error()),
    "animated": ("animated", animated()),
    "cmyk": ("cmyk", encoded(photo(502).convert("CMYK"))),
    "16-bit": ("sixteen_bit", sixteen_bit()),
    "palette-transparency": ("transparent", transparent()),
    "exif-rotated": ("rotated", turned()),
    "extreme-aspect": ("extreme_aspect", encoded(photo(508, 20, 201))),
}
HURT = "a/hurt.jpg"
DETAILS = {"not-an-image": "a web page, not the file that it was to be"}


def with_policy(params: Prepare, **policies: Any) -> Prepare:
    return replace(params, faults=replace(params.faults, **policies))


def table(out: Path) -> list[tuple[str, ...]]:
    with (out / "faults.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["fault", "name", "done", "detail"]
    return [tuple(row) for row in rows]


def packed(out: Path) -> set[str]:
    return {row["name"] for row in read_table(out)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tree(tmp_path / "data", {"a": 8, "b": 8})


def run(source: Path, params: Prepare) -> tuple[dict[str, Any], Path]:
    """Prepare into work/ beside the source; the source must not change."""
    out = source.parent / "work"
    before = sha256_tree(source)
    times = {path: path.lstat().st_mtime_ns for path in source.rglob("*")}
    report = prepare(source, out, params, 0, 1)
    assert sha256_tree(source) == before
    assert {path: path.lstat().st_mtime_ns for path in source.rglob("*")} == times
    assert read_json(out / "report.json") == report
    return report, out


def fails(source: Path, params: Prepare) -> str:
    out = source.parent / "work"
    with pytest.raises(DataError) as caught:
        prepare(source, out, params, 0, 1)
    assert sorted(path.name for path in source.parent.iterdir()) == ["data"]
    return str(caught.value)


@pytest.mark.parametrize("fault", FILES)
def test_a_fault_is_dropped(source: Path, params: Prepare, fault: str) -> None:
    policy, data = FILES[fault]
    write(source / "train" / HURT, data)
    report, out = run(source, with_policy(params, **{policy: "drop"}))
    detail = DETAILS.get(fault, "")
    assert table(out) == [(fault, HURT, "dropped", detail)]
    assert report["fault_counts"] == {fault: 1}
    assert report["faults"] == [{"fault": fault, "name": HURT, "done": "dropped", "detail": detail}]
    assert (report["files"], report["images"]) == (17, 16)
    assert HURT not in packed(out)


def test_a_guessed_range_is_a_matter_of_sixteen_bits(source: Path, params: Prepare) -> None:
    values = np.asarray(photo(509).convert("L")).astype(np.uint16) * 16
    write(source / "train" / HURT, encoded(Image.fromarray(values), "PNG"))
    _, out = run(source, with_policy(params, sixteen_bit="keep"))
    assert table(out) == [(fault, HURT, "kept", "") for fault in ("16-bit", "range-guessed")]
    _, out = run(source, with_policy(params, sixteen_bit="drop"))
    assert HURT not in packed(out)


@pytest.mark.parametrize("fault", [f for f in FILES if FILES[f][0] != "unreadable"])
def test_a_fault_is_kept(source: Path, params: Prepare, fault: str) -> None:
    policy, data = FILES[fault]
    write(source / "train" / HURT, data)
    report, out = run(source, with_policy(params, **{policy: "keep"}))
    assert table(out) == [(fault, HURT, "kept", "")]
    assert (report["files"], report["images"]) == (17, 17)
    assert HURT in packed(out)


@pytest.mark.parametrize("fault", FILES)
def test_a_fault_fails(source: Path, params: Prepare, fault: str) -> None:
    policy, data = FILES[fault]
    write(source / "train" / HURT, data)
    detail = f" ({DETAILS[fault]})" if fault in DETAILS else ""
    assert fails(source, with_policy(params, **{policy: "fail"})) == (
        f"1 fault must not pass:\n{fault}: {HURT}{detail}\n"
        f"  to fix: fix or remove the files, or change prepare.faults.{policy} in params.yaml"
    )


def test_the_aspect_at_the_bound_is_no_fault(source: Path, params: Prepare) -> None:
    write(source / "train" / HURT, encoded(photo(508, 20, 200)))
    assert run(source, params)[0]["fault_counts"] == {}


def test_all_failing_faults_are_told_at_once(source: Path, params: Prepare) -> None:
    for number in range(9):
        write(source / f"train/a/cmyk{number}.jpg", encoded(photo(600 + number).convert("CMYK")))
    for number in range(3):
        write(source / f"train/b/empty{number}.jpg", b"")
    message = fails(source, with_policy(params, cmyk="fail", unreadable="fail"))
    first = "\n".join(f"cmyk: a/cmyk{number}.jpg" for number in range(9))
    assert message == (
        f"12 faults must not pass:\n{first}\nzero-byte: b/empty0.jpg\nand 2 more\n"
        "  to fix: fix or remove the files, or change prepare.faults.cmyk, "
        "prepare.faults.unreadable in params.yaml"
    )


# --- the same picture twice


def test_duplicates(source: Path, params: Prepare) -> None:
    data = (source / "train/a/003.jpg").read_bytes()
    for name in ("a/copy.jpg", "a/deep/copy.jpg"):
        write(source / "train" / name, data)
    rows = [("duplicate", name, "dropped", "a/003.jpg") for name in ("a/copy.jpg",)]
    rows.append(("duplicate", "a/deep/copy.jpg", "dropped", "a/003.jpg"))
    report, out = run(source, with_policy(params, duplicate="drop"))
    assert (table(out), report["images"]) == (rows, 16)

    report, out = run(source, with_policy(params, duplicate="keep"))
    kept = [(fault, name, "kept", detail) for fault, name, _, detail in rows]
    alike = [("near-duplicate", name, "kept", detail) for _, name, _, detail in rows]
    assert (table(out), report["images"]) == (kept + alike, 18)
    splits = {row["split"] for row in read_table(out) if row["name"][2:].endswith("copy.jpg")}
    assert len(splits) == 1

    message = fails_beside(source, with_policy(params, duplicate="fail"))
    assert message.startswith("2 faults must not pass:\nduplicate: a/copy.jpg (a/003.jpg)\n")


def fails_beside(source: Path, params: Prepare) -> str:
    with pytest.raises(DataError) as caught:
        prepare(source, source.parent / "work", params, 0, 1)
    return caught.value.problem


def test_contradictions(source: Path, params: Prepare) -> None:
    write(source / "train/b/003.jpg", (source / "train/a/003.jpg").read_bytes())
    rows = [
        ("contradiction", "a/003.jpg", "dropped", "b/003.jpg"),
        ("contradiction", "b/003.jpg", "dropped", "a/003.jpg"),
    ]
    report, out = run(source, with_policy(params, contradiction="drop"))
    assert (table(out), report["images"]) == (rows, 14)
    assert "-pairs.jpg" in report["pictures"]

    report, out = run(source, with_policy(params, contradiction="keep"))
    assert report["images"] == 16
    assert len({row["split"] for row in read_table(out) if row["name"][2:] == "003.jpg"}) == 1
    assert report["near_duplicates"] == {
        "pairs": 1,
        "across_classes": 1,
        "across_splits": 0,
        "shown": [["alike, two classes", "a/003.jpg", "b/003.jpg"]],
    }
    message = fails_beside(source, with_policy(params, contradiction="fail"))
    assert message == (
        "2 faults must not pass:\n"
        "contradiction: a/003.jpg (b/003.jpg)\ncontradiction: b/003.jpg (a/003.jpg)"
    )


def test_real_contradictions(tmp_path: Path, params: Prepare, real: Path) -> None:
    """TrashNet, as published, has three photographs under two classes each."""
    found = sorted((real / "trashnet_conflicts").glob("*/*.jpg"))
    source = tree(tmp_path / "data", {"glass": 8, "metal": 8, "plastic": 8})
    for path in found:
        write(source / "train" / path.parent.name / path.name, path.read_bytes())
    report, out = run(source, params)
    assert report["fault_counts"] == {"contradiction": 6}
    assert (report["files"], report["images"]) == (30, 24)
    pairs = {frozenset((name, other)) for _, name, _, other in table(out)}
    assert len(found) == 6
    assert len(pairs) == 3
    assert all(one.split("/")[0] != two.split("/")[0] for one, two in pairs)


def test_near_duplicates(source: Path, params: Prepare) -> None:
    again = photo(3).resize((80, 60))  # number 3 is a/003.jpg
    write(source / "train/a/again.jpg", encoded(again, quality=60))
    write(source / "train/b/again.jpg", encoded(again, quality=70))
    rows = [
        ("near-duplicate", "a/again.jpg", "kept", "a/003.jpg"),
        ("near-duplicate", "b/again.jpg", "kept", "a/003.jpg"),
    ]
    report, out = run(source, params)
    assert (table(out), report["images"]) == (rows, 18)
    assert report["near_duplicates"]["pairs"] >= 2
    assert report["near_duplicates"]["across_classes"] >= 1
    names = {"a/003.jpg", "a/again.jpg", "b/again.jpg"}
    assert len({row["split"] for row in read_table(out) if row["name"] in names}) == 1

    report, out = run(source, with_policy(params, near_duplicate="drop"))
    assert packed(out) & names == {"a/003.jpg"}
    assert report["near_duplicates"]["pairs"] == 0
    message = fails_beside(source, with_policy(params, near_duplicate="fail"))
    assert message == (
        "2 faults must not pass:\n"
        "near-duplicate: a/again.jpg (a/003.jpg)\nnear-duplicate: b/again.jpg (a/003.jpg)"
    )
    report, out = run(source, replace(params, near_bits=-1))
    assert (report["fault_counts"], report["near_duplicates"]["pairs"]) == ({}, 0)


# --- names and links


def test_names_that_differ_by_case_or_unicode_form(source: Path, params: Prepare) -> None:
    composed = unicodedata.normalize("NFC", "é.jpg")
    apart = unicodedata.normalize("NFD", "é.jpg")
    new = ["a/X.jpg", "a/x.jpg", f"a/{apart}", f"a/{composed}", "A/other.jpg", "a/straße/1.jpg"]
    new += ["a/STRASSE/2.jpg", "A/more.jpg"]
    for number, name in enumerate(new):
        write(source / "train" / name, encoded(photo(700 + number)))
    report, out = run(source, with_policy(params, small_class="keep"))
    found = {name: other for fault, name, done, other in table(out) if fault == "name-collision"}
    assert found == {
        **{f"a/{number:03}.jpg": "A" for number in range(8)},  # the class itself
        **{name: "A" for name in new if not name.startswith("A/")},
    }
    assert report["images"] == 24

    (source / "train/A/other.jpg").unlink()
    (source / "train/A/more.jpg").unlink()
    (source / "train/A").rmdir()
    report, out = run(source, with_policy(params, name_collision="drop"))
    assert table(out) == sorted(
        [
            ("name-collision", "a/x.jpg", "dropped", "a/X.jpg"),
            ("name-collision", f"a/{composed}", "dropped", f"a/{apart}"),
            ("name-collision", "a/straße/1.jpg", "dropped", "a/STRASSE"),
        ]
    )
    message = fails_beside(source, with_policy(params, name_collision="fail"))
    assert message.startswith(
        "3 faults must not pass:\nname-collision: a/straße/1.jpg (a/STRASSE)\n"
    )


def fifo(path: Path) -> None:
    os.mkfifo(path)


def to_a_file_outside(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def to_a_folder_inside(path: Path) -> None:
    path.symlink_to(path.parent, target_is_directory=True)


def to_a_folder_outside(path: Path) -> None:
    path.symlink_to("/etc", target_is_directory=True)


def to_nothing(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


def to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "fault", "detail"),
    [
        (fifo, "unreadable", "not a plain file"),
        (to_a_file_outside, "escaping-link", "a link out of the folder"),
        (to_a_folder_inside, "escaping-link", "a link to a folder"),
        (to_a_folder_outside, "escaping-link", "a link to a folder"),
        (to_nothing, "unreadable", "a link to nothing"),
        (to_itself, "unreadable", "a link to nothing"),
    ],
)
def test_what_is_no_file(
    source: Path, params: Prepare, make: Make, fault: str, detail: str
) -> None:
    make(source / "train" / HURT)
    report = prepare(source, source.parent / "work", params, 0, 1)
    assert table(source.parent / "work") == [(fault, HURT, "dropped", detail)]
    assert (report["files"], report["images"]) == (16, 16)
    message = fails_beside(source, with_policy(params, escaping_link="fail", unreadable="fail"))
    assert message == f"1 fault must not pass:\n{fault}: {HURT} ({detail})"


def test_links_that_stay(source: Path, params: Prepare, tmp_path: Path) -> None:
    """A link inside the folder, and one to DVC's cache, are the files they lead to."""
    (source / "train/b/link.jpg").symlink_to("../a/003.jpg")
    cached = write(tmp_path / ".dvc/cache/files/md5/ab" / ("0" * 30), encoded(photo(800)))
    (source / "train/b/cached.jpg").symlink_to(cached)
    report, out = run(source, with_policy(params, contradiction="keep"))
    assert report["images"] == 18
    assert {"b/link.jpg", "b/cached.jpg"} <= packed(out)


def test_files_outside_of_a_class(source: Path, params: Prepare) -> None:
    write(source / "train/notes.txt", b"x")
    write(source / "train/.DS_Store", b"x")
    write(source / "train/a/.hidden/x.jpg", b"x")
    report, out = run(source, params)
    assert table(out) == [("no-class", "notes.txt", "dropped", "not in a class folder")]
    assert report["files"] == 16


def test_a_name_that_is_not_utf8(source: Path, params: Prepare) -> None:
    path = os.path.join(os.fsencode(source), b"train/a/caf\xe9.jpg")  # noqa: PTH118 - bytes
    with open(path, "wb") as file:  # noqa: PTH123 - bytes
        file.write(encoded(photo(900)))
    report = prepare(source, source.parent / "work", params, 0, 1)
    assert table(source.parent / "work") == [
        ("unreadable", "a/caf\\xe9.jpg", "dropped", "its name is not UTF-8")
    ]
    assert report["images"] == 16


def test_a_folder_that_cannot_be_listed(
    source: Path, params: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).rstrip("/").endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("weighin.file_names.os.scandir", refusing)
    assert fails(source, params) == (
        f"cannot list {source}/train/b: Permission denied\n"
        "  to fix: make the folder readable for this user (chmod -R a+rX), then run again"
    )


def test_a_file_that_cannot_be_read(
    source: Path, params: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(path: str, *arguments: Any, **options: Any) -> Any:
        if path == str(source / "train/a/003.jpg"):
            raise PermissionError(13, "Permission denied")
        return open(path, *arguments, **options)  # noqa: PTH123 - what it stands in for

    monkeypatch.setattr("weighin.data.listing.open", refusing, raising=False)
    prepare(source, source.parent / "work", params, 0, 1)
    assert table(source.parent / "work") == [("unreadable", "a/003.jpg", "dropped", "")]


def test_a_file_too_large_to_be_a_photograph(source: Path, params: Prepare) -> None:
    with (source / "train" / HURT).open("wb") as file:
        file.truncate(256 * 2**20 + 1)  # sparse: it takes no room
    prepare(source, source.parent / "work", params, 0, 1)
    assert table(source.parent / "work") == [("bomb", HURT, "dropped", "")]


# --- classes


def test_small_classes(source: Path, params: Prepare) -> None:
    for number in range(4):
        write(source / f"train/c/{number}.jpg", encoded(photo(950 + number)))
    write(source / "train/c/4.jpg", b"")  # unreadable ones do not count
    mine = [f"c/{number}.jpg" for number in range(4)]
    assert fails(source, params) == (
        "4 faults must not pass:\n"
        + "".join(f"small-class: {name} (4 images in its class)\n" for name in mine)
        + "  to fix: fix or remove the files, or change prepare.faults.small_class in "
        "params.yaml"
    )
    report, out = run(source, with_policy(params, small_class="drop"))
    assert report["classes"] == {"a": 8, "b": 8}
    assert read_json(out / "classes.json") == ["a", "b"]
    report, out = run(source, with_policy(params, small_class="keep"))
    assert report["classes"] == {"a": 8, "b": 8, "c": 4}
    assert report["splits"]["train"]["c"] + report["splits"]["validation"]["c"] == 4
    assert report["splits"]["validation"]["c"] >= 1


def test_a_class_that_is_another_one_too(source: Path, params: Prepare) -> None:
    for number in range(5):
        name = f"train/a/{number:03}.jpg"
        write(source / f"train/c/{number}.jpg", (source / name).read_bytes())
    why = "none of its 5 files can be used: 5 contradiction, such as c/0.jpg and a/000.jpg"
    assert f"small-class: c ({why})" in fails(source, params)


def test_a_class_of_which_nothing_is_left(source: Path, params: Prepare) -> None:
    for number in range(6):
        write(source / f"train/c/{number}.jpg", b"" if number else b"x")
    why = "none of its 6 files can be used: 1 not-an-image, 5 zero-byte"
    assert fails(source, params) == (
        f"1 fault must not pass:\nsmall-class: c ({why})\n"
        "  to fix: fix or remove the files, or change prepare.faults.small_class in params.yaml"
    )
    for policy in ("drop", "keep"):
        report, out = run(source, with_policy(params, small_class=policy))
        assert report["classes"] == {"a": 8, "b": 8}
        assert ("small-class", "c", "dropped", why) in table(out)


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({"a": 8}, "of 8 files 8 images of one class, a, can be used; two classes are needed"),
        ({}, "{root} is not a folder of class folders"),
    ],
)
def test_too_few_classes(
    tmp_path: Path, params: Prepare, counts: dict[str, int], problem: str
) -> None:
    source = tree(tmp_path / "data", counts)
    source.mkdir(exist_ok=True)
    assert fails(source, params).split("\n")[0] == problem.format(root=source / "train")


def test_nothing_usable(tmp_path: Path, params: Prepare) -> None:
    for name in ("a/1.jpg", "b/1.jpg"):
        write(tmp_path / "data/train" / name, b"x")
    assert fails(tmp_path / "data", params) == (
        "of 2 files 0 images can be used; two classes are needed\n"
        "2 not-an-image: such as a/1.jpg\n"
        "  to fix: convert or replace these files, or relax prepare.faults in params.yaml, and "
        "bring in at least two classes with `weighin import`"
    )


HEIC = b"\0\0\0\x28ftypheic\0\0\0\0mif1heic" + bytes(40)


def test_a_set_of_nothing_but_heic_is_told_twice(
    tmp_path: Path, params: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("Cat", "Dog"):
        for number in range(6):
            data = HEIC + f"{label}{number}".encode()
            write(tmp_path / f"set/{label}/IMG_{number}.HEIC", data)
    line = "12 not-an-image: such as Cat/IMG_0.HEIC, a HEIC file; convert it to JPEG"
    assert import_data(tmp_path / "set", tmp_path / "data")["notes"] == [line]
    shutil.rmtree(tmp_path / "set")
    message = fails(tmp_path / "data", params)
    assert f"\n{line}\n" in message
    assert "0 images can be used" in message
    tree(tmp_path / "data", {"Cat": 8, "Dog": 8})  # beside others they are left out, and said
    prepare(tmp_path / "data", tmp_path / "work", replace(params, group="none"), 0, 1)
    told = "12 dropped, not-an-image: such as Cat/IMG_0.HEIC (a HEIC file; convert it to JPEG)"
    assert f"prepare: {told}" in capsys.readouterr().err.splitlines()
    assert table(tmp_path / "work")[0][3] == "a HEIC file; convert it to JPEG"


def test_faults_beyond_two_hundred_are_in_the_table_alone(source: Path, params: Prepare) -> None:
    for number in range(203):
        write(source / f"train/a/z{number:03}.jpg", b"")
    report, out = run(source, params)
    assert report["fault_counts"] == {"zero-byte": 203}
    assert len(report["faults"]) == 200
    assert len(table(out)) == 203
