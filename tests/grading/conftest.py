"""A model and pictures for the tests of the grader."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.small_models import make_model, write_pictures

Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def write(change: Callable[[Any], None] = lambda model: None, **parts: Any) -> Path:
        model = make_model(**parts)
        change(model)
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "pictures")
    return tmp_path / "pictures"
