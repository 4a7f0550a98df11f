"""The README's lines, run for real: one for each script of the system that this one replaces, the
recipes of "Vary it", the versions of "Your own images".
"""

import json
import re
import shlex
import shutil
import textwrap

import pytest

from tests.pipeline.closure import ROOT
from tests.pipeline.project import copied, run
from weighin.data.pack import packed_sizes
from weighin.files import read_yaml, sha256_tree
from weighin.network.spec import read_spec

pytestmark = pytest.mark.pipeline
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLE = re.compile(r"^\| `([a-z_]+\.py)[^|]*` \| `([^`]+)` \|$", re.MULTILINE)
LINES = dict(TABLE.findall(README))
VARY = README.partition("## Vary it\n")[2].partition("\n## ")[0]
RECIPES = dict(re.findall(r"^    (dvc exp run .*?) +# (.+)$", VARY, re.MULTILINE))
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


def test_the_recipes_are_those_that_are_tested():
    assert list(RECIPES.values()) == list(FOUND)


def another_budget(project):
    trials = json.loads((project / "work/search/trials.json").read_text())["trials"]
    assert all(trial["macs"] <= 1_000_000 for trial in trials if trial["state"] == "complete")
    assert read_yaml(project / "params.yaml")["contest"]["max_macs"] == 1_000_000


def another_size(project):
    assert packed_sizes(project / "work/prepare") == [(46, 64)]
    assert read_spec(project / "work/search/network.yaml").input == (46, 64)


def other_rules(project):
    metrics = json.loads((project / "submission/metrics.json").read_text())
    assert {"f1", "macs", "score"} <= metrics.keys()
    assert metrics["score"] == pytest.approx(1 - metrics["f1"], abs=1e-6)


def own_rows(project):
    assert not (project / "work/search/trials.json").exists(), "it searched"
    small = ROOT / "src/weighin/network/rows/small.yaml"
    assert read_spec(project / "work/search/network.yaml") == read_spec(small)
    assert (project / "submission/submission.csv").stat().st_size > 0


FOUND = {  # each recipe's check, and the last stage that it needs
    "another budget": (another_budget, "search"),
    "another input size": (another_size, "search"),
    "another contest's rules": (other_rules, "report"),
    "your own rows, no search": (own_rows, "infer"),
}


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_recipe_of_the_readme(recipe, built, tmp_path):
    project = copied(built, tmp_path)
    command = shlex.split(recipe)
    sizes = ["-S", "prepare.sizes=[[64,64]]"] if "network=small" in recipe else []
    check, last = FOUND[RECIPES[recipe]]
    run(project, *command[:3], *SMALLER[:4], *sizes, *command[3:], last)
    check(project)


def test_the_data_commands_of_the_readme(built, tmp_path):
    """Each line in its order: an import, a commit, what changed, back again, a remote."""
    project, store = copied(built, tmp_path), tmp_path / "store"
    before = sha256_tree(project / "data")
    photos = project / "photos"
    shutil.copytree(project / "data/train", photos / "train")
    shutil.copytree(project / "data/test", photos / "public")
    shutil.copyfile(project / "data/test_truth.csv", photos / "public_truth.csv")
    shutil.rmtree(next((photos / "train").iterdir()))
    (import_, *_), lines = (block.splitlines() for block in blocks("Your own images"))
    said = [run(project, "sh", "-ec", line).stdout for line in (import_, *lines[:2])]
    assert "recorded in data.dvc" in said[0]
    assert "modified:" in said[2].lower()
    assert sha256_tree(project / "data") != before
    run(project, "sh", "-ec", lines[2])
    assert sha256_tree(project / "data") == before
    run(project, "sh", "-ec", lines[3].replace("/mnt/store", str(store)))
    assert sum(path.is_file() for path in store.rglob("*")) > 100


def test_handing_in_and_organizing(built, tmp_path):
    """The participant's two lines, and those of the organizer's that need no container engine."""
    project = copied(built, tmp_path)
    enters, organizes = (block.splitlines() for block in blocks("Hand in, and organize"))
    for line in enters:
        assert "FIX" not in run(project, "sh", "-ec", line).stdout
    shutil.copytree(project / "data/test", project / "secret")
    shutil.copyfile(project / "data/test_truth.csv", project / "secret.csv")
    (project / "entries").mkdir()
    shutil.move(project / "team.zip", project / "entries")
    init, images, board, container, rebuild = organizes
    assert images == "make images"
    run(project, "sh", "-ec", init)
    assert (project / "handout/RULES.md").is_file()
    decided, first = run(project, "sh", "-ec", board).stdout.splitlines()[:2]
    assert re.fullmatch(r"ranked on the private part, \d+ images", decided)
    assert first.startswith("   1  team: score ")
    assert (project / "board/leaderboard.html").is_file()
    for line in (container, rebuild):  # tests/docker runs them
        assert line.startswith(board)


def blocks(title):
    """Return the blocks of commands of a section, without their indent."""
    section = README.partition(f"## {title}\n")[2].partition("\n## ")[0]
    found = re.findall(r"(?:^    .+\n)+", section, re.MULTILINE)
    return [textwrap.dedent(block) for block in found]
