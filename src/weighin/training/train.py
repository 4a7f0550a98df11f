"""The train stage, and a job trained to its end inside any stage."""

import math
import time
from dataclasses import replace
from pathlib import Path

from weighin.data.pack import read_packed
from weighin.errors import ParamsError
from weighin.files import fingerprint, read_json, sweep, write_bytes, write_json
from weighin.grading.risk import risk
from weighin.grading.score import confusion_of_indices
from weighin.network.spec import NetworkSpec
from weighin.parallel import worker_count
from weighin.params import Params, Recipe
from weighin.progress import Progress
from weighin.training.device import (
    device_facts,
    record_device,
    require_device,
    worker_setting,
)
from weighin.training.process_group import ProcessGroup, is_first, launch
from weighin.training.trainer import Epoch, Job, Trainer, TrainingResult, fit
from weighin.training.weights import initial_weights, load_state, unpack_state, write_weights

RATE = "recipe.lr (or lr in tune.space, where tune chose it)"
RATES = {
    "finetune": "finetune.lr",
    "quantize": "quantize.lr",
}  # the parameter behind a job's rate, where it is another one


def train(
    packed: Path, spec: NetworkSpec, recipe: Recipe, params: Params, out: Path, scratch: Path
) -> None:
    """Train a network and write weights.safetensors and history.json into the folder `out`.

    With `train.weights` the network starts from the weights in that file; where `train.epochs` is
    0 too, it is taken as it is.

    Raises:
        ParamsError, MachineError: as `train_job`.
        NetworkError: the initial weights do not fit the network.
        WorkerError, OutputError: as `train_job`; run again, it goes on.
    """
    knobs = params.train
    address = (params.seed, "train")
    job = Job(spec, recipe, knobs.epochs, packed, address, all_data=knobs.all_data)
    if knobs.weights:
        classes = len(read_json(packed / "classes.json"))
        own, trained = Path(knobs.weights), knobs.epochs > 0
        job = replace(job, start=initial_weights(own, spec, classes, *address, trained=trained))
    curve = out / "history.json"
    result = train_job("train", job, knobs.workers, scratch, curve)
    if is_first():
        write_json(curve, _with_intervals(result, job, params))
        record_device(out, recipe if job.epochs else None)
        write_weights(out / "weights.safetensors", result.weights)


def _with_intervals(result: TrainingResult, job: Job, params: Params) -> list[Epoch]:
    """Return the history, its last epoch with F1's interval and the risk of the floor.

    `f1_low` and `f1_high` bound 95 % of the bootstrap's resamples of the validation split,
    `under_floor` is the share of them under `contest.floor_f1`.
    """
    held = read_packed(job.packed, "validation", job.spec.input)
    if not result.history or not len(held.labels):
        return result.history
    found = confusion_of_indices(held.labels, result.logits.argmax(1), held.classes)
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
        ParamsError: the loss, a weight or a statistic is no longer a number; the state is that of
            the last good epoch.
        WorkerError: a worker went away; the state is that of the last finished epoch.
        MachineError: the recipe's device is not here.
        OutputError: the state cannot be written; the last good one is kept.
    """
    require_device(job.recipe)
    count = worker_count(worker_setting(workers, job.recipe), job.recipe.shards)
    return launch(_fit, count, what, job, scratch, curve)


def _fit(
    group: ProcessGroup, what: str, job: Job, scratch: Path, curve: Path | None
) -> TrainingResult:
    gpu = device_facts(job.recipe)  # what another one began goes on in other bytes
    path = scratch / (f"{what}-{fingerprint(gpu)[:8]}.state" if gpu else f"{what}.state")
    data = b"" if group.rank else load_state(path)
    state = unpack_state(data)
    progress = Progress(what, job.epochs, state.epoch if state else 0)
    since = time.perf_counter()
    if curve is not None and not group.rank:
        sweep(curve)

    def on_epoch(trainer: Trainer) -> None:
        nonlocal since
        row, spent = trainer.history[-1], time.perf_counter() - since
        if not trainer.is_finite():  # found by every rank, before the state is kept
            what_is = "loss is not" if not math.isfinite(row["loss"]) else "weights are not"
            problem = f"{what} diverged in epoch {trainer.epoch}: its {what_is} finite"
            fix = f"lower {RATES.get(what, RATE)}: it was {job.recipe.lr:g}; or raise recipe.warmup"
            raise ParamsError(problem, fix)
        if group.rank:
            return
        write_bytes(path, trainer.packed_state())
        f1 = f"  f1 {row['f1']:.4f}" if "f1" in row else ""
        speed = f"{trainer.images_per_epoch / spent:,.0f} images/s"
        progress.step(f"{speed}  loss {row['loss']:.4f}{f1}")
        since += spent
        if curve is not None:
            write_json(curve, trainer.history)

    return fit(group, job, data, on_epoch=on_epoch)
