"""The made project, read by all the tests or owned by one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from made_project import make_params, make_project

from weighin.params import Params
from weighin.report.inputs import Inputs
from weighin.report.page import write_report


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with every stage's outputs; tests only read it."""
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one's own, which is also the working directory."""
    monkeypatch.chdir(make_project(tmp_path / "project"))
    return tmp_path / "project"


@pytest.fixture
def inputs() -> Inputs:
    return Inputs()


@pytest.fixture
def params() -> Params:
    return make_params()


@pytest.fixture
def report(inputs: Inputs, params: Params) -> Callable[[], Path]:
    """Write the report of the working directory's project; return its folder."""

    def write(params: Params = params) -> Path:
        write_report(inputs, params, Path("submission"))
        return Path("submission")

    return write


@pytest.fixture(scope="session")
def written(whole: Path) -> Path:
    """The submission of a whole project, its report written; tests only read it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(whole)
        write_report(Inputs(), make_params(), Path("submission"))
    return whole / "submission"
