"""What a recipe's `device: cuda` needs and means: a GPU, pinned, and named by what it is.

A GPU computes the same bytes again on the same model with the same driver and libraries, and on
nothing else, so whatever it made says what made it. Not yet run on a GPU.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

from weighin.errors import MachineError
from weighin.files import write_json
from weighin.params import Recipe

Json = dict[str, Any]
RECORD = "device.json"  # in a stage's folder: the GPU that computed it; none where a processor did
REHEARSAL = "cpu:0"  # no parameter: the code for a GPU run on the processor, for tests and benches
DRIVER = Path("/proc/driver/nvidia/version")


def require_device(recipe: Recipe) -> None:
    """Stop before any work where the device that a recipe names is not here.

    Raises:
        MachineError: it is cuda, and torch finds no such device, or one that lacks the precision.
    """
    if recipe.device != "cuda":
        return
    import torch

    fix = "set recipe.device to cpu, or run this on a machine with an NVIDIA GPU and its driver"
    if not torch.cuda.is_available():
        raise MachineError(f"recipe.device is cuda, and torch {torch.__version__} finds none", fix)
    major, _ = torch.cuda.get_device_capability()
    if recipe.precision != "float32" and major < 8:
        problem = f"recipe.precision is {recipe.precision}, and {torch.cuda.get_device_name()} "
        raise MachineError(problem + "does not compute in it", "set recipe.precision to float32")


def device_facts(recipe: Recipe) -> Json:
    """Return what decides the bytes that a recipe's GPU computes; nothing for a processor."""
    return _cuda_facts() if recipe.device == "cuda" else {}


@cache
def _cuda_facts() -> Json:
    import torch

    return {
        "gpu": torch.cuda.get_device_name(),
        "multiprocessors": torch.cuda.get_device_properties(0).multi_processor_count,
        "driver": driver_version(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "torch": torch.__version__,
    }


def driver_version(record: Path = DRIVER) -> str:
    """Return the NVIDIA driver's version, as the kernel tells it."""
    try:
        words = record.read_text(encoding="utf-8").splitlines()[0].split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")


def here() -> Json:
    """Return the facts of the GPU of this machine; nothing where there is none."""
    import torch

    return _cuda_facts() if torch.cuda.is_available() else {}


def described(facts: Json) -> str:
    """Return a GPU's facts in words."""
    if not facts:
        return "a machine without a GPU"
    told = [f"{name} {facts[name]}" for name in ("driver", "cuda", "cudnn", "torch")]
    return f"{facts['gpu']} ({', '.join(told)})"


def record_device(out: Path, recipe: Recipe | None) -> None:
    """Write into a stage's folder what GPU computed it; None: nothing was trained."""
    if recipe is not None and (facts := device_facts(recipe)):
        write_json(out / RECORD, facts)
    else:
        (out / RECORD).unlink(missing_ok=True)


def worker_setting(setting: int | str, recipe: Recipe) -> int | str:
    """Return how many processes are meant: `auto` is one a GPU, where GPUs compute."""
    if setting != "auto" or recipe.device != "cuda":
        return setting
    import torch

    return torch.cuda.device_count()


def use_gpu(number: int, recipe: Recipe) -> None:
    """Let this process compute on one of several GPUs of a kind, by a trial's number."""
    if recipe.device == "cuda":
        import torch

        torch.cuda.set_device(number % torch.cuda.device_count())


def pin_device(recipe: Recipe) -> None:
    """Make torch compute the same bytes again on a GPU, in the recipe's precision."""
    # cuBLAS reads it when it is first used: one workspace of its own for every stream
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    import torch

    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    tf32 = recipe.precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
