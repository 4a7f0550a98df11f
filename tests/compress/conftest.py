from pathlib import Path

import pytest
from small import make_pack, trained

from weighin.training.weights import Trained


@pytest.fixture(autouse=True)
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second process: what a team does is tested in tests/training."""
    monkeypatch.setenv("WEIGHIN_WORKERS", "1")


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small packed data set; tests only read it."""
    return make_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="session")
def network(packed: Path) -> Trained:
    """A network that labels every validation image of the pack rightly."""
    return trained(packed)
