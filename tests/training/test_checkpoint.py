"""A state is whole or it is not there: torn, starved and killed writers."""

import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import Run, digest
from weighin.files import write_bytes
from weighin.training.weights import State, load_state, pack_state, unpack_state


@pytest.fixture
def state() -> State:
    arrays = {"weights": np.arange(5, dtype=np.float32), "optimizer.0.step": np.float32([3])}
    return State(arrays, 2, [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 1 / 3}])


def test_a_state_comes_back_as_it_was(state: State, tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.state", pack_state(state))
    back = unpack_state(load_state(tmp_path / "a.state"))
    assert back is not None
    assert (back.epoch, back.history) == (state.epoch, state.history)
    assert back.arrays.keys() == state.arrays.keys()
    for name, array in state.arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)


def test_a_state_torn_anywhere_is_never_loaded(state: State, tmp_path: Path) -> None:
    data, path = pack_state(state), tmp_path / "a.state"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert load_state(path) == b""
    path.write_bytes(data)
    assert load_state(path) == data


def test_a_state_with_a_turned_bit_is_never_loaded(
    state: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(pack_state(state))
    data[-1] ^= 1
    (tmp_path / "a.state").write_bytes(data)
    assert load_state(tmp_path / "a.state") == b""
    assert capsys.readouterr().err == "a.state is damaged: beginning again\n"


def test_no_state_is_the_start_and_killed_drafts_are_swept(state: State, tmp_path: Path) -> None:
    (tmp_path / ".a.state.x1y2z3w4").write_bytes(b"half")
    assert load_state(tmp_path / "a.state") == b""
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_state_of_a_run_ends_in_the_same_bytes(run: Run, tmp_path: Path) -> None:
    whole = digest(run())
    path = tmp_path / "scratch" / "train.state"
    path.write_bytes(path.read_bytes()[:-7])
    (tmp_path / "weights").unlink()
    done = run()
    assert digest(done) == whole
    assert done.stderr.startswith("train.state is damaged: beginning again\ntrain 1/4")


def test_a_full_disk_keeps_the_last_good_state(
    command: Callable[..., list[str]], run: Run, tmp_path: Path
) -> None:
    whole = digest(run(epochs=24))
    shutil.rmtree(tmp_path / "scratch")
    with subprocess.Popen(command(epochs=24), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, 100))
        said = process.stderr.read()
    assert process.returncode == 9
    path = tmp_path / "scratch" / "train.state"
    assert said.splitlines()[-2:] == [
        f"cannot write {path}: File too large",
        "  to fix: free some space or make its folder writable, then run the same command again",
    ]
    kept = unpack_state(path.read_bytes())
    assert kept is not None
    assert 1 <= kept.epoch < 24
    assert [p.name for p in path.parent.iterdir()] == ["train.state"]
    again = run(epochs=24)
    assert digest(again) == whole
    assert again.stderr.startswith(f"train {kept.epoch + 1}/24")
