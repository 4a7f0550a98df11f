"""The README's one-liners for the scripts of the system that this one replaces, each run for real."""

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
SMALLER = ["-S", "search.trials=2", "-S", "tune.trials=2", "-S", "decompose.trials=2"]


def test_each_script_has_a_line():
    assert LINES.keys() == LEFT.keys()


@pytest.mark.parametrize("script", sorted(LEFT))
def test_the_line_leaves_what_the_script_was_for(script, built, tmp_path):
    project = copied(built, tmp_path)
    shutil.copyfile(project / "work/search/network.yaml", project / "network.yaml")
    command = shlex.split(LINES[script])
    if command[:3] == ["dvc", "exp", "run"]:
        (project / LEFT[script]).unlink()
        smaller = (
            SMALLER if "seed" not in LINES[script] else [*SMALLER, "-S", "prepare.sizes=[[46,64]]"]
        )
        command = [*command[:3], *smaller, *command[3:]]
    run(project, *command)
    assert (project / LEFT[script]).stat().st_size > 0
