"""A job trained to its end inside a stage: its workers, its state on disk, its line an epoch."""

import math
import time
from pathlib import Path

from weighin.errors import ParamsError
from weighin.files import sweep, write_json
from weighin.progress import Progress
from weighin.training import checkpoint
from weighin.training.job import Epoch, Fitted, Hooks, Job
from weighin.training.loop import fit
from weighin.training.team import Team, work
from weighin.workers import worker_count

DIVERGED = "lower the learning rate (recipe.lr, finetune.lr), or raise recipe.warmup"


def complete(
    what: str, job: Job, workers: int | str, scratch: Path, curve: Path | None = None
) -> Fitted:
    """Return `job` trained to its end by so many workers (see `workers.worker_count`).

    `scratch` keeps the state of the last finished epoch as `<what>.state`: killed and called again,
    with any number of workers, it ends in the same bytes. `curve` names a history.json that grows
    an epoch at a time, for live plots. Under torchrun every rank returns the result; the first one
    alone writes (`team.is_first`).

    Raises:
        ParamsError: the loss is no longer a number.
        WorkerError: a worker went away; the state is that of the last finished epoch.
        OutputError: the state cannot be written; the last good one is kept.
    """
    return work(_fit, worker_count(workers, job.recipe.shards), what, job, scratch, curve)


def _fit(team: Team, what: str, job: Job, scratch: Path, curve: Path | None) -> Fitted:
    if team.rank:
        return fit(team, job)
    path = scratch / f"{what}.state"
    data = checkpoint.load(path)
    state = checkpoint.unpack(data) if data else None
    log = _Log(what, job.epochs, state.history if state else [], curve)
    hooks = Hooks(epoch=log.add, keep=lambda packed: checkpoint.save(path, packed))
    return fit(team, job, data, hooks=hooks)


class _Log:
    """A line an epoch: how fast, how good, the best so far, how long still."""

    def __init__(self, what: str, epochs: int, history: list[Epoch], curve: Path | None) -> None:
        self.history, self.curve = list(history), curve
        if curve is not None:
            sweep(curve)
        self.progress = Progress(what, epochs, len(history))
        self.since = time.perf_counter()

    def add(self, row: Epoch, images: int) -> None:
        """Take a finished epoch of so many images."""
        if not math.isfinite(row["loss"]):
            problem = f"{self.progress.what} diverged in epoch {len(self.history) + 1}"
            raise ParamsError(f"{problem}: its loss is {row['loss']}", DIVERGED)
        now = time.perf_counter()
        self.history.append(row)
        facts = f"{images / (now - self.since):,.0f} images/s  loss {row['loss']:.4f}"
        measured = [past["f1"] for past in self.history if "f1" in past]
        if "f1" in row:
            facts += f"  f1 {row['f1']:.4f}  best {max(measured):.4f}"
        self.progress.step(facts)
        self.since = now
        if self.curve is not None:
            write_json(self.curve, self.history)
