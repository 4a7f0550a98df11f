"""One evaluation, as a worker does it: train a network up to an epoch, and measure it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from weighin.data.pack import read_packed
from weighin.determinism import pinned
from weighin.errors import WorkerError
from weighin.files import fingerprint
from weighin.grading.f1 import Confusion, agreement
from weighin.training.process_group import ProcessGroup
from weighin.training.trainer import Job, fit


@dataclass(frozen=True)
class Task:
    """Train trial `number` until an epoch, from the packed state of an earlier one."""

    number: int
    job: Job
    until: int
    state: bytes = b""

    def key(self) -> str:
        """Return what stands for this evaluation, whatever state it goes on from."""
        job = self.job
        facts = {
            "spec": job.spec.to_dict(),
            "recipe": asdict(job.recipe),
            "epochs": [self.until, job.epochs],
            "address": list(job.address),
        }
        return f"{self.number}-{self.until}-{fingerprint(facts)}"


@dataclass(frozen=True)
class Measured:
    """A network after so many epochs: its confusion on the validation split, (K, K) counts."""

    epochs: int
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def confusion(self) -> Confusion:
        """The counts as an array."""
        return Confusion(self.classes, np.array(self.counts, np.int64))

    @classmethod
    def from_dict(cls, values: Any) -> "Measured":
        """Return what `dataclasses.asdict` and JSON made of one."""
        counts = tuple(tuple(map(int, row)) for row in values["counts"])
        return cls(int(values["epochs"]), tuple(values["classes"]), counts)


@dataclass(frozen=True)
class Outcome:
    """What a worker sends back: the measure, and the packed state to go on from."""

    measured: Measured
    state: bytes


def evaluate(task: Task) -> Outcome:
    """Train and measure; every worker returns the same bytes for the same task.

    Raises:
        WorkerError: this process lacks the pins that make its numbers everybody's, or it does not
            see the packed images.
    """
    job = task.job
    if not pinned():
        problem = "a worker runs without the pins of weighin.determinism"
        raise WorkerError(problem, "start it by `weighin worker`, or as docker/cluster.yaml does")
    if not (job.packed / "classes.json").exists():
        problem = f"a worker does not see {job.packed} from its folder"
        raise WorkerError(problem, "start workers in the project's folder, on a disk they share")
    result = fit(ProcessGroup(), job, task.state, task.until)
    held = read_packed(job.packed, "validation", job.spec.input)
    found = agreement(held.labels, result.logits.argmax(1), held.classes)
    counts = tuple(tuple(row) for row in found.counts.tolist())
    last = task.until == job.epochs
    return Outcome(Measured(task.until, held.classes, counts), b"" if last else result.state)
