"""The train stage, and a job trained to its end inside any stage."""

import math
import time
from dataclasses import replace
from pathlib import Path

from weighin.data.pack import read_packed
from weighin.errors import ParamsError
from weighin.files import sweep, write_bytes, write_json
from weighin.grading.f1 import agreement
from weighin.grading.risk import risk
from weighin.network.spec import NetworkSpec
from weighin.parallel import worker_count
from weighin.params import Params, Recipe
from weighin.progress import Progress
from weighin.training import checkpoint
from weighin.training.process_group import ProcessGroup, is_first, launch
from weighin.training.trainer import Epoch, Job, Trainer, TrainingResult, fit
from weighin.training.weights import Trained, write_weights

DIVERGED = "lower the learning rate (recipe.lr, finetune.lr), or raise recipe.warmup"


def train(
    packed: Path, spec: NetworkSpec, recipe: Recipe, params: Params, out: Path, scratch: Path
) -> None:
    """Train a network and write weights.safetensors and history.json into the folder `out`.

    With `train.teacher` the same rows at so many times their width are trained first and written as
    teacher.safetensors; the network then learns the teacher's labels too, at the weight that
    `recipe.loss.distillation` gives them.

    Raises:
        ParamsError: there is a teacher, and no weight for its labels.
        WorkerError, OutputError: as `train_job`; run again, it goes on.
    """
    knobs = params.train
    if knobs.teacher and not recipe.loss.distillation:
        problem = f"train.teacher is {knobs.teacher:g}, but nothing is learned from it"
        fix = "set recipe.loss.distillation above 0 (1 is usual), or train.teacher to 0"
        raise ParamsError(problem, fix)
    address = (params.seed, "train")
    job = Job(spec, recipe, knobs.epochs, packed, address, all_data=knobs.all_data)
    if knobs.teacher:
        wide = replace(
            job,
            spec=replace(spec, width=spec.width * knobs.teacher),
            epochs=knobs.teacher_epochs,
            address=(params.seed, "teacher"),
        )
        taught = train_job("teacher", wide, knobs.workers, scratch)
        job = replace(job, teacher=Trained(wide.spec, taught.weights))
    curve = out / "history.json"
    result = train_job("train", job, knobs.workers, scratch, curve)
    if is_first():
        if job.teacher is not None:
            write_weights(out / "teacher.safetensors", job.teacher.weights)
        write_json(curve, _with_intervals(result, job, params))
        write_weights(out / "weights.safetensors", result.weights)


def _with_intervals(result: TrainingResult, job: Job, params: Params) -> list[Epoch]:
    """Return the history, its last epoch with F1's interval and the risk of the floor.

    `f1_low` and `f1_high` bound 95 % of the bootstrap's resamples of the validation split,
    `under_floor` is the share of them under `contest.floor_f1`.
    """
    held = read_packed(job.packed, "validation", job.spec.input)
    if not result.history or not len(held.labels):
        return result.history
    found = agreement(held.labels, result.logits.argmax(1), held.classes)
    odds = risk(found, params.contest.floor_f1, params.report.bootstrap, params.seed)
    facts = {"f1_low": odds.low, "f1_high": odds.high, "under_floor": odds.under_floor}
    rounded = {name: round(value, 6) for name, value in facts.items()}
    return [*result.history[:-1], result.history[-1] | rounded]


def train_job(
    what: str, job: Job, workers: int | str, scratch: Path, curve: Path | None = None
) -> TrainingResult:
    """Return `job` trained to its end by so many workers (see `workers.worker_count`).

    `scratch` keeps the state of the last finished epoch as `<what>.state`: killed and called again,
    with any number of workers, it ends in the same bytes. `curve` names a history.json that grows
    an epoch at a time, for live plots. Under torchrun every rank returns the result; the first one
    alone writes (`process_group.is_first`).

    Raises:
        ParamsError: the loss is no longer a number.
        WorkerError: a worker went away; the state is that of the last finished epoch.
        OutputError: the state cannot be written; the last good one is kept.
    """
    return launch(_fit, worker_count(workers, job.recipe.shards), what, job, scratch, curve)


def _fit(
    group: ProcessGroup, what: str, job: Job, scratch: Path, curve: Path | None
) -> TrainingResult:
    if group.rank:
        return fit(group, job)
    path = scratch / f"{what}.state"
    data = checkpoint.load(path)
    state = checkpoint.unpack(data)
    log = _Log(what, job.epochs, state.epoch if state else 0, curve)

    def keep(trainer: Trainer) -> None:
        write_bytes(path, trainer.packed_state())
        log.add(trainer)

    return fit(group, job, data, on_epoch=keep)


class _Log:
    """A line an epoch: how fast, how good, the best so far, how long still."""

    def __init__(self, what: str, epochs: int, done: int, curve: Path | None) -> None:
        self.curve = curve
        if curve is not None:
            sweep(curve)
        self.progress = Progress(what, epochs, done)
        self.since = time.perf_counter()

    def add(self, trainer: Trainer) -> None:
        """Take a finished epoch."""
        row = trainer.history[-1]
        if not math.isfinite(row["loss"]):
            problem = f"{self.progress.what} diverged in epoch {trainer.epoch}"
            raise ParamsError(f"{problem}: its loss is {row['loss']}", DIVERGED)
        now = time.perf_counter()
        speed = trainer.images_per_epoch / (now - self.since)
        facts = f"{speed:,.0f} images/s  loss {row['loss']:.4f}"
        if "f1" in row:
            best = max(past["f1"] for past in trainer.history if "f1" in past)
            facts += f"  f1 {row['f1']:.4f}  best {best:.4f}"
        self.progress.step(facts)
        self.since = now
        if self.curve is not None:
            write_json(self.curve, trainer.history)
