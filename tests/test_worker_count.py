"""How many workers a setting means."""

import pytest

from weighin.errors import ParamsError
from weighin.workers import worker_count


def test_workers_are_at_most_one_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEIGHIN_WORKERS", raising=False)
    assert worker_count(64, 4) == 4
    assert worker_count(3, 4) == 3
    monkeypatch.setenv("WEIGHIN_WORKERS", "2")
    assert worker_count(64, 4) == 2


@pytest.mark.parametrize("text", ["many", "-1", "", "1.5", "²"])
def test_a_worker_count_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("WEIGHIN_WORKERS", text)
    with pytest.raises(ParamsError) as caught:
        worker_count("auto", 4)
    assert caught.value.problem == f"WEIGHIN_WORKERS is {text}; it must be auto or a whole number"
