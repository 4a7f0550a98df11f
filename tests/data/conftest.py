"""Parameters, and real photographs where WEIGHIN_DATA names them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from weighin.params import Prepare, load


@pytest.fixture
def params() -> Prepare:
    """The shipped parameters of prepare, at sizes that cost little."""
    shipped = load(Path(__file__).parents[2] / "params.yaml").prepare
    return replace(shipped, sizes=((24, 32), (16, 16)), group="none")


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real photographs, or a skip."""
    if "WEIGHIN_DATA" not in os.environ:
        pytest.skip("WEIGHIN_DATA does not name a folder of photographs")
    return Path(os.environ["WEIGHIN_DATA"])
