"""Which machines compute the promised bytes, and what is said of the others."""

import importlib.metadata
import subprocess
from pathlib import Path

import pytest

from weighin import doctor, machine
from weighin.errors import MachineError
from weighin.files import write_text

ROOT = Path(__file__).parents[1]


def with_flags(monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    facts = {"model name": "A processor", "flags": flags}
    monkeypatch.setattr(machine, "_cpuinfo", lambda: facts)


def test_this_machine_is_one_that_the_promise_is_about() -> None:
    assert machine.unportable() == ""
    assert machine.processor()
    machine.require_portable()


@pytest.mark.parametrize(
    ("flags", "lacks"),
    [("sse2 avx", "avx2 and fma"), ("avx2", "fma"), ("fma", "avx2"), ("", "avx2")],
)
def test_a_processor_without_avx2(monkeypatch: pytest.MonkeyPatch, flags: str, lacks: str) -> None:
    with_flags(monkeypatch, flags)
    monkeypatch.delenv(machine.ALLOW, raising=False)
    with pytest.raises(MachineError) as caught:
        machine.require_portable()
    assert f"the processor lacks {lacks}" in caught.value.problem
    assert f"{machine.ALLOW}=1" in caught.value.fix
    for value, allowed in (("", False), ("0", False), ("1", True)):
        monkeypatch.setenv(machine.ALLOW, value)
        assert machine.allows_unportable() == allowed
    machine.require_portable()
    assert str(doctor._processor()).startswith("FAULT processor  A processor")


def test_another_architecture_or_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "confstr", lambda name: None)
    assert machine.unportable() == "the C library is not glibc"
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    assert machine.unportable() == "this is linux on aarch64, not Linux on x86-64"


def test_libraries_are_compared_with_the_lock(tmp_path: Path) -> None:
    numpy = importlib.metadata.version("numpy")
    lock = tmp_path / "requirements.lock"
    write_text(lock, f"numpy=={numpy} \\\n    --hash=sha256:00\nnumpy-of-others==1.0\nclick==0.1\n")
    missing, other = machine.library_differences(lock)
    assert str(missing) == "numpy-of-others is not installed, requirements.lock says 1.0"
    assert (other.name, other.locked) == ("click", "0.1")
    assert machine.library_differences(tmp_path / "none.lock") == []
    assert machine.library_differences(ROOT / "requirements.lock") == []


def test_the_doctor_looks_at_everything_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = {finding.topic: finding for finding in doctor.examine(tmp_path)}
    assert {"processor", "python", "pins", "libraries", "disk", "memory", "git", "engine"} <= set(
        found
    )
    assert found["processor"].level == found["python"].level == "ok"
    assert "git init" in found["git"].fix
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert doctor._git(tmp_path).fix == f"git config --global --add safe.directory {tmp_path}"
    assert "requirements.lock" in found["libraries"].text
    lacking = doctor._room("disk", 1e9, doctor.LEAST_DISK, "free some space")
    assert str(lacking) == "note  disk       1.0 GB free, under 2 GB; free some space"


def test_pins_that_are_not_in_force_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    assert doctor._pins().level == "FAULT"
    assert "MKL_CBWR" in doctor._pins().text


def test_the_doctor_names_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"gpu": "NVIDIA A100", "driver": "535", "cuda": "13.0", "cudnn": 9, "torch": "2.14.1"}
    monkeypatch.setattr("weighin.training.device.here", lambda: facts)
    assert [str(one).split(":")[0] for one in doctor._gpu()] == [
        "ok    gpu        NVIDIA A100 (driver 535, cuda 13.0, cudnn 9, torch 2.14.1)"
    ]
    monkeypatch.setattr("weighin.training.device.here", dict)
    assert list(doctor._gpu()) == []
