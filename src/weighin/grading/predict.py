"""Labels a folder of images with an ONNX model: decode, fit, normalize, run, in bounded memory.

Each worker thread takes a whole batch from file to label, so that two cores are used without
queues between them; the codecs and ONNX Runtime release Python's lock. At most two batches a worker
are on their way, whatever the size of the folder.

Every regular file, at any depth, asks for a label, whatever its name ends in: a picture called
`x.dat` counts. Hidden files and other systems' droppings (file_names.py lists them) do not. A
symlink counts as the file it leads to while that lies in the folder, or in a store of files under
their hashes such as DVC's cache; anything else that is not a plain file, and a link that leaves the
folder, is an unreadable row and is never opened.
"""

import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from weighin.errors import DataError
from weighin.file_names import escapes, printable, walk
from weighin.grading.model import Model
from weighin.grading.runtime import Logits, Runner, top_two_margin
from weighin.images import Pixels, Source, UnreadableImageError
from weighin.parallel import cores

MAX_WORKERS = 8
MAX_FILE = 256 * 2**20  # bytes
LARGE = 2**24  # pixels: pictures of more are decoded one after another, to bound the memory
CLOSE = 1e-4  # a top-two margin in logits under which another machine might label otherwise
_large = ThreadPoolExecutor(1)  # a thread keeps the memory it once had, for its own next picture


@dataclass(frozen=True)
class Predictions:
    """Labels in file-name order, how close each call was, and what could not be read."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    margins: npt.NDArray[np.float32]  # (N,), top logit less the second; NaN where unreadable
    unreadable: dict[str, str]  # name: fault
    probabilities: npt.NDArray[np.float32]  # (N, K) of each class; NaN where unreadable

    @property
    def close(self) -> int:
        """How many images were decided by less than `CLOSE`."""
        return int(np.sum(self.margins < CLOSE))

    @property
    def faults_summary(self) -> str:
        """How many files could not be read, and why, with an example of each; empty if none."""
        if not self.unreadable:
            return ""
        faults = Counter(self.unreadable.values())
        example = {fault: name for name, fault in reversed(self.unreadable.items())}
        shown = [f"{many:,} {why}, such as {example[why]}" for why, many in faults.most_common()]
        return (
            f"{len(self.unreadable):,} of {len(self.names):,} files cannot be read: "
            + "; ".join(shown)
        )

    def check_readable(self, folder: Path) -> None:
        """Check that at least half of the files were read: else the labels are one constant.

        Raises:
            DataError: they were not.
        """
        if 2 * len(self.unreadable) > len(self.names):
            raise DataError(
                f"{folder}: {self.faults_summary}",
                "name the folder of the images, or convert the files to JPEG or PNG; "
                "an unreadable file would get the fallback class",
            )

    def closest(self) -> tuple[str, float] | None:
        """Return the image with the smallest margin, and the margin; None if none was read."""
        if np.all(np.isnan(self.margins)):
            return None
        index = int(np.nanargmin(self.margins))
        return self.names[index], float(self.margins[index])


def predict(
    model: Model,
    folder: Path,
    strict: bool = False,
    workers: int | None = None,
    done: Callable[[int], None] | None = None,
) -> Predictions:
    """Label every file of a folder, or one image.

    Args:
        model: A checked model.
        folder: The images, at any depth (see the head of this file), or one image's file.
        strict: Fail where an image cannot be read, instead of giving it the fallback class.
        workers: Threads; one a core by default, at most `MAX_WORKERS`. The labels are the same for
            any number.
        done: Called with the number of files of each finished batch.

    Raises:
        DataError: the folder is missing or empty; with `strict`, an image cannot be read.
        ModelError: ONNX Runtime refuses it, produces other shapes than were counted, mixes images,
            or its logits are not finite.
    """
    folder, names = Path(folder), []
    if folder.is_file():
        folder, names = folder.parent, [folder.name]
    names, runner, size = names or list_files(folder), Runner(model), model.graph.batch
    chunks = [names[start : start + size] for start in range(0, len(names), size)]
    found: list[Batch] = []

    def task(chunk: list[str]) -> "Batch":
        return _label(model, runner, folder, chunk, check=chunk is chunks[0])

    for batch in ordered(task, chunks, workers or min(cores(), MAX_WORKERS)):
        if strict and batch.faults:
            name, fault = next(iter(batch.faults.items()))
            raise DataError(f"{name}: {fault}", "fix or remove the file, or leave out --strict")
        found.append(batch)
        if done:
            done(len(batch.labels))
    return Predictions(
        names=tuple(map(printable, names)),
        labels=tuple(model.classes[label] for batch in found for label in batch.labels),
        margins=np.concatenate([batch.margins for batch in found]),
        unreadable={name: fault for batch in found for name, fault in batch.faults.items()},
        probabilities=np.concatenate([batch.probabilities for batch in found]),
    )


@dataclass(frozen=True)
class Batch:
    """One batch's labels (class indices), margins, probabilities and unreadable files."""

    labels: list[int]
    margins: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    faults: dict[str, str]


def ordered(
    task: Callable[[list[str]], "Batch"], chunks: Sequence[list[str]], workers: int
) -> Iterator["Batch"]:
    """Yield `task` of each chunk in order, with at most two a worker under way."""
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for chunk in chunks:
                waiting.append(pool.submit(task, chunk))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _label(model: Model, runner: Runner, folder: Path, names: list[str], check: bool) -> Batch:
    pixels: Pixels = np.zeros((len(names), *model.size, 3), np.uint8)
    bad: list[int] = []
    faults: dict[str, str] = {}
    for i, name in enumerate(names):
        try:
            pixels[i] = _fitted(read(folder, name), model)
        except UnreadableImageError as error:
            bad.append(i)
            faults[printable(name)] = str(error)
    if check:
        runner.check(pixels)
    logits = runner.logits(pixels)
    probabilities = logits if model.graph.gives_probabilities else softmax(logits)
    labels, margins = logits.argmax(axis=1), top_two_margin(logits)
    labels[bad], margins[bad] = model.classes.index(model.fallback), np.nan
    probabilities[bad] = np.nan  # last: they may be the logits themselves
    return Batch(labels.tolist(), margins, probabilities, faults)


def _fitted(data: bytes, model: Model) -> Pixels:
    """Return the pixels of a file, as `images.load` does."""
    source, turn, crop = Source(data), model.turn_tall, model.contract.crop
    if prod(source.shape) > LARGE:
        return _large.submit(source.fitted, model.size, turn, crop).result()
    return source.fitted(model.size, turn, crop)


def softmax(logits: Logits) -> npt.NDArray[np.float32]:
    """Return (B, K) probabilities of (B, K) logits."""
    powers: Logits = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def list_files(folder: Path) -> list[str]:
    """Return the files' paths relative to `folder`, with "/", in the order of their bytes.

    Raises:
        DataError: the folder is missing, empty or may not be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", "name the folder of test images")
    names = sorted((name for name, _ in walk(folder)), key=os.fsencode)
    if not names:
        raise DataError(f"{folder} holds no files", "name the folder of test images")
    return names


def read(folder: Path, name: str) -> bytes:
    """Return a file's bytes.

    Raises:
        UnreadableImageError: outside, broken-link, not-a-file, huge, no-permission.
    """
    path = folder / name
    try:
        if path.is_symlink() and escapes(path, folder):
            raise UnreadableImageError("outside")
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise UnreadableImageError("not-a-file")
        if facts.st_size > MAX_FILE:
            raise UnreadableImageError("huge")
        return path.read_bytes()
    except FileNotFoundError:
        raise UnreadableImageError("broken-link") from None
    except PermissionError:
        raise UnreadableImageError("no-permission") from None
    except (OSError, RuntimeError):  # a device, a loop of links, a failing disk
        raise UnreadableImageError("not-a-file") from None
