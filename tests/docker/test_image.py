"""The grader image: the same from any clone, small, and with nothing that it does not need."""

import json
import re
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from weighin.determinism import PINS

from .conftest import ROOT, Builds, Built, Engine

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def commit_time(clones: tuple[Path, Path]) -> int:
    command = ["git", "-C", str(clones[0]), "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.fixture(scope="module")
def files(engine: Engine, image: Built, short: Path) -> Iterator[tarfile.TarFile]:
    """The image's one layer."""
    saved = short / "saved.tar"
    assert engine.run("docker", "save", "--output", saved, image.tag).returncode == 0
    with tarfile.open(saved) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        (layer,) = json.load(manifest)[0]["Layers"]
        with tarfile.open(fileobj=archive.extractfile(layer)) as tree:
            yield tree
    saved.unlink()


def test_two_builds_are_one_image(image: Built, builds: Builds, commit_time: int) -> None:
    again = builds(1)
    assert (again.id, again.tree, again.size) == (image.id, image.tree, image.size)
    other = builds(0, SOURCE_DATE_EPOCH=str(commit_time + 1))
    assert other.id != image.id
    assert other.tree != image.tree


def test_is_small(image: Built) -> None:
    assert image.size <= 260_000_000


def test_holds_what_it_needs_and_no_more(files: tarfile.TarFile) -> None:
    names = [name.removeprefix("./") for name in files.getnames()]
    parts = {part for name in names for part in Path(name).parts}
    assert {"onnxruntime", "numpy", "PIL", "simplejpeg", "weighin", "sbom.cdx.json"} <= parts
    foreign = r"torch|torchvision|dvc|pip|setuptools|ensurepip|pandas|gcc|cc|cc1|ld|apt|dpkg|perl"
    assert [part for part in parts if re.fullmatch(foreign, part)] == []
    assert [part for part in parts if part.startswith(("pip-", "torch-", "dvc-"))] == []
    programs = {m.name for m in files if m.isreg() and re.search(r"(^|/)s?bin/[^/]*$", m.name)}
    assert {Path(name).name for name in programs} == {"python3.11"}
    packages = {Path(name).parts[3] for name in names if name.startswith("opt/weighin/weighin/")}
    modules = (
        *("errors", "files", "file_names", "label_csv", "text_table", "image_formats"),
        *("images", "determinism", "params", "validation", "parallel"),
    )
    assert packages - {"__pycache__"} == {"grading", "__init__.py", *(f"{m}.py" for m in modules)}


def test_one_owner_one_time_and_nobody_may_write(files: tarfile.TarFile, commit_time: int) -> None:
    assert {(member.uid, member.gid) for member in files} == {(0, 0)}
    assert {int(member.mtime) for member in files} == {commit_time}
    loose = [m.name for m in files if not m.issym() and m.mode & (stat.S_IWGRP | stat.S_IWOTH)]
    assert [name.strip("./") for name in loose] == ["tmp"]
    assert [m.name for m in files if m.isreg() and m.mode & (stat.S_ISUID | stat.S_ISGID)] == []


def test_bill_of_materials(files: tarfile.TarFile) -> None:
    (name,) = [name for name in files.getnames() if name.endswith("opt/sbom.cdx.json")]
    written = files.extractfile(name)
    assert written is not None
    bill = json.load(written)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    lock = (ROOT / "docker/grader.lock").read_text(encoding="utf-8")
    locked = {f"{n}@{v}" for n, v in re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE)}
    purls = {str(part["purl"]) for part in bill["components"]}
    python = {purl.removeprefix("pkg:pypi/").replace(".yaml", "-yaml") for purl in purls}
    assert {name for name in python if not name.startswith("pkg:")} == locked


def test_runs_as_a_number_pinned_and_reports_to_nobody(engine: Engine, image: Built) -> None:
    asked = engine.run("docker", "inspect", "--format", "{{json .Config}}", image.tag, check=True)
    config = json.loads(asked.stdout)
    assert config["User"] == "65534:65534"
    pins = {f"{name}={value}" for name, value in PINS.items()}
    assert pins | {"ORT_DISABLE_TELEMETRY=1"} <= set(config["Env"])
