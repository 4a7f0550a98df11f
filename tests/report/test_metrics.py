"""metrics.json against a hand's computation, and against the grader on the same answers."""

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from made_project import COLOURS, HOSTILE
from PIL import Image

from weighin.grading.grade import RESAMPLES, grade
from weighin.params import Params, Report

Write = Callable[..., Path]
GLASS = "Glass|$x$ & co"


def metrics(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return loaded


def f1s(split: str) -> dict[str, float]:
    path = Path(f"submission/plots/f1-{split}.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return {row["class"]: float(row["f1"]) for row in csv.DictReader(file)}


def waste(f1: float) -> float:
    return 204 / 13_865_375 + 1 - f1 / 0.83656


def test_the_figures_are_those_of_a_hand(written: Path) -> None:
    found = metrics(written)
    # 2 TP / (2 TP + FP + FN): 3 of 4 blue right; 2 of 3 glass, one blue called so; all metal
    f1 = (6 / 7 + 4 / 6 + 6 / 7) / 3
    # one class right, two F1s of 2/3 on four images
    test_f1 = (1 + 2 / 3 + 2 / 3) / 3
    intervals = {key: found.pop(key) for key in list(found) if key.endswith(("_low", "_high"))}
    risks = {key: found.pop(key) for key in list(found) if key.endswith("_under_floor")}
    assert found == {
        "accuracy": 0.8,
        # nine images at 85 %, eight of them right; one at 95 %, wrong
        "calibration_error": round(0.9 * (8 / 9 - 0.85) + 0.1 * 0.95, 6),
        "f1": round(f1, 6),
        "macs": 3 * 8 * 8 + 3 * 3 + 3,
        "parameters": 3 * 3 + 3,
        "size": (written / "model.onnx").stat().st_size,
        "peak_memory": 4 * (3 * 8 * 8 + 3),
        "robustness": {"background": 1.0, "blur": 1.0, "dark": 1.0, "jpeg": 1.0, "noise": 1.0},
        "score": round(waste(f1), 6),
        "test_accuracy": 0.75,
        "test_f1": round(test_f1, 6),
        "test_score": round(waste(test_f1), 6),
    }
    assert intervals.keys() == {
        f"{split}{name}_{end}"
        for split in ("", "test_")
        for name in ("f1", "score")
        for end in ("low", "high")
    }
    assert risks.keys() == {"f1_under_floor", "test_f1_under_floor"}
    for split in ("", "test_"):
        assert intervals[f"{split}f1_low"] < found[f"{split}f1"] < intervals[f"{split}f1_high"]
        assert intervals[f"{split}score_low"] < found[f"{split}score"]


def test_the_grader_says_the_same(project: Path, params: Params, report: Write) -> None:
    """Figures, interval, risk and score on data/test: equal to the digit, none copied."""
    for place, k in enumerate((0, 1, 2, 2)):
        Path("data/test").mkdir(exist_ok=True)
        Image.new("RGB", (9, 8), COLOURS[k]).save(f"data/test/t{place}.png")
    graded = grade(
        Path("submission/model.onnx"),
        Path("data/test"),
        Path("graded"),
        truth=Path("data/test_truth.csv"),
        contest=params.contest,
    )
    submissions = (Path("graded/submission.csv"), Path("submission/submission.csv"))
    assert submissions[0].read_bytes() == submissions[1].read_bytes()
    found = metrics(report(dataclasses.replace(params, report=Report(RESAMPLES, 5, True))))
    said = graded.facts["quality"]
    assert {name: found[f"test_{name}"] for name in ("f1", "accuracy", "score")} == {
        "f1": round(said["f1"], 6),
        "accuracy": said["accuracy"],
        "score": round(said["score"]["value"], 6),
    }
    bootstrap = said["bootstrap"]
    assert found["test_f1_low"] == round(bootstrap["low"], 6)
    assert found["test_f1_high"] == round(bootstrap["high"], 6)
    assert found["test_f1_under_floor"] == bootstrap["under_floor"] > 0
    assert f1s("test") == {name: round(row["f1"], 6) for name, row in said["per_class"].items()}
    assert (found["macs"], found["parameters"]) == (
        graded.facts["model"]["macs"],
        graded.facts["model"]["parameters"],
    )


def test_a_class_that_never_occurs_has_no_f1(project: Path, report: Write) -> None:
    """Nobody's image is metal and none is called so: macro F1 is of the other two."""
    table = Path("work/prepare/images.csv")
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("validation") or ",Metal," not in line]
    table.write_text("".join(kept), encoding="utf-8")
    logits = np.load("work/finetune/validation_logits.npy")[:7]
    logits[6] = (0, 3, 0)
    np.save("work/finetune/validation_logits.npy", logits)
    np.save("work/prepare/validation_8x8.npy", np.load("work/prepare/validation_8x8.npy")[:7])
    found = metrics(report())
    assert f1s("validation") == {HOSTILE: 0.857143, GLASS: 0.857143}
    assert found["f1"] == 0.857143
