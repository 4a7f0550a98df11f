"""What a network says of a class that it never saw: `python -m bench.unseen`.

    result.unseen_auroc  chance that the margin between the two best classes is larger for a
                         photograph of a known class than for one of the unseen class; 0.5: no
                         difference, 1: a threshold tells them apart

The network of rows/small.yaml is trained without Metal (whose photographs have the same source as
those of three other classes, so that no background gives it away), and labels the public test.
"""

import csv
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.figures import Figures, figure, is_quick, told, without
from bench.results import run, write_params
from bench.waste7 import ROOT, WASTE7
from weighin.determinism import pin
from weighin.files import write_csv

COMMAND = "python -m bench.unseen"
UNSEEN = "Metal"


def figures(quick: bool = False) -> Figures:
    """Return this part's figures."""
    if not WASTE7.is_dir():
        return without(WASTE7)
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name) / "clone"
        run(ROOT, "git", "clone", "--quiet", str(ROOT), str(clone))
        _import_known(clone)
        write_params(clone, _changes(20 if quick else 100))
        run(clone, sys.executable, "-m", "dvc", "repro", "infer")
        auroc = _auroc(clone)
    return {"result.unseen_auroc": figure([auroc], "AUROC", "printed", COMMAND)}


def _import_known(clone: Path) -> None:
    with (WASTE7 / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["class"] != UNSEEN]
    names = ("filename", "class", "group")
    write_csv(clone / "known.csv", names, ([row[name] for name in names] for row in rows))
    source = (clone / "known.csv", WASTE7, WASTE7 / "public")
    table, images, test = map(str, source)
    command = ("import", table, "--images", images, "--test", test)
    run(clone, sys.executable, "-m", "weighin", *command)


def _changes(epochs: int) -> dict[str, Any]:
    return {
        "prepare.sizes": ((64, 64),),
        "search.enabled": False,
        "search.network": "small",
        "tune.enabled": False,
        "train.epochs": epochs,
        "decompose.enabled": False,
        "finetune.enabled": False,
    }


def _auroc(clone: Path) -> float:
    """Return the share of pairs (known, unseen) where the known one has the larger margin."""
    import numpy as np

    from weighin.grading.model import open_model
    from weighin.grading.predict import predict
    from weighin.label_csv import read_labels

    truth = read_labels(WASTE7 / "public_truth.csv").by_name()
    found = predict(open_model(clone / "submission/model.onnx"), WASTE7 / "public")
    unseen = np.array([truth[name] == UNSEEN for name in found.names])
    known, never = found.margins[~unseen, None], found.margins[None, unseen]
    return float(np.mean((known > never) + 0.5 * (known == never)))


if __name__ == "__main__":
    pin()
    print(told(figures(is_quick())))
