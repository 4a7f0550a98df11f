"""What the waste7 parameters reach, and what each stage is worth: `python -m bench.results`.

    result.public_f1           macro F1 on the 526 photographs of WEIGHIN_DATA/waste7/public
    result.public_f1_trashnet  mean F1 of the four classes that come from one source (TrashNet):
                               of the other three, the source gives the class away
    result.public_macs, result.public_score
    result.public_f1_noise     the same F1 with the photographs degraded at the network's own size,
    result.public_f1_dark      as the report degrades validation images: with noise of 32 grey
    result.public_f1_jpeg      levels, in a third of the light, as JPEGs of quality 15, blurred
    result.public_f1_blur      3 x 3, and with blots of color for a plain
    result.public_f1_background  background
    result.cpu_hours           of the whole chain, from images to report: wall clock times cores, so
                               no less than it used

The chain is `dvc repro` of a clone with results/waste7/params.yaml, for three seeds (another split,
other weights), of which the middle is told. Every choice is made on validation splits of the
training data; what each part is worth there, `python -m bench.parts` measures.

Name a folder (`python -m bench.results FOLDER`) to go on there after an interruption: what is
built is in its DVC cache.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from bench.figures import Figures, figure, told, without
from bench.waste7 import ROOT, WASTE7
from weighin.determinism import pin
from weighin.files import read_json, write_text
from weighin.parallel import cores

COMMAND = "python -m bench.results"
RECORD, PAGE = ROOT / "results/waste7", ROOT / "docs/waste7.md"
TRASHNET = ("Glass", "Metal", "Paper", "Plastic")
SEEDS = (0, 1, 2)
AIMS = {
    "public_f1": ("F1", "at least 0.88"),
    "public_f1_trashnet": ("F1", "printed"),
    "public_f1_noise": ("F1", "at least 0.72"),
    "public_f1_dark": ("F1", "at least 0.8"),
    "public_f1_jpeg": ("F1", "printed"),
    "public_f1_blur": ("F1", "printed"),
    "public_f1_background": ("F1", "printed"),
    "public_macs": ("MACs", "at most 400000"),
    "public_score": ("score", "at most 0.003"),
    "cpu_hours": ("hours", "at most 4"),
}


def figures(quick: bool = False, folder: Path | None = None) -> Figures:
    """Return this part's figures; quick ones are those of the first seed."""
    if not WASTE7.is_dir():
        return without(WASTE7)
    with tempfile.TemporaryDirectory() as name:
        clone = cloned((folder or Path(name)) / "clone")
        return headline(clone, SEEDS[:1] if quick else SEEDS)


def cloned(folder: Path) -> Path:
    """Return a clone of the last commit with the waste7 network and photographs."""
    if not folder.exists():
        run(ROOT, "git", "clone", "--quiet", str(ROOT), str(folder))
        shutil.copyfile(RECORD / "network.yaml", folder / "network.yaml")
        source = (WASTE7 / name for name in ("train.csv", "public", "public_truth.csv"))
        train, test, truth = map(str, source)
        weighin = (sys.executable, "-m", "weighin", "import", train)
        run(folder, *weighin, "--test", test, "--truth", truth)
    return folder


def headline(clone: Path, seeds: tuple[int, ...]) -> Figures:
    """Build each seed; return the figures, the middle of the seeds."""
    rows = []
    for seed in seeds:
        began = time.perf_counter()
        build(clone, seed, {})
        hours = (time.perf_counter() - began) * cores() / 3600
        rows.append({**handed_in(clone), "cpu_hours": hours})
    return {
        f"result.{name}": figure([row[name] for row in rows], *AIMS[name], COMMAND) for name in AIMS
    }


def handed_in(clone: Path) -> dict[str, float]:
    """Return what the public test says of a clone's submission."""
    metrics = read_json(clone / "submission/metrics.json")
    return {
        "public_f1": metrics["test_f1"],
        "public_f1_trashnet": trashnet_f1(clone),
        **{f"public_f1_{kind}": value for kind, value in degraded_f1(clone).items()},
        "public_macs": metrics["macs"],
        "public_score": metrics["test_score"],
    }


def trashnet_f1(clone: Path) -> float:
    """Return the mean F1 of the TrashNet classes on the public test."""
    from weighin.grading.grade import compared, read_truth
    from weighin.grading.score import class_f1
    from weighin.label_csv import read_labels

    labels = read_labels(clone / "submission/submission.csv").by_name()
    classes = set(labels.values())
    truth = read_truth(clone / "data/test_truth.csv", labels, classes, "the submission", "")
    table = compared(labels, truth)
    values = dict(zip(table.classes, class_f1(table.counts), strict=True))
    return mean(float(values[name]) for name in TRASHNET)


def degraded_f1(clone: Path) -> dict[str, float]:
    """Return macro F1 on the public test by corruption of the report's."""
    import numpy as np

    from weighin.grading.model import open_model
    from weighin.grading.runtime import Runner
    from weighin.grading.score import confusion
    from weighin.images import load
    from weighin.label_csv import read_labels
    from weighin.report.evaluation import CORRUPTIONS

    model = open_model(clone / "submission/model.onnx")
    runner, truth = Runner(model), read_labels(WASTE7 / "public_truth.csv").by_name()
    files = sorted((WASTE7 / "public").iterdir())
    images = [load(file.read_bytes(), model.size, model.turn_tall).pixels for file in files]
    found = {}
    for kind, (_, corrupt) in CORRUPTIONS.items():
        changed = [corrupt(image, row) for row, image in enumerate(images)]
        best = [int(runner.logits(image[np.newaxis]).argmax()) for image in changed]
        labels = [model.classes[index] for index in best]
        found[kind] = confusion([truth[file.name] for file in files], labels).f1
    return found


def build(clone: Path, seed: int, changes: Mapping[str, Any]) -> None:
    """Bring the clone to what its pipeline makes of a seed and some other parameters."""
    write_params(clone, {"seed": seed, **changes})
    run(clone, sys.executable, "-m", "dvc", "repro")


def write_params(clone: Path, changes: Mapping[str, Any]) -> None:
    """Write the waste7 parameters, with changes under dotted names."""
    from weighin.params import Params, load
    from weighin.validation import commented, with_values

    params = with_values(load(RECORD / "params.yaml"), changes)
    write_text(clone / "params.yaml", commented(Params, asdict(params)))


def run(folder: Path, *command: str) -> None:
    """Run a command in a clone, with the clone's own code."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    env = {**os.environ, "PYTHONPATH": str(folder / "src"), "PATH": path}
    subprocess.run(command, cwd=folder, env=env, check=True)


if __name__ == "__main__":
    pin()
    print(told(figures(folder=Path(sys.argv[1]) if sys.argv[1:] else None)))
