"""How fast images are prepared and how that grows with their number: `python -m bench.data`.

    data.prepare_vs_decode  images a second that prepare checks, hashes, splits and packs, over
                            those of bare decoding and resizing: the same files, decoded whole by
                            the same decoder, resized to each packed size, in as many processes
    data.prepare_vs_scaled  the same, but against decoding no larger than those sizes need, as
                            prepare does: all that it costs besides decoding
    data.memory_growth_mb   peak memory of prepare and its workers at 100,000 images, less that at
                            3,000: the sum of each process's own highest resident set (VmHWM in
                            /proc), so never less than what they held at one time
    data.time_growth        time an image at 100,000 images over that at 3,000

The first two on pictures of 384 x 512 pixels, as the contest's cameras gave them, the others on 64
x 64 pixels. All are made here, each unlike the others; sizes are those of the shipped params.yaml.

getrusage does not tell that peak: its ru_maxrss of a spawned process begins at what its parent held
when it was started, which for a worker is the list of all names. VmHWM begins with the program.
Pages of mapped files count in it; prepare maps none, but for libraries, the same at any size.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.figures import Figures, figure, is_quick, seconds, told
from weighin.determinism import generator, pin

COMMAND = "python -m bench.data"
CLASSES = 9
CHUNK = 32
WORKERS = len(os.sched_getaffinity(0))


def figures(quick: bool = False) -> Figures:
    """Return this part's figures."""
    photographs, few, many = (2_000, 300, 3_000) if quick else (10_000, 3_000, 100_000)
    with tempfile.TemporaryDirectory(prefix="weighin-bench-") as name:
        place = Path(name)
        draw(place / "photographs", photographs, (384, 512))
        whole, scaled = vs_decode(place / "photographs", 3 if quick else 7)
        shutil.rmtree(place / "photographs")
        memory, slower = growth(place, few, many, 1 if quick else 3)
    return {
        "data.prepare_vs_decode": figure(whole, "ratio", "at least 0.85", COMMAND),
        "data.prepare_vs_scaled": figure(scaled, "ratio", "printed", COMMAND),
        "data.memory_growth_mb": figure(memory, "MB", "under 60", COMMAND),
        "data.time_growth": figure(slower, "ratio", "at most 1.3", COMMAND),
    }


def draw(root: Path, count: int, size: tuple[int, int]) -> None:
    """Write `count` pictures as `root`/train/<class>/<number>.jpg."""
    for label in range(CLASSES):
        (root / "train" / str(label)).mkdir(parents=True)
    run(partial(draw_chunk, root, size), chunks(list(range(count))))


def draw_chunk(root: Path, size: tuple[int, int], numbers: list[int]) -> None:
    """Write pictures: colours that flow into each other, under a grain that costs JPEG bytes."""
    import numpy as np
    from PIL import Image

    for number in numbers:
        rng = generator("bench", number)
        spots = rng.integers(0, 256, (9, 9, 3), np.uint8)
        smooth = Image.fromarray(spots).resize(size[::-1], Image.Resampling.BICUBIC)
        grain = rng.integers(-9, 10, (*size, 1), np.int16)
        pixels = np.clip(np.asarray(smooth, np.int16) + grain, 0, 255).astype(np.uint8)
        path = root / "train" / str(number % CLASSES) / f"{number}.jpg"
        Image.fromarray(pixels).save(path, quality=80)


def chunks(items: list[Any]) -> list[list[Any]]:
    """Return `items` in lists of CHUNK."""
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]


def run(work: Any, parts: list[list[Any]]) -> None:
    """Do the parts of some work in as many processes as there are cores."""
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        list(pool.map(work, parts))


def vs_decode(root: Path, runs: int) -> tuple[list[float], list[float]]:
    """Return the ratios to whole and to scaled decoding, each run taking turns with prepare."""
    from weighin.params import load

    names = chunks([str(path) for path in sorted((root / "train").rglob("*.jpg"))])
    sizes = load().prepare.sizes
    prepare_once(root)  # reads the files for the first time
    ratios: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        spent = prepare_once(root)
        for work, found in zip((decode_whole, decode_scaled), ratios, strict=True):
            bare = partial(work, sizes)
            found.append(seconds(partial(run, bare, names)) / spent)
    return ratios


def decode_whole(sizes: tuple[tuple[int, int], ...], names: list[str]) -> None:
    """Decode each file and resize it to each size."""
    import simplejpeg
    from PIL import Image

    for name in names:
        image = Image.fromarray(simplejpeg.decode_jpeg(Path(name).read_bytes()))
        for height, width in sizes:
            image.resize((width, height), Image.Resampling.BILINEAR)


def decode_scaled(sizes: tuple[tuple[int, int], ...], names: list[str]) -> None:
    """Do the same, decoding at the scale that the sizes need."""
    from weighin.images import Source

    for name in names:
        source = Source(Path(name).read_bytes())
        for size in sizes:
            source.fitted(size)


def prepare_once(root: Path) -> float:
    """Prepare the images of `root`, remove the outcome and return how long preparing took."""
    from weighin.data.prepare import prepare
    from weighin.params import load

    out = root.parent / "prepared"
    spent = seconds(lambda: prepare(root, out, load().prepare, 0, WORKERS))
    shutil.rmtree(out)
    return spent


def growth(place: Path, few: int, many: int, runs: int) -> tuple[list[float], list[float]]:
    """Return how memory (MB) and the time of an image (ratio) grow, for each of several runs."""
    memory, slower = [], []
    for count in (few, many):
        draw(place / str(count), count, (64, 64))
    for _ in range(runs):
        small, large = (measured(place / str(count)) for count in (few, many))
        memory.append(large["mb"] - small["mb"])
        slower.append(large["seconds"] / many / (small["seconds"] / few))
    return memory, slower


def measured(root: Path) -> dict[str, float]:
    """Return the seconds that a process takes to prepare `root`, and its and its workers' MB."""
    command = [sys.executable, "-m", "bench.data", "--prepare", str(root)]
    peaks: dict[int, float] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for number in family(process.pid):
                # the last is the highest, but for a new process's, which is at first its parent's
                peaks[number] = peak(number) or peaks.get(number, 0)
            time.sleep(0.02)
        spent = float(process.stdout.read() if process.stdout else "")
    return {"seconds": spent, "mb": sum(peaks.values())}


def family(number: int) -> list[int]:
    """Return a process, its children and theirs."""
    try:
        children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    except OSError:  # it is gone
        return []
    return [number, *(one for child in children for one in family(int(child)))]


def peak(number: int) -> float:
    """Return the most memory that a process has held, in MB; 0 if it is gone."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{number}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) / 1024 if found else 0


if __name__ == "__main__":
    pin()
    if "--prepare" in sys.argv:
        print(prepare_once(Path(sys.argv[-1])))
    else:
        print(told(figures(is_quick())))
