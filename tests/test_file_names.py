"""A name finds its file however it is written, and never one that it may not mean."""

import os
import unicodedata
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighin.errors import DataError
from weighin.file_names import escapes, find_folder, match, match_folder, parts_of, walk

CAFE = unicodedata.normalize("NFC", "café")


def write(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "file", "why"),
    [
        ("images\\cat\\1.jpg", "images/cat/1.jpg", "separators"),
        ("./images//cat/1.jpg", "images/cat/1.jpg", "separators"),
        (" images/cat/1.jpg ", "images/cat/1.jpg", "separators"),
        (f"{unicodedata.normalize('NFD', CAFE)}/1.jpg", f"{CAFE}/1.jpg", "Unicode form"),
        ("IMG_1.jpg", "IMG_1.JPG", "case"),
        ("images/CAT/1.JPG", "images/cat/1.jpg", "case"),
        ("images\\CAT\\1.JPG", "images/cat/1.jpg", "case"),
        ("my%20cat.jpg", "my cat.jpg", "percent-encoding, blanks or what is not seen"),
        ("\u200bcat  1.jpg", "cat 1.jpg", "percent-encoding, blanks or what is not seen"),
        ("\uff11.jpg", "1.jpg", "percent-encoding, blanks or what is not seen"),
        ("IMG_1", "IMG_1.JPG", "file suffix"),
        ("img_1", "IMG_1.JPEG", "file suffix"),
        ("a.png", "a.jfif", "file suffix"),
        ("v1.2", "v1.2.jpg", "file suffix"),
        ("7", "0007.jpg", "leading zeros"),
        ("7.0", "0007.jpg", "leading zeros"),
        ("1.jpg", "0a1b2c3d-1.jpg", "upload prefix"),
        ("/data/upload/3/0a1b2c3d-1.jpg", "1.jpg", "part of the path and upload prefix"),
        ("/data/local-files/?d=set/1.jpg", "set/1.jpg", "separators"),
        ("/data/local-files/?d=set%2Fcat%2F1.jpg", "set/cat/1.jpg", "separators"),
        ("/data/local-files/?d=set%5Ccat%5C1.jpg", "set/cat/1.jpg", "separators"),
        ("https://example.org/a/set/1.jpg", "set/1.jpg", "part of the path"),
        ("https://example.org/set/1.jpg?alt=media&token=a/b#c", "set/1.jpg", "separators"),
        ("https://example.org/o/set%2F1.jpg?alt=media", "set/1.jpg", "part of the path"),
        ("a/1.jpg?x", "1.jpg?x", "part of the path"),
        ("C:\\Users\\me\\images\\cat\\1.jpg", "images/cat/1.jpg", "part of the path"),
        ("/home/me/images/cat/1.jpg", "cat/1.jpg", "part of the path"),
        ("test\\1.jpg", "1.jpg", "part of the path"),
        ("1.jpg", "images/cat/1.jpg", "part of the path"),
        ("photos/1.jpg", "images/1.jpg", "last part of the path"),
        ("photos/IMG_1", "images/img_1.jpg", "last part of the path and file suffix"),
    ],
)
def test_each_tolerance(name: str, file: str, why: str) -> None:
    matches = match([name, "none.jpg"], ["other.jpg", file])
    assert (matches.found, matches.missing) == ({name: file}, ("none.jpg",))
    assert matches.tolerances == Counter({why: 1})
    assert matches.words() == f"1 of 2 names found: 0 exactly, 1 by {why}"


@pytest.mark.parametrize(
    ("name", "files", "file"),
    [
        ("a.jpg", ["a.jpg", "A.jpg", "x/a.jpg", "a.png"], "a.jpg"),
        ("x\\a.jpg", ["x\\a.jpg", "x/a.jpg"], "x\\a.jpg"),
        ("x/a.jpg", ["X/a.jpg", "a.jpg", "y/x/A.jpg"], "X/a.jpg"),
        ("a.jpg", ["masks/a.png", "images/a.jpg"], "images/a.jpg"),
        ("set/x/a.jpg", ["x/a.jpg", "y/a.jpg"], "x/a.jpg"),
        ("x/a.jpg", ["deep/x/a.jpg", "y/a.jpg"], "deep/x/a.jpg"),
        ("a", ["a.txt", "a.xml", "a.JPG"], "a.JPG"),
    ],
)
def test_the_nearest_is_taken(name: str, files: list[str], file: str) -> None:
    assert match([name], files).found == {name: file}


@pytest.mark.parametrize(
    ("names", "files", "ambiguous"),
    [
        (["a.jpg"], ["x/a.jpg", "y/a.jpg"], {"a.jpg"}),
        (["a.jpg"], ["A.jpg", "a.JPG"], {"a.jpg"}),
        (["a"], ["a.png", "a.jpg"], {"a"}),
        (["1.jpg"], ["0a1b2c3d-1.jpg", "1a1b2c3d-1.jpg"], {"1.jpg"}),
        (["x/a.jpg", "y/a.jpg"], ["a.jpg"], {"x/a.jpg", "y/a.jpg"}),
        (["1", "01"], ["001.jpg"], {"1", "01"}),
        (["a.jpg"], [f"{n}/a.jpg" for n in range(1000)], {"a.jpg"}),
    ],
)
def test_what_is_ambiguous_finds_nothing_and_is_named(
    names: list[str], files: list[str], ambiguous: set[str]
) -> None:
    matches = match(names, files)
    assert (matches.found, matches.missing, set(matches.ambiguous)) == ({}, (), ambiguous)
    with pytest.raises(DataError) as caught:
        matches.refuse_ambiguous("t.csv")
    assert f'"{names[0]}" may mean {files[0]}' in caught.value.problem
    assert "path of each file" in caught.value.fix


@pytest.mark.parametrize(
    ("names", "files", "found"),
    [
        (["a.jpg", "x/a.jpg"], ["a.jpg"], {"a.jpg": "a.jpg"}),
        (["a.jpg", "a.png"], ["a.jpg"], {"a.jpg": "a.jpg"}),
        (["aaaaaaaa-1.jpg"], ["bbbbbbbb-1.jpg"], {}),
        (["a.jpg"], ["ba.jpg", "a.jpg.txt", "a"], {"a.jpg": "a"}),
        (["a.txt"], ["a.jpg"], {}),
        ([""], ["a.jpg"], {}),
        (["../.."], ["a.jpg"], {}),
    ],
)
def test_a_file_goes_to_the_name_that_is_nearest(
    names: list[str], files: list[str], found: dict[str, str]
) -> None:
    matches = match(names, files)
    assert matches.found == found
    assert matches.missing == tuple(name for name in names if name not in found)


def test_the_folders_own_name_tells_two_names_apart() -> None:
    matches = match(["train/1.jpg", "test/1.jpg"], ["1.jpg"], Path("/set/train"))
    assert (matches.found, matches.missing) == ({"train/1.jpg": "1.jpg"}, ("test/1.jpg",))


def test_many_files_of_one_name_take_no_time() -> None:
    names = [f"set\\{number}\\image.jpg" for number in range(20_000)]
    files = [name.replace("\\", "/") for name in names]
    assert match(names, files).found == dict(zip(names, files, strict=True))
    lost = match([f"{number}.jpg/image.jpg" for number in range(20_000)], files)
    assert len(lost.ambiguous) == 20_000


part = st.text(st.sampled_from("abXY09 -_.é가"), min_size=1, max_size=8).filter(
    lambda text: text.strip(" .") == text and not text.isdigit()
)
paths = st.lists(st.lists(part, max_size=2), min_size=1, max_size=8).map(
    lambda trees: ["/".join([*tree, f"Img{at}é x.JPG"]) for at, tree in enumerate(trees)]
)
spellings = st.sampled_from(
    [
        lambda path: path,
        lambda path: path.replace("/", "\\"),
        lambda path: f"./{path}",
        lambda path: f"C:\\data\\{path}",
        lambda path: f" {path}\t",
        lambda path: path.swapcase(),
        lambda path: unicodedata.normalize("NFD", path),
        lambda path: unicodedata.normalize("NFC", path),
        lambda path: path.removesuffix(".JPG"),
        lambda path: path.removesuffix(".JPG") + ".png",
        lambda path: path.rpartition("/")[2],
        quote,
    ]
)


@given(paths, st.lists(spellings, min_size=8, max_size=8))
def test_a_name_in_any_spelling_finds_its_file(files: list[str], how: list[object]) -> None:
    names = [spell(file) for spell, file in zip(how, files, strict=False)]  # type: ignore[operator]
    matches = match(names, files)
    assert matches.found == dict(zip(names, files, strict=True))
    assert len(matches.found) - matches.tolerances.total() == len(set(names) & set(files))


@given(st.lists(st.text(max_size=12), max_size=8), st.lists(st.text(max_size=12), max_size=8))
def test_any_names_and_files_are_matched_one_to_one(names: list[str], files: list[str]) -> None:
    matches = match(names, files)
    assert set(matches.found.values()) <= set(files)
    assert len(set(matches.found.values())) == len(matches.found)
    assert {*matches.files, *matches.missing, *matches.ambiguous} == set(names)
    assert all(matches.found[name] == name for name in set(names) & set(files))


def test_the_parts_of_a_path() -> None:
    assert parts_of("C:\\a\\.\\b/../c.jpg") == ["a", "c.jpg"]
    assert parts_of("s3://bucket/a/b.jpg") == ["a", "b.jpg"]
    assert parts_of("../../a.jpg") == ["a.jpg"]
    assert parts_of(" / ") == [""]


# --- folders


def test_other_systems_droppings_are_passed_over(tmp_path: Path) -> None:
    for name in (
        *("Thumbs.db", "desktop.ini", ".DS_Store", "__MACOSX/a/._1.jpg", "$RECYCLE.BIN/1.jpg"),
        *("a/@eaDir/1.jpg/thumb.jpg", "System Volume Information/x", "Icon\r", ".git/1.jpg"),
        *("a/1.jpg", "Thumbs.db.jpg", "2"),
    ):
        write(tmp_path / name)
    assert sorted(name for name, _ in walk(tmp_path)) == ["2", "Thumbs.db.jpg", "a/1.jpg"]


def test_a_link_to_a_store_of_hashed_files_is_a_file(tmp_path: Path) -> None:
    digest = "0123456789abcdef0123456789abcdef"
    stored = {
        "dvc.jpg": write(tmp_path / f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}"),
        "dvc2.jpg": write(tmp_path / f".dvc/cache/{digest[:2]}/{digest[2:]}"),
        "hub.jpg": write(tmp_path / f"hub/blobs/{digest}{digest}"),
        "git.jpg": write(tmp_path / f"hub/blobs/{digest}01234567"),
        "within.jpg": write(tmp_path / "set/deep/1.jpg"),
        "secret.jpg": write(tmp_path / "secret"),
        "blob.jpg": write(tmp_path / "blobs/notes"),
        "again.jpg": tmp_path / "set/secret.jpg",
    }
    for name, target in stored.items():
        (tmp_path / "set" / name).symlink_to(os.path.relpath(target, tmp_path / "set"))
    (tmp_path / "set/nothing.jpg").symlink_to("gone.jpg")
    outside = {name for name in stored if escapes(tmp_path / "set" / name, tmp_path / "set")}
    assert outside == {"secret.jpg", "blob.jpg", "again.jpg"}
    matches = match_folder([*stored, "nothing.jpg"], tmp_path / "set")
    assert set(matches.found) == {"dvc.jpg", "dvc2.jpg", "hub.jpg", "git.jpg", "within.jpg"}
    assert escapes(tmp_path / "set/../secret", tmp_path / "set")
    assert not escapes(tmp_path / "set/deep/../deep/1.jpg", tmp_path / "set")


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "down/../../secret", "nul\0"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path / "secret.jpg")
    write(tmp_path / "secret")
    write(tmp_path / "set/a.jpg")
    assert match_folder([name, "a.jpg"], tmp_path / "set").missing == (name,)


def test_the_folder_of_a_table_is_its_own_or_one_beside_it(tmp_path: Path) -> None:
    for name in ("images/1.JPG", "images/2.JPG", "test/1.JPG", ".hidden/1", "__MACOSX/1"):
        write(tmp_path / name)
    table = tmp_path / "labels.csv"
    assert find_folder(table, ["images/1.JPG", "1.JPG"]) == tmp_path
    assert find_folder(table, ["1.JPG", "2.JPG"]) == tmp_path / "images"
    assert find_folder(table, ["1.jpg", "2.jpg"]) == tmp_path / "images"
    assert find_folder(table, ["none.jpg"]) == tmp_path


def test_folders_that_hold_files_of_the_same_names(tmp_path: Path) -> None:
    """As train/ and test/ do beside a train.csv, both numbered from 0."""
    for name in ("test_images/0.jpg", "test_images/1.jpg", "train_images/0.jpg"):
        write(tmp_path / name)
    names = ["0.jpg"]
    assert find_folder(tmp_path / "train.csv", names) == tmp_path / "train_images"
    assert find_folder(tmp_path / "test_labels.csv", names) == tmp_path / "test_images"
    assert find_folder(tmp_path / "labels.csv", ["0.jpg", "1.jpg"]) == tmp_path / "test_images"
    with pytest.raises(DataError) as caught:
        find_folder(tmp_path / "labels.csv", names)
    assert caught.value.problem == (
        f"{tmp_path}/test_images and {tmp_path}/train_images both hold files of the names that "
        f"{tmp_path}/labels.csv lists"
    )
    assert caught.value.fix == f"name the folder of its images: --images {tmp_path}/test_images"
    write(tmp_path / "photos/7.jpg")
    write(tmp_path / "masks/7.png")
    for name in ("7.jpg", "7"):
        assert find_folder(tmp_path / "labels.csv", [name]) == tmp_path / "photos"
    write(tmp_path / "more/2.jpg")
    names = ["1.jpg", "2.jpg"]  # one in each of two folders: the folder of both is meant
    assert find_folder(tmp_path / "labels.csv", names) == tmp_path


@pytest.mark.parametrize("again", ["x/../1.jpg", "x//../1.jpg", "./1.jpg"])
def test_one_file_is_not_found_under_two_names(tmp_path: Path, again: str) -> None:
    write(tmp_path / "1.jpg")
    write(tmp_path / "x/2.jpg")
    matches = match_folder(["1.jpg", again, "x/2.jpg"], tmp_path)
    assert (matches.found, matches.again, matches.missing) == (
        {"1.jpg": "1.jpg", "x/2.jpg": "x/2.jpg"},
        {again: "1.jpg"},
        (),
    )
    loose = match(["1.jpg", "1.png", "01.jpg", "y/1.jpg"], ["1.jpg"])  # may be other files
    assert (loose.again, loose.missing) == ({}, ("1.png", "01.jpg", "y/1.jpg"))
    spelled = match(["X/1.JPG", "x\\1.jpg", "X/1.jpg"], ["x/1.jpg"])  # the nearest is taken
    assert (spelled.found, spelled.missing) == ({"x\\1.jpg": "x/1.jpg"}, ())
    assert spelled.again == {"X/1.JPG": "x/1.jpg", "X/1.jpg": "x/1.jpg"}


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list(walk(tmp_path / "none"))
    assert f"{tmp_path}/none" in caught.value.problem
    assert "chmod" in caught.value.fix
