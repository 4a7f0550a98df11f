"""One project for the tests of this folder, built once by a real `dvc repro`."""

import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from filelock import FileLock

from tests.pipeline.closure import ROOT
from tests.pipeline.project import COPIED, make_project, run
from weighin.files import fingerprint, sha256_tree

MADE_OF = (*COPIED, "params.yaml", ".dvc/config", "tests/pipeline")


@pytest.fixture(scope="session")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built project, shared by all processes of pytest-xdist; tests that change it copy it.

    It stays in pytest's cache, so that the next run has it while all that it is made of is the
    same: `make test-area` is two runs, and three areas ask for it.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    if request.config.pluginmanager.has_plugin("cacheprovider"):
        shared = request.config.cache.mkdir("built")  # type: ignore[union-attr]
    facts = {name: sha256_tree(ROOT / name) for name in MADE_OF}
    key = fingerprint(facts | {"versions": [sys.version, version("torch"), version("dvc")]})
    root, done = shared / key / "project", shared / key / "done"
    with FileLock(shared / "built.lock"):
        if not done.is_file():
            for old in {*shared.glob("*/done"), done}:
                shutil.rmtree(old.parent, ignore_errors=True)
            make_project(root)
            run(root, "dvc", "repro", TZ="UTC", LANG="C.UTF-8", PYTHONHASHSEED="0")
            done.touch()
    return root
