"""What a parameter names decides the outcome: an edit of it is seen, in every kind of run."""

import json

import pytest

from tests.pipeline.project import TINY, commit, copied, run, set_params
from weighin.files import read_yaml, sha256_file

pytestmark = pytest.mark.pipeline
ROWS = """\
input: [24, 24]
width: 1.0
rows:
- [1, Conv, [8, 3, 2, null, 1, ReLU]]
- [1, GlobalAvgPool, []]
- [1, Flatten, []]
- [1, Linear, [classes]]
"""
SCORE = """\
def score(contest, metrics):
    '''Parameters in thousands, and the error rate.'''
    return {"size": metrics.parameters / 1000, "error": 1 - metrics.accuracy}
"""
OWN = {
    **TINY,
    "search.enabled": False,
    "search.network": "net.yaml",
    "contest.score": "my_score.py",
}


@pytest.fixture
def project(built, tmp_path):
    """A project whose network is a file of its own, built up to the search and committed."""
    root = copied(built, tmp_path)
    set_params(root, OWN)
    (root / "net.yaml").write_text(ROWS)
    (root / "my_score.py").write_text(SCORE)
    commit(root)
    run(root, "dvc", "repro", "search")
    commit(root)
    return root


def chosen(root):
    return read_yaml(root / "work/search/network.yaml")["rows"][0][2][0]


def test_an_edited_network_is_built_and_recorded(project):
    assert chosen(project) == 8
    (project / "net.yaml").write_text(ROWS.replace("[8, 3", "[16, 3"))
    run(project, "dvc", "repro", "search")
    assert chosen(project) == 16
    record = json.loads((project / "work/inputs/search.json").read_text())
    digest = sha256_file(project / "net.yaml")
    assert record == {"network": {"name": "net.yaml", "sha256": digest}}
    run(project, "dvc", "repro")
    provenance = json.loads((project / "submission/provenance.json").read_text())
    made_from = provenance["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {"name": "net.yaml", "digest": {"sha256": digest}} in made_from
    assert "my_score.py" in {one["name"] for one in made_from}
    found = json.loads((project / "submission/metrics.json").read_text())
    assert found["score"] == pytest.approx(found["parameters"] / 1000 + 1 - found["accuracy"])
    assert "Parameters in thousands" in (project / "submission/report.html").read_text()
    commit(project)
    done = run(project, "weighin", "verify", "--stage", "search")
    assert "every output is what dvc.lock records" in done.stdout


def test_a_temporary_experiment_names_the_file_that_git_does_not_track(project):
    (project / "other.yaml").write_text(ROWS)
    change = ["-S", "search.network=other.yaml"]
    done = run(project, "dvc", "exp", "run", "--temp", *change, "search", check=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "search.network is other.yaml" in said
    assert "git add other.yaml" in said


def test_a_queued_experiment_runs_its_own_code(project):
    """Though `weighin` is installed from the workspace, or first on PYTHONPATH there."""
    source = project / "src/weighin/search/stages.py"
    text = source.read_text()
    start = "def search(packed: Path, out: Path, params: Params, kept: Path) -> None:\n"
    assert text.count(start) == 1
    source.write_text(text.replace(start, f'{start}    say("CHANGED")\n'))
    run(project, *["dvc", "exp", "run", "--queue", "--name", "queued", "-S", "seed=5", "search"])
    source.write_text(text)
    done = run(project, *["dvc", "exp", "run", "--run-all", "--jobs", "1"], check=False)
    log = run(project, *["dvc", "queue", "logs", "queued"], check=False).stdout
    assert "CHANGED" in done.stdout + done.stderr + log
