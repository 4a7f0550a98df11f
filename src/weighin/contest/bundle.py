"""What a participant hands in: a ZIP file of `weighin submit`, tried by `weighin preflight`.

The bundle has the same bytes wherever it is made from the same files; so have the smoke images, a
small folder of awkward ones such as a test folder may hold.
"""

import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from weighin.contest.grading import Grader, Outcome, grade_submission
from weighin.contest.submissions import ANSWERS, MAX_BYTES, MODEL, Submission, read_file
from weighin.data.versioning import dvc
from weighin.determinism import generator, output
from weighin.errors import DataError, OutputError, WeighinError
from weighin.files import canonical_json, sha256, write_bytes
from weighin.grading.limits import Limits
from weighin.grading.recount import count_file
from weighin.params import load
from weighin.report.signing import observe_build, uncommitted

NEEDED = (MODEL, ANSWERS, "metrics.json", "provenance.json", "MODEL_CARD.md")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a ZIP file can hold
ORIENTATION = 0x0112
REBUILD = "run `dvc repro`"


@dataclass(frozen=True)
class Check:
    """One thing that an organizer's grader needs, and what to fix where it is not so."""

    name: str
    ok: bool
    said: str


def submit(project: Path, out: Path) -> tuple[list[str], str]:
    """Write the bundle of a project's submission to `out`.

    Returns:
        The names in it, and what keeps others from rebuilding it; empty where nothing does.

    Raises:
        DataError: an output is missing or older than what it is made from, or the outputs do not
            belong together.
    """
    if out.suffix.lower() != ".zip":
        raise OutputError(f"{out} is no name of a ZIP file", f"name it {out.stem}.zip")
    if out.exists() and not _is_bundle(out):
        raise OutputError(f"{out} is there already, and no bundle", "name another file")
    folder = project / "submission"
    files = {name: _read(folder / name) for name in NEEDED}
    signed = folder / "provenance.dsse.json"
    if signed.is_file():
        files[signed.name] = signed.read_bytes()
    _check_together(folder, files)
    _check_current(project)
    source = _source(project)
    files["source.json"] = canonical_json(source).encode()
    write_bytes(out, zipped(files))
    return sorted(files), _missing(project, source)


def _missing(project: Path, source: dict[str, str | None]) -> str:
    """Return what a source lacks to be rebuilt from, and the command that brings it."""
    if source["commit"] is None:
        if changed := uncommitted(project):
            return f"not committed: {', '.join(changed)}; git commit -a, push it, submit again"
        return "there is no commit: git add -A && git commit, push it, submit again"
    if source["repository"] is None:
        return "Git has no remote: git remote add origin URL, push to it, submit again"
    return ""


def _is_bundle(path: Path) -> bool:
    try:
        return read_file(path, "source.json") is not None
    except WeighinError:
        return False


def zipped(files: dict[str, bytes]) -> bytes:
    """Return a ZIP file whose bytes depend on names and contents alone."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as bundle:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            bundle.writestr(entry, files[name])
    return out.getvalue()


def preflight(path: Path, limits: Limits, image: str | None = None) -> list[Check]:
    """Return what an organizer would find: each check of a bundle, a folder or an ONNX file."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - errors name it, also where it is "."
    checks: list[Check] = []
    try:
        for name in MAX_BYTES:
            read_file(path, name)
        checks.append(Check("it can be read", True, ""))
    except WeighinError as error:
        return [Check("it can be read", False, f"{error.problem}; {error.fix}")]
    with tempfile.TemporaryDirectory(prefix="weighin-") as name:
        place = Path(name)
        images = write_smoke(place / "smoke")
        grader = Grader(place / "smoke", limits, image)
        outcome = grade_submission(Submission("preflight", path), grader, place / "graded")
    said = "; to fix: ".join(filter(None, (outcome.said, outcome.fix)))
    checks.append(Check("the grader takes the model", outcome.is_graded, said))
    if not outcome.is_graded:
        return checks
    missing = set(images) - outcome.labels.keys()
    said = f"no label for {', '.join(sorted(missing))}" if missing else ""
    checks.append(Check("it labels awkward images", not missing, said))
    checks += _claims(path, outcome)
    return checks


def verdict(checks: list[Check]) -> dict[str, Any]:
    """Return the checks as `weighin preflight --json` writes them."""
    return {
        "ready": all(check.ok for check in checks),
        "checks": [{"name": c.name, "ok": c.ok, "said": c.said} for c in checks],
    }


def _claims(path: Path, outcome: Outcome) -> list[Check]:
    """Return whether the files beside a model say what the grader finds."""
    found: list[Check] = []
    counted = outcome.costs and outcome.costs.macs
    metrics = read_file(path, "metrics.json")
    if metrics is not None:
        claimed = _json(metrics).get("macs")
        said = "" if claimed == counted else f"metrics.json says {claimed}, the graph {counted:,}"
        found.append(Check("its MACs are those of the graph", not said, said))
    answers = read_file(path, ANSWERS)
    if answers is not None:
        known = set(outcome.classes)
        labels = [line.rpartition(",")[2] for line in answers.decode(errors="replace").split("\n")]
        other = sorted(set(labels[1:]) - known - {""})
        said = f"{ANSWERS} has classes that the model does not: {', '.join(other[:5])}"
        found.append(Check("its labels are classes of the model", not other, said if other else ""))
    return found


def _json(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", REBUILD) from None


def _check_together(folder: Path, files: dict[str, bytes]) -> None:
    """Check that a model is the one that the metrics and the provenance are about."""
    counted, metrics = count_file(folder / MODEL), _json(files["metrics.json"])
    if metrics.get("macs") != counted.macs:
        claim = f"{folder / 'metrics.json'} says {metrics.get('macs')} MACs"
        raise DataError(f"{claim}, {MODEL} does {counted.macs:,}", REBUILD)
    subjects = _json(files["provenance.json"]).get("subject", [])
    recorded = {Path(each["name"]).name: each["digest"]["sha256"] for each in subjects}
    for name in (MODEL, ANSWERS):
        if recorded.get(name) != sha256(files[name]):
            raise DataError(f"{folder / name} is not the file that provenance.json names", REBUILD)


def _check_current(project: Path) -> None:
    """Check that data, parameters and code are those that the submission was made from.

    Raises:
        DataError: DVC says that one of them changed since.
    """
    changed: dict[str, list[str]] = {}
    for stage, entries in json.loads(dvc(project, "status", "--json") or "{}").items():
        for entry in entries:
            for found in entry.values() if isinstance(entry, dict) else ():
                for path, how in found.items():
                    names = how if isinstance(how, dict) else {path: how}  # of a file of parameters
                    changed.setdefault(stage, []).extend(map(str, names))
    if changed:
        stages = "; ".join(f"{stage}: {', '.join(names[:5])}" for stage, names in changed.items())
        problem = f"submission/ is older than what it is made from ({stages})"
        raise DataError(problem, f"{REBUILD}, and `dvc add data` where data/ changed")


def _source(project: Path) -> dict[str, str | None]:
    """Return where the submission can be rebuilt from: Git's remote and commit, if any.

    No commit is named where a tracked file differs from it, and no password in an address.
    """
    remote = output("git", "config", "--get", "remote.origin.url", folder=project) or ""
    return {
        "repository": re.sub(r"(?<=://)[^/@]*@", "", remote) or None,
        "commit": observe_build(project).commit,
        "seed": str(load(project / "params.yaml").seed),
    }


def write_smoke(folder: Path) -> list[str]:
    """Write the images into a new folder and return their names."""
    for name, make in IMAGES.items():
        write_bytes(folder / name, make())
    return sorted(IMAGES)


def _picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    coarse = generator(0, "smoke", height, width).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _turned() -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return _saved(_picture(60, 90), "JPEG", exif=exif)


def _sixteen_bit() -> bytes:
    ramp = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    return _saved(Image.fromarray(ramp), "PNG")


def _animated() -> bytes:
    frames = [_picture(40, 40 + more).resize((40, 40)) for more in range(3)]
    return _saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def _long_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 200_000)
    return _saved(_picture(48, 64), "PNG", pnginfo=info)


IMAGES: dict[str, Callable[[], bytes]] = {
    "plain.jpg": lambda: _saved(_picture(96, 96), "JPEG"),
    "tall.jpg": lambda: _saved(_picture(400, 20), "JPEG"),
    "wide.png": lambda: _saved(_picture(16, 500), "PNG"),
    "one pixel.png": lambda: _saved(_picture(1, 1), "PNG"),
    "large.jpg": lambda: _saved(_picture(3000, 4000), "JPEG"),
    "grey.jpg": lambda: _saved(_picture(80, 80, "L"), "JPEG"),
    "cmyk.jpg": lambda: _saved(_picture(80, 80, "CMYK"), "JPEG"),
    "palette.png": lambda: _saved(_picture(64, 64, "P"), "PNG"),
    "transparent.png": lambda: _saved(_picture(64, 64, "RGBA"), "PNG"),
    "sixteen-bit.png": _sixteen_bit,
    "long-text.png": _long_text,
    "turned.jpg": _turned,
    "animated.gif": _animated,
    "image.webp": lambda: _saved(_picture(64, 64), "WEBP"),
    "UPPER.JPG": lambda: _saved(_picture(64, 64), "JPEG"),
    "유리병.jpg": lambda: _saved(_picture(64, 64), "JPEG"),
    "folder/inside.jpg": lambda: _saved(_picture(64, 64), "JPEG"),
    "truncated.jpg": lambda: _saved(_picture(96, 96), "JPEG")[:900],
    "empty.jpg": lambda: b"",
    "text.jpg": lambda: b"this is no image\n",
}
