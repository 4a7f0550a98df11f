"""results/waste7 holds together: its files are those of its record, and grade to its figures."""

import hashlib
import os
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest

from weighin.files import read_json, read_yaml
from weighin.grading.grade import grade, read_contest
from weighin.grading.recount import count_file

RESULT = Path(__file__).parents[1] / "results/waste7"
METRICS = read_json(RESULT / "submission/metrics.json")
WASTE7 = Path(os.environ.get("WEIGHIN_DATA", "")) / "waste7"
LOCK = read_yaml(RESULT / "dvc.lock")["stages"]
OUTPUTS = {out["path"]: out["md5"] for stage in LOCK.values() for out in stage["outs"]}


@pytest.mark.parametrize(
    "path", sorted(p.name for p in (RESULT / "submission").iterdir() if p.is_file())
)
def test_files_are_those_of_the_record(path: str) -> None:
    content = (RESULT / "submission" / path).read_bytes()
    assert hashlib.md5(content, usedforsecurity=False).hexdigest() == OUTPUTS[f"submission/{path}"]


def test_the_parameters_are_those_of_the_record() -> None:
    """They are read by the code of the commit that built it, not by today's."""
    values = read_yaml(RESULT / "params.yaml")
    for stage in LOCK.values():
        for name, recorded in stage.get("params", {}).get("params.yaml", {}).items():
            assert reduce(getitem, name.split("."), values) == recorded, name


def test_the_model_counts_what_the_metrics_say() -> None:
    found = count_file(RESULT / "submission/model.onnx")
    assert (found.macs, found.parameters) == (METRICS["macs"], METRICS["parameters"])


@pytest.mark.skipif(not WASTE7.is_dir(), reason="WEIGHIN_DATA names no folder that holds waste7")
def test_the_grader_gives_the_same_submission(tmp_path: Path) -> None:
    model, contest = RESULT / "submission/model.onnx", read_contest(RESULT / "params.yaml")
    truth = WASTE7 / "public_truth.csv"
    found = grade(model, WASTE7 / "public", tmp_path, truth=truth, contest=contest)
    handed_in = RESULT / "submission/submission.csv"
    assert (tmp_path / "submission.csv").read_bytes() == handed_in.read_bytes()
    quality = found.facts["quality"]
    assert round(quality["f1"], 6) == METRICS["test_f1"]
    assert round(quality["score"]["value"], 6) == METRICS["test_score"]


def test_the_readme_says_so() -> None:
    text = (RESULT.parents[1] / "README.md").read_text(encoding="utf-8")
    shown = " ".join(text.split("<!-- waste7 -->")[1].split("<!-- end -->")[0].split())
    low, high = (f"{METRICS[f'test_f1_{end}']:.4f}" for end in ("low", "high"))
    assert f"macro F1 {METRICS['test_f1']:.4f} ({low} to {high})" in shown
    assert f"with {METRICS['macs']:,} MACs: score {METRICS['test_score']:.4f}." in shown


def test_the_page_says_how_robust_it_is() -> None:
    text = (RESULT.parents[1] / "docs/waste7.md").read_text(encoding="utf-8")
    for figure in (*METRICS["robustness"].values(), METRICS["calibration_error"], METRICS["f1"]):
        assert f" {figure:.4f} " in text
