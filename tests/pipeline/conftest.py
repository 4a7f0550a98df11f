"""One project for the tests of this folder, built once by a real `dvc repro`."""

from pathlib import Path

import pytest

from tests.pipeline.project import make_project, run


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built project; tests that change it must put it back, or copy it."""
    root = make_project(tmp_path_factory.mktemp("built") / "project")
    run(root, "dvc", "repro", TZ="UTC", LANG="C.UTF-8", PYTHONHASHSEED="0")
    return root
