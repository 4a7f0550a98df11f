"""How fast networks train, against what there was and could be: `python -m bench.training`.

    train.vs_plain_loop.*    images/s of two workers against the ordinary loop (plain_loop.py) with
                             changes of the same strength and the same batch of 128 images, here
                             two shards of 64: one a worker; wall clock
    train.f1_vs_plain_loop   F1 that it learns less F1 that the ordinary loop learns, seed network,
                             same recipe and epochs, mean of the seeds
    train.f1_seeds           the spread of that F1 over the seeds: the larger of both loops'
    train.two_workers        two workers against one, wall clock
    train.loop_vs_bare_step  the whole loop against forward + backward + step on one batch that
                             stays in memory; CPU seconds of one process
    train.pins_cost          CPU seconds of that bare step, pinned against torch's own choice of
                             instructions, both channels last and on one thread
    train.share_of_peak.*    FLOP/s of the loop (6 a MAC and image) against one 2,048 x 2,048 matrix
                             product, both on one thread

The networks are the seed stand-in at 46 x 64 pixels and mobilenetv3 of width 0.5 at 96 x 96; the
photographs are those of WEIGHIN_DATA/waste7/train; where nothing else is said, a batch is four
shards of 32. Each measurement is a process of its own, and those of a ratio take turns.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Figures, figure, is_quick, seconds, told, without
from bench.waste7 import ROOT, TRAIN, packed
from weighin.determinism import PINS, pin

if TYPE_CHECKING:
    from weighin.network.spec import NetworkSpec
    from weighin.training.process_group import ProcessGroup
    from weighin.training.trainer import Job, Trainer

COMMAND = "python -m bench.training"
NETWORKS = ("seed", "mobilenetv3")
PLAIN = {"seed": "at least 8", "mobilenetv3": "at least 4.5"}
PEAK = {"seed": "at least 0.15", "mobilenetv3": "above 0.16"}
BATCH = 128
SEEDS, EPOCHS = (1, 2, 3), 12


def figures(quick: bool = False) -> Figures:
    """Return this part's figures."""
    if not TRAIN.is_dir():
        return without(TRAIN)
    runs, networks = (1, NETWORKS[:1]) if quick else (5, NETWORKS)
    with tempfile.TemporaryDirectory() as name:
        pack = _packed(Path(name))
        found = {}
        for network in networks:
            plain = _ratios(runs, ("ours", network, pack, 2, 2), ("plain", network, pack))
            found[f"train.vs_plain_loop.{network}"] = _ratio(plain, PLAIN[network])
        two = _ratios(runs, ("ours", "seed", pack, 2, 4), ("ours", "seed", pack, 1, 4))
        found["train.two_workers"] = _ratio(two, "at least 1.85")
        loop = [_measure("loop_vs_bare", "seed", pack) for _ in range(runs)]
        found["train.loop_vs_bare_step"] = _ratio(loop, "at least 0.92")
        pins = _ratios(runs, ("bare", "seed", pack), ("bare", "seed", pack), free="first")
        found["train.pins_cost"] = _ratio(pins, "at most 1.12")
        for network in networks:
            share = _ratios(runs, ("flops", network, pack), ("peak", network, pack), free="second")
            found[f"train.share_of_peak.{network}"] = _ratio(share, PEAK[network])
        return found if quick else found | _learned(pack)


def _ratio(runs: list[float], target: str) -> dict[str, Any]:
    return figure(runs, "ratio", target, COMMAND)


def _learned(pack: Path) -> dict[str, dict[str, Any]]:
    ours, plain = (
        [_measure(what, "seed", pack, seed) for seed in SEEDS] for what in ("learned", "plain_f1")
    )
    differences = [statistics.mean(ours) - statistics.mean(plain)]
    spread = max(max(found) - min(found) for found in (ours, plain))
    return {
        "train.f1_vs_plain_loop": figure(differences, "F1", "within the seeds' spread", COMMAND),
        "train.f1_seeds": figure([spread], "F1", "printed", COMMAND),
    }


def _ratios(
    runs: int, first: tuple[Any, ...], second: tuple[Any, ...], free: str = ""
) -> list[float]:
    """Return first / second of some turns; `free` names the one that runs without the pins."""
    return [
        _measure(*first, pinned=free != "first") / _measure(*second, pinned=free != "second")
        for _ in range(runs)
    ]


def _measure(what: str, *arguments: Any, pinned: bool = True) -> float:
    """Return what a process of its own measures; the plain loop runs as torch would have it."""
    env = {name: value for name, value in os.environ.items() if name not in PINS}
    if not what.startswith("plain"):
        env |= PINS if pinned else {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "bench.training", "--measure", what, *map(str, arguments)]
    done = subprocess.run(line, env=env, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _packed(folder: Path) -> Path:
    from weighin.params import load

    params = load(ROOT / "params.yaml").prepare
    sizes = ((46, 64), (96, 96))
    plain = replace(params, supersample=1, turn_tall=True, group="none", near_bits=-1)
    return packed(folder, replace(plain, sizes=sizes))


def _spec(network: str) -> "NetworkSpec":
    from weighin.network.spec import read_spec, shipped

    spec = read_spec(shipped(network))
    return spec if network == "seed" else replace(spec, input=(96, 96), width=0.5)


def _job(network: str, pack: Path, shards: int = 4, seed: int = 1) -> "Job":
    from bench.plain_loop import COLOR, LR, MOMENTUM, SHIFT
    from weighin.params import load
    from weighin.training.trainer import Job

    recipe = load(ROOT / "params.yaml").recipe
    off: dict[str, Any] = {knob.name: 0 for knob in fields(recipe.augment)}
    on = {"flip": 0.5, "translate": SHIFT, "color": COLOR, "crop": 1.0}
    plain = replace(
        recipe,
        shards=shards,
        shard_size=BATCH // shards,
        lr=LR,
        momentum=MOMENTUM,
        weight_decay=0.0,
        schedule="constant",
        ema=0.0,
        balance=0.0,
        low_resolution=0.0,
        augment=replace(recipe.augment, **{**off, **on}),
        loss=replace(recipe.loss, smoothing=0.0),
    )
    return Job(_spec(network), plain, EPOCHS, pack, (seed, "bench"))


def ours(network: str, pack: str, workers: str, shards: str) -> float:
    """Return images/s of an epoch after the first, by so many workers."""
    from weighin.training.process_group import launch

    return launch(_timed_epochs, int(workers), _job(network, Path(pack), int(shards)))


def learned(network: str, pack: str, seed: str) -> float:
    """Return macro F1 on the validation split at the end of a training."""
    from weighin.training.process_group import launch
    from weighin.training.trainer import fit

    return float(launch(fit, 2, _job(network, Path(pack), 2, int(seed))).history[-1]["f1"])


def _timed_epochs(group: "ProcessGroup", job: "Job") -> float:
    from weighin.training.trainer import Trainer

    trainer = Trainer(group, job)
    trainer.train_epoch()
    return trainer.images_per_epoch / seconds(trainer.train_epoch, time.perf_counter)


def _alone(network: str, pack: str) -> "Trainer":
    """Return the trainer of one process."""
    from weighin.training.process_group import ProcessGroup
    from weighin.training.trainer import Trainer

    return Trainer(ProcessGroup(), _job(network, Path(pack)))


def _bare_step(trainer: "Trainer") -> Callable[[], None]:
    """Return a training step on one batch that stays in memory."""
    import torch

    dataset, size = trainer.dataset, trainer.job.spec.input
    order = dataset.order(0)
    shards = [dataset.shard(order, 0, 0, shard, size) for shard in range(4)]
    trainer.module.train()

    def step() -> None:
        for inputs, targets in shards:
            loss = trainer.criterion(trainer.module(inputs), targets)
            torch.autograd.grad(loss, trainer.flat.leaves)
        for parameters in trainer.optimizer.param_groups:
            parameters["lr"] = 0.0
        trainer.optimizer.step()

    return step


def loop_vs_bare(network: str, pack: str) -> float:
    """Return the loop's images a CPU second over the bare step's, taking turns."""
    trainer = _alone(network, pack)
    step, steps, times = _bare_step(trainer), trainer.dataset.steps, [0.0, 0.0]
    trainer.train_epoch()
    for _ in range(3):
        times[0] += seconds(lambda: [step() for _ in range(steps)], time.thread_time)
        times[1] += seconds(trainer.train_epoch, time.thread_time)
    return times[0] / times[1]


def bare(network: str, pack: str) -> float:
    """Return images a CPU second of the bare step: the best of some epochs' worth."""
    trainer = _alone(network, pack)
    step = _bare_step(trainer)
    step()
    return (
        5
        * BATCH
        / min(seconds(lambda: [step() for _ in range(5)], time.thread_time) for _ in range(5))
    )


def flops(network: str, pack: str) -> float:
    """Return FLOP a CPU second of the loop: forward, and twice that backward."""
    from weighin.network.build import structure
    from weighin.network.cost import count_macs

    trainer = _alone(network, pack)
    trainer.train_epoch()
    macs = count_macs(structure(trainer.job.spec, trainer.dataset.classes), trainer.job.spec.input)
    best = min(seconds(trainer.train_epoch, time.thread_time) for _ in range(2))
    return 6 * macs * trainer.images_per_epoch / best


def peak(network: str, pack: str) -> float:
    """Return FLOP a CPU second of a large matrix product."""
    import torch

    torch.set_num_threads(1)
    side = 2048
    square = torch.ones(side, side)
    return 2 * side**3 / min(seconds(lambda: square @ square, time.thread_time) for _ in range(8))


def plain(network: str, pack: str) -> float:
    """Return images/s of the ordinary loop."""
    from bench.plain_loop import PlainLoop

    return PlainLoop(_spec(network), TRAIN, None, 1).speed()


def plain_f1(network: str, pack: str, seed: str) -> float:
    """Return macro F1 on the validation split at the end of the ordinary loop's training."""
    from bench.plain_loop import learned_f1

    return learned_f1(_spec(network), TRAIN, Path(pack), EPOCHS, int(seed))


MEASURES = {
    f.__name__: f for f in (ours, learned, plain, plain_f1, loop_vs_bare, bare, flops, peak)
}

if __name__ == "__main__":
    if "--measure" in sys.argv:
        print(MEASURES[sys.argv[2]](*sys.argv[3:]))
    else:
        pin()
        print(told(figures(is_quick())))
