"""Images in tar files: the same pack as from a folder, and every fault of a shard in a sentence."""

import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from photos import encoded, photo, tree, write
from test_prepare import faulty, in_process

from weighin.data.importing import Options, import_data
from weighin.data.shards import open_images, read_shards
from weighin.data.versioning import pack_data
from weighin.errors import DataError
from weighin.files import read_json, sha256_tree, write_csv
from weighin.params import Prepare

Parts = list[tuple[str, bytes]]


def shard(path: Path, parts: Parts) -> Path:
    """Write members in this order, as WebDataset's TarWriter does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in parts:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def images(count: int, suffix: str = "jpg") -> Parts:
    """Return samples 000, 001... of the classes a and b in turn, the class in a .cls."""
    return [
        part
        for k in range(count)
        for part in ((f"{k:03d}.{suffix}", encoded(photo(k))), (f"{k:03d}.cls", b"ab"[k % 2 :][:1]))
    ]


def grouped(root: Path) -> Path:
    """Return data with every fault, names of odd forms, groups in train.csv and a test."""
    source = faulty(root)
    write(source / "train/a/two.points.jpg", encoded(photo(600)))
    write(source / "train/a/TWO.points.JPG", encoded(photo(601)))
    write(source / "train/b/no-suffix", encoded(photo(602)))
    write(source / "train/b/사진 1.jpeg", encoded(photo(603)))
    write(source / "train/b/table.csv", b"not an image")
    names = [f"a/{k:03d}.jpg" for k in range(40)]
    write_csv(
        source / "train.csv",
        ("filename", "class", "group"),
        [(name, "a", f"g{k // 4}") for k, name in enumerate(names)],
    )
    write(source / "test/1.jpg", encoded(photo(700)))
    return source


# --- the same bytes


def test_shards_prepare_to_the_bytes_of_the_folder(tmp_path: Path, params: Prepare) -> None:
    data, params = grouped(tmp_path / "data"), replace(params, group="column")
    folder = in_process(data, tmp_path / "folder/work", params, 0, 1)
    pack_data(data, 50_000, 2)
    assert len(list((data / "train").iterdir())) > 3
    assert in_process(data, tmp_path / "one/work", params, 0, 1) == folder
    assert in_process(data, tmp_path / "two/work", params, 0, 3, LANG="tr_TR.UTF-8") == folder
    path = data / "train/shard-000001.tar"
    path.write_bytes(path.read_bytes().replace(b'"name": "a/0', b'"name": "a/9'))
    assert in_process(data, tmp_path / "three/work", params, 0, 1) != folder


def test_packing_keeps_every_byte_and_writes_the_same_tars(tmp_path: Path) -> None:
    one, two = grouped(tmp_path / "one"), grouped(tmp_path / "two")
    before = {p.relative_to(one / "train").as_posix(): p for p in (one / "train").rglob("*")}
    held = {name: path.read_bytes() for name, path in before.items() if path.is_file()}
    rest = sha256_tree(one / "train.csv"), sha256_tree(one / "test")
    os.utime(two / "train/a/000.jpg", (1, 1))
    for path in (two / "train").rglob("*.jpg"):
        path.chmod(0o600)
    pack_data(one, 60_000, 1)
    pack_data(two, 60_000, 2)
    listing = open_images(one / "train")
    assert {name: listing.read(name) for name in listing.names} == held
    assert listing.names == sorted(held)
    assert (sha256_tree(one / "train.csv"), sha256_tree(one / "test")) == rest
    assert sha256_tree(one / "train") == sha256_tree(two / "train")
    sizes = [path.stat().st_size for path in sorted((one / "train").iterdir())]
    assert len(sizes) > 2 and all(60_000 <= size < 90_000 for size in sizes[:-1])


def test_what_is_kept_nowhere_else_moves_aside_and_an_import_stays_one(tmp_path: Path) -> None:
    own = tree(tmp_path / "own", {"a": 4, "b": 4})
    assert pack_data(own, 10**6, 1)[1].endswith("own.before-1")
    assert len(list((tmp_path / "own.before-1/train").rglob("*.jpg"))) == 8
    data = tmp_path / "data"
    import_data(tree(tmp_path / "source", {"a": 4, "b": 4}) / "train", data)
    images = read_json(data / "import.json")["images"]
    assert len(pack_data(data, 10**6, 1)) == 1
    assert read_json(data / "import.json")["images"] == images == 8
    import_data(tmp_path / "source/train", data)  # which replaces only what is still an import
    assert (data / "train/a").is_dir()


def test_packing_twice_and_files_that_shards_would_lose_are_refused(tmp_path: Path) -> None:
    data = tree(tmp_path / "data", {"a": 4, "b": 4})
    loose = write(data / "train/loose.jpg", b"")
    with pytest.raises(DataError, match=r"loose\.jpg cannot be kept in a shard: not in a class"):
        pack_data(data, 10**6, 1)
    loose.unlink()
    pack_data(data, 10**6, 1)
    with pytest.raises(DataError, match="holds shards already"):
        pack_data(data, 10**6, 1)


# --- WebDataset's layout, from elsewhere


def test_classes_come_from_cls_or_json_and_names_from_keys(tmp_path: Path) -> None:
    facts = json.dumps({"label": 7, "group": "walk"}).encode()
    shard(
        tmp_path / "train-0.tar",
        [
            *(("cat/001.JPG", b"1"), ("cat/001.cls", b"cat\n"), ("cat/001.txt", b"a cat")),
            *(("deep/er/002.png", b"2"), ("deep/er/002.cls", b"dog")),
            *(("./003.json", facts), ("./003.webp", b"3"), ("__x", b""), (".hidden.jpg", b"")),
        ],
    )
    assert [(s.name, s.label, s.group) for s in read_shards(tmp_path)] == [
        ("7/003.webp", "7", "walk"),
        ("cat/001.jpg", "cat", ""),
        ("dog/deep_er_002.png", "dog", ""),
    ]


def test_an_import_of_shards_takes_them_as_they_are(tmp_path: Path, params: Prepare) -> None:
    parts = images(12)
    parts += [
        ("012.jpg", encoded(photo(90))),
        ("012.json", b'{"class": "b", "split": "validation"}'),
    ]
    parts += [
        ("013.jpg", encoded(photo(91))),
        ("013.json", b'{"class": "a", "split": "validation"}'),
    ]
    path = shard(tmp_path / "source/x.tar", parts)
    report = import_data(path.parent, tmp_path / "data")
    assert (report["kind"], report["images"], report["validation"]) == ("shards", 14, 2)
    assert (tmp_path / "data/train/x.tar").read_bytes() == path.read_bytes()
    assert "b/012.jpg,b,,validation\n" in (tmp_path / "data/train.csv").read_text()
    in_process(tmp_path / "data", tmp_path / "out/work", params, 0, 1)
    with pytest.raises(DataError, match="beside which"):
        import_data(path.parent, tmp_path / "data", Options(validation=tmp_path / "source"))


# --- faults, each in one sentence with the shard's name


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([*images(2), *images(1)], "the key 000 comes twice"),
        ([("1.jpg", b""), ("1.jpg", b""), ("1.cls", b"a")], "the key 1 comes twice"),
        ([("../1.jpg", b""), ("../1.cls", b"a")], "leads out of the data set"),
        ([("/etc/1.jpg", b""), ("/etc/1.cls", b"a")], "leads out of the data set"),
        ([("1.jpg", b"")], "the sample 1 has no class"),
        ([("1.jpg", b""), ("1.cls", b"../a")], 'the class "../a", which no folder'),
        ([("1.jpg", b""), ("1.cls", b"")], "the sample 1 has no class"),
        ([("1.cls", b"a")], "the sample 1 has no image"),
        ([("1.jpg", b""), ("1.png", b""), ("1.cls", b"a")], r"several images \(jpg, png\)"),
        ([("1.jpg", b""), ("1.json", b"{")], "the .json of the sample 1 is no JSON object"),
        ([("1.jpg", b""), ("1.json", b"[]")], "the .json of the sample 1 is no JSON object"),
        (
            [("1.jpg", b""), ("1.json", b'{"class": "a", "name": "a/../../x.jpg"}')],
            "cannot be called a/../../x.jpg",
        ),
        (
            [("1.jpg", b""), ("1.json", b'{"class": "a", "name": "b/x.jpg"}')],
            "cannot be called b/x",
        ),
        ([("README", b"")], "holds no sample"),
    ],
)
def test_what_a_shard_may_not_hold(tmp_path: Path, parts: Parts, words: str) -> None:
    shard(tmp_path / "bad.tar", parts)
    with pytest.raises(DataError, match=words) as error:
        open_images(tmp_path)
    assert "bad.tar" in error.value.problem and error.value.fix


def test_a_link_in_a_shard_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        link = tarfile.TarInfo("1.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(DataError, match=r"bad\.tar: 1\.jpg is a link"):
        open_images(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 512, 700, 0.5, 0.9, 1.0])
def test_a_shard_that_breaks_off_anywhere_is_told(tmp_path: Path, keep: float) -> None:
    path = shard(tmp_path / "cut.tar", images(6))
    whole = path.read_bytes()
    end = -(-len(whole.rstrip(b"\0")) // 512) * 512  # of the members
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(end * keep)])
    with pytest.raises(DataError, match=r"cut\.tar is no whole tar file"):
        open_images(tmp_path)


def test_a_broken_header_is_no_end(tmp_path: Path) -> None:
    path = shard(tmp_path / "broken.tar", images(6))
    data = bytearray(path.read_bytes())
    data[data.index(b"003.jpg") + 150] ^= 0xFF  # in the checksum
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"broken\.tar is no whole tar file"):
        open_images(tmp_path)


def test_a_name_in_two_shards_is_told(tmp_path: Path) -> None:
    shard(tmp_path / "one.tar", images(2))
    shard(tmp_path / "two.tar", images(1))
    with pytest.raises(DataError, match=r"called a/000\.jpg, in one\.tar and two\.tar"):
        open_images(tmp_path, 2)


def test_a_tar_beside_class_folders_is_no_shard(tmp_path: Path) -> None:
    data = tree(tmp_path / "data", {"a": 4, "b": 4})
    shard(data / "train/backup.tar", images(2))
    assert open_images(data / "train").faults == [
        ("no-class", "backup.tar", "not in a class folder")
    ]


# --- under DVC


def test_dvc_keeps_a_file_a_shard_and_fetch_brings_them_back(tmp_path: Path) -> None:
    tree(tmp_path / "source", {"a": 20, "b": 20})

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    run("dvc", "init", "-q")
    run("weighin", "import", "source/train")
    assert "in 1 shards in data/train" in run("weighin", "pack-data")
    assert "nfiles: 3" in (tmp_path / "data.dvc").read_text()
    whole = sha256_tree(tmp_path / "data")
    (tmp_path / "data/train/shard-000000.tar").unlink()
    (tmp_path / "data").rename(tmp_path / "away")
    run("weighin", "fetch")
    assert sha256_tree(tmp_path / "data") == whole


# --- what a sample says of itself


@pytest.mark.parametrize("said", [{"label": ["a"]}, {"label": {"a": 1}}, {"label": float("nan")}])
def test_a_class_that_is_no_text(said: dict[str, object], tmp_path: Path) -> None:
    parts = [("0.jpg", encoded(photo(0))), ("0.json", json.dumps(said).encode())]
    shard(tmp_path / "s/0.tar", parts)
    with pytest.raises(DataError, match="the sample 0 has no class"):
        read_shards(tmp_path / "s")


def test_a_class_in_another_encoding(tmp_path: Path) -> None:
    parts = [("0.jpg", encoded(photo(0))), ("0.cls", b"\xef\xbb\xbfa")]
    shard(tmp_path / "s/0.tar", parts)
    assert [sample.label for sample in read_shards(tmp_path / "s")] == ["a"]
    shard(tmp_path / "s/0.tar", [parts[0], ("0.cls", "Grün".encode("latin-1"))])
    with pytest.raises(DataError, match="sample 0 is not UTF-8"):
        read_shards(tmp_path / "s")


def test_group_0_is_a_group_and_a_list_is_none(tmp_path: Path) -> None:
    parts = [
        part
        for k, group in enumerate((0, 1, [1]))
        for part in (
            (f"{k}.jpg", encoded(photo(k))),
            (f"{k}.json", json.dumps({"class": "a", "group": group}).encode()),
        )
    ]
    shard(tmp_path / "s/0.tar", parts)
    assert [sample.group for sample in read_shards(tmp_path / "s")] == ["0", "1", ""]


def test_shards_that_are_called_as_splits_are(tmp_path: Path) -> None:
    others = [(f"v{name}", data) for name, data in images(2)]
    shard(tmp_path / "s/set-train-000.tar", images(4))
    shard(tmp_path / "s/set-val-000.tar", others)
    write(tmp_path / "s/loose.jpg", encoded(photo(9)))
    report = import_data(tmp_path / "s", tmp_path / "data")
    assert (report["images"], report["validation"]) == (6, 2)
    assert report["skipped"] == {"it lies beside the shards": 1}
    shard(tmp_path / "s/set-test-000.tar", [(f"t{name}", data) for name, data in images(2)])
    with pytest.raises(DataError, match='split "test"'):
        import_data(tmp_path / "s", tmp_path / "data")
