"""The one training loop: search, tune, train, cut and finetune all run `fit`.

A batch is always S shards. A shard is one forward and backward on one thread; gradients and
batch-norm statistics are gathered and added in shard order, so any number of workers makes the same
bytes. Everything random has an address, so a run that was killed goes on to the same bytes.
"""

import torch

from weighin.training.job import Fitted, Hooks, Job
from weighin.training.quick import keep_memory
from weighin.training.run import Run
from weighin.training.team import Team


def fit(
    team: Team,
    job: Job,
    state: bytes = b"",
    until: int | None = None,
    hooks: Hooks | None = None,
) -> Fitted:
    """Train `job` from its packed `state` (or from the start) until an epoch (or the end).

    Raises:
        WorkerError: another worker of the team went away.
    """
    torch.set_num_threads(1)  # use_deterministic_algorithms adds 2.7 s of imports, and no equality
    keep_memory()
    run = Run(team, job)
    run.restore(team.share(state))
    last = job.epochs if until is None else until
    hooks = hooks or Hooks()
    while run.epoch < last:
        row = run.train_epoch()
        if job.validations and (_evaluated(run.epoch, job) or run.epoch == last):
            row |= run.evaluate()
        run.history.append(row)
        if team.rank == 0:
            if hooks.keep:
                hooks.keep(run.packed_state())
            hooks.epoch(row, run.images_per_epoch)
    return Fitted(run.averaged_weights(), run.history, run.logits(), run.packed_state())


def _evaluated(epoch: int, job: Job) -> bool:
    return epoch == job.epochs or epoch % max(1, job.epochs // job.validations) == 0
