"""One plain line a step, on standard error."""

import pytest

from weighin import progress
from weighin.progress import Progress, say, span


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (200, "3m20s"),
        (3599, "59m59s"),
        (3599.6, "1h00m"),
        (7500, "2h05m"),
        (360000, "100h00m"),
    ],
)
def test_durations(seconds, text):
    assert span(seconds) == text


def test_lines_go_to_standard_error(capsys):
    say("one")
    assert capsys.readouterr() == ("", "one\n")


def test_time_left_is_at_the_rate_so_far(clock, capsys):
    shown = Progress("epochs", 10)
    clock[0] += 5
    shown.step("loss 1.5")
    clock[0] += 1
    shown.step("loss 1.2", 2)
    assert capsys.readouterr().err.splitlines() == [
        "epochs 1/10  loss 1.5  45s left",
        "epochs 3/10  loss 1.2  14s left",
    ]


def test_what_an_earlier_run_did_is_counted_but_not_timed(clock, capsys):
    shown = Progress("epochs", 10, done=4)
    shown.skip(2)
    clock[0] += 5
    shown.step("loss 1.5")
    assert capsys.readouterr().err == "epochs 7/10  loss 1.5  15s left\n"
