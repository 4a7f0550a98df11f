"""dvc.lock is the record of this very code, so that a rebuild leaves it as it is."""

import json
from pathlib import Path

from .project import ROOT, run


def edited(checkout: Path) -> dict[str, list[str]]:
    """Return, for each stage, what Git holds and dvc.lock has another record of."""
    status = json.loads(run(checkout, "dvc", "status", "--json").stdout)
    kinds = ("changed deps", "changed outs", "changed params", "changed command")
    found = {
        stage: [
            name
            for change in changes
            if isinstance(change, dict)
            for kind in kinds
            for name, what in change.get(kind, {}).items()
            if what == "modified" or isinstance(what, dict)
        ]
        for stage, changes in status.items()
    }
    return {stage: names for stage, names in found.items() if names}


def test_the_record_is_of_this_code():
    assert edited(ROOT) == {}, "run `dvc repro` and commit dvc.lock and submission/metrics.json"


def test_an_edit_would_be_seen(tmp_path):
    run(ROOT, "git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone"))
    with (tmp_path / "clone/src/weighin/cli/__init__.py").open("a") as file:
        file.write("# an edit\n")
    assert "src/weighin" in edited(tmp_path / "clone")["report"]
