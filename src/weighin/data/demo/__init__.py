"""The default data set, drawn by the project: a stand-in for the contest's nine classes.

    <folder>/train/<Class>/<Class>_0000.jpg
    <folder>/train.csv                  filename, class, group (which nothing has)
    <folder>/test/0000.jpg              flat, a fifth of the images, in shuffled order
    <folder>/test_truth.csv             filename, class
    <folder>/demo.json                  how it was drawn, and the hashes of the rest

Image i of a class depends on nothing but (seed, class, i, size): a larger set holds the smaller
one's pictures, and any number of workers writes the same bytes. The default set takes 5.8 MB and
9 seconds of one core; 100,000 images take under 200 MB of memory more than 300 do.
"""

import io
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from PIL import Image

from weighin.data.demo.drawings import DRAWINGS
from weighin.data.demo.scene import render
from weighin.data.versioning import DRAWN, changes, write_mark
from weighin.determinism import generator
from weighin.errors import DataError, WorkerError
from weighin.files import NEW, replace_folder, write_csv
from weighin.parallel import Pool
from weighin.progress import Progress

# shares of the classes, in the order of DRAWINGS: uneven as the contest's are, 1 : 4
SHARES = (15, 25, 25, 30, 50, 25, 40, 60, 30)
LEAST = 60  # below it a class may have no image to train on or none to test with
SMALLEST = 16  # pixels
CHUNK = 150  # images a line of progress
QUALITY = 90

DEFAULT_MD5 = "7038a0df7baf97a5e02731ca0ff725d0.dir"  # DVC's hash of what `draw_demo(folder)` draws

Job = tuple[str, int, str]  # class, index in the class, file below the folder


def draw_demo(
    folder: Path, count: int = 1500, size: int = 96, seed: int = 0, workers: int = 1
) -> dict[str, int]:
    """Draw `count` images of size x size pixels into `folder`; return how many of each class.

    A folder that was drawn before and not changed since is replaced, an empty one filled.

    Raises:
        DataError: `count` or `size` is too small, or `folder` holds something else.
        OutputError: the disk is full or the folder cannot be written; `folder` is as it was.
        WorkerError: a drawing process went away; `folder` is as it was.
    """
    folder = Path(folder)
    counts = class_counts(count)
    if size < SMALLEST:
        raise DataError(f"size is {size}", f"draw images of {SMALLEST} pixels or more")
    check_replaceable(folder)
    try:
        with replace_folder(folder) as draft:
            drawn = draft / NEW
            _fill(drawn, counts, size, seed, workers)
            write_mark(drawn, DRAWN, {"count": count, "size": size, "seed": seed})
    except BrokenProcessPool:
        problem = f"a drawing process went away; {folder} is as it was"
        raise WorkerError(problem, "run the same command again with fewer workers") from None
    return counts


def class_counts(count: int) -> dict[str, int]:
    """Return how many of `count` images each class gets, by largest remainder.

    Raises:
        DataError: `count` is too small for every class to be trained and tested.
    """
    if count < LEAST:
        raise DataError(f"{count} images are too few", f"draw {LEAST} or more")
    total = sum(SHARES)
    counts = [count * share // total for share in SHARES]
    rest = sorted(range(len(SHARES)), key=lambda place: -(count * SHARES[place] % total))
    for place in rest[: count - sum(counts)]:
        counts[place] += 1
    return dict(zip(DRAWINGS, counts, strict=True))


def held_out(number: int) -> int:
    """Return how many of a class's images are for the test: a fifth, and at least one."""
    return max(1, (number + 2) // 5)


def check_replaceable(folder: Path) -> None:
    """Refuse a folder that holds anything but what was drawn into it.

    Raises:
        DataError: `folder` is a file, has no mark of ours, or was changed since.
    """
    fix = f"name a new or empty folder, or move {folder} away"
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", fix)
    held = {path.name for path in folder.iterdir()}
    if held and DRAWN not in held:
        raise DataError(f"{folder} holds data that was not drawn here", fix)
    if held and changes(folder, DRAWN):
        raise DataError(f"{folder} was changed after it was drawn", fix)


def _fill(draft: Path, counts: dict[str, int], size: int, seed: int, workers: int) -> None:
    """Write all images of a set and the truth of its test into the new folder `draft`."""
    for label in counts:
        (draft / "train" / label).mkdir(parents=True)
    (draft / "test").mkdir()
    jobs, truth = _plan(counts, seed)
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    progress = Progress("images drawn", len(jobs))
    for done in _run(partial(_draw, draft, size, seed), chunks, workers):
        progress.step(f"{size} x {size} pixels", done)
    named = sorted((name.removeprefix("train/"), label, "") for label, _, name in jobs)
    labelled = (row for row in named if not row[0].startswith("test/"))
    write_csv(draft / "train.csv", ("filename", "class", "group"), labelled)
    write_csv(draft / "test_truth.csv", ("filename", "class"), truth)


def _plan(counts: dict[str, int], seed: int) -> tuple[list[Job], list[tuple[str, str]]]:
    """Return every image to draw, and the test's (file name, class); the test is shuffled."""
    jobs: list[Job] = []
    held: list[tuple[str, int]] = []
    for label, number in counts.items():
        kept = number - held_out(number)
        width = max(4, len(str(number)))
        names = (f"train/{label}/{label}_{i:0{width}}.jpg" for i in range(kept))
        jobs += [(label, i, name) for i, name in enumerate(names)]
        held += [(label, i) for i in range(kept, number)]
    order = generator(seed, "demo", "test").permutation(len(held)).tolist()
    width = max(4, len(str(len(order))))
    truth = [(f"{i:0{width}}.jpg", held[place][0]) for i, place in enumerate(order)]
    shuffled = zip(truth, (held[place] for place in order), strict=True)
    jobs += [(label, i, f"test/{name}") for (name, _), (label, i) in shuffled]
    return jobs, truth


def _run(draw: Callable[[list[Job]], int], chunks: list[list[Job]], workers: int) -> Iterator[int]:
    if workers <= 1:
        yield from map(draw, chunks)
        return
    with Pool(min(workers, len(chunks))) as pool:
        for drawn in [pool.submit(draw, chunk) for chunk in chunks]:
            yield drawn.result()


def _draw(draft: Path, size: int, seed: int, jobs: list[Job]) -> int:
    for label, index, name in jobs:
        pixels = render(DRAWINGS[label], size, generator(seed, "demo", label, index))
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY)
        (draft / name).write_bytes(out.getvalue())
    return len(jobs)
