"""What a figure is: the middle of some runs, its unit, its target and how to measure it again."""

import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weighin.progress import say

Figures = dict[str, dict[str, Any]]
TITLES = {
    "compress.latency_at_1pt": "latency of the compressed network, of the whole one's",
    "compress.macs_at_1pt": "MACs left after compression that costs at most 0.01 F1",
    "data.memory_growth_mb": "memory that `prepare` takes for ten times the images",
    "data.prepare_vs_decode": "speed of `prepare` against decoding alone",
    "data.prepare_vs_scaled": "speed of `prepare` against decoding at a reduced scale",
    "data.time_growth": "time of `prepare` for an image, of ten times the images",
    "face.help_s": "`weighin --help`",
    "face.noop_repro_s": "`dvc repro` when everything is up to date",
    "face.stage_start": "start of a stage, of `import torch`",
    "face.stage_start_s": "start of a stage",
    "grade.cold_start_s": "start of the grader",
    "grade.memory_growth_mb": "memory that the grader takes for ten times the images",
    "grade.vs_decode": "speed of the grader against decoding alone",
    "int8.bytes": "size of the file in 8 bits, of the float one's",
    "int8.f1_lost": "F1 lost to 8 bits, finetuned where that is better",
    "int8.images": "images a second in 8 bits, of the float network's",
    "int8.memory": "memory of the activations in 8 bits, of the float network's",
    "leaderboard.hundred_s": "a board of 100 submissions on 4,083 images, two jobs",
    "leaderboard.per_submission": "time of a board for a submission, of grading it alone",
    "result.cpu_hours": "waste7: the whole chain",
    "result.public_f1": "waste7: macro F1 on the public test",
    "result.public_f1_background": "waste7: macro F1 on the public test, another background",
    "result.public_f1_blur": "waste7: macro F1 on the public test, blurred 3 x 3",
    "result.public_f1_dark": "waste7: macro F1 on the public test, in a third of the light",
    "result.public_f1_jpeg": "waste7: macro F1 on the public test, as JPEGs of quality 15",
    "result.public_f1_noise": "waste7: macro F1 on the public test, with noise of 32 grey levels",
    "result.public_f1_trashnet": "waste7: F1 of the four classes of one source",
    "result.public_macs": "waste7: MACs",
    "result.public_score": "waste7: score on the public test",
    "result.unseen_auroc": "waste7: objects of no class told by their confidence",
    "scale.halving": "growth of a generation's halving, in trials",
    "scale.import": "growth of `weighin import`, in images",
    "scale.import_vs_copy": "time of `weighin import` of 100,000 files, of copying them",
    "scale.near_duplicates": "growth of the search for near-duplicates, in images",
    "scale.noop_repro": "growth of `dvc status` of unchanged data, in images",
    "scale.prepare": "growth of `prepare`, in images",
    "scale.report_1000_vs_100_classes": "time of the report at 1,000 classes, of that at 100",
    "scale.report_classes": "growth of the report, in classes",
    "scale.report_images": "growth of the report, in images",
    "scale.report_page_mb": "size of report.html at 1,000 classes",
    "scale.split": "growth of the split, in images",
    "scale.tpe": "growth of one ask of the TPE sampler, in trials",
    "scale.train_1000_vs_100_classes": "time of an epoch of train at 1,000 classes, of that at 100",
    "scale.train_classes": "growth of an epoch of train, in classes",
    "scale.video": "growth of the search for near-duplicates, in frames of one video",
    "search.overhead": "time of a search outside its trials",
    "search.rank_rung_16": "rank correlation of the score after 16 of 32 epochs with the end's",
    "search.rank_rung_32": "rank correlation of the score after 32 of 32 epochs with the end's",
    "search.rank_rung_8": "rank correlation of the score after 8 of 32 epochs with the end's",
    "search.rank_seeds": "rank correlation of the score at the end with that of another seed",
    "search.two_workers": "speed of two search workers, of one's",
    "search.vs_plain_optuna": "hypervolume of the search, of plain Optuna's in the same time",
    "search.vs_random": "hypervolume of the search, of random search's",
    "train.f1_seeds": "spread of F1 over seeds",
    "train.f1_vs_plain_loop": "F1 less that of the plain PyTorch loop",
    "train.loop_vs_bare_step": "speed of training, of its steps alone",
    "train.pins_cost": "time of a step with the pinned instruction set, of one without",
    "train.share_of_peak.mobilenetv3": "arithmetic of a step, of the core's peak (mobilenetv3)",
    "train.share_of_peak.seed": "arithmetic of a step, of the core's peak (seed)",
    "train.two_workers": "speed of two training workers, of one's",
    "train.vs_plain_loop.mobilenetv3": "speed of training, of the plain loop's (mobilenetv3)",
    "train.vs_plain_loop.seed": "speed of training, of the plain loop's (seed)",
    "workers.cluster_ms": "CPU of search and scheduler for a trial of 64 Dask workers",
    "workers.memory_mb": "memory of a search worker, beyond torch and what else it shares",
    "workers.overhead": "time of one worker outside its trials of 10 s",
    "workers.start_8_s": "start of eight search workers",
}
HEADLINES = (
    "train.vs_plain_loop.seed",
    "search.vs_plain_optuna",
    "compress.macs_at_1pt",
    "grade.vs_decode",
    "face.noop_repro_s",
)


def figure(runs: list[float], unit: str, target: str, command: str) -> dict[str, Any]:
    """Return the middle of some runs as a figure."""
    return {
        "value": round(statistics.median(runs), 3),
        "unit": unit,
        "target": target,
        "runs": len(runs),
        "command": command,
        "processor": processor(),
        "mode": "quick" if is_quick() else "full",
    }


def processor() -> str:
    """Return the processor's name, and the widest vectors that it offers."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    facts = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", info, re.MULTILINE))
    wide = "AVX-512" if "avx512f" in facts.get("flags", "").split() else "AVX2"
    return f"{facts.get('model name', 'unknown')} ({wide})"


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how long `work` takes."""
    began = clock()
    work()
    return clock() - began


def is_quick() -> bool:
    """Return whether fewer runs of smaller work are wanted."""
    return "--quick" in sys.argv or os.environ.get("QUICK") == "1"


def without(photographs: Path) -> Figures:
    """Say that a part's figures cannot be measured here; they keep their last values."""
    say(f"{photographs} does not exist; name a folder that holds waste7 in WEIGHIN_DATA")
    return {}


def told(found: Figures) -> str:
    """Return figures as lines of text."""
    lines = (
        f"{name:<30} {figure['value']:>10} {figure['unit']:<6} {figure['target']}"
        for name, figure in found.items()
    )
    return "\n".join(lines)
