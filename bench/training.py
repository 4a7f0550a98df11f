"""How fast networks train, against what there was and could be: `python -m bench.training`.

    train.vs_plain_loop.*    images/s of two workers against the ordinary loop: ImageFolder and
                             torchvision transforms of the same strength, a DataLoader with two
                             workers, eager NCHW modules, torch's default threads; wall clock
    train.two_workers        two workers against one, wall clock
    train.loop_vs_bare_step  the whole loop against forward + backward + step on one batch that
                             stays in memory; CPU seconds of one process
    train.pins_cost          CPU seconds of that bare step, pinned against torch's own choice of
                             instructions, both channels last and on one thread
    train.share_of_peak.*    FLOP/s of the loop (6 a MAC and image) against one 2,048 x 2,048 matrix
                             product, both on one thread

The networks are the seed stand-in at 46 x 64 pixels and mobilenetv3 of width 0.5 at 96 x 96; the
photographs are those of WEIGHIN_DATA/waste7/train. Each measurement is a process of its own, and
those of a ratio take turns.
"""

import json
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

from weighin.determinism import PINS, pin

if TYPE_CHECKING:
    from torch import nn

    from weighin.network.spec import NetworkSpec
    from weighin.training.job import Job
    from weighin.training.run import Run
    from weighin.training.team import Team

COMMAND = "python -m bench.training"
PHOTOGRAPHS = Path(os.environ.get("WEIGHIN_DATA", "data")) / "waste7" / "train"
NETWORKS = ("seed", "mobilenetv3")
BATCH = 128
SHIFT, COLOUR = 0.1, 0.2


def figures(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Return this room's figures."""
    if not PHOTOGRAPHS.is_dir():
        sys.exit(f"{PHOTOGRAPHS} does not exist; name a folder that holds waste7 in WEIGHIN_DATA")
    runs = 2 if quick else 5
    with tempfile.TemporaryDirectory() as name:
        pack = _packed(Path(name))
        found = {}
        for network, target in zip(NETWORKS, ("at least 5", "at least 2"), strict=True):
            plain = _ratios(runs, ("ours", network, pack, 2), ("plain", network, pack))
            found[f"train.vs_plain_loop.{network}"] = _figure(plain, target)
        two = _ratios(runs, ("ours", "seed", pack, 2), ("ours", "seed", pack, 1))
        found["train.two_workers"] = _figure(two, "at least 1.85")
        loop = [_measure("loop_vs_bare", "seed", pack) for _ in range(runs)]
        found["train.loop_vs_bare_step"] = _figure(loop, "at least 0.92")
        pins = _ratios(runs, ("bare", "seed", pack), ("bare", "seed", pack), free="first")
        found["train.pins_cost"] = _figure(pins, "at most 1.12")
        for network, target in zip(NETWORKS, ("above 0.09", "above 0.16"), strict=True):
            share = _ratios(runs, ("flops", network, pack), ("peak", network, pack), free="second")
            found[f"train.share_of_peak.{network}"] = _figure(share, target)
    return found


def _figure(runs: list[float], target: str) -> dict[str, Any]:
    value = round(statistics.median(runs), 3)
    return {
        "value": value,
        "unit": "ratio",
        "target": target,
        "runs": len(runs),
        "command": COMMAND,
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
    if what != "plain":
        env |= PINS if pinned else {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "bench.training", "--measure", what, *map(str, arguments)]
    done = subprocess.run(line, env=env, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _packed(folder: Path) -> Path:
    from weighin.data.prepare import prepare
    from weighin.params import load

    params = load(Path(__file__).parents[1] / "params.yaml").prepare
    sizes = ((46, 64), (96, 96))
    chosen = replace(params, sizes=sizes, turn_tall=True, group="none", near_bits=-1)
    (folder / "train").symlink_to(PHOTOGRAPHS.absolute())
    prepare(folder, folder / "pack", chosen, 1, 1)
    return folder / "pack"


def _spec(network: str) -> "NetworkSpec":
    from weighin.network.spec import read_spec, shipped

    spec = read_spec(shipped(network))
    return spec if network == "seed" else replace(spec, input=(96, 96), width=0.5)


def _job(network: str, pack: Path) -> "Job":
    from weighin.params import load
    from weighin.training.job import Job

    recipe = load(Path(__file__).parents[1] / "params.yaml").recipe
    off: dict[str, Any] = {knob.name: 0 for knob in fields(recipe.augment)}
    on = {"flip": 0.5, "translate": SHIFT, "colour": COLOUR, "crop": 1.0}
    augment = replace(recipe.augment, **{**off, **on})
    chosen = replace(recipe, shards=4, shard_size=32, low_resolution=0.0, augment=augment)
    return Job(_spec(network), chosen, 100, pack, (1, "bench"))


def ours(network: str, pack: str, workers: str) -> float:
    """Return images/s of an epoch after the first, by so many workers."""
    from weighin.training.team import work

    return work(_timed_epochs, int(workers), _job(network, Path(pack)))


def _timed_epochs(team: "Team", job: "Job") -> float:
    run = _run(team, job)
    run.train_epoch()
    return run.images_per_epoch / _seconds(run.train_epoch, time.perf_counter)


def _run(team: "Team", job: "Job") -> "Run":
    import torch

    from weighin.training.quick import keep_memory
    from weighin.training.run import Run

    torch.set_num_threads(1)
    keep_memory()
    return Run(team, job)


def _seconds(function: Callable[[], Any], clock: Callable[[], float]) -> float:
    began = clock()
    function()
    return clock() - began


def _bare_step(run: "Run") -> Callable[[], None]:
    """Return a training step on one batch that stays in memory."""
    import torch

    order, size = run.batches.order(0), run.job.spec.input
    shards = [run.batches.shard(order, 0, 0, shard, size) for shard in range(4)]
    run.module.train()

    def step() -> None:
        for inputs, targets in shards:
            loss = run.criterion(run.module(inputs), targets)
            torch.autograd.grad(loss, run.flat.parameters)
        run.optimizer.step(0.0)

    return step


def loop_vs_bare(network: str, pack: str) -> float:
    """Return the loop's images a CPU second over the bare step's, taking turns."""
    from weighin.training.team import Team

    run = _run(Team(), _job(network, Path(pack)))
    step, steps, times = _bare_step(run), run.batches.per_epoch, [0.0, 0.0]
    run.train_epoch()
    for _ in range(3):
        times[0] += _seconds(lambda: [step() for _ in range(steps)], time.thread_time)
        times[1] += _seconds(run.train_epoch, time.thread_time)
    return times[0] / times[1]


def bare(network: str, pack: str) -> float:
    """Return images a CPU second of the bare step: the best of some epochs' worth."""
    from weighin.training.team import Team

    run = _run(Team(), _job(network, Path(pack)))
    step = _bare_step(run)
    step()
    return (
        5
        * BATCH
        / min(_seconds(lambda: [step() for _ in range(5)], time.thread_time) for _ in range(5))
    )


def flops(network: str, pack: str) -> float:
    """Return FLOP a CPU second of the loop: forward, and twice that backward."""
    from weighin.network.build import structure
    from weighin.network.macs import count_macs
    from weighin.training.team import Team

    run = _run(Team(), _job(network, Path(pack)))
    run.train_epoch()
    macs = count_macs(structure(run.job.spec, run.batches.classes), run.job.spec.input)
    best = min(_seconds(run.train_epoch, time.thread_time) for _ in range(2))
    return 6 * macs * run.images_per_epoch / best


def peak(network: str, pack: str) -> float:
    """Return FLOP a CPU second of a large matrix product."""
    import torch

    torch.set_num_threads(1)
    side = 2048
    square = torch.ones(side, side)
    return 2 * side**3 / min(_seconds(lambda: square @ square, time.thread_time) for _ in range(8))


def plain(network: str, pack: str) -> float:
    """Return images/s of an epoch of the ordinary loop, after its first two batches."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    from weighin.network.build import build, initialise

    spec = _spec(network)
    steps = [
        transforms.Resize(spec.input),
        transforms.RandomHorizontalFlip(),
        transforms.RandomAffine(0, (SHIFT, SHIFT)),
        transforms.ColorJitter(COLOUR, COLOUR, COLOUR),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.5] * 3),
    ]
    images = ImageFolder(str(PHOTOGRAPHS), transforms.Compose(steps))
    loader = DataLoader(images, BATCH, shuffle=True, num_workers=2, drop_last=True)
    module: nn.Module = build(spec, len(images.classes))
    initialise(module, 1)
    optimizer = torch.optim.SGD(module.parameters(), 0.01, 0.9, nesterov=True)
    began = 0.0
    for number, (inputs, labels) in enumerate(loader):
        if number == 2:
            began = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return (len(loader) - 2) * BATCH / (time.perf_counter() - began)


MEASURES = {f.__name__: f for f in (ours, plain, loop_vs_bare, bare, flops, peak)}

if __name__ == "__main__":
    if "--measure" in sys.argv:
        print(MEASURES[sys.argv[2]](*sys.argv[3:]))
    else:
        pin()
        print(json.dumps(figures("--quick" in sys.argv), indent=2))
