"""The grader, `weighin predict` and the infer stage write one submission; torch agrees with it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from weighin.grading.model import open_model
from weighin.grading.predict import list_files, predict, read
from weighin.images import load, normalize
from weighin.network.build import build as build_network
from weighin.network.build import initialize
from weighin.network.export import export_onnx
from weighin.network.spec import read_spec, shipped

Build = Callable[..., Path]
ROOT = Path(__file__).parents[2]
DATA = os.environ.get("WEIGHIN_DATA")


def run(project: Path, *command: object) -> None:
    subprocess.run(
        [sys.executable, *map(str, command)],
        check=True,
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )


def test_three_ways_one_submission(build: Build, pictures: Path, tmp_path: Path) -> None:
    (pictures / "bad.jpg").write_bytes(b"not a picture")
    (pictures / "a,b.png").symlink_to("red.png")
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    (project / "submission").mkdir()
    pictures.rename(project / "data/test")
    build().rename(project / "submission/model.onnx")
    for name in ("dvc.yaml", "params.yaml", "requirements.lock", "src", "stages"):
        (project / name).symlink_to(ROOT / name)
    model, folder = "submission/model.onnx", "data/test"
    run(project, "stages/infer.py")
    run(project, "-m", "weighin.grading", model, folder, "graded")
    run(project, "-c", "from weighin.cli import main; main()", "predict", model, folder, "p.csv")
    written = {
        (project / name).read_bytes()
        for name in ("submission/submission.csv", "graded/submission.csv", "p.csv")
    }
    assert len(written) == 1
    assert written.pop().decode().splitlines()[:3] == [
        "filename,class",
        '"a,b.png",red',
        "bad.jpg,green",
    ]


@pytest.mark.skipif(DATA is None, reason="WEIGHIN_DATA names no photographs")
@pytest.mark.parametrize("network", ["seed", "small"])
def test_the_labels_are_torchs(tmp_path: Path, network: str) -> None:
    """On every photograph of the public test, and they are not all the same label."""
    spec = read_spec(shipped(network))
    classes = [f"c{k}" for k in range(9)]
    module = build_network(spec, len(classes))
    initialize(module, 1)
    facts = {"classes": json.dumps(classes), "fallback": "c0", "turn_tall": "true"}
    export_onnx(module.eval(), spec.input, tmp_path / "model.onnx", facts)
    folder = Path(str(DATA), "waste7/public")
    found = predict(open_model(tmp_path / "model.onnx"), folder)
    pixels = np.stack([load(read(folder, n), spec.input, True).pixels for n in list_files(folder)])
    with torch.inference_mode():
        logits = torch.cat(
            [module(torch.from_numpy(normalize(part))) for part in np.array_split(pixels, 8)]
        )
    assert [classes[k] for k in logits.argmax(1).tolist()] == list(found.labels)
    assert len(set(found.labels)) > 1
