"""MODEL_CARD.md: front matter that model hubs read, a body in which names are only names."""

import dataclasses
import hashlib
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_project import CLASSES

from weighin.params import Params
from weighin.report.page import plain

Write = Callable[..., Path]


def matter_and_body(folder: Path) -> tuple[dict[str, Any], str]:
    text = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    nothing, matter, body = text.split("---\n", 2)
    assert nothing == ""
    return yaml.safe_load(matter), body


def result(split: str, name: str, *values: float) -> dict[str, Any]:
    kinds = ("f1", "accuracy", "score", "macs", "parameters")
    names = ("Macro F1", "Accuracy", "Score (waste)", "MACs", "Parameters")
    return {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {"type": "imagefolder", "name": name, "split": split},
        "metrics": [
            {"type": kind, "name": name, "value": value}
            for kind, name, value in zip(kinds, names, values, strict=True)
        ],
    }


VALIDATION = result("validation", "the validation split", 0.793651, 0.8, 0.051307, 204, 12)
TEST = result("test", "the test folder", 0.777778, 0.75, 0.070281, 204, 12)


def test_the_front_matter(written: Path) -> None:
    matter, _ = matter_and_body(written)
    assert matter == {
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["onnx", "image-classification", "lightweight", "reproducible"],
        "metrics": ["f1", "accuracy"],
        "model-index": [{"name": "weighin", "results": [VALIDATION, TEST]}],
    }


def test_figures_on_seen_images_are_no_results(
    project: Path, report: Write, params: Params
) -> None:
    train = dataclasses.replace(params.train, all_data=True)
    matter, _ = matter_and_body(report(dataclasses.replace(params, train=train)))
    assert matter["model-index"][0]["results"] == [TEST]


def test_without_figures_there_is_no_index(project: Path, report: Write) -> None:
    Path("work/finetune/validation_logits.npy").unlink()
    Path("data/test_truth.csv").unlink()
    matter, body = matter_and_body(report())
    assert "model-index" not in matter
    assert "## Figures\n\nNo F1 is known" in body
    assert "## Classes" not in body


def test_the_sections_in_their_order(written: Path) -> None:
    _, body = matter_and_body(written)
    assert re.findall(r"^#+ .*$", body, re.MULTILINE) == [
        "# Model card",
        "## Model",
        "## Intended use",
        "## Data",
        "## Training",
        "## Figures",
        "## Classes",
        "## Robustness (corruptions)",
        "## Limits",
        "## Rebuild and grade",
    ]


def test_the_model_is_named_by_its_hash(written: Path) -> None:
    digest = hashlib.sha256((written / "model.onnx").read_bytes()).hexdigest()
    _, body = matter_and_body(written)
    assert f"- `model.onnx`, SHA-256 `{digest}`\n" in body
    assert (
        "- input: one RGB picture, 8 x 8 pixels, values from -1 to 1; tall pictures are laid on "
        "their side\n"
    ) in body


def test_the_figures(written: Path) -> None:
    _, body = matter_and_body(written)
    lines = body.splitlines()
    assert "| validation | macro F1 | 0.7937 | 0.4444 to 1.0000 |" in lines
    assert "| validation | accuracy | 0.8000 |  |" in lines
    assert "| test | macro F1 | 0.7778 | 0.2000 to 1.0000 |" in lines
    assert "| Metal | 3 | 0.750 | 1.000 | 0.857 |" in lines


def test_the_limits(written: Path) -> None:
    _, body = matter_and_body(written)
    limits = body.partition("## Limits\n\n")[2].partition("\n\n")[0].splitlines()
    assert limits[1].startswith("- The validation split also chose the network and the recipe")
    assert limits[2:] == [
        r"- On the validation split it is weakest on Glass\|\$x\$ &amp; co: F1 0.667 on 3 images.",
        r"- On the test folder it is weakest on Glass\|\$x\$ &amp; co: F1 0.667 on 2 images.",
        "- Images that look alike have different classes: 1 pair.",
    ]


def test_the_training(written: Path) -> None:
    _, body = matter_and_body(written)
    lines = body.partition("## Training\n\n")[2].partition("\n\n")[0].splitlines()
    assert lines[:5] == [
        "- search: 9 trials: 7 complete, 1 pruned, 1 over-budget. Chosen: 3. "
        "The lowest &lt;score&gt; of the front.",
        "- recipe: 1 trial: 1 complete. Chosen: 0. Only one.",
        "- train: 8 epochs, loss 0.2500 at the end",
        "- finetune: 3 epochs, loss 0.6667 at the end",
        "- compression: 1 of 2 layers were factorized; the convolutions and linear layers together "
        "went from 1,000 to 500 MACs (50.0 %).",
    ]
    assert lines[5] == "- export: The network &lt;a&gt; is exported."
    assert lines[6].startswith("- environment: matplotlib ")
    assert len(lines) == 7


def test_every_table_has_its_columns(written: Path) -> None:
    """A bar in a class name would make one more."""
    _, body = matter_and_body(written)
    widths: dict[int, set[int]] = {}
    for number, block in enumerate(body.split("\n\n")):
        for line in block.splitlines():
            if line.startswith("|"):
                widths.setdefault(number, set()).add(len(re.findall(r"(?<!\\)\|", line)))
    assert list(map(len, widths.values())) == [1, 1, 1]


def test_names_are_only_names(written: Path) -> None:
    _, body = matter_and_body(written)
    outside = re.sub(r"^```.*?^```$", "", body, flags=re.MULTILINE | re.DOTALL)
    assert "<" not in outside
    for name in CLASSES:
        assert plain(name) in body


@pytest.mark.parametrize(
    "name", ["*a*", "a_b_", "[x](y)", "`c`", "a|b", "<img>", "&amp;", "$x$", "# h", "~~s~~", "\\"]
)
def test_plain_escapes_and_says_the_same(name: str) -> None:
    """Read as CommonMark does: backslashes go, then entities; the name is back."""
    escaped = plain(name)
    assert html.unescape(re.sub(r"\\([\\`*_\[\]|~#$])", r"\1", escaped)) == name
    assert not re.search(r"(?<!\\)[`*_\[\]|~#$<>]", escaped)


def test_plain_keeps_a_name_on_one_line() -> None:
    assert plain("a\n\n# b") == r"a \# b"
