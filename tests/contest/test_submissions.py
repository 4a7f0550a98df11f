"""What people hand in: read by name and by size, never unpacked, never followed."""

import io
import stat
import zipfile
from pathlib import Path

import pytest

from weighin.contest.submissions import MAX_BYTES, found_in, read_file, read_model, zipped
from weighin.errors import DataError, ModelError


def archive(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, data in entries:
            bundle.writestr(name, data)
    return path


def test_a_file_a_folder_and_a_zip_file(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/model.onnx").write_bytes(b"b")
    archive(tmp_path / "c.zip", ("model.onnx", b"c"))
    archive(tmp_path / "d.zip", ("wrapped/model.onnx", b"d"), ("wrapped/metrics.json", b"{}"))
    found = found_in(tmp_path)
    assert [(each.team, read_model(each.path)) for each in found] == [
        ("a", b"a"),
        ("b", b"b"),
        ("c", b"c"),
        ("d", b"d"),
    ]
    assert read_file(tmp_path / "d.zip", "metrics.json") == b"{}"
    assert read_file(tmp_path / "c.zip", "metrics.json") is None


def test_two_entries_of_one_name_keep_their_suffixes(tmp_path: Path) -> None:
    (tmp_path / "team.onnx").write_bytes(b"a")
    archive(tmp_path / "team.zip", ("model.onnx", b"c"))
    assert [each.team for each in found_in(tmp_path)] == ["team.onnx", "team.zip"]


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/model.onnx", "..\\model.onnx", "a/b/model.onnx"]
)
def test_a_path_that_leads_elsewhere_is_no_model(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "slip.zip", (name, b"x"))
    with pytest.raises(ModelError, match=r"slip\.zip holds no model\.onnx"):
        read_model(path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["slip.zip"]


def test_what_lies_in_place_of_a_model_is_told(tmp_path: Path) -> None:
    others = [(f"{letter}.txt", b"") for letter in "abc"]
    path = archive(tmp_path / "net.zip", *others, ("a/b/model.onnx", b"x"))
    with pytest.raises(ModelError) as caught:
        read_model(path)
    told = "net.zip holds no model.onnx; it holds a/b/model.onnx, a.txt, b.txt, ..."
    assert caught.value.problem == told
    for name in ("MODEL.ONNX", "net.onnx"):
        (tmp_path / name / "team").mkdir(parents=True)
        (tmp_path / name / name).write_bytes(b"x")
        with pytest.raises(ModelError, match=f"no model.onnx; it holds {name}, team\n"):
            read_model(tmp_path / name)
    with pytest.raises(ModelError, match=r"no model\.onnx; it holds nothing\n"):
        read_model(archive(tmp_path / "empty.zip"))


def test_links_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link.onnx").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match=r"link\.onnx is a link"):
        read_model(tmp_path / "link.onnx")
    (tmp_path / "team").mkdir()
    (tmp_path / "team/model.onnx").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match=r"model\.onnx is a link") as caught:
        read_model(tmp_path / "team")
    assert "dvc checkout --relink" in caught.value.fix  # DVC may have made it
    entry = zipfile.ZipInfo("model.onnx")
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    path = archive(tmp_path / "link.zip", (entry, b"/etc/passwd"))
    with pytest.raises(ModelError, match=r"model\.onnx in the ZIP file is a link"):
        read_model(path)


def test_a_bomb_is_refused_by_its_size_whatever_it_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAX_BYTES, "model.onnx", 1000)
    honest = archive(tmp_path / "honest.zip", ("model.onnx", b"\0" * 1001))
    with pytest.raises(ModelError, match=r"1,001 bytes, over 1,000"):
        read_model(honest)
    data = honest.read_bytes()
    liar = tmp_path / "liar.zip"
    liar.write_bytes(data.replace((1001).to_bytes(4, "little"), (9).to_bytes(4, "little")))
    with pytest.raises(ModelError):
        read_model(liar)
    assert len(read_model(archive(tmp_path / "fits.zip", ("model.onnx", b"\0" * 1000)))) == 1000


def test_what_is_damaged_or_double_is_named(tmp_path: Path) -> None:
    (tmp_path / "junk.zip").write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"junk\.zip is not a sound ZIP file"):
        read_model(tmp_path / "junk.zip")
    path = archive(tmp_path / "two.zip", ("model.onnx", b"a"), ("x/model.onnx", b"b"))
    with pytest.raises(ModelError, match=r"two\.zip holds model\.onnx more than once"):
        read_model(path)


def test_a_folder_without_entries(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no submission"):
        found_in(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        found_in(tmp_path / "none")


def test_a_bundle_is_a_function_of_its_files() -> None:
    files = {"model.onnx": b"m", "submission.csv": b"filename,class\n"}
    data = zipped(files)
    assert data == zipped(dict(reversed(files.items())))
    assert data != zipped({**files, "model.onnx": b"n"})
    with zipfile.ZipFile(io.BytesIO(data)) as bundle:
        assert {name: bundle.read(name) for name in bundle.namelist()} == files
