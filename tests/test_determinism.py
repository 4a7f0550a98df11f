"""Addresses make streams, and pins restart the interpreter as it was started."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from weighin.determinism import PINS, generator, pin, pinned

UNPINNED = {name: value for name, value in os.environ.items() if name not in PINS}
TELL = "import os, sys; print(os.environ['MKL_CBWR'], sys.orig_argv[1:], sys.argv)"
PROGRAM = f"""from weighin.determinism import pin
pin()
{TELL}
sys.exit(7)
"""


def run(
    *arguments: str, cwd: Path | None = None, **extra: str
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *arguments]
    environment = UNPINNED | extra
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def first(*address: int | str) -> list[int]:
    return generator(*address).integers(0, 1000, 4).tolist()


def test_first_values_of_known_addresses():
    assert first(0, "train", "order", 3) == [286, 409, 521, 56]
    assert first() == [788, 393, 106, 371]
    assert generator(1, "a").random(2).tolist() == [0.8619206136792262, 0.5827827918985604]
    assert generator(1, "a").standard_normal(2).tolist() == [
        -2.9728306254125805,
        -0.8656622966680538,
    ]


@pytest.mark.parametrize("hash_seed", ["0", "77"])
def test_streams_are_the_same_in_another_process(hash_seed):
    script = "from weighin.determinism import generator as g\nprint(g(5, 'x', 2).integers(0, 9, 8))"
    other = run("-c", script, PYTHONHASHSEED=hash_seed, TZ="Asia/Kolkata", OMP_NUM_THREADS="3")
    assert other.stdout == f"{generator(5, 'x', 2).integers(0, 9, 8)}\n"


def test_addresses_are_apart():
    addresses = [
        *((), (0,), (1,), ("0",), ("",), (0, 1), (1, 0), (10,), (-1,), (0, "a"), ("a", 0)),
        *(("a", "b"), ("b", "a"), ("ab",), ("a b",), ("a\nb",), ("a\nstr:b",), ("a\\nstr:b",)),
        *(("a\\", "b"), ("a\\\nstr:b",), ("int:0",), (2**70,), (2**70 + 1,)),
    ]
    streams = {tuple(generator(*address).integers(0, 2**63, 4)) for address in addresses}
    assert len(streams) == len(addresses)


def test_a_stream_does_not_depend_on_what_others_drew():
    quiet = first(3, "shard", 1)
    neighbour = generator(3, "shard", 0)
    neighbour.random(1000)
    assert first(3, "shard", 1) == quiet
    assert first(3, "shard", 2) != quiet


def test_neighbouring_streams_are_not_correlated():
    rows = np.stack([generator("rows", i).standard_normal(2000) for i in range(40)])
    off = np.corrcoef(rows) - np.eye(40)
    assert abs(off).max() < 0.11  # five standard deviations of 1 / sqrt(2000)


def test_an_integer_of_numpy_is_the_same_address():
    assert first(np.int64(3), "a") == first(3, "a")


def test_this_process_is_pinned():
    assert pinned()
    assert all(os.environ[name] == value for name, value in PINS.items())


@pytest.mark.parametrize("name", sorted(PINS))
def test_every_pin_counts(monkeypatch, name):
    monkeypatch.delenv(name)
    assert not pinned()


def test_a_pinned_process_goes_on_as_it_is():
    assert "numpy" in sys.modules
    pin()


def test_a_script_restarts_as_it_was_started(tmp_path):
    script = tmp_path / "a script.py"
    script.write_text(PROGRAM)
    done = run("-W", "error", "-X", "utf8", str(script), "one", "two words", "--three=*")
    arguments = ["one", "two words", "--three=*"]
    started = ["-W", "error", "-X", "utf8", str(script), *arguments]
    assert done.stdout == f"COMPATIBLE {started} {[str(script), *arguments]}\n"
    assert (done.returncode, done.stderr) == (7, "")


def test_a_module_restarts_as_a_module(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run("-m", "program", "-v", "x", cwd=tmp_path)
    shown = [str(tmp_path / "program.py"), "-v", "x"]
    assert done.stdout == f"COMPATIBLE {['-m', 'program', '-v', 'x']} {shown}\n"
    assert (done.returncode, done.stderr) == (7, "")


def test_a_command_line_restarts_with_its_input(tmp_path):
    script = f"{PROGRAM.replace('sys.exit(7)', 'print(sys.stdin.read())')}"
    command = [sys.executable, "-c", script, "x"]
    done = subprocess.run(command, env=UNPINNED, input="fed", capture_output=True, text=True)
    assert done.stdout == f"COMPATIBLE {['-c', script, 'x']} ['-c', 'x']\nfed\n"


def test_what_was_printed_before_the_restart_is_not_lost():
    script = "print('before', end=' ')\nfrom weighin.determinism import pin\npin()\nprint('after')"
    assert run("-c", script).stdout == "before before after\n"


def test_other_pins_of_the_machine_are_overruled():
    script = "from weighin.determinism import *\npin()\nimport os\nprint(os.environ['MKL_CBWR'])"
    assert run("-c", script, MKL_CBWR="AVX512", OMP_NUM_THREADS="8").stdout == "COMPATIBLE\n"


@pytest.mark.parametrize(
    ("imports", "names"),
    [("numpy", "numpy"), ("numpy, sys; sys.modules['torch'] = sys", "numpy and torch")],
)
def test_it_is_too_late_once_numpy_is_loaded(imports, names):
    done = run("-c", f"import {imports}\nfrom weighin.determinism import pin\npin()")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"RuntimeError: pin() must run before {names} is imported"
    )
