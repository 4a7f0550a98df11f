"""What an organizer hands out: rules, a smoke folder, bundles for other platforms; `preflight`.

    params.yaml            the section `contest`, which every command takes by --contest
    own_score.py           the Python file that computes the score, where it is the organizer's own
    RULES.md               the score and the MAC rule, with worked numbers
    smoke/                 awkward images that a model must be able to label
    grader.json            the grader's image and its ID, where an engine has it
    codabench/             a competition bundle: github.com/codalab/codabench
    evalai/                a challenge configuration and its script: github.com/Cloud-CV/EvalAI

Both platforms run the grader's own code. Their bundles are the organizer's: what lacks in them is
the secret test, and README.md in each says where it goes.

`weighin preflight` tries a submission as the organizer will, on the smoke images. These have the
same bytes wherever they are written.
"""

import dataclasses
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image, ImageDraw, PngImagePlugin

from weighin.contest.grading import Grader, Outcome, grade_submission, image_id
from weighin.contest.ranking import broken_limits, hard_limits
from weighin.contest.submissions import (
    ANSWERS,
    MAX_BYTES,
    Submission,
    json_object,
    read_file,
    zipped,
)
from weighin.determinism import generator
from weighin.errors import OutputError, WeighinError
from weighin.files import write_bytes, write_json
from weighin.grading.grade import read_submission
from weighin.grading.limits import Limits
from weighin.grading.score import LIMITS, Metrics, is_own, own_formula, score
from weighin.images import EXIF_ORIENTATION
from weighin.label_csv import read_labels
from weighin.params import Contest

TEMPLATES = Path(__file__).parent / "templates"
OWN = "own_score.py"  # one name for all: score.py and main.py are those of the platforms' scripts
EXAMPLES = ((0.4, 400_000), (0.6, 1_000_000), (0.84, 400_000), (0.9, 400_000))  # F1, MACs
RULES, TERMS = "The rules are in RULES.md of the handout.", "Whoever enters accepts the rules."
SECRET = "Put test/ (the secret images) and truth.csv (filename,class) here"
DOCKERFILE = """# docker build -t {image}-codabench . && push it to where the workers find it
FROM {image}
# Codabench gives the command, and folders that only root may write to
ENTRYPOINT []
USER 0:0
"""
EVALAI = f"""{SECRET.replace("here", "into annotations/secret.zip")}:

    zip -r annotations/secret.zip test truth.csv

The workers need the package weighin: run them in an image made from the grader's.
"""


def write_handout(folder: Path, contest: Contest, name: str, image: str) -> list[str]:
    """Write the handout into a new folder and return what is in it.

    Raises:
        OutputError: the folder holds something already, or cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty", "name a new folder")
    own = _own_score(contest)
    formula = OWN if own else contest.score
    page = _rules(contest, name, formula)
    rules = dataclasses.asdict(dataclasses.replace(contest, score=formula))
    params = yaml.safe_dump({"contest": rules}, sort_keys=False)
    told = {"contest.json": json.dumps(rules, indent=2) + "\n", **own}  # beside each script
    files = {"params.yaml": params, "RULES.md": page, **own, **_codabench(name, image, page, told)}
    written: dict[str, str | bytes] = {**files, "codabench/logo.png": _logo()}
    written |= _evalai(name, told)
    for path, content in written.items():
        write_bytes(folder / path, content.encode() if isinstance(content, str) else content)
    write_smoke(folder / "smoke")
    write_json(folder / "grader.json", {"image": image, "id": image_id(image)})
    return sorted([*written, "smoke/", "grader.json"])


def _own_score(contest: Contest) -> dict[str, str]:
    """Return {name: text} of the Python file that computes the score, if one of one's own does.

    Raises:
        ParamsError: there is no such file, or it holds no score.
    """
    if not is_own(contest.score):
        return {}
    own_formula(contest.score)
    return {OWN: Path(contest.score).read_text(encoding="utf-8")}


def _rules(contest: Contest, name: str, formula: str) -> str:
    """Return RULES.md; its models keep the limits, so that their numbers show the formula."""
    parameters = min(contest.reference_params // 10, contest.max_params or sys.maxsize)
    rows = []
    for f1, most in EXAMPLES:
        macs = min(most, contest.max_macs)
        found = score(contest, Metrics(f1, f1, macs, parameters))
        rows.append((f1, macs, parameters, found.parts, found.value))
    limits = [(name, getattr(contest, name), LIMITS[name][1]) for name in hard_limits(contest)]
    told = dataclasses.replace(contest, score=formula)
    return _filled("rules.md", contest=told, name=name, rows=rows, limits=limits)


def _filled(template: str, **values: Any) -> str:
    """Return a template with its values, which are the organizer's own: nothing is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(**values)


def _codabench(name: str, image: str, rules: str, told: dict[str, str]) -> dict[str, str]:
    files = {
        "competition.yaml": _filled("codabench.yaml", name=name, image=image) + "\n",
        "README.md": f"{SECRET}, into reference_data/; build the image; zip this folder.\n",
        "Dockerfile": DOCKERFILE.format(image=image),
        "rules.md": rules,
        "terms.md": f"{TERMS}\n",
        "scoring_program/metadata.yaml": "command: python3 score.py\n",
        **{f"scoring_program/{path}": text for path, text in told.items()},
        "scoring_program/score.py": _text("codabench_score.py"),
        "reference_data/README.md": f"{SECRET}.\n",
    }
    return {f"codabench/{path}": text for path, text in files.items()}


def _evalai(name: str, told: dict[str, str]) -> dict[str, str | bytes]:
    script = {
        "__init__.py": "from .main import evaluate\n",
        "main.py": _text("evalai_main.py"),
        **told,
    }
    files: dict[str, str | bytes] = {
        "challenge_config.yaml": _filled("evalai.yaml", name=name) + "\n",
        "README.md": EVALAI,
        "logo.png": _logo(),
        "templates/description.html": f"<p>{RULES}</p>\n",
        "templates/evaluation.html": f"<p>{RULES}</p>\n",
        "templates/guidelines.html": "<p>Hand in a model.onnx, or a ZIP file with one.</p>\n",
        "templates/terms.html": f"<p>{TERMS}</p>\n",
        "evaluation_script.zip": zipped({path: text.encode() for path, text in script.items()}),
        "annotations/secret.zip": zipped({"README.md": f"{SECRET}.\n".encode()}),
    }
    return {f"evalai/{path}": content for path, content in files.items()}


def _logo() -> bytes:
    """Return a picture of a pair of scales."""
    picture = Image.new("RGB", (256, 256), "#0072b2")
    draw = ImageDraw.Draw(picture)
    draw.line([(128, 50), (128, 200), (84, 200), (172, 200)], "white", 10)
    draw.line([(50, 70), (206, 90)], "white", 8)
    for x, y in ((50, 70), (206, 90)):
        draw.line([(x - 30, y + 60), (x, y), (x + 30, y + 60)], "white", 5)
        draw.chord([(x - 34, y + 40), (x + 34, y + 84)], 0, 180, "white")
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


# --- the smoke images


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
    exif[EXIF_ORIENTATION] = 6
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


# --- a submission tried on them


@dataclass(frozen=True)
class Check:
    """One thing that an organizer's grader needs, and what to fix where it is not so."""

    name: str
    ok: bool
    said: str


def preflight(
    path: Path, limits: Limits, image: str | None = None, contest: Contest | None = None
) -> list[Check]:
    """Return what an organizer would find: each check of a bundle, a folder or an ONNX file.

    With a `contest` its hard limits are checked too; nothing is scored, as no truth is here.
    """
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
    if contest and outcome.costs:
        broken = broken_limits(contest, outcome.costs.of_file(outcome.bytes))
        said = f"{'; '.join(broken)}; to fix: hand in a smaller model" if broken else ""
        checks.append(Check("it keeps the limits of the contest", not broken, said))
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
        claimed = json_object(metrics).get("macs")
        said = "" if claimed == counted else f"metrics.json says {claimed}, the graph {counted:,}"
        found.append(Check("its MACs are those of the graph", not said, said))
    answers = read_file(path, ANSWERS)
    if answers is not None:
        found.append(_labels_check(answers, outcome.classes))
    return found


def _labels_check(answers: bytes, classes: Sequence[str]) -> Check:
    """Return whether a submission.csv is read, and each of its labels is a class of the model."""
    with tempfile.TemporaryDirectory(prefix="weighin-") as folder:
        path = Path(folder) / ANSWERS
        path.write_bytes(answers)
        try:
            files = [row.filename for row in read_labels(path).rows]
            labels, notes = read_submission(path, classes, files)
            ok, said = set(labels.values()) <= set(classes), "; ".join(notes)
            said += "" if ok else f"; to fix: write in {ANSWERS} the classes of the model"
        except WeighinError as error:
            ok, said = False, f"{error.problem}; to fix: {error.fix}"
    return Check("its labels are classes of the model", ok, said.replace(str(path), ANSWERS))
