"""What an organizer hands out: the rules, a smoke folder, and bundles for other platforms.

    params.yaml            the section `contest`, which every command takes by --contest
    RULES.md               the score and the MAC rule, with worked numbers
    smoke/                 awkward images that a model must be able to label
    grader.json            the grader's image and its ID, where an engine has it
    codabench/             a competition bundle: github.com/codalab/codabench/wiki/Yaml-Structure
    evalai/                a challenge configuration and its script (evalai.readthedocs.io)

Both platforms run the grader's own code, in the grader's image.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from weighin.contest.smoke import write_smoke
from weighin.errors import OutputError
from weighin.files import write_json, write_text
from weighin.grading.score import Metrics, score
from weighin.machine import output
from weighin.params import Contest

TEMPLATES = Path(__file__).parent / "templates"
EXAMPLES = ((0.4, 400_000), (0.6, 1_000_000), (0.84, 400_000), (0.9, 400_000))  # F1, MACs


def write_handout(folder: Path, contest: Contest, name: str, image: str) -> list[str]:
    """Write the handout into a new folder and return what is in it.

    Raises:
        OutputError: the folder holds something already, or cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty", "name a new folder")
    rules = dataclasses.asdict(contest)
    texts = {
        "params.yaml": yaml.safe_dump({"contest": rules}, sort_keys=False),
        "RULES.md": _rules(contest, name),
        **_codabench(name, image, rules),
        **_evalai(name, rules),
    }
    for path, text in texts.items():
        write_text(folder / path, text)
    write_smoke(folder / "smoke")
    write_json(folder / "grader.json", {"image": image, "id": _image_id(image)})
    return sorted([*texts, "smoke/", "grader.json"])


def _rules(contest: Contest, name: str) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True
    )  # Markdown: nothing to escape, for the name is the organizer's own
    rows = []
    for f1, macs in EXAMPLES:
        found = score(contest, Metrics(f1, f1, macs, contest.reference_params // 10))
        rows.append((f1, macs, found.parts, found.value))
    return environment.get_template("rules.md").render(contest=contest, name=name, rows=rows)


def _codabench(name: str, image: str, rules: Mapping[str, object]) -> dict[str, str]:
    competition = {
        "version": 2,
        "title": name,
        "description": "Lightweight image classification: a model's quality and its MACs.",
        "docker_image": image,
        "make_programs_available": True,
        "enable_detailed_results": True,
        "pages": [{"title": "Rules", "file": "rules.md"}],
        "tasks": [
            {
                "index": 0,
                "name": "grading",
                "description": "model.onnx is run on the test images and its MACs are counted",
                "scoring_program": "scoring_program",
                "reference_data": "reference_data",
            }
        ],
        "phases": [
            {
                "index": 0,
                "name": "final",
                "description": "one model.onnx in a ZIP file",
                "start": "2000-01-01",  # the organizer's to change
                "tasks": [0],
            }
        ],
        "leaderboards": [
            {
                "index": 0,
                "title": "Results",
                "key": "results",
                "columns": [
                    {"index": i, "title": title, "key": key, "sorting": order}
                    for i, (title, key, order) in enumerate(
                        (
                            ("score", "score", "asc"),
                            ("macro F1", "f1", "desc"),
                            ("MACs", "macs", "asc"),
                        )
                    )
                ],
            }
        ],
    }
    return {
        "codabench/competition.yaml": yaml.safe_dump(competition, sort_keys=False),
        "codabench/rules.md": "The rules are in RULES.md of the handout.\n",
        "codabench/scoring_program/metadata.yaml": "command: python3 score.py\n",
        "codabench/scoring_program/contest.json": json.dumps(rules, indent=2) + "\n",
        "codabench/scoring_program/score.py": _text("codabench_score.py"),
        "codabench/reference_data/README.md": "Put test/ (the images) and truth.csv here.\n",
    }


def _evalai(name: str, rules: Mapping[str, object]) -> dict[str, str]:
    configuration = {
        "title": name,
        "short_description": "Lightweight image classification",
        "description": "templates/description.html",
        "evaluation_script": "evaluation_script.zip",
        "remote_evaluation": False,
        "leaderboard": [
            {
                "id": 1,
                "schema": {
                    "labels": ["score", "f1", "macs"],
                    "default_order_by": "score",
                    "metadata": {
                        "score": {"sort_ascending": True, "description": "lower is better"}
                    },
                },
            }
        ],
        "challenge_phases": [
            {
                "id": 1,
                "name": "final",
                "codename": "final",
                "test_annotation_file": "annotations/truth.csv",
                "allowed_submission_file_types": ".onnx, .zip",
            }
        ],
        "dataset_splits": [{"id": 1, "name": "test", "codename": "test"}],
        "challenge_phase_splits": [
            {"challenge_phase_id": 1, "leaderboard_id": 1, "dataset_split_id": 1, "visibility": 3}
        ],
    }
    return {
        "evalai/challenge_config.yaml": yaml.safe_dump(configuration, sort_keys=False),
        "evalai/templates/description.html": "<p>The rules are in RULES.md of the handout.</p>\n",
        "evalai/evaluation_script/__init__.py": "from .main import evaluate\n",
        "evalai/evaluation_script/contest.json": json.dumps(rules, indent=2) + "\n",
        "evalai/evaluation_script/main.py": _text("evalai_main.py"),
    }


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _image_id(image: str) -> str | None:
    return output("docker", "image", "inspect", "--format", "{{.Id}}", image) or None
