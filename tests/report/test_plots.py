"""The tables of plots/: their exact text, and that real DVC draws them."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from made_project import make_project

from weighin.files import write_text
from weighin.params import Params
from weighin.report.inputs import Inputs
from weighin.report.page import write_report

BLUE = '"""><script>alert(1)"'
GLASS = "Glass|$x$ & co"
TABLES = {
    "classes": f"class,train,validation\n{BLUE},8,4\n{GLASS},6,3\nMetal,6,3\n",
    "train": "epoch,loss,lr\n0,2.0,0.1\n1,1.0,0.1\n2,0.6666666666666666,0.1\n3,0.5,0.1\n4,0.4,0.1\n"
    "5,0.3333333333333333,0.1\n6,0.2857142857142857,0.1\n7,0.25,0.1\n",
    "train-validation": "epoch,accuracy,f1\n1,0.125,0.1\n3,0.375,0.3\n5,0.625,0.5\n7,0.875,0.7\n",
    "finetune": "epoch,loss,lr\n0,2.0,0.1\n1,1.0,0.1\n2,0.6666666666666666,0.1\n",
    "finetune-validation": "epoch,accuracy,f1\n1,0.125,0.1\n",
    "layers": "layer,macs_before,macs_after\nstage<1>.conv,900,400\nhead,100,100\n",
    "confusion-validation": "actual,predicted\n"
    + f"{BLUE},{BLUE}\n" * 3
    + f"{BLUE},{GLASS}\n"
    + f"{GLASS},{GLASS}\n" * 2
    + f"{GLASS},Metal\n"
    + "Metal,Metal\n" * 3,
    "f1-validation": "class,images,precision,recall,f1\n"
    f"{BLUE},4,1.0,0.75,0.857143\n{GLASS},3,0.666667,0.666667,0.666667\nMetal,3,0.75,1.0,0.857143\n",
    "f1-test": "class,images,precision,recall,f1\n"
    f"{BLUE},1,1.0,1.0,1.0\n{GLASS},2,1.0,0.5,0.666667\nMetal,1,0.5,1.0,0.666667\n",
    "confusion-test": f"actual,predicted\n{BLUE},{BLUE}\n{GLASS},{GLASS}\n{GLASS},Metal\n"
    "Metal,Metal\n",
    "calibration": "from,images,confidence,accuracy\n0.8,9,0.85,0.888889\n0.9,1,0.95,0.0\n",
    "tune": "number,state,macs,f1,score\n0,complete,1900000,0.57,0.4556702279305619\n",
}
FIGURES = [
    "calibration",
    "classes",
    "confusion-test",
    "confusion-validation",
    "finetune",
    "layers",
    "search",
    "train",
]

# what the project's dvc.yaml says of the plots
PLOTS = """
plots:
- classes: {template: bar_horizontal, x: {P/classes.csv: train}, y: {P/classes.csv: class}}
- loss: {template: linear, x: epoch, y: {P/train.csv: loss, P/finetune.csv: loss}}
- f1: {template: linear, x: epoch, y: {P/train-validation.csv: f1, P/finetune-validation.csv: f1}}
- f1s: {template: bar_horizontal, x: {P/f1-validation.csv: f1}, y: {P/f1-validation.csv: class}}
- search: {template: scatter, x: macs, y: {P/search.csv: f1}}
- layers: {template: bar_horizontal, x: {P/layers.csv: macs_after}, y: {P/layers.csv: layer}}
- confusion: {template: confusion, x: predicted, y: {P/confusion-validation.csv: actual}}
- calibration: {template: linear, x: confidence, y: {P/calibration.csv: accuracy}}
""".replace("P/", "submission/plots/")


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_exactly_this(written: Path, name: str) -> None:
    assert (written / f"plots/{name}.csv").read_bytes().decode() == TABLES[name]


def test_the_search_keeps_what_was_never_measured(written: Path) -> None:
    lines = (written / "plots/search.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "number,state,macs,f1,score"
    assert lines[1] == f"0,complete,1000000,0.5,{1_000_000 / 13_865_375 + 1 - 0.5 / 0.83656!r}"
    assert lines[8:] == ["7,pruned,900000,,", "8,over-budget,90000000,,"]


def test_these_files_and_no_others(written: Path) -> None:
    names = sorted(path.name for path in (written / "plots").iterdir())
    expected = [f"{name}.csv" for name in (*TABLES, "search")] + [f"{name}.svg" for name in FIGURES]
    assert names == sorted(expected)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_an_svg_of_its_own(written: Path, name: str) -> None:
    """It parses, names no program or date, and leads nowhere."""
    text = (written / f"plots/{name}.svg").read_text(encoding="utf-8")
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "Matplotlib" not in text
    links = [
        value
        for part in root.iter()
        for key, value in part.attrib.items()
        if key.endswith("href") or "url(" in value
    ]
    ids = {part.get("id") for part in root.iter()}
    assert links
    assert {link.partition("#")[2].rstrip(")") for link in links} <= ids


def dvc(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"DVC_NO_ANALYTICS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def drawn(found: dict[str, Any], name: str) -> dict[str, Any]:
    content: dict[str, Any] = found[name][0]["content"]
    return content


def test_dvc_shows_the_plots_and_the_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params
) -> None:
    monkeypatch.chdir(make_project(tmp_path / "project"))
    write_report(Inputs(), params, Path("submission"))
    write_text(Path("dvc.yaml"), f"metrics: [submission/metrics.json]\n{PLOTS}")
    dvc("init", "--no-scm", "--quiet")
    shown = json.loads(dvc("plots", "show", "--json"))
    assert shown.keys() == {"data"}, shown.get("errors")
    found = shown["data"]
    names = "calibration classes confusion f1 f1s layers loss search"
    assert sorted(found) == names.split()
    rows = drawn(found, "confusion")["data"]["values"]
    pairs = [(row["actual"], row["predicted"]) for row in rows]
    # the template counts rows: ten images, one of them glass that was called metal
    assert len(pairs) == 10
    assert pairs.count((GLASS, "Metal")) == 1
    # no gap in a line: every row that is drawn has its number
    for name, field in (("loss", "loss"), ("f1", "f1"), ("calibration", "accuracy")):
        rows = drawn(found, name)["data"]["values"]
        assert rows
        assert all(row[field] != "" for row in rows), name
    metrics = json.loads(dvc("metrics", "show", "--json"))
    data = metrics[""]["data"]["submission/metrics.json"]["data"]
    assert data == json.loads(Path("submission/metrics.json").read_text(encoding="utf-8"))
