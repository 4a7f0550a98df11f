"""Labels of every kind of file that a test folder may hold."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from weighin.errors import DataError, ModelError
from weighin.grading import graph
from weighin.grading import predict as module
from weighin.grading import predict as predict_module
from weighin.grading.model import open_model
from weighin.grading.predict import predict, top_two_margin

Build = Callable[..., Path]
RED, BLUE = (255, 0, 0), (0, 0, 255)


def labels(model: Path, folder: Path, **options: Any) -> dict[str, str]:
    found = predict(open_model(model), folder, **options)
    return dict(zip(found.names, found.labels, strict=True))


def test_names_in_order_with_their_labels(build: Build, pictures: Path) -> None:
    found = predict(open_model(build()), pictures)
    assert list(zip(found.names, found.labels, strict=True)) == [
        ("below/blue.jpg", "blue"),
        ("below/green.jpg", "green"),
        ("below/red.jpg", "red"),
        ("blue.png", "blue"),
        ("green.png", "green"),
        ("red.png", "red"),
    ]
    assert found.unreadable == {}
    # from -1 to 1; JPEG's blue is 254
    assert found.closest() == ("below/blue.jpg", pytest.approx(254 * 2 / 255))
    assert found.close == 0


def test_margins() -> None:
    assert top_two_margin(np.array([[1, 5, 3], [2, 2, 0]], np.float32)).tolist() == [2, 0]


def test_a_tie_is_close(build: Build, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "f/grey.png")
    found = predict(open_model(build()), tmp_path / "f")
    assert (found.labels, found.close, found.closest()) == (("blue",), 1, ("grey.png", 0.0))


def truncated(path: Path) -> None:
    random = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(random).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:900])


def bomb(path: Path) -> None:
    Image.new("1", (9000, 9000)).save(path, "PNG")


def no_permission(path: Path) -> None:
    path.write_bytes(b"x")
    path.chmod(0)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def outside(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def broken(path: Path) -> None:
    path.symlink_to("nothing")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def folder_link(path: Path) -> None:
    path.symlink_to(".")


EPS = "not-an-image: an EPS file; convert it to PNG"
FAULTS: list[tuple[Callable[[Path], Any], str]] = [
    (truncated, "truncated"),
    (bomb, "bomb"),
    (no_permission, "no-permission"),
    (pipe, "not-a-file"),
    (unix_socket, "not-a-file"),
    (outside, "outside"),
    (broken, "broken-link"),
    (loop, "not-a-file"),
    (folder_link, "not-a-file"),
    (lambda path: path.write_bytes(b""), "zero-byte"),
    (lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), EPS),
    (lambda path: path.write_text("notes"), "not-an-image"),
]


@pytest.mark.parametrize(("make", "fault"), FAULTS, ids=lambda v: getattr(v, "__name__", None))
def test_an_unreadable_file_gets_the_fallback_and_is_listed(
    build: Build, pictures: Path, make: Callable[[Path], Any], fault: str
) -> None:
    if make is no_permission and os.geteuid() == 0:
        pytest.skip("root reads everything; the image's tests try this as another user")
    make(pictures / "bad.jpg")
    found = predict(open_model(build()), pictures)
    assert found.unreadable == {"bad.jpg": fault}
    assert dict(zip(found.names, found.labels, strict=True))["bad.jpg"] == "green"
    assert len(found.names) == 7
    assert np.isnan(found.margins[list(found.names).index("bad.jpg")])
    with pytest.raises(DataError) as caught:
        predict(open_model(build()), pictures, strict=True)
    assert caught.value.problem == f"bad.jpg: {fault}"


def test_a_file_too_large_to_read(
    build: Build, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_module, "MAX_FILE", 200)
    (pictures / "huge.jpg").write_bytes(b"x" * 201)
    assert predict(open_model(build()), pictures).unreadable["huge.jpg"] == "huge"


def test_unusual_pictures_have_a_label_of_their_own(build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    red = Image.new("RGB", (12, 9), RED)
    red.convert("CMYK").save(folder / "cmyk.jpg")
    red.save(folder / "animated.gif", save_all=True, append_images=[Image.new("RGB", (12, 9))])
    red.save(folder / "misnamed.dat", "PNG")
    red.save(folder / "no suffix", "WEBP", lossless=True)
    Image.fromarray(np.full((9, 12), 40000, np.uint16)).save(folder / "sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    red.save(folder / "rotated.jpg", exif=exif)
    assert labels(build(), folder) == {
        "animated.gif": "red",
        "cmyk.jpg": "red",
        "misnamed.dat": "red",
        "no suffix": "red",
        "rotated.jpg": "red",
        "sixteen.png": "blue",
    }


def test_unusual_names(build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    names = [b"a,b.png", b'quote".png', "œuvre 写真.png".encode(), b"\xff\xfe.png", b"n" * 251]
    names += [b"\x1b[2J\r\n.png"]  # clears a terminal, and breaks a row of a CSV
    for name in names:
        Image.new("RGB", (8, 8), RED).save(tmp_path / "red.png")
        (tmp_path / "red.png").rename(Path(os.fsdecode(os.path.join(os.fsencode(folder), name))))  # noqa: PTH118
    found = labels(build(), folder)
    assert list(found) == [
        "\\x1b[2J\\x0d\\x0a.png",
        "a,b.png",
        "n" * 251,
        'quote".png',
        "œuvre 写真.png",
        "\\udcff\\udcfe.png",
    ]
    assert set(found.values()) == {"red"}


def test_hidden_files_are_not_asked_for_and_links_inside_are(build: Build, pictures: Path) -> None:
    (pictures / ".DS_Store").write_bytes(b"x")
    (pictures / ".cache").mkdir()
    (pictures / ".cache/x.png").write_bytes(b"x")
    (pictures / "link.png").symlink_to("red.png")
    found = labels(build(), pictures)
    assert len(found) == 7
    assert found["link.png"] == "red"


def test_folders_that_cannot_be_graded(build: Build, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, words in ((empty, "holds no files"), (tmp_path / "no", "is not a folder")):
        with pytest.raises(DataError) as caught:
            predict(open_model(build()), folder)
        assert caught.value.problem == f"{folder} {words}"


def test_a_path_longer_than_the_system_takes(build: Build, pictures: Path) -> None:
    place = os.open(pictures, os.O_RDONLY)
    for _ in range(17):
        os.mkdir("d" * 250, dir_fd=place)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    with pytest.raises(DataError) as caught:
        predict(open_model(build()), pictures)
    assert caught.value.problem.startswith(f"cannot list {pictures}/ddd")
    assert caught.value.problem.endswith("d: File name too long")


def test_large_activations_make_small_batches(build: Build) -> None:
    many = {"many": np.zeros((64, 3, 1, 1)), "few": np.zeros((3, 64, 1, 1))}
    wide = [
        helper.make_node("Conv", ["images", "many"], ["wide"], name="wide"),
        helper.make_node("Conv", ["wide", "few"], ["x"], name="narrow"),
    ]
    sizes = {
        side: open_model(build(before=wide, weights=many, size=(side, side))).graph.batch
        for side in (8, 128, 512, 700)
    }
    # 64 channels of side x side, at most 2^24 values a batch
    assert sizes == {8: 32, 128: 16, 512: 2, 700: 2}


PEAK = """
import sys
from pathlib import Path
from weighin.grading import graph
from weighin.grading import graph
from weighin.grading import predict as module
from weighin.grading.model import open_model
graph.BATCH, module.LARGE = 1, int(sys.argv[3])
module.predict(open_model(Path(sys.argv[1])), Path(sys.argv[2]), workers=4)
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def test_large_pictures_take_turns(build: Build, tmp_path: Path) -> None:
    """Decoded at once by four workers they take twice the memory, the libraries' included."""
    (tmp_path / "eight").mkdir()
    for i in range(8):
        Image.new("LA", (4000, 4200), 7).save(tmp_path / f"eight/{i}.png", compress_level=1)

    def peak(large: int) -> int:
        command = [sys.executable, "-c", PEAK, build(), tmp_path / "eight", str(large)]
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    assert peak(module.LARGE) < 0.7 * peak(10**9)


def test_any_number_of_workers_gives_the_same(
    build: Build, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "BATCH", 2)
    one = predict(open_model(build()), pictures, workers=1)
    four = predict(open_model(build()), pictures, workers=4)
    assert one.labels == four.labels == ("blue", "green", "red") * 2
    assert one.margins.tobytes() == four.margins.tobytes()


def test_tall_pictures_lie_down_if_the_model_says_so(build: Build, tmp_path: Path) -> None:
    """The left column of a picture lying down is the top row of the tall one, or the bottom."""
    folder = tmp_path / "f"
    folder.mkdir()
    tall = np.zeros((16, 8, 3), np.uint8)
    tall[:8] = RED
    tall[8:] = BLUE
    Image.fromarray(tall).save(folder / "tall.png")
    crop = [helper.make_node("Slice", ["images", "s", "e", "a"], ["x"])]
    left = {"s": np.array([0]), "e": np.array([8]), "a": np.array([3])}
    names = {
        turn: labels(
            build(before=crop, weights=left, size=(8, 16), metadata={"turn_tall": turn}), folder
        )["tall.png"]
        for turn in ("true", "false")
    }
    # upright, each half holds as much red as blue, and the first class wins the tie
    assert names == {"true": "red", "false": "blue"}


def test_logits_that_are_not_numbers(build: Build, pictures: Path) -> None:
    model = build(
        before=[helper.make_node("Sqrt", ["images"], ["x"])]
    )  # of -1, where a colour is absent
    with pytest.raises(ModelError, match="its logits are not finite"):
        predict(open_model(model), pictures)


def test_done_counts_every_file(build: Build, pictures: Path) -> None:
    counts: list[int] = []
    predict(open_model(build()), pictures, done=counts.append)
    assert sum(counts) == 6


def test_links_to_dvcs_cache_are_read(build: Build, pictures: Path, tmp_path: Path) -> None:
    """DVC links a data set to its cache when it is told to, by symlinks or by hard links."""
    plain = predict(open_model(build()), pictures)
    for number, name in enumerate(("red.png", "green.png", "blue.png")):
        stored = tmp_path / f".dvc/cache/files/md5/ab/{number:030x}"
        stored.parent.mkdir(parents=True, exist_ok=True)
        (pictures / name).rename(stored)
        if number:
            (pictures / name).symlink_to(stored)
        else:
            (pictures / name).hardlink_to(stored)
    linked = predict(open_model(build()), pictures)
    assert (linked.names, linked.labels, linked.unreadable) == (plain.names, plain.labels, {})


def test_other_systems_droppings_ask_for_no_label(build: Build, pictures: Path) -> None:
    plain = predict(open_model(build()), pictures)
    for name in ("Thumbs.db", "desktop.ini", "__MACOSX/below/._red.jpg", "@eaDir/red.png/x.jpg"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        (pictures / name).write_bytes(b"x")
    assert predict(open_model(build()), pictures).names == plain.names


def test_a_folder_of_which_over_half_cannot_be_read_is_refused(
    build: Build, pictures: Path
) -> None:
    whole = len(predict(open_model(build()), pictures).names)
    for number in range(whole):
        (pictures / f"{number}.jpg").write_bytes(b"")
    half = predict(open_model(build()), pictures)
    half.check_readable(pictures)
    assert half.faults_summary == (
        f"{whole} of {2 * whole} files cannot be read: {whole} zero-byte, such as 0.jpg"
    )
    (pictures / "x.jpg").symlink_to("/etc/passwd")
    with pytest.raises(DataError) as caught:
        predict(open_model(build()), pictures).check_readable(pictures)
    assert caught.value.problem == (
        f"{pictures}: {whole + 1} of {2 * whole + 1} files cannot be read: "
        f"{whole} zero-byte, such as 0.jpg; 1 outside, such as x.jpg"
    )
    assert "convert the files to JPEG or PNG" in caught.value.fix
