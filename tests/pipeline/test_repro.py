"""`dvc repro` end to end: the same bytes anywhere, nothing twice, and again after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.pipeline.project import IMAGES, SIDE, copied, environment, run
from weighin.data.demo import draw_demo
from weighin.files import read_yaml, sha256_tree

pytestmark = pytest.mark.pipeline
KEPT = {
    "search": ".weighin/evaluations",
    "train": ".weighin/scratch/train",
    "finetune": ".weighin/scratch/finetune",
}
OUTS = {"search": "work/search", "train": "work/train", "finetune": "work/finetune"}


def test_what_is_handed_in(built):
    assert sorted(path.name for path in (built / "submission").iterdir()) == [
        "MODEL_CARD.md",
        "metrics.json",
        "model.onnx",
        "plots",
        "provenance.json",
        "report.html",
        "submission.csv",
    ]
    lines = (built / "submission/submission.csv").read_text().splitlines()
    names = sorted(path.name for path in (built / "data/test").iterdir())
    assert lines[0] == "filename,class"
    assert [line.split(",")[0] for line in lines[1:]] == names
    metrics = json.loads((built / "submission/metrics.json").read_text())
    assert {"f1", "macs", "score", "f1_under_floor", "test_f1", "test_score"} <= metrics.keys()


def test_a_second_repro_does_nothing_and_says_so(built):
    before = (built / "dvc.lock").read_bytes()
    start = time.process_time(), time.perf_counter()
    done = run(built, "dvc", "repro")
    assert time.perf_counter() - start[1] < 30  # under 5 s where nothing else runs
    ran = [line for line in done.stdout.splitlines() if line.startswith("Running stage")]
    assert ran == ["Running stage 'inputs':"]  # looks at the files that parameters name
    assert (done.stderr, "> python stages/inputs.py" in done.stdout) == ("", True)
    assert (built / "dvc.lock").read_bytes() == before
    assert not (built / ".weighin/scratch/train").exists()


def test_another_folder_time_zone_language_and_hash_seed_give_the_same_lock(built, tmp_path):
    other = tmp_path / "another folder" / "project"
    run(built, "git", "clone", "--quiet", ".", str(other))
    draw_demo(other / "data", IMAGES, SIDE)
    settings = {"TZ": "Asia/Kathmandu", "LANG": "tr_TR.UTF-8", "PYTHONHASHSEED": "77"}
    run(other, "dvc", "repro", "-f", "--no-run-cache", WEIGHIN_WORKERS="1", **settings)
    assert (other / "dvc.lock").read_bytes() == (built / "dvc.lock").read_bytes()


@pytest.mark.parametrize("name", ["search", "train", "finetune"])
def test_a_killed_stage_goes_on_to_the_same_bytes(name, built, tmp_path):
    project = copied(built, tmp_path)
    shutil.rmtree(project / OUTS[name])
    shutil.rmtree(project / KEPT[name], ignore_errors=True)
    command = [sys.executable, f"stages/{name}.py"]
    killed = subprocess.Popen(
        command,
        cwd=project,
        env=environment(project),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    first = killed.stderr.readline()
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert first.startswith((f"{name} 1/", f"{name}: epochs 1/"))
    left = [path for path in (project / KEPT[name]).rglob("*") if path.is_file()]
    assert left, "nothing was kept for the next run"
    again = run(project, *command)
    assert not again.stderr.startswith(first), "it began again from the start"
    assert sha256_tree(project / OUTS[name]) == sha256_tree(built / OUTS[name])
    assert not (project / ".weighin/scratch" / name).exists()


def test_an_experiment_of_another_seed_gives_another_lock_and_shows_its_figures(built, tmp_path):
    project = copied(built, tmp_path)
    run(project, "git", "add", "-A")
    run(project, "git", "commit", "--quiet", "-m", "built")
    run(project, "dvc", "exp", "run", "--name", "short", "-S", "finetune.epochs=1", "-S", "seed=3")
    shown = json.loads(run(project, "dvc", "exp", "show", "--json").stdout)
    experiment = shown[-1]["experiments"][0]["revs"][0]["data"]
    metrics = experiment["metrics"]["submission/metrics.json"]["data"]
    assert {"f1", "macs", "score"} <= metrics.keys()
    params = experiment["params"]["params.yaml"]["data"]
    assert (params["finetune"]["epochs"], params["seed"]) == (1, 3)
    old, new = (read_yaml(root / "dvc.lock")["stages"]["train"] for root in (built, project))
    assert old["outs"][0]["path"] == new["outs"][0]["path"] == "work/train"
    assert old["outs"][0]["md5"] != new["outs"][0]["md5"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("train.epochs=banana", 'params.yaml: train.epochs is "banana"; it must be a whole number'),
        ("+train.teacher=2", "params.yaml: train.teacher was removed; delete its line"),
        ("+train.epoch=3", "params.yaml: unknown key train.epoch; did you mean train.epochs?"),
    ],
)
def test_a_wrong_value_stops_an_experiment_with_the_allowed_range(built, tmp_path, change, said):
    project = copied(built, tmp_path)
    changes = ["-S", change, "-S", "train.all_data=true"]
    done = run(project, "dvc", "exp", "run", *changes, check=False)
    assert done.returncode != 0
    assert said in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_a_small_number_is_a_number(built, tmp_path):
    project = copied(built, tmp_path)
    run(project, "dvc", "exp", "run", "-S", "finetune.lr=1e-6", "-S", "finetune.epochs=1")
    assert "lr: 1e-06" in (project / "params.yaml").read_text()
    history = json.loads((project / "work/finetune/history.json").read_text())
    assert 0 < history[-1]["lr"] <= 1e-6


def test_data_without_a_test_folder_make_an_empty_submission(built, tmp_path):
    project = copied(built, tmp_path)
    shutil.rmtree(project / "data/test")
    (project / "data/test_truth.csv").unlink()
    run(project, "dvc", "add", "--quiet", "data")
    run(project, "dvc", "repro")
    assert (project / "submission/submission.csv").read_text() == "filename,class\n"
    metrics = json.loads((project / "submission/metrics.json").read_text())
    assert "f1" in metrics
    assert "test_f1" not in metrics
