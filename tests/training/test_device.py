"""What a recipe's device needs: said in a sentence, before any work, where it is not here."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from small_job import RECIPE, make_job

from weighin.cli.project import check
from weighin.errors import MachineError
from weighin.files import read_json, write_json
from weighin.training import device
from weighin.training.process_group import _backend
from weighin.training.train import train_job

CUDA = replace(RECIPE, device="cuda")
ROOT = Path(__file__).parents[2]
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@without_gpu
def test_cuda_without_a_gpu_is_refused_before_any_work(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        train_job("train", make_job(packed, recipe=CUDA), "auto", tmp_path / "scratch")
    assert (
        caught.value.problem == f"recipe.device is cuda, and torch {torch.__version__} finds none"
    )
    assert caught.value.fix.startswith("set recipe.device to cpu, or run this on a machine with")
    assert not (tmp_path / "scratch").exists()


@without_gpu
def test_check_asks_for_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text)
    assert CliRunner().invoke(check).exit_code == 0
    Path("params.yaml").write_text(text.replace("  device: cpu", "  device: cuda"))
    assert isinstance(CliRunner().invoke(check).exception, MachineError)


def test_a_gpu_without_the_precision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    device.require_device(CUDA)
    with pytest.raises(MachineError) as caught:
        device.require_device(replace(CUDA, precision="bf16"))
    assert caught.value.problem == "recipe.precision is bf16, and Tesla T4 does not compute in it"
    assert caught.value.fix == "set recipe.precision to float32"


def test_a_stage_records_the_gpu_that_computed_it_and_no_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"gpu": "NVIDIA A100", "driver": "535.104.05"}
    monkeypatch.setattr(device, "_cuda_facts", lambda: facts)
    device.record_device(tmp_path, CUDA)
    assert read_json(tmp_path / "device.json") == facts
    device.record_device(tmp_path, RECIPE)
    assert not (tmp_path / "device.json").exists()
    write_json(tmp_path / "device.json", facts)
    device.record_device(tmp_path, None)
    assert not (tmp_path / "device.json").exists()


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build",
    ],
)
def test_the_driver_is_read_from_the_kernel(tmp_path: Path, line: str) -> None:
    (tmp_path / "version").write_text(f"{line}\nGCC version:  gcc version 12.3.0\n")
    assert device.driver_version(tmp_path / "version") == "535.104.05"
    assert device.driver_version(tmp_path / "none") == "unknown"


def test_auto_is_one_process_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.worker_setting("auto", CUDA) == 2
    assert device.worker_setting(3, CUDA) == 3
    assert device.worker_setting("auto", RECIPE) == "auto"


def test_trials_go_round_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    for number in range(4):
        device.use_gpu(number, CUDA)
        device.use_gpu(number, RECIPE)
    assert used == [0, 1, 0, 1]


def test_gpus_of_their_own_talk_over_nccl_and_one_gpu_for_all_over_gloo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [_backend(size) for size in (2, 3)] == ["cpu:gloo,cuda:nccl", "gloo"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert _backend(2) == "gloo"
