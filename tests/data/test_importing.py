"""Folders, CSVs and COCO files come in whole, counted, and never from outside their folder."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from photos import encoded, photo, tree, write

from weighin.cli import commands
from weighin.data.import_index import ImportIndex, told_copies
from weighin.data.importing import KINDS, Options, _check_options, import_data
from weighin.data.versioning import pack_data, write_mark
from weighin.errors import DataError, OutputError
from weighin.files import read_json, sha256, sha256_tree, write_csv
from weighin.images import decode
from weighin.label_csv import Columns


def rows(data: Path) -> list[tuple[str, str, str]]:
    with (data / "train.csv").open(newline="") as file:
        header, *found = csv.reader(file)
    assert header == ["filename", "class", "group"]
    return [(name, label, group) for name, label, group in found]


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def fails(source: Path, into: Path, options: Options | None = None) -> str:
    with pytest.raises(DataError) as caught:
        import_data(source, into, options)
    assert not into.exists()
    assert [path.name for path in into.parent.iterdir() if "draft" in path.name] == []
    return str(caught.value)


# --- a folder of class folders


def test_a_tree(tmp_path: Path) -> None:
    source = tree(tmp_path, {"Glass": 2, "Metal": 1}) / "train"
    write(source / "Glass/scene 7/a.jpg", encoded(photo(9)))
    write(source / ".hidden/a.jpg", b"x")
    write(source / "stray.txt", b"x")
    write(source / "stray.jpg", b"x")
    (source / "Metal/out.jpg").symlink_to("/etc/passwd")
    report = import_data(source, tmp_path / "data")
    assert report == {
        "kind": "folder",
        "images": 4,
        "classes": {"Glass": 3, "Metal": 1},
        "validation": 0,
        "missing": [],
        "skipped": {
            "a .txt file, no image": 1,
            "a link out of the folder": 1,
            "not in a class folder": 1,
        },
        "such_as": {
            "a .txt file, no image": "stray.txt",
            "a link out of the folder": "Metal/out.jpg",
            "not in a class folder": "stray.jpg",
        },
        "notes": [],
        "wide_groups": [],
    }
    mark = read_json(tmp_path / "data/import.json")
    assert mark.pop("sha256") == {
        name: sha256_tree(tmp_path / "data" / name) for name in ("train", "train.csv")
    }
    assert mark == report
    assert rows(tmp_path / "data") == [
        ("Glass/000.jpg", "Glass", ""),
        ("Glass/001.jpg", "Glass", ""),
        ("Glass/scene 7/a.jpg", "Glass", "scene 7"),
        ("Metal/000.jpg", "Metal", ""),
    ]
    assert names(tmp_path / "data/train") == [row[0] for row in rows(tmp_path / "data")]
    for name in names(tmp_path / "data/train"):
        assert (tmp_path / "data/train" / name).read_bytes() == (source / name).read_bytes()


def test_an_empty_class_folder_is_said(tmp_path: Path) -> None:
    source = tree(tmp_path, {"Cat": 1, "Dog": 1}) / "train"
    (source / "Bird/deeper").mkdir(parents=True)
    write(source / "Fish/.DS_Store", b"x")
    write(source / "@eaDir/1.jpg", b"x")
    (source / ".git").mkdir()
    report = import_data(source, tmp_path / "data")
    assert report["classes"] == {"Cat": 1, "Dog": 1}
    assert report["notes"] == [f"the folder {name} holds no image" for name in ("Bird", "Fish")]


def test_a_folder_whose_images_are_left_out_is_not_called_empty(tmp_path: Path) -> None:
    for name in ("train/Cat/0.jpg", "train/Dog/1.jpg", "test/Cat/2.jpg", "more/Cat/3.jpg"):
        write(tmp_path / "set" / name, encoded(photo(int(name[-5]))))
    report = import_data(tmp_path / "set", tmp_path / "data")
    assert report["skipped"] == {"in more/, which is no split": 1}
    assert report["notes"] == ["test/ is the test split, train/ is the train split"]


def test_a_folder_that_is_in_every_class_is_no_group(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for number in range(40):
            write(tmp_path / f"src/{label}/images/{number}.jpg", b"x")
    assert import_data(tmp_path / "src", tmp_path / "data")["wide_groups"] == ["images"]
    assert {row[2] for row in rows(tmp_path / "data")} == {""}


def test_what_is_no_source(tmp_path: Path) -> None:
    into = tmp_path / "data"
    (tmp_path / "empty").mkdir()
    write(tmp_path / "notes.doc", b"x")
    write(tmp_path / "flat/1.jpg", b"x")
    fix = "name a folder that holds one folder a class, or a CSV of file names and classes"
    assert fails(tmp_path / "empty", into) == (
        f"{tmp_path}/empty holds no image in a class folder\n  to fix: {fix}"
    )
    assert fails(tmp_path / "flat", into) == (
        f"{tmp_path}/flat holds no image in a class folder; 1 left out: not in a class folder\n"
        f"  to fix: {fix}"
    )
    assert fails(tmp_path / "none", into) == (
        f"{tmp_path}/none does not exist\n  to fix: name a folder, a CSV file or a COCO file"
    )
    assert fails(tmp_path / "notes.doc", into) == (
        f"{tmp_path}/notes.doc is no folder, .csv, .json, .jsonl or .xml\n"
        "  to fix: name one of these"
    )


# --- a CSV beside a folder


def table(path: Path, text: str, images: str = "images", files: tuple[str, ...] = ()) -> Path:
    for number, name in enumerate(files):
        write(path / images / name, f"{name} {number}".encode())
    write(path / "labels.csv", text.encode())
    return path / "labels.csv"


@pytest.mark.parametrize(
    "text",
    [
        "filename,class\na.jpg,Glass\nb.jpg,Metal\n",
        "label;file\nGlass;a.jpg\nMetal;b.jpg\n",
        "Image_ID\tTarget\r\na\tGlass\r\nb\tMetal\r\n",
        "\ufeffpath,noise,category\n a.jpg ,1, Glass \nb.jpg,2,Metal\n,3,Metal\nc.jpg,4,\n",
        'filename,class\n"a.jpg","Glass"\nb.jpg,Metal\na.jpg,Glass\n',
    ],
)
def test_columns_are_guessed(tmp_path: Path, text: str) -> None:
    source = table(tmp_path, text, files=("a.jpg", "b.jpg"))
    assert import_data(source, tmp_path / "data")["classes"] == {"Glass": 1, "Metal": 1}
    assert names(tmp_path / "data/train") == ["Glass/a.jpg", "Metal/b.jpg"]


def test_columns_are_given(tmp_path: Path) -> None:
    text = "filename,class,photo,kind,street\nx,y,a.jpg,Glass,1\nx,y,b.jpg,Metal,2\n"
    source = table(tmp_path, text, "elsewhere", ("a.jpg", "b.jpg"))
    options = Options(tmp_path / "elsewhere", Columns("photo", "kind", "street"))
    import_data(source, tmp_path / "data", options)
    wanted = [("Glass/a.jpg", "Glass", "1"), ("Metal/b.jpg", "Metal", "2")]
    assert rows(tmp_path / "data") == wanted


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "a,b\n1,2\n",
            Options(),
            "{csv} has no column that is known to hold file names; it has a, b\n"
            "  to fix: name the columns that hold file names and classes (--filename-column, "
            "--class-column), or call one filename and one class in {csv}",
        ),
        (
            "filename,class\nx.jpg,Glass\n",
            Options(columns=Columns(label="kind")),
            '{csv} has no column "kind"; it has filename, class\n'
            "  to fix: name the columns that hold file names and classes (--filename-column, "
            "--class-column), or call one filename and one class in {csv}",
        ),
        (
            "",
            Options(),
            "{csv} is empty\n  to fix: give it a header such as filename,class, and rows",
        ),
        (
            "filename,class\nx.jpg,Glass\ny.jpg,Glass\n",
            Options(),
            "none of the 2 files that {csv} names is in {folder}, such as x.jpg\n"
            "  to fix: name the folder of the images with --images, or the column that holds their "
            "names with --filename-column",
        ),
        (
            "filename,class\n",
            Options(),
            "{csv} names no image with a class\n  to fix: write a row for each image into it",
        ),
        (
            "filename,class\na.jpg,../Glass\n",
            Options(),
            'class "../Glass" cannot be the name of a folder\n'
            "  to fix: rename the class where it is named, or map it with a mapping CSV",
        ),
        (
            'filename,class\na.jpg,"' + "x" * 140_000 + '"\n',
            Options(),
            "{csv}, line 2: field larger than field limit (131072)\n"
            '  to fix: write a value that holds a quote as "...""...", '
            "or save the table anew as CSV",
        ),
    ],
)
def test_csv_errors(tmp_path: Path, text: str, options: Options, message: str) -> None:
    source = table(tmp_path, text, ".", ("a.jpg",))
    wanted = message.format(csv=source, folder=tmp_path)
    assert fails(source, tmp_path / "data", options) == wanted


def test_a_csv_that_is_not_text(tmp_path: Path) -> None:
    source = write(tmp_path / "labels.csv", b"\xff\xfe\0")
    assert fails(source, tmp_path / "data") == (
        f"{source} is not text in UTF-8, UTF-16 or Windows-1252\n"
        "  to fix: save it as CSV in UTF-8, with the columns filename,class"
    )


def test_a_mapping_of_a_table(tmp_path: Path) -> None:
    text = "filename,class\na.jpg,Metal/can\nb.jpg,bottle\nc.jpg,dust\na.jpg,tin\n"
    source = table(tmp_path, text, files=("a.jpg", "b.jpg", "c.jpg"))
    assert "map it with a mapping CSV" in fails(source, tmp_path / "data")
    lines = b"category,class\nMetal/can,Metal\nbottle,Glass\ntin,Metal\ndust,\n"
    options = Options(mapping=write(tmp_path / "map.csv", lines))
    report = import_data(source, tmp_path / "data", options)
    assert rows(tmp_path / "data") == [("Glass/b.jpg", "Glass", ""), ("Metal/a.jpg", "Metal", "")]
    assert report["skipped"] == {"its category has no class": 1, "in the table: listed twice": 1}
    assert report["such_as"]["its category has no class"] == 'c.jpg, "dust"'


def test_a_mapping_of_a_tree_its_splits_and_its_test(tmp_path: Path) -> None:
    found = ("train/can/0", "train/tin/0", "train/jar/1", "train/dust/2", "val/jar/3", "test/tin/4")
    for number, name in enumerate(found):
        write(tmp_path / f"set/{name}.jpg", encoded(photo(number)))
    for number, name in enumerate(("can/0", "Glass/1", "dust/2")):  # in categories and in classes
        write(tmp_path / f"more/{name}.jpg", encoded(photo(number + 10)))
    lines = b"category,class\ncan,Metal\ntin,Metal\njar,Glass\n"
    options = Options(mapping=write(tmp_path / "map.csv", lines))
    report = import_data(tmp_path / "set", tmp_path / "data", options)
    assert report["classes"] == {"Glass": 2, "Metal": 2}
    assert report["such_as"] == {"its category has no class": 'train/dust/2.jpg, "dust"'}
    assert names(tmp_path / "data/train/Metal") == ["0.jpg", "train_tin_0.jpg"]
    assert (tmp_path / "data/test_truth.csv").read_text() == "filename,class\ntin/4.jpg,Metal\n"
    whole = replace(options, validation=tmp_path / "more", test=tmp_path / "more")
    report = import_data(tmp_path / "set", tmp_path / "data", whole)
    assert (report["classes"], report["validation"]) == ({"Glass": 3, "Metal": 3}, 3)
    assert report["such_as"] == {"its category has no class": 'train/dust/2.jpg, "dust"'}
    assert report["skipped"] == {"its category has no class": 2}
    assert (tmp_path / "data/test_truth.csv").read_text() == (
        "filename,class\nGlass/1.jpg,Glass\ncan/0.jpg,Metal\ndust/2.jpg,dust\n"
    )


@pytest.mark.parametrize(
    ("option", "given", "kinds"),
    [
        ("--images", Options(Path()), "coco csv cvat label-studio"),
        ("--filename-column", Options(columns=Columns("a")), "csv"),
        ("--class-column", Options(columns=Columns(label="a")), "csv label-studio"),
        ("--group-column", Options(columns=Columns(group="a")), "coco csv"),
        ("--split-column", Options(columns=Columns(split="a")), "csv"),
        ("--classes", Options(classes="outer"), "folder"),
        ("--mapping", Options(mapping=Path("m.csv")), "coco csv cvat folder label-studio"),
        ("--margin", Options(margin=0), "coco cvat label-studio"),
        ("--boxes", Options(boxes="stored"), "coco cvat label-studio"),
        (
            "none",
            Options(columns=Columns(split="none")),
            "coco csv cvat folder label-studio shards",
        ),
        (
            "--classes beside --validation",
            Options(classes="outer", validation=Path("v")),
            "coco csv cvat folder label-studio shards",
        ),
    ],
)
def test_an_option_that_says_nothing_of_the_source_is_refused(
    option: str, given: Options, kinds: str
) -> None:
    heeded = []
    for kind, called in KINDS.items():
        try:
            _check_options(Path("source"), kind, given)
            heeded.append(kind)
        except DataError as error:
            assert error.problem.startswith(f"{option} is for a")
            assert error.problem.endswith(f"; source is {called}")
            assert error.fix == f"leave {option} out"
    assert sorted(heeded) == kinds.split()


def test_an_option_that_is_refused_by_the_import(tmp_path: Path) -> None:
    source = tree(tmp_path, {"Cat": 1, "Dog": 1}) / "train"
    assert fails(source, tmp_path / "data", Options(columns=Columns(group="patient"))) == (
        f"--group-column is for a table or a COCO file; {source} is a folder of class folders\n"
        "  to fix: leave --group-column out"
    )


def test_the_split_of_a_tree_or_of_shards_that_is_not_taken(tmp_path: Path) -> None:
    for number, name in enumerate(("train/Cat", "train/Dog", "val/Cat", "test/Dog")):
        write(tmp_path / f"set/{name}/0.jpg", encoded(photo(number)))
    whole = Options(columns=Columns(split="none"))
    report = import_data(tmp_path / "set", tmp_path / "data", whole)
    assert names(tmp_path / "data/train") == ["Cat/0.jpg", "Cat/val_Cat_0.jpg", "Dog/0.jpg"]
    assert (report["validation"], report["test"]["images"]) == (0, 1)
    assert report["notes"][-1] == (
        "its validation split is not taken (--split-column none): prepare chooses one"
    )
    assert {name for name, _, _ in rows(tmp_path / "data")} == {*names(tmp_path / "data/train")}
    (tmp_path / "shards").mkdir()
    for split in ("train", "val"):
        with tarfile.open(tmp_path / f"shards/{split}-0.tar", "w") as tar:
            for label in ("Cat", "Dog"):
                for suffix, data in (("jpg", encoded(photo(0))), ("cls", label.encode())):
                    member = tarfile.TarInfo(f"{split}{label}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    assert import_data(tmp_path / "shards", tmp_path / "own")["validation"] == 2
    assert import_data(tmp_path / "shards", tmp_path / "more", whole)["validation"] == 0
    assert len(rows(tmp_path / "more")) == 4


def test_missing_files_are_listed_and_not_fatal(tmp_path: Path) -> None:
    text = "filename,class\na.jpg,Glass\ngone.jpg,Glass\n" + "x" * 5000 + ",Glass\nnul\0,Glass\n"
    source = table(tmp_path, text, files=("a.jpg",))
    report = import_data(source, tmp_path / "data")
    assert (report["images"], report["missing"]) == (1, ["gone.jpg", "nul\\x00", "x" * 5000])


@pytest.mark.parametrize(
    ("text", "files", "column"),
    [
        ("id,code,label\n0,02,x\n1,01,y\n2,03,x\n", ("02.jpg", "01.jpg", "03.jpg"), "code"),
        ("id,hash,label\n0,hb,x\n1,ha,y\n2,hc,x\n", ("hb.jpg", "ha.jpg", "hc.jpg"), "hash"),
        ("id,seen,label\n0,5,x\n1,7,y\n2,6,x\n", ("00.jpg", "01.jpg", "02.jpg"), "id"),
        ("name,row,label\nb,7,x\na,8,y\nc,9,x\n", ("b.jpg", "a.jpg", "c.jpg", "7.jpg"), "name"),
    ],
)
def test_the_column_whose_values_are_files_is_read(
    tmp_path: Path, text: str, files: tuple[str, ...], column: str
) -> None:
    source = table(tmp_path, text, files=files)
    report = import_data(source, tmp_path / "data")
    labelled = [f"{label}/{name}" for name, label in zip(files, "xyx", strict=False)]
    assert names(tmp_path / "data/train") == sorted(labelled)
    assert report["notes"][0] == f'file names from "{column}", classes from "label"'


@pytest.mark.parametrize("word", ["NA", "nan", "None", "NULL", "n/a", "-"])
def test_a_missing_group_is_none(tmp_path: Path, word: str) -> None:
    text = f"filename,class,patient\na.jpg,x,{word}\nb.jpg,x,p1\nc.jpg,x,{word}\nd.jpg,x,\n"
    source = table(tmp_path, text, files=("a.jpg", "b.jpg", "c.jpg", "d.jpg"))
    report = import_data(source, tmp_path / "data")
    assert {name: group for name, _, group in rows(tmp_path / "data")} == {
        "x/a.jpg": "",
        "x/b.jpg": "p1",
        "x/c.jpg": "",
        "x/d.jpg": "",
    }
    assert f'the group "{word}" of 2 images is read as none' in report["notes"]


def test_the_numbers_of_rows_are_no_file_names(tmp_path: Path) -> None:
    text = "row,key,label\n0,b,x\n1,a,y\n2,c,x\n"
    source = table(tmp_path, text, files=("0.jpg", "1.jpg", "2.jpg"))
    assert fails(source, tmp_path / "data") == (
        f"none of the 3 files that {source} names is in {source.parent}, such as b; "
        'file names from "key", classes from "label"\n'
        "  to fix: name the folder of the images with --images, or the column that holds their "
        "names with --filename-column"
    )


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "link.jpg", "down/../../secret"])
def test_a_name_that_leads_out_is_missing(tmp_path: Path, name: str) -> None:
    write(tmp_path / "secret.jpg", b"secret")
    write(tmp_path / "secret", b"secret")
    source = table(tmp_path / "s", f"filename,class\na.jpg,A\n{name},A\n", files=("a.jpg",))
    (tmp_path / "s/images/link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "s/images/down").mkdir()
    report = import_data(source, tmp_path / "data")
    assert (report["images"], report["missing"]) == (1, [name])
    assert names(tmp_path / "data/train") == ["A/a.jpg"]


def test_files_of_one_name_get_names_of_their_own(tmp_path: Path) -> None:
    files = ("x/1.jpg", "y/1.jpg", "y_1.jpg", "z/Y_1.JPG", ".dot.jpg", "back\\slash.jpg")
    text = "filename,class\n" + "".join(f"{name},A\n" for name in files)
    import_data(table(tmp_path, text, files=files), tmp_path / "data")
    kept = ["1.jpg", "dot.jpg", "slash.jpg", "y_1.jpg", "y_1_2.jpg", "z_Y_1.JPG"]
    assert names(tmp_path / "data/train") == sorted(f"A/{name}" for name in kept)
    assert [row[0] for row in rows(tmp_path / "data")] == sorted(f"A/{name}" for name in kept)
    held = {(tmp_path / "data/train/A" / name).read_text() for name in kept}
    assert held == {f"{name} {number}" for number, name in enumerate(files)}


def test_names_that_are_too_long_are_cut_and_differ(tmp_path: Path) -> None:
    long, wide = "x" * 251 + ".jpg", "é" * 125 + ".jpg"
    files = (f"a/{long}", f"b/{long}", f"c/{long}", f"a/{wide}", f"b/{wide}")
    text = "filename,class\n" + "".join(f"{name},Cat\n" for name in files)
    source = table(tmp_path, text, files=files)
    assert import_data(source, tmp_path / "data")["missing"] == []
    found = names(tmp_path / "data/train/Cat")
    cut = [f"{above}_{name}" for above, name in (("b", long), ("c", long), ("b", wide))]
    assert {*found} == {
        *(long, wide),
        *(f"{n[:234]}_{sha256(n.encode())[:16]}.jpg" for n in cut[:2]),
        f"b_{'é' * 116}_{sha256(cut[2].encode())[:16]}.jpg",
    }
    report = import_data(source, tmp_path / "data")
    assert (report["images"], names(tmp_path / "data/train/Cat")) == (5, found)
    index = ImportIndex(tmp_path)
    again = {index.named("Cat", long, "").filename for _ in range(30)}
    assert (len(again), max(map(len, again))) == (30, len("Cat/") + 255)


def test_a_picture_of_a_long_name_is_cropped(tmp_path: Path) -> None:
    source = coco(tmp_path, [box(0, 1, 1, 1, 9, 9)])
    (tmp_path / "images/0.jpg").rename(tmp_path / "images" / f"{'x' * 251}.jpg")
    source.write_text(source.read_text().replace("0.jpg", f"{'x' * 251}.jpg"))
    assert import_data(source, tmp_path / "data")["images"] == 1
    name = f"{'x' * 251}_0.jpg"
    cut = f"{name[:234]}_{sha256(name.encode())[:16]}.jpg"
    assert names(tmp_path / "data/train") == [f"Bottle/{cut}"]


def test_a_file_in_two_classes_comes_in_twice(tmp_path: Path) -> None:
    source = table(tmp_path, "filename,class\na.jpg,A\na.jpg,B\n", files=("a.jpg",))
    import_data(source, tmp_path / "data")
    assert names(tmp_path / "data/train") == ["A/a.jpg", "B/a.jpg"]


# --- the test folder


def test_a_test_folder_and_its_truth(tmp_path: Path) -> None:
    source = tree(tmp_path, {"A": 1, "B": 1}) / "train"
    for name in ("0.jpg", "1.jpg", "2.jpg", ".hidden"):
        write(tmp_path / "public" / name, name.encode())
    (tmp_path / "public/out.jpg").symlink_to("/etc/passwd")
    truth = write(tmp_path / "t.csv", b"filename,class\npublic/1.jpg,B\n0.jpg,A\n9.jpg,A\n")
    options = Options(test=tmp_path / "public", truth=truth)
    report = import_data(source, tmp_path / "data", options)
    assert report["test"] == {"images": 3, "without_truth": 1, "truth_without_image": 1}
    assert names(tmp_path / "data/test") == ["0.jpg", "1.jpg", "2.jpg"]
    known = (tmp_path / "data/test_truth.csv").read_text()
    assert known == "filename,class\n0.jpg,A\n1.jpg,B\n"

    # the next import keeps that test, and replaces everything else
    other = tree(tmp_path / "other", {"A": 1, "B": 2, "C": 2, "D": 1}) / "train"
    import_data(other, tmp_path / "data")
    assert names(tmp_path / "data") == [
        "import.json",
        "test/0.jpg",
        "test/1.jpg",
        "test/2.jpg",
        "test_truth.csv",
        "train.csv",
        "train/A/000.jpg",
        "train/B/000.jpg",
        "train/B/001.jpg",
        "train/C/000.jpg",
        "train/C/001.jpg",
        "train/D/000.jpg",
    ]

    # unless it is told not to, or the truth has classes that there are none of now: another set
    strangers = tree(tmp_path / "strangers", {"B": 1, "C": 1}) / "train"
    before = sorted((tmp_path / "data").rglob("*"))
    left_out = (
        "the 3 test images of the earlier import are left out: their truth has classes that are "
        "none now, such as A; --test and --truth name a test"
    )
    for source, options, notes in (
        (strangers, Options(), [left_out]),
        (other, Options(keep_test=False), []),
    ):
        import_data(
            tmp_path / "other/train",
            tmp_path / "data",
            Options(test=tmp_path / "public", truth=truth),
        )
        assert sorted((tmp_path / "data").rglob("*")) == before
        assert import_data(source, tmp_path / "data", options)["notes"] == notes
        assert not (tmp_path / "data/test").exists()
        assert not (tmp_path / "data/test_truth.csv").exists()

    # another test without a truth takes the old truth away
    report = import_data(other, tmp_path / "data", Options(test=tmp_path / "public"))
    assert report["test"] == {"images": 3}
    assert not (tmp_path / "data/test_truth.csv").exists()


def test_test_images_that_are_trained_on_are_told(tmp_path: Path) -> None:
    source = tree(tmp_path, {"A": 2, "B": 2}) / "train"
    shutil.copytree(source, tmp_path / "public")
    write(tmp_path / "public/A/own.jpg", b"x")
    data = tmp_path / "data"
    line = (
        "data/test: 4 images are also in data/train, byte for byte, such as A/000.jpg and "
        "A/000.jpg; figures on them say nothing of unseen images"
    )
    report = import_data(source, data, Options(test=tmp_path / "public"))
    assert line in report["notes"]

    # of images in shards too, and when it is the training images that are other ones
    pack_data(data, 1000, 1)
    assert told_copies(data) == [line]
    other = tree(tmp_path / "other", {"A": 2, "B": 1}, start=9) / "train"
    kept = import_data(other, data)["notes"]
    assert kept == [
        "the 5 test images of the earlier import are kept; --test names others, --no-test leaves "
        "them out"
    ]
    report = import_data(source, data)
    assert report["notes"] == [*kept, line]


def test_the_test_of_the_drawn_set_goes_with_it(tmp_path: Path) -> None:
    source = tree(tmp_path, {"A": 1, "B": 1}) / "train"
    for name in ("test/0.jpg", "test_truth.csv", "train/Glass/0.jpg"):
        write(tmp_path / "data" / name, b"x")
    write_mark(tmp_path / "data", "demo.json", {})
    import_data(source, tmp_path / "data")
    wanted = ["import.json", "train.csv", "train/A/000.jpg", "train/B/000.jpg"]
    assert names(tmp_path / "data") == wanted


def test_a_test_folder_without_files(tmp_path: Path) -> None:
    source = tree(tmp_path, {"A": 1}) / "train"
    (tmp_path / "none").mkdir()
    assert fails(source, tmp_path / "data", Options(test=tmp_path / "none")) == (
        f"{tmp_path}/none holds no file\n  to fix: name the folder of the test images"
    )


def test_a_test_with_a_folder_a_class(tmp_path: Path) -> None:
    source = tree(tmp_path, {"Cat": 2, "Dog": 2}) / "train"
    for name in ("cat/0.jpg", "Dog/0.jpg", "Bird/1.jpg", "Thumbs.db", "notes.txt"):
        write(tmp_path / "Test" / name, encoded(photo(len(name))))
    report = import_data(source, tmp_path / "data", Options(test=tmp_path / "Test"))
    assert names(tmp_path / "data/test") == ["Bird/1.jpg", "Dog/0.jpg", "cat/0.jpg"]
    assert (tmp_path / "data/test_truth.csv").read_text() == (
        "filename,class\nBird/1.jpg,Bird\nDog/0.jpg,Dog\ncat/0.jpg,Cat\n"
    )
    assert report["test"] == {"images": 3, "without_truth": 0}
    assert report["skipped"] == {"in the test: a .txt file, no image": 1}
    assert report["notes"] == ["truth: 1 test images are of classes that are not trained on: Bird"]


@pytest.mark.parametrize("kind", ["tree", "option", "table", "within"])
def test_a_class_to_validate_that_is_not_trained_on(tmp_path: Path, kind: str) -> None:
    places = {"tree": "{s}/{c}", "option": "{s}/{c}", "table": "{s}/{c}", "within": "{c}/{s}"}
    for split, label in (("train", "Cat"), ("train", "Dog"), ("val", "Cat"), ("val", "Bird")):
        name = places[kind].format(s=split, c=label)
        write(tmp_path / "src" / name / f"{split}.png", encoded(photo(1), "PNG"))
    lines = ["train/Cat/train.png,Cat,train", "train/Dog/train.png,Dog,train"]
    lines += ["val/Cat/val.png,Cat,val", "val/Bird/val.png,Bird,val"]
    source, options = tmp_path / "src", Options()
    if kind == "table":
        source = write(tmp_path / "src/a.csv", "\n".join(["file,class,split", *lines]).encode())
    if kind == "option":
        source, options = tmp_path / "src/train", Options(validation=tmp_path / "src/val")
    assert fails(source, tmp_path / "data", options) == (
        "the validation split has a class Bird, such as Bird/val.png, which is not trained on; "
        "trained on are Cat, Dog\n"
        "  to fix: give it training images, write Bird as one of these, or remove its images"
    )


@pytest.mark.parametrize(
    ("splits", "trained", "validated", "tested"),
    [
        (("", "", "val"), 2, 1, 0),
        (("", "", "test"), 2, 0, 1),
        (("train", "", "val"), 2, 1, 0),
        (("val", "val", "val"), None, None, None),
        (("val", "test", "test"), None, None, None),
    ],
)
def test_a_row_without_a_split_is_trained_on(
    tmp_path: Path,
    splits: tuple[str, ...],
    trained: int | None,
    validated: int | None,
    tested: int | None,
) -> None:
    text = "".join(f"{n}.jpg,Cat,{split}\n" for n, split in enumerate(splits))
    files = tuple(f"{n}.jpg" for n in range(3))
    source = table(tmp_path / "src", f"filename,class,split\n{text}", files=files)
    if trained is None:
        problem = f"the split column of {source} names no row to train on"
        assert fails(source, tmp_path / "data").startswith(problem)
        return
    report = import_data(source, tmp_path / "data")
    found = report["images"] - report["validation"], report["validation"]
    assert found == (trained, validated)
    assert report.get("test", {"images": 0})["images"] == tested


def test_splits_of_a_tree(tmp_path: Path) -> None:
    """The authors' splits: what is alike in name comes in under two, and each in its split."""
    for number, side in enumerate(("Training", "val", "Test")):
        for label in ("Cat", "Dog"):
            write(tmp_path / f"set/{side}/{label}/0.jpg", f"{number}{label}".encode())
    report = import_data(tmp_path / "set", tmp_path / "data")
    table = (tmp_path / "data/train.csv").read_text()
    assert table == (
        "filename,class,group,split\n"
        "Cat/0.jpg,Cat,,train\nCat/val_Cat_0.jpg,Cat,,validation\n"
        "Dog/0.jpg,Dog,,train\nDog/val_Dog_0.jpg,Dog,,validation\n"
    )
    assert (tmp_path / "data/train/Cat/val_Cat_0.jpg").read_bytes() == b"1Cat"
    assert (tmp_path / "data/test/Dog/0.jpg").read_bytes() == b"2Dog"
    assert (report["images"], report["validation"], report["test"]["images"]) == (4, 2, 2)


def test_a_validation_folder_that_is_named(tmp_path: Path) -> None:
    source = tree(tmp_path / "a", {"Cat": 2, "Dog": 2}) / "train"
    held_out = tree(tmp_path / "b", {"cat": 1, "Dog": 1}, 9) / "train"
    held_out = held_out.rename(tmp_path / "a/val")
    report = import_data(source, tmp_path / "data")
    assert report["notes"] == ["val/ lies beside it and is not taken; --validation names it"]
    assert (report["images"], report["validation"]) == (4, 0)
    report = import_data(source, tmp_path / "data", Options(validation=held_out))
    assert (report["notes"], report["images"], report["validation"]) == ([], 6, 2)
    with (tmp_path / "data/train.csv").open(newline="") as file:
        sides = {row["filename"]: (row["class"], row["split"]) for row in csv.DictReader(file)}
    assert sides == {
        **{f"{label}/00{n}.jpg": (label, "train") for label in ("Cat", "Dog") for n in (0, 1)},
        "Cat/cat_000.jpg": ("Cat", "validation"),
        "Dog/Dog_000.jpg": ("Dog", "validation"),
    }


def split_table(tmp_path: Path, splits: tuple[str, ...]) -> Path:
    rows = [f"{n}.jpg,{'AB'[n % 2]},{split}\n" for n, split in enumerate(splits)]
    files = tuple(f"{n}.jpg" for n in range(len(splits)))
    return table(tmp_path, "filename,class,split\n" + "".join(rows), files=files)


def test_a_split_column(tmp_path: Path) -> None:
    source = split_table(tmp_path, ("train", "Train", "VAL", "valid", "test", "Test", "", "dev"))
    report = import_data(source, tmp_path / "data")
    with (tmp_path / "data/train.csv").open(newline="") as file:
        sides = {row["filename"]: row["split"] for row in csv.DictReader(file)}
    assert sides == {
        **dict.fromkeys(("A/0.jpg", "B/1.jpg", "A/6.jpg"), "train"),
        **dict.fromkeys(("A/2.jpg", "B/3.jpg", "B/7.jpg"), "validation"),
    }
    known = (tmp_path / "data/test_truth.csv").read_text()
    assert known == "filename,class\n4.jpg,A\n5.jpg,B\n"
    assert (report["images"], report["validation"], report["test"]["images"]) == (6, 3, 2)


@pytest.mark.parametrize(
    ("splits", "options"),
    [
        (("train",) * 4, Options()),
        (("", "x", "y", "z"), Options()),
        (("train", "val", "test", "val"), Options(columns=Columns(split="none"))),
    ],
)
def test_a_split_column_that_is_none(
    tmp_path: Path, splits: tuple[str, ...], options: Options
) -> None:
    report = import_data(split_table(tmp_path, splits), tmp_path / "data", options)
    assert (report["images"], report["validation"], "test" in report) == (4, 0, False)
    assert len(rows(tmp_path / "data")) == 4  # train.csv has its three columns


def test_words_of_split_columns_that_contests_write(tmp_path: Path) -> None:
    splits = ("Training", "PublicTest", "eval", "x_train")
    report = import_data(split_table(tmp_path, splits), tmp_path / "data")
    assert (report["images"], report["validation"], report["test"]["images"]) == (3, 1, 1)


@pytest.mark.parametrize("word", ["calibration", "7"])
def test_a_split_column_that_is_understood_in_part_is_refused(tmp_path: Path, word: str) -> None:
    with pytest.raises(DataError) as caught:
        import_data(split_table(tmp_path, ("train", "val", word, "train")), tmp_path / "data")
    assert f'says "{word}" for 1 rows' in caught.value.problem
    assert "--split-column none" in caught.value.fix
    assert not (tmp_path / "data").exists()


def test_classes_that_differ_by_case_alone_are_refused(tmp_path: Path) -> None:
    table = split_table(tmp_path, ("",) * 4)
    text = table.read_text(encoding="utf-8")
    lines = text.splitlines()
    name = lines[1].split(",")[1]
    lines[1] = lines[1].replace(f",{name}", f",{name.swapcase()}")
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        import_data(table, tmp_path / "data")
    assert f'"{name.swapcase()}"' in caught.value.problem
    assert f'"{name}"' in caught.value.problem


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("Glass", other) for other in ("Glass\u200b", "\uff27lass", "Glass\u00ad")),
        *(("1", "1.0"), ("7", "07"), ("no_mask", "no mask")),
    ],
)
def test_classes_that_look_the_same_are_refused(one: str, other: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "l.csv", ("filename", "class"), [("1.jpg", one), ("2.jpg", other)])
    for name in ("1.jpg", "2.jpg"):
        write(tmp_path / "img" / name, encoded(photo(1)))
    with pytest.raises(DataError, match="are one class but for"):
        import_data(tmp_path / "l.csv", tmp_path / "data", Options(images=tmp_path / "img"))


def test_tests_of_classes_with_equal_names_all_arrive(tmp_path: Path) -> None:
    for label in ("Cat", "Dog"):
        for side in ("train", "test"):
            for number in range(3):
                path = tmp_path / f"set/{label}/{side}/{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                photo(number).save(path)
    report = import_data(tmp_path / "set", tmp_path / "data")
    assert report["test"]["images"] == 6
    assert len(list((tmp_path / "data/test").rglob("*.jpg"))) == 6
    truth = (tmp_path / "data/test_truth.csv").read_text().splitlines()[1:]
    assert sorted(line.split(",")[1] for line in truth) == ["Cat"] * 3 + ["Dog"] * 3


# --- names that are written in another way


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("images\\{label}\\{number}.JPG", "part of the path"),
        ("{label}\\{number}.JPG", "separators"),
        ("./{label}/{number}.JPG", ""),
        ("{label}/{number}.jpg", "case"),
        ("{label}/{number}", "file suffix"),
        ("C:\\photos\\{label}\\{number}.JPG", "part of the path"),
        ("https://example.org/set/{label}/{number}.JPG", "part of the path"),
    ],
)
def test_names_of_a_table(tmp_path: Path, written: str, why: str) -> None:
    lines, files = ["filename,class\n"], []
    for number in range(4):
        label = "AB"[number % 2]
        files.append(f"{label}/{number}.JPG")
        lines.append(f"{written.format(label=label, number=number)},{label}\n")
    source = table(tmp_path, "".join(lines), files=tuple(files))
    report = import_data(source, tmp_path / "data", Options(tmp_path / "images"))
    assert names(tmp_path / "data/train") == sorted(files)
    assert report["missing"] == []
    assert any(f"4 by {why}" in note for note in report["notes"]) == bool(why)


def test_an_ambiguous_name_is_refused(tmp_path: Path) -> None:
    source = table(tmp_path, "filename,class\n1.jpg,A\n", files=("x/1.jpg", "y/1.jpg"))
    message = fails(source, tmp_path / "data", Options(tmp_path / "images"))
    assert '"1.jpg" may mean' in message
    assert "x/1.jpg" in message
    assert "y/1.jpg" in message


@pytest.mark.parametrize("again", ["0.JPG", "images\\0.jpg", "./images/0.jpg", "0%2Ejpg"])
def test_a_file_that_is_listed_again_in_another_spelling(tmp_path: Path, again: str) -> None:
    """It is what the same spelling is: a contradiction, or a row too many."""
    both = ["0.jpg", again]
    for one, two in (both, both[::-1]):
        text = f"filename,class\n{one},Cat\n{two},Dog\n1.jpg,Cat\n2.jpg,Dog\n{again},Cat\n"
        source = table(tmp_path, text, files=("0.jpg", "1.jpg", "2.jpg"))
        options = Options(tmp_path / "images")
        report = import_data(source, tmp_path / "data", options)
        assert (report["classes"], report["missing"]) == ({"Cat": 2, "Dog": 2}, [])
        assert names(tmp_path / "data/train") == [
            "Cat/0.jpg",
            "Cat/1.jpg",
            "Dog/0.jpg",
            "Dog/2.jpg",
        ]
        write(tmp_path / "test/0.jpg", encoded(photo(7)))
        name = again.replace("images", ".")
        truth = write(tmp_path / "t.csv", f"filename,class\n0.jpg,Cat\n{name},Dog\n".encode())
        tested = replace(options, test=tmp_path / "test", truth=truth)
        message = fails(source, tmp_path / "other", tested)
        assert 'lists 0.jpg twice, as "Cat"' in message
        assert message.endswith(f"remove the wrong row from {truth}")
    text = f"filename,class,split\n0.jpg,Cat,train\n{again},Cat,test\n1.jpg,Dog,train\n"
    source = table(tmp_path, text, files=("0.jpg", "1.jpg"))
    message = fails(source, tmp_path / "other", Options(tmp_path / "images"))
    assert f'{source} lists one file twice, as "train" (0.jpg) and as "test" (' in message
    assert message.endswith(f"remove the wrong row from {source}")


def test_rows_left_out_are_counted(tmp_path: Path) -> None:
    text = "filename,class\na.jpg,A\nb.jpg,\n,A\na.jpg,A\nc.jpg,B\n"
    report = import_data(table(tmp_path, text, files=("a.jpg", "c.jpg")), tmp_path / "data")
    assert report["skipped"] == {
        "in the table: no class": 1,
        "in the table: no file name": 1,
        "in the table: listed twice": 1,
    }


@pytest.mark.parametrize(
    ("truth", "problem"),
    [
        ("filename,class\nx.jpg,A\ny.jpg,B\n", "none of the 2 files that {truth} names is a test"),
        ("filename,class\n0.jpg,x\n1.jpg,y\n", "no class of the truth is trained on: it has x, y"),
        ("filename,class\n0.jpg,A\n0.jpg,B\n", "{truth} lists 0.jpg twice"),
        ("filename\n0.jpg\n", "{truth} has no column"),
    ],
)
def test_a_truth_that_cannot_be_meant(tmp_path: Path, truth: str, problem: str) -> None:
    source = tree(tmp_path, {"A": 1, "B": 1}) / "train"
    for number in range(3):
        write(tmp_path / f"public/{number}.jpg", b"x")
    path = write(tmp_path / "t.csv", truth.encode())
    message = fails(source, tmp_path / "data", Options(test=tmp_path / "public", truth=path))
    assert message.startswith(problem.format(truth=path))


def test_a_truth_in_another_spelling(tmp_path: Path) -> None:
    source = tree(tmp_path, {"Cat": 1, "Dog": 1}) / "train"
    for number in range(3):
        write(tmp_path / f"public/{number}.JPG", b"x")
    path = write(tmp_path / "t.csv", b"Filename;Class\ntest\\0;cat \ntest\\1; DOG\ntest\\9;cat\n")
    options = Options(test=tmp_path / "public", truth=path)
    report = import_data(source, tmp_path / "data", options)
    known = (tmp_path / "data/test_truth.csv").read_text()
    assert known == "filename,class\n0.JPG,Cat\n1.JPG,Dog\n"
    assert report["test"] == {"images": 3, "without_truth": 1, "truth_without_image": 1}
    assert any("test\\9 is not there" in note for note in report["notes"])


def test_validation_images_that_are_trained_on_too(tmp_path: Path) -> None:
    source = tree(tmp_path / "a", {"A": 3, "B": 3}) / "train"
    other = tree(tmp_path / "b", {"A": 2, "B": 2}, 20) / "train"
    assert import_data(source, tmp_path / "data", Options(validation=other))["notes"] == []
    for name in ("A/000.jpg", "B/001.jpg"):
        write(other / name, (source / name).read_bytes())
    report = import_data(source, tmp_path / "data", Options(validation=other))
    assert report["notes"] == [
        "the validation split: 2 images are also trained on, byte for byte, such as A/A_000.jpg "
        "and A/000.jpg; prepare.faults.duplicate decides what becomes of them"
    ]


def test_a_truth_needs_its_test(tmp_path: Path) -> None:
    source = tree(tmp_path, {"A": 1, "B": 1}) / "train"
    path = write(tmp_path / "t.csv", b"filename,class\n0.jpg,A\n")
    message = fails(source, tmp_path / "data", Options(truth=path))
    assert message == f"{path} is the truth of no test\n  to fix: name its images with --test"


def test_droppings_of_other_systems(tmp_path: Path) -> None:
    source = tree(tmp_path, {"A": 1, "B": 1}) / "train"
    for name in (
        *(".DS_Store", "A/.DS_Store", "A/._000.jpg", "A/Thumbs.db", "B/desktop.ini"),
        *("__MACOSX/A/._000.jpg", "@eaDir/A/000.jpg/SYNOPHOTO_THUMB_M.jpg"),
        *("A/@eaDir/000.jpg", "$RECYCLE.BIN/S-1/$R1.jpg", "lost+found/1.jpg"),
    ):
        write(source / name, b"x")
    report = import_data(source, tmp_path / "data")
    assert (report["classes"], report["skipped"]) == ({"A": 1, "B": 1}, {})
    assert names(tmp_path / "data/train") == ["A/000.jpg", "B/000.jpg"]


def test_links_out_of_a_folder_are_told_with_what_helps(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"store/{number}.jpg", encoded(photo(number)))
    for place in ("photos", "tree/Cat", "tree/Dog"):
        (tmp_path / place).mkdir(parents=True)
        for number in range(4):
            (tmp_path / place / f"{number}.jpg").symlink_to(tmp_path / f"store/{number}.jpg")
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole/Cat").symlink_to(tmp_path / "tree/Cat")
    text = "filename,class\n" + "".join(f"{n}.jpg,{'AB'[n % 2]}\n" for n in range(4))
    source = table(tmp_path / "own", text, files=())
    (tmp_path / "made").mkdir()
    into = tmp_path / "made/data"

    def copied(folder: Path) -> str:
        return (
            "\n  to fix: copy what its links lead to, and name the copy instead: "
            f"cp -rL {folder} {folder}-copy"
        )

    photos, tree, whole = (tmp_path / name for name in ("photos", "tree", "whole"))
    assert fails(source, into, Options(photos)) == (
        f"none of the 4 files that {source} names can be taken from {photos}, such as 0.jpg: "
        f"a link out of the folder{copied(photos)}"
    )
    for folder, count, what in ((tree, 8, "out of the"), (whole, 1, "to a")):
        assert fails(folder, into) == (
            f"{folder} holds no image in a class folder; {count} left out: a link {what} folder"
            f"{copied(folder)}"
        )
    boxes = coco(tmp_path / "boxes", [box(0, 1, 1, 1, 9, 9)])
    assert fails(boxes, into, Options(photos)).endswith(copied(photos))
    (tmp_path / "empty").mkdir()
    import_data(boxes, into, Options(tmp_path / "boxes/images"))
    with pytest.raises(DataError) as caught:
        import_data(boxes, into, Options(tmp_path / "boxes/images", test=photos))
    assert str(caught.value) == f"{photos} holds no file{copied(photos)}"
    subprocess.run(caught.value.fix.rpartition(": ")[2], shell=True, check=True)
    copy = Options(tmp_path / "photos-copy")
    assert import_data(source, tmp_path / "made/data", copy)["classes"] == {"A": 2, "B": 2}
    (tmp_path / "photos/0.jpg").unlink()
    write(tmp_path / "photos/0.jpg", encoded(photo(0)))
    write(tmp_path / "photos/1.jpg.part", b"x")
    report = import_data(source, tmp_path / "made/data", Options(photos))
    assert report["missing"] == ["1.jpg", "2.jpg", "3.jpg"]
    assert report["notes"] == [
        f"3 of the missing are there, but none can be taken from {photos}, such as 1.jpg: a link "
        f"out of the folder; {copied(photos).partition('fix: ')[2]}",
        "all images are of one class, A: prepare will refuse them; two are needed",
    ]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    odd = os.fsdecode(b"a Ch\xe8vre")
    for number, name in enumerate(("Cat", "Dog", odd)):
        write(tmp_path / f"set/{name}/{number}.jpg", encoded(photo(number)))
    own = tree(tmp_path / "own", {"Cat": 1, "Dog": 1}) / "train"
    for source, options in (
        (tmp_path / "set", Options()),
        (own, Options(test=tmp_path / "set")),
        (own, Options(validation=tmp_path / "set")),
    ):
        with pytest.raises(DataError) as caught:
            import_data(source, tmp_path / "data", options)
        assert str(caught.value) == (
            f"{tmp_path}/set: the name of its folder a Ch\\xe8vre is not UTF-8\n"
            f"  to fix: rename it: mv '{tmp_path}/set/a Ch'?vre {tmp_path}/set/NEW_NAME"
        )
    text = "filename,class\n0.jpg,Cat\n1.jpg,Dog\n2.jpg,Dog\n"
    source = write(tmp_path / "own.csv", text.encode())
    report = import_data(source, tmp_path / "data", Options(tmp_path / "set"))
    assert report["missing"] == ["2.jpg"]
    assert "such as a Ch\\xe8vre/2.jpg: its name is not UTF-8; rename" in report["notes"][0]
    (tmp_path / "set" / odd / "2.jpg").unlink()
    assert import_data(tmp_path / "set", tmp_path / "data")["notes"] == [
        "the folder a Ch\\udce8vre holds no image"
    ]
    write(tmp_path / "set" / odd / "2.jpg", encoded(photo(2)))
    subprocess.run(caught.value.fix.removeprefix("rename it: "), shell=True, check=True)
    assert import_data(tmp_path / "set", tmp_path / "data")["classes"] == {
        "Cat": 1,
        "Dog": 1,
        "NEW_NAME": 1,
    }


def test_a_class_that_utf8_cannot_hold(tmp_path: Path) -> None:
    files = ("a.jpg", "b.jpg")
    source = table(tmp_path, "", files=files).with_suffix(".jsonl")
    source.write_text(
        '{"filename": "a.jpg", "class": "\\ud83d"}\n{"filename": "b.jpg", "class": 1}'
    )
    assert fails(source, tmp_path / "data") == (
        'class "\\ud83d" cannot be the name of a folder\n'
        "  to fix: rename the class where it is named, or map it with a mapping CSV"
    )
    source.write_text(
        '{"filename": "a.jpg", "class": "x", "group": "\\udce8"}\n'
        '{"filename": "b.jpg", "class": "y"}\n{"filename": "\\ud83d.jpg", "class": "y"}'
    )
    assert import_data(source, tmp_path / "data")["missing"] == ["\\ud83d.jpg"]
    assert [group for _, _, group in rows(tmp_path / "data")] == ["\\udce8", ""]


@pytest.mark.parametrize(
    ("name", "problem", "fix"),
    [
        ("p.zip", "an archive, not a folder", "python -m zipfile -e {0}/p.zip {0}/p"),
        ("p.tar.gz", "an archive, not a folder", "python -m tarfile -e {0}/p.tar.gz {0}/p"),
        ("p.TGZ", "an archive, not a folder", "python -m tarfile -e {0}/p.TGZ {0}/p"),
        ("p.tar", "an archive, not a folder", "{0}/p; of a shard, name its folder"),
        ("p.rar", "an archive, not a folder", "name the folder that comes out"),
        ("p.xlsx", "the workbook of a spreadsheet", "save it as CSV in UTF-8, with the columns "),
    ],
)
def test_archives_and_workbooks(tmp_path: Path, name: str, problem: str, fix: str) -> None:
    source = write(tmp_path / name, b"x")
    with pytest.raises(DataError) as caught:
        import_data(source, tmp_path / "data")
    assert caught.value.problem == f"{source} is {problem}"
    assert fix.format(tmp_path) in caught.value.fix


def test_an_archive_in_a_folder_or_for_one(tmp_path: Path) -> None:
    own = tree(tmp_path / "own", {"Cat": 2, "Dog": 2}) / "train"
    (tmp_path / "dl").mkdir()
    for kind, module in (("zip", "zipfile"), ("tar", "tarfile")):
        packed = Path(shutil.make_archive(str(tmp_path / "dl/p"), kind, own))
        unpack = (
            "unpack it, and name the folder that comes out: "
            f"python -m {module} -e {packed} {tmp_path}/dl/p"
        )
        assert fails(packed.parent, tmp_path / "data").endswith(unpack)
        for options in (Options(test=packed), Options(validation=packed)):
            assert fails(own, tmp_path / "data", options) == (
                f"{packed} is not a folder\n  to fix: {unpack}"
            )
        command = unpack.partition(": ")[2].replace("python", sys.executable)
        subprocess.run(command, shell=True, check=True)
        assert import_data(tmp_path / "dl/p", tmp_path / "made")["images"] == 4
        shutil.rmtree(tmp_path / "dl/p")
        packed.unlink()


def test_the_command_says_what_came_in_and_what_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in ("Cat", "Dog"):
        for number in range(2):
            write(tmp_path / f"photos/{label}/{number}.jpg", encoded(photo(number)))
    write(tmp_path / "photos/Cat/page.jpg", b"<html>404")
    write(tmp_path / "photos/notes.txt", b"x")
    write(tmp_path / "public/7.jpg", encoded(photo(7)))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    found = CliRunner().invoke(
        commands(),
        ["import", "../photos", "--test", "../public", "--no-record"],
        catch_exceptions=False,
    )
    assert found.output.splitlines() == [
        "5 images of 2 classes: Cat 3, Dog 2",
        "1 left out: a .txt file, no image, such as notes.txt",
        "1 test images; 1 have no known class",
        "1 not-an-image: such as Cat/page.jpg, a web page, not the file that it was to be",
        "all of it in data/import.json",
    ]


def test_links_to_a_hubs_blobs_are_files(tmp_path: Path) -> None:
    """The Hugging Face hub keeps files under their hashes and links to them from a snapshot."""
    snapshot = tmp_path / "hub/snapshots/0123"
    lines = ["file_name,label\n"]
    for number in range(4):
        blob = write(tmp_path / f"hub/blobs/{number:064x}", encoded(photo(number)))
        link = snapshot / f"train/{'AB'[number % 2]}/{number}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
        lines.append(f"train/{'AB'[number % 2]}/{number}.jpg,{'AB'[number % 2]}\n")
    write(tmp_path / "hub/blobs/secret", b"x")
    (snapshot / "train/A/out.jpg").symlink_to(tmp_path / "hub/blobs/secret")
    report = import_data(snapshot, tmp_path / "data")
    assert (report["classes"], report["skipped"]) == (
        {"A": 2, "B": 2},
        {"a link out of the folder": 1},
    )
    source = write(snapshot / "metadata.csv", "".join(lines).encode())
    assert import_data(source, tmp_path / "data")["images"] == 4
    held = list((tmp_path / "data/train").rglob("*.jpg"))
    assert [path.is_symlink() for path in held] == [False] * 4


# --- a COCO file

CATEGORIES = [{"id": 1, "name": "Bottle"}, {"id": 2, "name": "Can"}, {"id": 3, "name": "Dust"}]


def coco(folder: Path, annotations: list[dict[str, Any]], size: tuple[int, int] = (72, 96)) -> Path:
    """Write two pictures of 72 x 96 pixels, a third that is missing, and what they hold."""
    for number in (0, 1):
        write(folder / f"images/{number}.jpg", encoded(photo(number), subsampling=0))
    listed = [
        {"id": n, "file_name": f"{n}.jpg", "height": size[0], "width": size[1]} for n in range(3)
    ]
    numbered = [{"id": number, **item} for number, item in enumerate(annotations)]
    facts = {"images": listed, "annotations": numbered, "categories": CATEGORIES}
    return write(folder / "coco.json", json.dumps(facts).encode())


def box(image: int, category: int, *edges: float, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(edges), **more}


def test_boxes_and_polygons_become_crops(tmp_path: Path) -> None:
    polygon = {"image_id": 1, "category_id": 2, "segmentation": [[10, 20, 30, 20, 20, 61.5]]}
    source = coco(tmp_path, [box(0, 1, 10, 20, 20, 10), polygon, box(2, 1, 0, 0, 9, 9)])
    report = import_data(source, tmp_path / "data")
    assert report["classes"] == {"Bottle": 1, "Can": 1}
    assert (report["missing"], report["skipped"]) == (["2.jpg"], {})
    # a tenth of each side around them
    assert _cropped(tmp_path, "Bottle/0_0.jpg", 0) == (slice(19, 31), slice(8, 32))
    assert _cropped(tmp_path, "Can/1_1.jpg", 1) == (slice(15, 66), slice(8, 32))
    wanted = [("Bottle/0_0.jpg", "Bottle", "0.jpg"), ("Can/1_1.jpg", "Can", "1.jpg")]
    assert rows(tmp_path / "data") == wanted


def pixels(path: Path) -> Any:
    return decode(path.read_bytes()).pixels.astype(np.int64)


def _cropped(folder: Path, name: str, picture: int) -> tuple[slice, slice]:
    """Return where in its picture a crop lies, by looking for it."""
    crop = pixels(folder / "data/train" / name)
    whole = pixels(folder / f"images/{picture}.jpg")
    height, width = crop.shape[:2]
    places = [
        (int(np.abs(whole[y : y + height, x : x + width] - crop).sum()), y, x)
        for y in range(whole.shape[0] - height + 1)
        for x in range(whole.shape[1] - width + 1)
    ]
    _, y, x = min(places)
    return slice(y, y + height), slice(x, x + width)


def test_a_margin_stays_inside_the_picture(tmp_path: Path) -> None:
    source = coco(tmp_path, [box(0, 1, 2, 40, 90, 30), box(0, 2, 0, 0, 96, 72)])
    import_data(source, tmp_path / "data", Options(margin=0.5))
    assert pixels(tmp_path / "data/train/Bottle/0_0.jpg").shape == (47, 96, 3)
    assert pixels(tmp_path / "data/train/Can/0_1.jpg").shape == (72, 96, 3)


def test_a_box_scales_with_its_picture(tmp_path: Path) -> None:
    source = coco(tmp_path, [box(0, 1, 100, 200, 200, 100)], size=(720, 960))
    import_data(source, tmp_path / "data", Options(margin=0))
    assert _cropped(tmp_path, "Bottle/0_0.jpg", 0) == (slice(20, 30), slice(10, 30))


def test_a_speck_is_the_pixels_that_it_touches(tmp_path: Path) -> None:
    source = coco(tmp_path, [box(0, 1, 10.2, 20.6, 0.2, 0.1)])
    import_data(source, tmp_path / "data")
    assert pixels(tmp_path / "data/train/Bottle/0_0.jpg").shape == (1, 1, 3)


def test_boxes_in_shares_are_refused_and_pixels_of_a_corner_are_not(tmp_path: Path) -> None:
    source = coco(tmp_path, [box(0, 1, 0.1, 0.2, 0.5, 0.25), box(1, 2, 0, 0, 1, 1)])
    message = fails(source, tmp_path / "data")
    assert message.startswith(f"{source}: all boxes lie between 0 and 1")
    assert "multiply left and width by the picture's width" in message
    source = coco(tmp_path, [box(0, 1, 0.1, 0.2, 0.5, 0.25), box(1, 2, 0, 0, 2, 1)])
    assert import_data(source, tmp_path / "data")["images"] == 2


@pytest.mark.parametrize("annotations", [[], [box(0, 9, 10, 10, 20, 20)]])
def test_a_file_that_annotates_nothing_is_told_as_such(
    tmp_path: Path, annotations: list[dict[str, Any]]
) -> None:
    message = fails(coco(tmp_path, annotations), tmp_path / "data")
    assert "annotates nothing that can be used; annotations of a class: 0" in message
    assert "--images" not in message


def test_annotations_left_out_are_counted(tmp_path: Path) -> None:
    annotations = [
        box(0, 1, 10, 10, 20, 20),
        box(7, 1, 10, 10, 20, 20),
        box(0, 9, 10, 10, 20, 20),
        box(0, 1, 10, 10, 20, 20, iscrowd=1),
        box(0, 1, 10, 10, 0, 20),
        box(0, 1, float("nan"), 10, 20, 20),
        {"image_id": 0, "category_id": 1, "segmentation": []},
        {"image_id": 0, "category_id": 1, "segmentation": {"counts": "rle", "size": [1, 1]}},
        box(0, 1, 200, 10, 20, 20),
    ]
    report = import_data(coco(tmp_path, annotations), tmp_path / "data")
    assert report["images"] == 1
    assert report["skipped"] == {
        "a crowd, not an object": 1,
        "an image without annotations": 2,
        "its box does not fit its image": 1,
        "its category has no class": 1,
        "its image is not listed": 1,
        "a run-length mask without a box": 1,
        "no box with an area": 3,
    }


def test_a_picture_of_another_shape_has_no_boxes(tmp_path: Path) -> None:
    source = coco(tmp_path, [box(0, 1, 1, 1, 9, 9), box(1, 1, 1, 1, 9, 9)])
    write(tmp_path / "images/1.jpg", encoded(photo(1, 96, 72)))
    report = import_data(source, tmp_path / "data")
    bare = {"an image without annotations": 1}
    assert report["images"] == 1
    assert report["skipped"] == {"its box does not fit its image": 1} | bare


def test_an_unreadable_picture_is_counted(tmp_path: Path) -> None:
    source = coco(tmp_path, [box(0, 1, 1, 1, 9, 9), box(1, 1, 1, 1, 9, 9), box(1, 2, 1, 1, 9, 9)])
    write(tmp_path / "images/1.jpg", encoded(photo(1))[:900])
    report = import_data(source, tmp_path / "data")
    bare = {"an image without annotations": 1}
    assert report["skipped"] == {"its image is unreadable (truncated)": 2} | bare


@pytest.mark.parametrize(
    "mapping",
    [
        "category,class\nBottle,Glass\nCan,Metal\nDust,\n",
        "note,id,class9,name\nx,1,Glass,-\ny,2,Metal,-\n",
        "category_id,category,class\n1,Bottle,Glass\n2,Can,Metal\n",
        "name,category,Class\nBottle,waste,Glass\nCan,waste,Metal\n",
        "label,target\nBottle,Glass\nCan,Metal\n",
        "Class Name,name\nGlass,Bottle\nMetal,Can\n",
        "category_id,class\n1,Glass\n2,Metal\n",
    ],
)
def test_a_mapping_from_category_to_class(tmp_path: Path, mapping: str) -> None:
    boxes = [box(0, category, 10, 10, 20, 20) for category in (1, 2, 3)]
    write(tmp_path / "map.csv", mapping.encode())
    report = import_data(
        coco(tmp_path, boxes), tmp_path / "data", Options(mapping=tmp_path / "map.csv")
    )
    assert report["classes"] == {"Glass": 1, "Metal": 1}
    bare = {"an image without annotations": 2}
    assert report["skipped"] == {"its category has no class": 1} | bare


def test_a_mapping_of_other_categories(tmp_path: Path) -> None:
    path = write(tmp_path / "map.csv", b"category,class\nBoat,Glass\n")
    source = coco(tmp_path, [box(0, 1, 1, 1, 9, 9)])
    assert fails(source, tmp_path / "data", Options(mapping=path)) == (
        f"{path} maps no category to a class; its columns are category, class\n"
        "  to fix: give it the columns category,class with these categories"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2"),
        ("3", "is not a COCO file: it holds no object"),
        ('{"categories": [], "images": []}', "is not a COCO file: it has no list `annotations`"),
        (
            '{"categories": 3, "images": [], "annotations": []}',
            "is not a COCO file: it has no list `categories`",
        ),
        ("[" * 100_000, "is not JSON: maximum recursion depth exceeded"),
    ],
)
def test_what_is_no_coco_file(tmp_path: Path, text: str, problem: str) -> None:
    source = write(tmp_path / "coco.json", text.encode())
    found = fails(source, tmp_path / "data")
    assert found.startswith(f"{source} {problem}")
    fix = "give a JSON file with the lists images, annotations and categories"
    assert found.endswith(f"\n  to fix: {fix}")


def test_json_lines_by_another_name(tmp_path: Path) -> None:
    line = b'{"file_name": "0.jpg", "label": "Cat"}\n'
    source = write(tmp_path / "labels.json", 2 * line)
    assert fails(source, tmp_path / "data").endswith(
        "to fix: call it labels.jsonl if each line is an object of its own"
    )
    write(tmp_path / "0.jpg", encoded(photo(0)))
    report = import_data(source.rename(tmp_path / "labels.jsonl"), tmp_path / "data")
    assert (report["kind"], report["classes"]) == ("csv", {"Cat": 1})


def test_images_that_are_all_missing(tmp_path: Path) -> None:
    annotations = [box(2, 1, 1, 1, 9, 9), box(2, 2, 1, 1, 9, 9), box(2, 9, 1, 1, 9, 9)]
    source = coco(tmp_path, annotations)
    assert fails(source, tmp_path / "data") == (
        f"none of the 1 images that {source} annotates can be used, such as 2.jpg in {tmp_path}; "
        "annotations of a class: 2, Bottle 1, Can 1; 2 left out: an image without annotations; "
        "1 left out: its category has no class\n"
        "  to fix: name the folder of the images with --images"
    )


def test_an_annotation_cannot_name_a_path(tmp_path: Path) -> None:
    hostile = [{**box(0, 1, 1, 1, 9, 9), "id": "../../../x"}, box(0, 1, 1, 1, 9, 9)]
    facts = json.loads(coco(tmp_path / "s", hostile).read_text())
    facts["images"].append({"id": 5, "file_name": "../../secret.jpg"})
    facts["annotations"].append(box(5, 1, 1, 1, 9, 9, id=9))
    write(tmp_path / "secret.jpg", encoded(photo(3)))
    write(tmp_path / "s/coco.json", json.dumps(facts).encode())
    report = import_data(tmp_path / "s/coco.json", tmp_path / "p/data")
    assert (report["images"], report["missing"]) == (2, ["../../secret.jpg"])
    assert names(tmp_path / "p/data/train") == ["Bottle/0_1.jpg", "Bottle/x.jpg"]


# --- whole, or not at all


def full(*arguments: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tree(tmp_path / "first", {"A": 1, "B": 1}) / "train"
    import_data(first, tmp_path / "data")
    before = sha256_tree(tmp_path / "data")
    monkeypatch.setattr(ImportIndex, "add", full)
    with pytest.raises(OutputError) as caught:
        import_data(tree(tmp_path / "other", {"C": 9}) / "train", tmp_path / "data")
    assert str(caught.value) == (
        f"cannot write {tmp_path}/data: No space left on device\n"
        "  to fix: free some space or make its folder writable, then run the same command again"
    )
    assert sha256_tree(tmp_path / "data") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "first", "other"]


def test_a_really_full_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root mounts a small disk")
    try:
        import_data(tree(tmp_path / "first", {"A": 1, "B": 1}) / "train", small / "data")
        before = sha256_tree(small / "data")
        with pytest.raises(OutputError, match="No space left on device"):
            import_data(tree(tmp_path / "other", {"C": 200}) / "train", small / "data")
        assert sha256_tree(small / "data") == before
        assert [path.name for path in small.iterdir()] == ["data"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


SLOW = """
import sys, time
from pathlib import Path
from weighin.data import importing

def slowly(path):
    print("here", flush=True)
    time.sleep(60)

where = sys.argv[1]
if where == "copying":
    importing.ImportIndex.copy = lambda self, folder, name, row: slowly(name)
else:
    rename = Path.rename
    def renaming(self, target):
        rename(self, target)
        slowly(self)
    Path.rename = renaming
importing.import_data(Path(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.mark.parametrize("where", ["copying", "swapping"])
def test_a_killed_import_loses_nothing(tmp_path: Path, where: str) -> None:
    """SIGKILL while files are copied, and between the two renames: the next run puts it right."""
    data = tmp_path / "data"
    import_data(tree(tmp_path / "first", {"A": 1, "B": 1}) / "train", data)
    before = sha256_tree(data)
    other = tree(tmp_path / "other", {"C": 3, "D": 1}) / "train"
    command = [sys.executable, "-c", SLOW, where, str(other), str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGKILL)
    assert data.exists() == (where == "copying")
    with pytest.raises(DataError):
        import_data(tmp_path / "none", data)  # even one that fails
    assert sha256_tree(data) == before
    import_data(other, data)
    assert names(data / "train") == ["C/000.jpg", "C/001.jpg", "C/002.jpg", "D/000.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "first", "other"]


def test_an_import_does_not_depend_on_the_clock_or_the_place(tmp_path: Path) -> None:
    source = tree(tmp_path / "first", {"A": 3, "B": 2}) / "train"
    import_data(source, tmp_path / "one")
    time.sleep(0.01)
    (tmp_path / "deep").mkdir()
    moved = source.rename(tmp_path / "deep/er")
    import_data(moved, tmp_path / "two")
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "two")


# --- real data sets


def test_waste7_as_a_tree_and_as_a_csv(tmp_path: Path, real: Path) -> None:
    counts = {
        "Clothing": 271,
        "Glass": 351,
        "Metal": 285,
        "Paper": 690,
        "Paperpack": 351,
        "Plastic": 347,
        "Plasticbag": 569,
    }
    options = Options(test=real / "waste7/public", truth=real / "waste7/public_truth.csv")
    by_tree = import_data(real / "waste7/train", tmp_path / "tree", options)
    assert (by_tree["images"], by_tree["classes"]) == (2864, counts)
    assert by_tree["test"] == {"images": 526, "without_truth": 0, "truth_without_image": 0}
    by_csv = import_data(real / "waste7/train.csv", tmp_path / "csv")
    assert (by_csv["images"], by_csv["classes"]) == (2864, counts)
    assert by_csv["wide_groups"] == ["official_split=train", "split=train"]
    assert names(tmp_path / "csv/train") == names(tmp_path / "tree/train")
    assert len({group for _, _, group in rows(tmp_path / "csv")}) == 183


def test_waste7s_public_test_as_a_csv_beside_its_folder(tmp_path: Path, real: Path) -> None:
    report = import_data(real / "waste7/public_truth.csv", tmp_path / "data")
    assert report["images"] == 526
    assert report["classes"] == {
        "Clothing": 65,
        "Glass": 65,
        "Metal": 56,
        "Paper": 129,
        "Paperpack": 52,
        "Plastic": 60,
        "Plasticbag": 99,
    }


def test_trash_bags_of_a_real_coco_file(tmp_path: Path, real: Path) -> None:
    report = import_data(real / "trashbags_annotated/annotations.coco.json", tmp_path / "data")
    assert report["images"] == 1001
    assert report["classes"] == {"general_trashbag": 431, "other_trashbag": 570}
    assert report["missing"] == []
    assert report["skipped"] == {"an image without annotations": 2}
    assert len({group for _, _, group in rows(tmp_path / "data")}) == 181


def test_tacos_annotations_without_its_images(tmp_path: Path, real: Path) -> None:
    source = real / "taco/annotations.json"
    options = Options(mapping=real / "taco/mapping_9class.csv")
    assert fails(source, tmp_path / "data", options) == (
        f"none of the 1,454 images that {source} annotates can be used, such as "
        f"batch_1/000000.jpg in {real / 'taco'}; annotations of a class: 3,556, Battery 2, "
        "Clothing 7, Glass 254, Metal 544, Paper 452, Paperpack 45, Plastic 1,263, "
        "Plasticbag 849, Styrofoam 140; 1,228 left out: its category has no class\n"
        "  to fix: name the folder of the images with --images"
    )


def test_tacos_annotations_with_some_of_its_images(tmp_path: Path, real: Path) -> None:
    """Two pictures drawn at a tenth of the size that TACO gives them: the rest are listed."""
    source = real / "taco/annotations.json"
    listed = {item["file_name"]: item for item in json.loads(source.read_text())["images"]}
    for name in ("batch_1/000006.jpg", "batch_1/000008.jpg"):
        height, width = listed[name]["height"] // 10, listed[name]["width"] // 10
        write(tmp_path / "photos" / name, encoded(photo(0, height, width)))
    options = Options(tmp_path / "photos", mapping=real / "taco/mapping_9class.csv")
    report = import_data(source, tmp_path / "data", options)
    assert report["images"] == sum(report["classes"].values()) > 1
    assert len(report["missing"]) == 1452
    assert report["skipped"] == {"its category has no class": 1228}


def test_copies_that_roboflow_augmented_are_one_group(tmp_path: Path) -> None:
    marks = [letter * 32 for letter in "abc"]
    names = [f"Cat/x_jpg.rf.{mark}.jpg" for mark in marks] + ["Cat/y.jpg", "Dog/z.rf.short.jpg"]
    names += [f"Dog/x_jpg.rf.{marks[0]}.jpg"]  # another picture of that name
    for number, name in enumerate(names):
        write(tmp_path / "set" / name, encoded(photo(number)))
    report = import_data(tmp_path / "set", tmp_path / "data")
    groups = {name: group for name, _, group, *_ in rows(tmp_path / "data")}
    assert groups == {name: "Cat/x_jpg.jpg" if name in names[:3] else "" for name in names}
    assert report["notes"] == [
        "3 images are copies of 1 that Roboflow augmented; the copies of one stay in one split"
    ]
    for folder in ("train", "valid"):  # a split that is given stays
        for name in names:
            write(tmp_path / "whole" / folder / name, encoded(photo(len(folder))))
    assert import_data(tmp_path / "whole", tmp_path / "data")["validation"] == len(names)
    table = (tmp_path / "data/train.csv").read_text().splitlines()[1:]
    assert {line.split(",")[2] for line in table} == {""}


def test_what_prepare_will_refuse_is_told(tmp_path: Path) -> None:
    labelled = tree(tmp_path, {"A": 3, "B": 3}) / "train"
    validated = tree(tmp_path / "held/out", {"A": 1}, start=9) / "train"
    report = import_data(labelled, tmp_path / "data", Options(validation=validated))
    assert report["notes"] == [
        "the validation split has no image of B: prepare will refuse it; add some, or import "
        "without a split of your own (the training folder alone, or --split-column none)"
    ]
    assert import_data(labelled, tmp_path / "data")["notes"] == []


def test_a_truth_of_one_class_is_told(tmp_path: Path) -> None:
    """As the sample of a submission has it, which gives test images any class."""
    source = tree(tmp_path, {"A": 3, "B": 3}) / "train"
    for name in ("1.jpg", "2.jpg"):
        write(tmp_path / "public" / name, name.encode())
    truth = write(tmp_path / "sample_submission.csv", b"filename,class\n1.jpg,A\n2.jpg,A\n")
    options = Options(test=tmp_path / "public", truth=truth)
    notes = import_data(source, tmp_path / "data", options)["notes"]
    assert notes[:-1] == [  # the last one says that these are no images
        "the truth gives all 2 test images the class A; the sample of a submission is no truth: "
        "leave --truth out if it is one"
    ]
    write(truth, b"filename,class\n1.jpg,A\n2.jpg,B\n")
    assert import_data(source, tmp_path / "data", options)["notes"] == notes[-1:]
