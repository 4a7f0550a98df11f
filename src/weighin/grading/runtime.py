"""Runs a model on the CPU, with the same bits on every processor: a batch, or a folder of images.

ONNX Runtime at its default level lays convolutions out in blocks as wide as the processor's
registers, which changes the order of sums; at ORT_ENABLE_EXTENDED it does not.

A folder is labelled in bounded memory: each worker thread takes a whole batch from file to label,
so that two cores are used without queues between them; the codecs and ONNX Runtime release Python's
lock. At most two batches a worker are on their way, whatever the size of the folder.

Every regular file, at any depth, asks for a label, whatever its name ends in: a picture called
`x.dat` counts. Hidden files and other systems' droppings (file_names.py lists them) do not. A
symlink counts as the file it leads to while that lies in the folder, or in a store of files under
their hashes such as DVC's cache; anything else that is not a plain file, and a link that leaves the
folder, is an unreadable row and is never opened.
"""

import os
import re
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx

from weighin.errors import DataError, ModelError
from weighin.file_names import escapes, printable, walk
from weighin.images import Pixels, Source, UnreadableImageError
from weighin.parallel import cores

if TYPE_CHECKING:
    from weighin.grading.model import Model

Logits = npt.NDArray[np.float32]
MAX_WORKERS = 8
MAX_FILE = 256 * 2**20  # bytes
LARGE = 2**24  # pixels: pictures of more are decoded one after another, to bound the memory
CLOSE = 1e-4  # a top-two margin in logits under which another machine might label otherwise
_large = ThreadPoolExecutor(1)  # a thread keeps the memory it once had, for its own next picture


def session(proto: Any, optimized: bool = True) -> Any:
    """Return an onnxruntime.InferenceSession of one thread.

    Raises:
        ModelError: ONNX Runtime refuses the graph.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else it reports to its makers what it runs
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    level = ort.GraphOptimizationLevel
    options = ort.SessionOptions()
    options.graph_optimization_level = (
        level.ORT_ENABLE_EXTENDED if optimized else level.ORT_DISABLE_ALL
    )
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(
            proto.SerializeToString(deterministic=True),
            options,
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base but this
        raise _refused(error) from None


def run(asked: Any, feeds: dict[str, Any]) -> Any:
    """Return the values of a session's outputs.

    Raises:
        ModelError: ONNX Runtime fails.
    """
    try:
        return asked.run(None, feeds)
    except Exception as error:
        raise _refused(error) from None


def one_line(error: Exception) -> str:
    """Return the words of an error that a library raised, fit for a terminal."""
    return printable(" ".join(str(error).split())[:300])


def _refused(error: Exception) -> Exception:
    if re.search("bad.?alloc|ailed to allocate|darray != nullptr", str(error)):
        return MemoryError(one_line(error))
    return ModelError(f"ONNX Runtime cannot run it: {one_line(error)}", "export the model again")


class Runner:
    """A model ready to run on one thread of the CPU; several threads may share it."""

    def __init__(self, model: "Model") -> None:
        self._graph, self._contract = model.graph, model.contract
        self._session = session(model.graph.proto)

    def logits(self, pixels: Pixels) -> Logits:
        """Return the (N, K) logits of any number of uint8 images (N, H, W, 3).

        Raises:
            ModelError: ONNX Runtime fails, or a logit is not finite.
        """
        size = self._graph.batch
        chunks = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        parts = [self._raw(self._padded(chunk))[: len(chunk)] for chunk in chunks]
        out = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if not np.isfinite(out).all():
            raise ModelError("its logits are not finite", "train the model again; it diverged")
        return out

    def check(self, pixels: Pixels) -> None:
        """Check the graph on a first batch (N, H, W, 3), N at most the size of a batch.

        Raises:
            ModelError: the runtime produced a shape other than the counted one, or the logits of
                an image depend on its place or its neighbours.
        """
        self._check_shapes(pixels)
        if self._graph.batch > 1:
            self._check_neighbors(pixels)

    def _padded(self, pixels: Pixels) -> Pixels:
        missing = self._graph.batch - len(pixels)
        if not missing:
            return pixels
        return np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.uint8)])

    def _raw(self, pixels: Pixels) -> Logits:
        (out,) = run(self._session, self._feeds(pixels))
        return out  # type: ignore[no-any-return]

    def _feeds(self, pixels: Pixels) -> dict[str, Any]:
        return {self._graph.proto.graph.input[0].name: self._contract.tensor(pixels)}

    def _check_shapes(self, pixels: Pixels) -> None:
        """Ask the runtime for the shape of every tensor that it computes."""
        probe = onnx.ModelProto()
        probe.CopyFrom(self._graph.proto)
        names = [n for node in probe.graph.node for n in node.output if n in self._graph.shapes]
        stored = (tensor.name for tensor in probe.graph.initializer)
        longest = max(map(len, (*self._graph.shapes, *stored)))
        del probe.graph.output[:]
        for i, name in enumerate(names):
            shape = f"{i} ".ljust(longest + 1, "#")  # no name of the file
            probe.graph.node.add(op_type="Shape", input=[name], output=[shape])
            probe.graph.output.add(name=shape)
        found = run(session(probe, optimized=False), self._feeds(self._padded(pixels)))
        for name, sides in zip(names, found, strict=True):
            if tuple(sides.tolist()) != self._graph.shapes[name]:
                raise ModelError(
                    f"{printable(name)} was counted as {self._graph.shapes[name]} and came out as "
                    f"{tuple(sides.tolist())}",
                    "export the model again",
                )

    def _check_neighbors(self, pixels: Pixels) -> None:
        """Run each image again in another place, among others; and the first one alone."""
        batch = self._padded(pixels)
        before = self._raw(batch)
        strangers = 255 - batch
        strangers[::2] = batch[::-1][::2]
        alone = np.zeros_like(batch)
        alone[-1] = batch[0]
        moved = self._raw(strangers)
        same = moved[::2].tobytes() == before[::-1][::2].tobytes()
        if not same or self._raw(alone)[-1].tobytes() != before[0].tobytes():
            raise ModelError(
                "the logits of an image depend on the other images of its batch",
                "export a model that labels each image by itself",
            )


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


@dataclass(frozen=True)
class Batch:
    """One batch's labels (class indices), margins, probabilities and unreadable files."""

    labels: list[int]
    margins: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    faults: dict[str, str]


def predict(
    model: "Model",
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

    def task(chunk: list[str]) -> Batch:
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


def ordered(
    task: Callable[[list[str]], Batch], chunks: Sequence[list[str]], workers: int
) -> Iterator[Batch]:
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


def _label(model: "Model", runner: Runner, folder: Path, names: list[str], check: bool) -> Batch:
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
    labels, margins, probabilities = logits.argmax(axis=1), top_two_margin(logits), softmax(logits)
    labels[bad], margins[bad] = model.classes.index(model.fallback), np.nan
    probabilities[bad] = np.nan
    return Batch(labels.tolist(), margins, probabilities, faults)


def _fitted(data: bytes, model: "Model") -> Pixels:
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


def top_two_margin(logits: Logits) -> npt.NDArray[np.float32]:
    """Return (B,) differences between the largest and the second largest of (B, K) logits."""
    top = np.partition(logits, logits.shape[1] - 2, axis=1)[:, -2:]
    return top[:, 1] - top[:, 0]


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
