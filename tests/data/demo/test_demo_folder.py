"""What is drawn where, and that a folder is filled whole or left as it was."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from weighin.data.demo import class_counts, draw_demo, held_out
from weighin.data.demo.drawings import DRAWINGS
from weighin.data.demo.scene import render
from weighin.determinism import generator
from weighin.errors import DataError, OutputError, WorkerError
from weighin.files import sha256_tree
from weighin.images import Pixels

CLASSES = [
    *("Battery", "Clothing", "Glass", "Metal", "Paper", "Paperpack", "Plastic", "Plasticbag"),
    "Styrofoam",
]
FIX = "free some space or make its folder writable, then run the same command again"
DRAW = """
import sys
from pathlib import Path
from weighin.data.demo import draw_demo
from weighin.errors import WeighinError
if __name__ == "__main__":
    try:
        draw_demo(Path("data"), int(sys.argv[1]), 32, 1, int(sys.argv[2]))
    except WeighinError as error:
        print(error)
        sys.exit(error.exit_code)
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("demo") / "data"
    assert draw_demo(folder, 60, 32, 5) == class_counts(60)
    return folder


def truth(folder: Path) -> list[tuple[str, str]]:
    with (folder / "test_truth.csv").open(newline="") as file:
        return [(row["filename"], row["class"]) for row in csv.DictReader(file)]


def jpeg(pixels: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return out.getvalue()


def test_classes():
    assert list(DRAWINGS) == CLASSES


def test_counts_of_the_default():
    assert list(class_counts(1500).values()) == [75, 125, 125, 150, 250, 125, 200, 300, 150]


@pytest.mark.parametrize(("number", "held"), [(2, 1), (7, 1), (8, 2), (50, 10), (52, 10), (53, 11)])
def test_a_fifth_is_for_the_test(number, held):
    assert held_out(number) == held


@pytest.mark.parametrize("count", [60, 61, 75, 100, 301, 1499, 100_000])
def test_counts_add_up_and_leave_every_class_some_of_both(count):
    counts = class_counts(count)
    assert sum(counts.values()) == count
    assert all(n - held_out(n) >= 1 <= held_out(n) for n in counts.values())


def test_files(drawn):
    counts = class_counts(60)
    held = {label: number - held_out(number) for label, number in counts.items()}
    found = {
        path.name: sorted(p.name for p in path.iterdir()) for path in (drawn / "train").iterdir()
    }
    assert found == {
        label: [f"{label}_{i:04}.jpg" for i in range(number)] for label, number in held.items()
    }
    test = sorted(path.name for path in (drawn / "test").iterdir())
    assert test == [f"{i:04}.jpg" for i in range(60 - sum(held.values()))]
    names = sorted(path.name for path in drawn.iterdir())
    assert names == ["demo.json", "test", "test_truth.csv", "train", "train.csv"]
    expected = [("filename", "class", "group")]
    expected += [(f"{label}/{name}", label, "") for label in CLASSES for name in found[label]]
    with (drawn / "train.csv").open(newline="") as file:
        assert [tuple(row) for row in csv.reader(file)] == expected


def test_every_picture_is_its_address(drawn):
    pictures = {
        jpeg(render(DRAWINGS[label], 32, generator(5, "demo", label, i))): label
        for label, number in class_counts(60).items()
        for i in range(number)
    }
    assert len(pictures) == 60
    found = {p.read_bytes(): p.parent.name for p in (drawn / "train").rglob("*.jpg")}
    found |= {(drawn / "test" / name).read_bytes(): label for name, label in truth(drawn)}
    assert found == pictures


def test_the_order_of_the_test_tells_nothing(drawn):
    labels = [label for _, label in truth(drawn)]
    assert labels != sorted(labels)
    assert [name for name, _ in truth(drawn)] == sorted(p.name for p in (drawn / "test").iterdir())


def test_pictures_are_plain_jpegs(drawn):
    for path in drawn.rglob("*.jpg"):
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 32))
            assert len(image.getexif()) == 0


def test_the_mark_says_how_it_was_drawn(drawn):
    mark = json.loads((drawn / "demo.json").read_text())
    names = ("test", "test_truth.csv", "train", "train.csv")
    hashes = {name: sha256_tree(drawn / name) for name in names}
    assert mark == {"count": 60, "size": 32, "seed": 5, "sha256": hashes}


def test_what_was_drawn_is_replaced(tmp_path):
    draw_demo(tmp_path / "data", 60, 32, 1)
    draw_demo(tmp_path / "data", 60, 16, 2)
    draw_demo(tmp_path / "fresh", 60, 16, 2)
    assert sha256_tree(tmp_path / "data") == sha256_tree(tmp_path / "fresh")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "fresh"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((59,), "59 images are too few\n  to fix: draw 60 or more"),
        ((60, 15), "size is 15\n  to fix: draw images of 16 pixels or more"),
    ],
)
def test_too_few_or_too_small(tmp_path, arguments, message):
    with pytest.raises(DataError) as caught:
        draw_demo(tmp_path / "data", *arguments)
    assert str(caught.value) == message
    assert list(tmp_path.iterdir()) == []


def refused(folder: Path) -> str:
    before = sha256_tree(folder)
    with pytest.raises(DataError) as caught:
        draw_demo(folder, 60, 16)
    assert caught.value.fix == f"name a new or empty folder, or move {folder} away"
    assert sha256_tree(folder) == before
    return caught.value.problem


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.jpg").write_text("precious")
    assert refused(tmp_path / "data") == f"{tmp_path / 'data'} holds data that was not drawn here"


def test_a_file_is_left_alone(tmp_path):
    (tmp_path / "data").write_text("precious")
    assert refused(tmp_path / "data") == f"{tmp_path / 'data'} is not a folder"


@pytest.mark.parametrize("change", ["add", "edit", "remove", "mark", "beside"])
def test_a_drawn_folder_that_was_changed_is_left_alone(tmp_path, change):
    data = tmp_path / "data"
    draw_demo(data, 60, 16)
    paper = data / "train" / "Paper"
    match change:
        case "add":
            (paper / "mine.jpg").write_text("precious")
        case "edit":
            (paper / "Paper_0000.jpg").write_text("precious")
        case "remove":
            (paper / "Paper_0000.jpg").unlink()
        case "mark":
            (data / "demo.json").write_text("[1]")
        case "beside":
            (data / "notes.txt").write_text("precious")
    assert refused(data) == f"{data} was changed after it was drawn"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "data").mkdir()
    draw_demo(tmp_path / "data", 60, 16)
    assert len(list((tmp_path / "data").rglob("*.jpg"))) == 60


def test_a_full_disk_leaves_what_was_drawn(tmp_path):
    """A real one, of 300 KB, seen by this process and its children alone."""
    script = (
        'mkdir disk && mount -t tmpfs -o size=300k disk disk && cd disk && "$0" ../draw.py 60 1;'
        'sha256sum data/demo.json; "$0" ../draw.py 2000 1; code=$?; sha256sum data/demo.json;'
        "ls -A; exit $code"
    )
    (tmp_path / "draw.py").write_text(DRAW)
    command = ["unshare", "-rm", "sh", "-c"]
    small = "mount -t tmpfs disk ."
    if subprocess.run([*command, small], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a small disk")
    done = subprocess.run(
        [*command, script, sys.executable], cwd=tmp_path, capture_output=True, text=True
    )
    before, problem, fix, after, listed = done.stdout.splitlines()
    assert problem == "cannot write data: No space left on device"
    assert fix == f"  to fix: {FIX}"
    assert before == after
    assert listed == "data"
    assert done.returncode == OutputError.exit_code


def test_a_killed_drawing_leaves_what_was_drawn(tmp_path):
    (tmp_path / "draw.py").write_text(DRAW)
    draw_demo(tmp_path / "data", 60, 32, 1)
    before = sha256_tree(tmp_path / "data")
    command = [sys.executable, "draw.py", "5000", "1"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("images drawn 150/5000  32 x 32 pixels  ")
        process.send_signal(signal.SIGKILL)
    assert sha256_tree(tmp_path / "data") == before
    draw_demo(tmp_path / "data", 60, 32, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "draw.py"]


def test_a_killed_worker_is_told(tmp_path):
    (tmp_path / "draw.py").write_text(DRAW)
    command = [sys.executable, "draw.py", "5000", "2"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        os.kill(int(children.split()[-1]), signal.SIGKILL)
        told, _ = process.communicate()
    assert process.returncode == WorkerError.exit_code
    assert told == (
        "a drawing process went away; data is as it was\n"
        "  to fix: run the same command again with fewer workers\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["draw.py"]


PEAK = """
import sys
from pathlib import Path
from weighin.data.demo import draw_demo
draw_demo(Path("data"), int(sys.argv[1]), 16)
status = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


@pytest.mark.demo
def test_ten_times_the_images_take_hardly_more_memory(tmp_path):
    """Under 2 KB an image: 100,000 take 200 MB more at the most; 0.8 KB was measured."""
    peaks = []
    for count in (300, 3000):
        command = [sys.executable, "-c", PEAK, str(count)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 2 * 2700
