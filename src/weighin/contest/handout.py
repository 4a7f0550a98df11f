"""What an organizer hands out: the rules, a smoke folder; and bundles for other platforms.

    params.yaml            the section `contest`, which every command takes by --contest
    RULES.md               the score and the MAC rule, with worked numbers
    smoke/                 awkward images that a model must be able to label
    grader.json            the grader's image and its ID, where an engine has it
    codabench/             a competition bundle: github.com/codalab/codabench
    evalai/                a challenge configuration and its script: github.com/Cloud-CV/EvalAI

Both platforms run the grader's own code. Their bundles are the organizer's: what lacks in them is
the secret test, and README.md in each says where it goes.
"""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image, ImageDraw

from weighin.contest.bounds import image_id
from weighin.contest.bundle import write_smoke, zipped
from weighin.errors import OutputError
from weighin.files import write_bytes, write_json
from weighin.grading.score import Metrics, score
from weighin.params import Contest

TEMPLATES = Path(__file__).parent / "templates"
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
    rules = {"contest": dataclasses.asdict(contest)}
    page = _rules(contest, name)
    files = {"params.yaml": yaml.safe_dump(rules, sort_keys=False), "RULES.md": page}
    files |= _codabench(name, image, page, json.dumps(rules["contest"], indent=2) + "\n")
    written: dict[str, str | bytes] = {**files, "codabench/logo.png": _logo()}
    written |= _evalai(name, json.dumps(rules["contest"], indent=2) + "\n")
    for path, content in written.items():
        write_bytes(folder / path, content.encode() if isinstance(content, str) else content)
    write_smoke(folder / "smoke")
    write_json(folder / "grader.json", {"image": image, "id": image_id(image)})
    return sorted([*written, "smoke/", "grader.json"])


def _rules(contest: Contest, name: str) -> str:
    rows = []
    for f1, macs in EXAMPLES:
        found = score(contest, Metrics(f1, f1, macs, contest.reference_params // 10))
        rows.append((f1, macs, found.parts, found.value))
    return _filled("rules.md", contest=contest, name=name, rows=rows)


def _filled(template: str, **values: Any) -> str:
    """Return a template with its values, which are the organizer's own: nothing is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(**values)


def _codabench(name: str, image: str, rules: str, contest: str) -> dict[str, str]:
    files = {
        "competition.yaml": _filled("codabench.yaml", name=name, image=image) + "\n",
        "README.md": f"{SECRET}, into reference_data/; build the image; zip this folder.\n",
        "Dockerfile": DOCKERFILE.format(image=image),
        "rules.md": rules,
        "terms.md": f"{TERMS}\n",
        "scoring_program/metadata.yaml": "command: python3 score.py\n",
        "scoring_program/contest.json": contest,
        "scoring_program/score.py": _text("codabench_score.py"),
        "reference_data/README.md": f"{SECRET}.\n",
    }
    return {f"codabench/{path}": text for path, text in files.items()}


def _evalai(name: str, contest: str) -> dict[str, str | bytes]:
    script = {
        "__init__.py": "from .main import evaluate\n",
        "contest.json": contest,
        "main.py": _text("evalai_main.py"),
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
