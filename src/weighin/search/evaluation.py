"""One evaluation, as a worker does it: train a network up to an epoch, and measure it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from weighin.data.pack import read_packed
from weighin.determinism import pinned
from weighin.errors import WorkerError
from weighin.grading.f1 import ConfusionMatrix, confusion_of_indices
from weighin.training.process_group import ProcessGroup
from weighin.training.trainer import Job, fit
from weighin.training.weights import weights_hash


@dataclass(frozen=True)
class Task:
    """Train trial `number` until an epoch, from the packed state of an earlier one."""

    number: int
    job: Job
    until: int
    state: bytes = b""

    def facts(self) -> dict[str, Any]:
        """Return what decides this evaluation on given images, whatever state it goes on from."""
        job = self.job
        return {
            "spec": job.spec.to_dict(),
            "recipe": asdict(job.recipe),
            "epochs": [self.until, job.epochs],
            "address": list(job.address),
        } | ({"start": weights_hash(job.start)} if job.start is not None else {})


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
    truth, labels = held.labels.tolist(), result.logits.argmax(1).tolist()
    last = task.until == job.epochs
    measured = Measured(task.until, held.classes, tuple(truth), tuple(labels))
    return Outcome(measured, b"" if last else result.state)
