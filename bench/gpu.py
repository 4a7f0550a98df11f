"""The whole check of training on a GPU, in under eight minutes: `python -m bench.gpu OUT.json`.

Needs a machine with CUDA, Python 3.11 or later, a torch of any recent version and the packages of
NEEDED, from the project's folder with PYTHONPATH=src (packages carried along by `pip install
--target FOLDER` go into PYTHONPATH too). It draws its own images.

    checks     the same weights, to the byte: in another process, after a kill, by two processes,
               of trials one or many at a time; and other weights from another seed
    figures    images/s of the seed stand-in in each precision, against the plain PyTorch loop on
               the same GPU with and without mixed precision, and against two workers of the
               processor (the same batch of 128 in one shard a worker); the cost of determinism;
               trials an hour; F1 of some seeds on both

OUT.json is written after each part, a table is printed at the end, and the exit code is 1 where a
check failed. `--rehearse` runs all of it on the processor, tiny, through the code for a GPU: what
it measures then means nothing. Not yet run on a GPU.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighin.determinism import pin

if TYPE_CHECKING:
    from weighin.search.evaluation import Outcome
    from weighin.training.process_group import ProcessGroup
    from weighin.training.trainer import Job

NEEDED = ("llvmlite", "numpy", "PIL", "pydantic", "ruamel.yaml", "safetensors", "scipy",
          "simplejpeg", "torch", "torchvision")  # fmt: skip
ROOT = Path(__file__).parents[1]
LIMIT = 420.0  # seconds: no part begins later
FASTER, COST = 10.0, 1.3  # targets: times the plain loop; determinism, on over off


@dataclass(frozen=True)
class Scale:
    """How much of it."""

    device: str
    images: int
    shard_size: int
    epochs: int  # of what is timed and compared
    trials: int
    at_once: tuple[int, ...]
    seeds: int
    f1_epochs: int
    precisions: tuple[str, ...]
    loaders: int  # processes of the plain loop's DataLoader


def full() -> Scale:
    """Return what fits into eight minutes on a GPU."""
    loaders = min(8, len(os.sched_getaffinity(0)))
    return Scale("cuda", 6000, 32, 3, 8, (1, 4, 8), 5, 12, ("float32", "tf32", "bf16"), loaders)


def rehearsal() -> Scale:
    """Return what the processor does in a minute."""
    from weighin.training.device import REHEARSAL

    return Scale(REHEARSAL, 120, 4, 1, 2, (1, 2), 1, 1, ("float32", "bf16"), 0)


class Check:
    """The parts, what they found, and the file that it is written to."""

    def __init__(self, scale: Scale, folder: Path, out: Path) -> None:
        from weighin.training.device import here

        self.scale, self.folder, self.out = scale, folder, out
        self.data, self.pack = folder / "data/train", folder / "pack"
        self.began = time.monotonic()
        self.checks: dict[str, bool] = {}
        self.figures: dict[str, dict[str, Any]] = {}
        self.errors: dict[str, str] = {}
        self.machine = {"device": scale.device, "cores": len(os.sched_getaffinity(0))} | here()

    def run(self) -> None:
        """Run every part for which there is time; one that fails does not stop the others."""
        self.draw()
        parts = (self.bytes, self.speed, self.plain_loop, self.determinism, self.trials, self.f1)
        for part in (*parts, self.processor):
            if time.monotonic() - self.began > LIMIT:
                self.errors[part.__name__] = "there was no time"
                continue
            try:
                part()
            except Exception as error:
                self.errors[part.__name__] = f"{type(error).__name__}: {error}"
            self.write()

    def job(self, device: str | None = None, seed: int = 1, **recipe: Any) -> "Job":
        """Return the training of the seed stand-in."""
        return job(self.pack, device or self.scale.device, self.scale, seed, **recipe)

    def draw(self) -> None:
        """Draw and pack the images."""
        from weighin.data.demo import draw_demo
        from weighin.data.prepare import prepare
        from weighin.params import load

        params = load(ROOT / "params.yaml").prepare
        faults = replace(params.faults, small_class="keep")
        cores = len(os.sched_getaffinity(0))
        draw_demo(self.folder / "data", self.scale.images, 64, workers=cores)
        prepared = replace(params, sizes=((46, 64),), group="none", near_bits=-1, faults=faults)
        prepare(self.folder / "data", self.pack, prepared, 0, cores)

    def bytes(self) -> None:
        """Check that weights are the same to the byte however they are trained."""
        from weighin.training.train import train_job

        def here(name: str, workers: int = 1, seed: int = 1) -> str:
            return digest(train_job(name, self.job(seed=seed), workers, self.folder / name).weights)

        one = here("one")
        self.checks["another process"] = self.elsewhere("weights", "other").split()[-1] == one
        state = self.folder / "killed"
        with self.started("weights", "killed") as process:
            while process.poll() is None and not list(state.glob("train*.state")):
                time.sleep(0.005)
            process.kill()
        resumed = digest(train_job("train", self.job(), 1, state).weights)
        self.checks["after a kill"] = process.returncode < 0 and resumed == one
        self.checks["two processes"] = here("two", workers=2) == one
        self.checks["another seed differs"] = here("seed", seed=2) != one

    def started(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a task of this file as a process; what it complains of is shown."""
        scale = ["--rehearse"] if self.scale.device != "cuda" else []
        start = [sys.executable, "-m", "bench.gpu", str(self.folder), *scale, "--task"]
        env = {name: value for name, value in os.environ.items() if "CUBLAS" not in name}
        return subprocess.Popen([*start, *arguments], stdout=subprocess.PIPE, text=True, env=env)

    def elsewhere(self, *arguments: str) -> str:
        """Return what a task prints in a process of its own."""
        with self.started(*arguments) as process:
            said, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(arguments)} ended with code {process.returncode}")
        return said

    def speed(self) -> None:
        """Measure images/s in each precision."""
        for precision in self.scale.precisions:
            found = self.elsewhere("speed", precision, "pinned").split()[-1]
            self.put(f"images/s {precision}", float(found), "images/s")

    def plain_loop(self) -> None:
        """Measure the plain loop, and how many times its speed ours is."""
        from bench.plain_loop import PlainLoop

        device = "cuda" if self.scale.device == "cuda" else "cpu"
        ours, scale = self.figures["images/s float32"]["value"], self.scale
        for amp in (False, True) if device == "cuda" else (False,):
            loop = PlainLoop(
                self.job().spec,
                self.data,
                None,
                0,
                device,
                amp,
                scale.loaders,
                4 * scale.shard_size,
            )
            found, name = loop.speed(), "plain loop" + ", AMP" * amp
            self.put(f"images/s {name}", found, "images/s")
            self.put(f"faster than the {name}", ours / found, "times", f"at least {FASTER:g}")

    def determinism(self) -> None:
        """Measure what the same bytes cost."""
        free = float(self.elsewhere("speed", "float32", "free").split()[-1])
        ours = self.figures["images/s float32"]["value"]
        self.put("cost of determinism", free / ours, "times", f"at most {COST:g}")

    def trials(self) -> None:
        """Measure trials an hour, so many at once, and compare what they found."""
        found = []
        for count in self.scale.at_once:
            began = time.monotonic()
            jobs = [self.job(seed=seed, shards=1) for seed in range(self.scale.trials)]
            found.append(evaluated(jobs, self.scale.epochs, count))
            hours = (time.monotonic() - began) / 3600
            self.put(f"trials an hour, {count} at once", self.scale.trials / hours, "trials")
        labels = [[(one.measured.labels, one.state) for one in outcomes] for outcomes in found]
        self.checks["trials at once"] = all(each == labels[0] for each in labels)

    def f1(self) -> None:
        """Measure F1 of some seeds on the device and on the processor."""
        epochs, seeds = self.scale.f1_epochs, range(self.scale.seeds)
        for device in (self.scale.device, "cpu"):
            jobs = [replace(self.job(device, seed), epochs=epochs) for seed in seeds]
            found = [one.measured.confusion.f1 for one in evaluated(jobs, epochs, len(jobs))]
            name = "GPU" if device != "cpu" else "processor"
            self.put(f"F1 on the {name}", statistics.mean(found), "F1")
            spread = max(found) - min(found)
            self.put(f"F1 on the {name}, spread", spread, "F1")

    def processor(self) -> None:
        """Measure two workers of the processor."""
        from weighin.training.process_group import launch

        found = launch(
            images_a_second, 2, replace(self.job("cpu", **batch(self.scale, 2)), epochs=2), 1
        )
        self.put("images/s, processor, two workers", found, "images/s")
        ours = self.figures["images/s float32"]["value"]
        self.put("faster than the processor", ours / found, "times")

    def put(self, name: str, value: float, unit: str, target: str = "") -> None:
        """Note a figure."""
        self.figures[name] = {"value": round(value, 4), "unit": unit, "target": target}

    def write(self) -> None:
        """Write what was found so far."""
        from weighin.files import write_json

        facts = {"machine": self.machine, "checks": self.checks, "figures": self.figures}
        seconds = round(time.monotonic() - self.began)
        write_json(self.out, facts | {"errors": self.errors, "seconds": seconds})

    def table(self) -> str:
        """Return what was found as lines of text."""
        lines = [
            f"{name:<36}{'passed' if good else 'FAILED'}" for name, good in self.checks.items()
        ]
        for name, one in self.figures.items():
            lines.append(
                f"{name:<36}{one['value']:>12,.4g} {one['unit']}  {one['target']}".rstrip()
            )
        return "\n".join([*lines, *(f"{name}: {what}" for name, what in self.errors.items())])


def job(pack: Path, device: str, scale: Scale, seed: int, **recipe: Any) -> "Job":
    """Return the training of the seed stand-in at 46 x 64 pixels, in shards of a batch of four."""
    from weighin.network.spec import read_spec, shipped
    from weighin.params import load
    from weighin.training.trainer import Job

    given = load(ROOT / "params.yaml").recipe
    knobs: dict[str, Any] = {"shards": 4, "shard_size": scale.shard_size, "device": device}
    address = (seed, "gpu")
    spec = read_spec(shipped("seed"))
    return Job(spec, replace(given, **(knobs | recipe)), scale.epochs, pack, address, validations=0)


def batch(scale: Scale, shards: int) -> dict[str, int]:
    """Return the same batch in so many shards: what is timed has one a worker, as it is fastest."""
    return {"shards": shards, "shard_size": 4 * scale.shard_size // shards}


def evaluated(jobs: "Sequence[Job]", until: int, at_once: int) -> "list[Outcome]":
    """Return the outcomes of trainings as a search's workers find them."""
    from weighin.search.evaluation import Task, evaluate
    from weighin.search.workers import LocalWorkers
    from weighin.training.device import device_facts

    tasks = [Task(i, one, until, gpu=device_facts(one.recipe)) for i, one in enumerate(jobs)]
    with LocalWorkers(at_once) as workers:
        found = dict(workers.run(evaluate, tasks))
    return [found[place] for place in range(len(tasks))]


def digest(weights: Any) -> str:
    """Return the SHA-256 of weights."""
    from weighin.training.weights import weights_hash

    return weights_hash(weights)


def images_a_second(group: "ProcessGroup", job: "Job", epochs: int) -> float:
    """Return the speed of epochs after the first."""
    from weighin.training.trainer import make_trainer

    trainer = make_trainer(group, job)
    trainer.train_epoch()
    began = time.perf_counter()
    for _ in range(epochs):
        trainer.train_epoch()  # returns the loss, so it waits for the device
    return epochs * trainer.images_per_epoch / (time.perf_counter() - began)


def weights(folder: Path, scale: Scale, scratch: str) -> str:
    """Train in this process; return the weights' digest."""
    from weighin.training.train import train_job

    made = job(folder / "pack", scale.device, scale, 1)
    return digest(train_job("train", made, 1, folder / scratch).weights)


def speed(folder: Path, scale: Scale, precision: str, how: str) -> float:
    """Return images/s of this process, pinned or free to compute in any order."""
    import torch

    import weighin.training.device_trainer as module
    from weighin.training.process_group import ProcessGroup

    def free(recipe: Any) -> None:
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False  # the same precision

    if how == "free":
        module.pin_device = free  # type: ignore[attr-defined]
    made = job(folder / "pack", scale.device, scale, 1, precision=precision, **batch(scale, 1))
    made = replace(made, epochs=scale.epochs + 1)
    return images_a_second(ProcessGroup(), made, scale.epochs)


TASKS: dict[str, Callable[..., Any]] = {"weights": weights, "speed": speed}


def main() -> None:
    """Run the check, or one task of it."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu")
    parser.add_argument("out", type=Path, help="the JSON file that is written")
    parser.add_argument("--rehearse", action="store_true", help="tiny, on the processor")
    parser.add_argument("--task", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    missing = [name for name in NEEDED if importlib.util.find_spec(name.split(".")[0]) is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; pip install --target FOLDER them, and put "
                 "FOLDER into PYTHONPATH")  # fmt: skip
    import torch

    if not given.rehearse and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} finds no GPU here; --rehearse runs on the processor")
    scale = rehearsal() if given.rehearse else full()
    if given.task:
        name, *arguments = given.task
        print(TASKS[name](given.out, scale, *arguments), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        check = Check(scale, Path(folder), given.out)
        check.run()
        check.write()
    print(check.table())
    sys.exit(0 if all(check.checks.values()) and not check.errors else 1)


if __name__ == "__main__":
    pin()
    main()
