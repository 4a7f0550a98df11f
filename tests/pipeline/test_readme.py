"""The README's line for each script of the system that this one replaces, run for real."""

import re
import shlex
import shutil

import pytest

from tests.pipeline.closure import ROOT
from tests.pipeline.project import copied, run

pytestmark = pytest.mark.slow
TABLE = re.compile(r"^\| `([a-z_]+\.py)[^|]*` \| `([^`]+)` \|$", re.MULTILINE)
LINES = dict(TABLE.findall((ROOT / "README.md").read_text(encoding="utf-8")))
LEFT = {
    "train.py": "work/train/weights.safetensors",
    "tune_architecture.py": "work/search/network.yaml",
    "tune_hyper.py": "work/tune/recipe.json",
    "decompose.py": "work/decompose/ranks.yaml",
    "finetune_inference.py": "submission/submission.csv",
    "inference.py": "submission.csv",
}
CHANGES = ("search.trials=2", "tune.trials=2", "decompose.trials=2", "contest.max_macs=20000000")
SMALLER = [word for change in CHANGES for word in ("-S", change)]


def test_each_script_has_a_line():
    assert LINES.keys() == LEFT.keys()


@pytest.mark.parametrize("script", sorted(LEFT))
def test_the_line_leaves_what_the_script_was_for(script, built, tmp_path):
    project = copied(built, tmp_path)
    shutil.copyfile(project / "work/search/network.yaml", project / "network.yaml")
    command = shlex.split(LINES[script])
    if command[:3] == ["dvc", "exp", "run"]:
        (project / LEFT[script]).unlink()
        command = [*command[:3], *SMALLER, *command[3:]]
    run(project, *command)
    assert (project / LEFT[script]).stat().st_size > 0
