"""How fast the grader labels, how its memory grows, how soon it starts: `python -m bench.grading`.

    grade.vs_decode         labelling JPEGs against decoding the same files whole, with the same
                            decoder on as many threads. Labelling decodes at the scale that the
                            network needs, and does the rest in less than that saves.
    grade.memory_growth_mb  what 5,000 files take more than 500, at the most
    grade.cold_start_s      `docker run` of the grader on one file, less `python3 -c pass` in the
                            same image

The photographs are those under WEIGHIN_DATA, else under data/; the network is the shipped `seed`,
1.8 million MACs on 46 x 64 pixels, its weights as initialized.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

from bench.figures import Figures, figure, is_quick, seconds, told
from weighin.determinism import pin

COMMAND = "python -m bench.grading"
IMAGE = os.environ.get("WEIGHIN_GRADER", "weighin-grader")
CLASSES = list("abcdefg")


def figures(quick: bool = False) -> Figures:
    """Return this part's figures; the cold start only where an engine has the grader's image."""
    with prepared() as place:
        found = {
            "grade.vs_decode": figure(vs_decode(place, quick), "ratio", "at least 0.85", COMMAND),
            "grade.memory_growth_mb": figure(
                memory_growth(place, quick), "MB", "under 20", COMMAND
            ),
        }
        if has_image():
            found["grade.cold_start_s"] = figure(cold_start(place, quick), "s", "under 1", COMMAND)
    return found


@contextmanager
def prepared() -> Iterator[Path]:
    """Yield a folder that holds a model."""
    from weighin.network.build import build, initialize
    from weighin.network.export import export_onnx
    from weighin.network.spec import read_spec, shipped

    spec = read_spec(shipped("seed"))
    network = build(spec, len(CLASSES))
    initialize(network, 0)
    facts = {"classes": json.dumps(CLASSES), "fallback": "a", "turn_tall": "true"}
    with tempfile.TemporaryDirectory() as name:
        export_onnx(network.eval(), spec.input, Path(name, "model.onnx"), facts)
        yield Path(name)


def photographs(folder: Path, different: int, count: int) -> Path:
    """Fill `folder` with `count` copies of `different` photographs and return it."""
    root = Path(os.environ.get("WEIGHIN_DATA", "data"))
    found = sorted(path for path in root.rglob("*.jp*g") if path.is_file())
    if not found:
        sys.exit(f"{root} holds no JPEGs; name a folder of photographs in WEIGHIN_DATA")
    folder.mkdir()
    for i, path in enumerate(islice(cycle(found[:different]), count)):
        shutil.copyfile(path, folder / f"{i:05}.jpg")
    return folder


def vs_decode(place: Path, quick: bool) -> list[float]:
    """Return the ratio of each of several runs, decoding and labelling in turns."""
    from weighin.grading.graph import BATCH
    from weighin.grading.model import open_model
    from weighin.grading.predict import list_files, predict, read
    from weighin.images import decode

    many = 400 if quick else 2_000
    folder = photographs(place / "speed", many, many)
    model = open_model(place / "model.onnx")

    def decode_all() -> None:
        names = list_files(folder)
        chunks = [names[start : start + BATCH] for start in range(0, len(names), BATCH)]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(lambda chunk: [decode(read(folder, name)) for name in chunk], chunks))

    def label_all() -> None:
        predict(model, folder)

    label_all()  # reads the files for the first time
    return [seconds(decode_all) / seconds(label_all) for _ in range(3 if quick else 7)]


def memory_growth(place: Path, quick: bool) -> list[float]:
    """Return the growth of the grader's largest resident size, in MB, of several runs."""
    few, many = (50, 500) if quick else (500, 5_000)
    small, large = (photographs(place / f"{count}", few, count) for count in (few, many))
    return [peak(place, large) - peak(place, small) for _ in range(1 if quick else 3)]


def peak(place: Path, folder: Path) -> float:
    """Return the largest resident size of a grader, in MB."""
    # a process begins with the size of its parent, so that its parent has to be a small one
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    grader = [sys.executable, "-m", "weighin.grading", place / "model.onnx", folder, place / "out"]
    command = [sys.executable, "-c", code, *map(str, grader)]
    return int(subprocess.run(command, check=True, capture_output=True).stdout) / 1024


def has_image() -> bool:
    """Whether an engine answers and has the grader's image."""
    asked = ("docker", "image", "inspect", IMAGE)
    return (
        bool(shutil.which("docker")) and subprocess.run(asked, capture_output=True).returncode == 0
    )


def cold_start(place: Path, quick: bool) -> list[float]:
    """Return the seconds of each of several runs."""
    folder = photographs(place / "one", 1, 1)
    (place / "cold").mkdir()
    user = f"{os.geteuid()}:{os.getegid()}"
    base = ["docker", "run", "--rm", "--network", "none", "--user", user]
    mounts = {place / "model.onnx": "/model.onnx", folder: "/input", place / "cold": "/output"}
    grader = [*base, *(part for a, b in mounts.items() for part in ("-v", f"{a}:{b}")), IMAGE]
    bare = [*base, "--entrypoint", "python3", IMAGE, "-c", "pass"]

    def run(command: list[str]) -> None:
        subprocess.run(command, check=True, capture_output=True)

    return [
        seconds(lambda: run(grader)) - seconds(lambda: run(bare)) for _ in range(3 if quick else 9)
    ]


if __name__ == "__main__":
    pin()
    print(told(figures(is_quick())))
