"""One evaluation, as a worker does it: train a network up to an epoch, and measure it.

Finished evaluations are kept, so that a killed search goes on, and a finished one can be extended.

<folder>/<trial>-<epoch>-<hash of all that decides it>.json    the measure, and the others' hashes
<folder>/<the same>.state                                      the packed state to go on from
<folder>/<the same>.safetensors                                the last weights, for warm starts

The hash covers the task (rows, recipe, epochs, random address), the packed data, the code that
evaluates, and the versions of what it computes with, so no change gives a stale result. The state
is written first and both appear whole or not at all; what does not fit together is as good as
absent. States are dropped when their generation is over; of the measures, those that were used last
stay, within MAX_BYTES, and of the weights likewise, within MAX_WEIGHTS.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from weighin.data.pack import read_packed
from weighin.determinism import pinned
from weighin.errors import NetworkError, WorkerError
from weighin.files import (
    fingerprint,
    read_json,
    sha256,
    sha256_file,
    sha256_tree,
    source_hash,
    write_bytes,
    write_text,
)
from weighin.grading.score import ConfusionMatrix, confusion_of_indices
from weighin.training.device import described, device_facts, require_device, use_gpu
from weighin.training.process_group import ProcessGroup
from weighin.training.trainer import Job, fit
from weighin.training.weights import Weights, packed_weights, read_weights, weights_hash

MAX_BYTES = 256 * 2**20  # a measure takes about 5 bytes an image of the validation split
MAX_WEIGHTS = 2**30  # bytes: what is lost trains again
TORN = (OSError, ValueError, KeyError, TypeError)  # what reading a file that is not whole raises
EVALUATING = ("data", "grading", "network", "search", "training")  # packages of this code


@dataclass(frozen=True)
class Task:
    """Train trial `number` until an epoch, from the packed state of an earlier one.

    `gpu` is what must compute it (`device.device_facts`).
    """

    number: int
    job: Job
    until: int
    state: bytes = b""
    gpu: dict[str, Any] = field(default_factory=dict)
    keep_weights: bool = False  # of the last epoch: others start from them

    def facts(self) -> dict[str, Any]:
        """Return what decides this evaluation on given images, whatever state it goes on from."""
        job = self.job
        found: dict[str, Any] = {
            "spec": job.spec.to_dict(),
            "recipe": asdict(job.recipe),
            "epochs": [self.until, job.epochs],
            "address": list(job.address),
        }
        if job.start is not None:
            found["start"] = weights_hash(job.start)
        if job.split:
            found["split"] = job.split
        return found | ({"gpu": self.gpu} if self.gpu else {})


@dataclass(frozen=True)
class Measured:
    """A network after so many epochs: how it labels the validation images (N,), and their truth.

    Labels are indices into `classes`.
    """

    epochs: int
    classes: tuple[str, ...]
    truth: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def confusion(self) -> ConfusionMatrix:
        """How often each class got each label."""
        return confusion_of_indices(np.array(self.truth), np.array(self.labels), self.classes)

    @classmethod
    def from_dict(cls, values: Any) -> "Measured":
        """Return what `dataclasses.asdict` and JSON made of one."""
        truth, labels = tuple(map(int, values["truth"])), tuple(map(int, values["labels"]))
        if not truth or len(truth) != len(labels):
            raise ValueError(f"{len(truth)} images, {len(labels)} labels")
        return cls(int(values["epochs"]), tuple(values["classes"]), truth, labels)


@dataclass(frozen=True)
class Outcome:
    """What a worker sends back: the measure, the packed state to go on from, the last weights."""

    measured: Measured
    state: bytes
    weights: bytes = b""


def evaluate(task: Task) -> Outcome:
    """Train and measure; every worker returns the same bytes for the same task.

    Raises:
        MachineError: the recipe's device is not here.
        WorkerError: this process lacks the pins that make its numbers everybody's, has another GPU
            than the search, or does not see the packed images.
    """
    job = task.job
    if not pinned():
        problem = "a worker runs without the pins of weighin.determinism"
        raise WorkerError(problem, "start it by `weighin worker`, or as docker/cluster.yaml does")
    if not (job.packed / "classes.json").exists():
        problem = f"a worker does not see {job.packed} from its folder"
        raise WorkerError(problem, "start workers in the project's folder, on a disk they share")
    require_device(job.recipe)
    if (here := device_facts(job.recipe)) != task.gpu:
        problem = f"a worker computes on {described(here)}, the search on {described(task.gpu)}"
        raise WorkerError(problem, "let all workers have the same GPU, driver and libraries")
    use_gpu(task.number, job.recipe)
    result = fit(ProcessGroup(), job, task.state, task.until)
    held = read_packed(job.packed, "validation", job.spec.input, job.split)
    truth, labels = held.labels.tolist(), result.logits.argmax(1).tolist()
    measured = Measured(task.until, held.classes, tuple(truth), tuple(labels))
    if task.until < job.epochs:
        return Outcome(measured, result.state)
    return Outcome(measured, b"", packed_weights(result.weights) if task.keep_weights else b"")


class EvaluationCache:
    """The finished evaluations in a folder, for the images in the folder `packed`."""

    def __init__(self, folder: Path, packed: Path) -> None:
        self._folder = folder
        versions = [sys.version, *(f"{name} {version(name)}" for name in ("torch", "numpy"))]
        code = source_hash(*EVALUATING)
        self._context = {"data": sha256_tree(packed), "code": code, "versions": versions}

    def find(self, task: Task) -> Measured | None:
        """Return the measure of a task that was finished."""
        path = self._path(task, "json")
        try:
            found = Measured.from_dict(read_json(path)["measured"])
            os.utime(path)  # it is used
        except TORN:
            return None
        return found

    def state(self, task: Task) -> bytes | None:
        """Return the state that a finished task ended in, or None where it is not whole."""
        try:
            expected = read_json(self._path(task, "json"))["state"]
            state = self._path(task, "state").read_bytes()
        except TORN:
            return None
        return state if sha256(state) == expected else None

    def weights(self, task: Task) -> Weights | None:
        """Return the weights that a finished task ended in, or None where they are not kept."""
        path = self._path(task, "safetensors")
        try:
            if sha256_file(path) != read_json(self._path(task, "json"))["weights"]:
                return None
            os.utime(path)  # they are used
            return read_weights(path)
        except (NetworkError, *TORN):
            return None

    def add(self, task: Task, outcome: Outcome) -> None:
        """Keep what a finished task gave."""
        if outcome.weights:
            write_bytes(self._path(task, "safetensors"), outcome.weights)
        write_bytes(self._path(task, "state"), outcome.state)
        facts = {"measured": asdict(outcome.measured), "state": sha256(outcome.state)}
        if outcome.weights:
            facts["weights"] = sha256(outcome.weights)
        write_text(self._path(task, "json"), json.dumps(facts, separators=(",", ":")))

    def trim(self) -> None:
        """Drop the states of a generation that is over, and measures and weights beyond limits."""
        for path in self._folder.glob("*.state"):
            path.unlink(missing_ok=True)
        for kind, most in (("json", MAX_BYTES), ("safetensors", MAX_WEIGHTS)):
            files = [(path.stat(), path) for path in self._folder.glob(f"*.{kind}")]
            total = sum(found.st_size for found, _ in files)
            for found, path in sorted(files, key=lambda each: each[0].st_mtime_ns):
                if total <= most:
                    break
                path.unlink(missing_ok=True)
                total -= found.st_size

    def _path(self, task: Task, kind: str) -> Path:
        key = fingerprint(self._context | task.facts())
        return self._folder / f"{task.number}-{task.until}-{key}.{kind}"
