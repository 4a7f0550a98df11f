"""One project for the tests of this folder, built once by a real `dvc repro`."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

from tests.pipeline.project import make_project, run


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built project, shared by all processes of pytest-xdist; tests that change it copy it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    root = shared / "built" / "project"
    with FileLock(shared / "built.lock"):
        if not (root / "dvc.lock").is_file():
            root.parent.mkdir(exist_ok=True)
            make_project(root)
            run(root, "dvc", "repro", TZ="UTC", LANG="C.UTF-8", PYTHONHASHSEED="0")
    return root
