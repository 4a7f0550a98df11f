"""MODEL_CARD.md: what the model is for, what it was made of, how good it is and where it is not.

After Mitchell et al., "Model cards for model reporting", FAT* 2019, under the front matter that
model hubs read (huggingface.co/docs/hub/model-cards): the results are in its `model-index`.
"""

import html
import re
from typing import Any

import yaml

from weighin.params import Params
from weighin.report.data_section import summary
from weighin.report.evaluation import Evaluation
from weighin.report.inputs import Facts
from weighin.report.metrics import DIGITS
from weighin.report.origin import GRADE, REBUILD
from weighin.report.provenance import versions
from weighin.report.robustness import DEGRADATIONS, Robustness
from weighin.report.robustness_section import change
from weighin.report.rules import rules
from weighin.report.words import (
    SEEN,
    UNMEASURED,
    compressed,
    interval,
    measured,
    risk,
    several,
    split_name,
    study,
    weighed,
)

MARKS = re.compile(r"([\\`*_\[\]|~#$])")
TASK = "image-classification"


def card(
    facts: Facts, found: dict[str, Evaluation], worse: Robustness | None, params: Params
) -> str:
    """Return the model card as Markdown; names are shown as they are, never as markup."""
    sections = {
        "Model": _model(facts, params),
        "Intended use": _use(facts),
        "Data": _data(facts),
        "Training": _training(facts),
        "Figures": _figures(found, params),
        "Classes": _classes(found),
        "Worse photographs": _worse(worse),
        "Limits": _limits(facts, found, params),
        "Rebuild and grade": _rebuild(),
    }
    parts = [f"## {title}\n\n{text}\n" for title, text in sections.items() if text]
    front = yaml.safe_dump(_front_matter(facts, found, params), sort_keys=False)
    return f"---\n{front}---\n\n# Model card\n\n" + "\n".join(parts)


def plain(text: str) -> str:
    """Return a name as Markdown that shows it: no HTML, no emphasis, no table cell of its own."""
    return MARKS.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _front_matter(facts: Facts, found: dict[str, Evaluation], params: Params) -> dict[str, Any]:
    seen = params.train.all_data  # figures on seen images have no place among results
    matter: dict[str, Any] = {
        "library_name": "onnx",
        "pipeline_tag": TASK,
        "tags": ["onnx", TASK, "lightweight", "reproducible"],
        "metrics": ["f1", "accuracy"],
    }
    unseen = {split: one for split, one in found.items() if split != "validation" or not seen}
    if unseen:
        results = [_result(facts, split, one, params) for split, one in unseen.items()]
        matter["model-index"] = [{"name": "weighin", "results": results}]
    return matter


def _result(facts: Facts, split: str, found: Evaluation, params: Params) -> dict[str, Any]:
    values = [
        ("f1", "Macro F1", round(found.table.f1, DIGITS)),
        ("accuracy", "Accuracy", round(found.table.accuracy, DIGITS)),
        ("score", f"Score ({params.contest.score})", round(found.score.value, DIGITS)),
        ("macs", "MACs", facts.count.macs),
        ("parameters", "Parameters", facts.count.parameters),
    ]
    return {
        "task": {"type": TASK, "name": "Image classification"},
        "dataset": {"type": "imagefolder", "name": split_name(split), "split": split},
        "metrics": [{"type": kind, "name": name, "value": value} for kind, name, value in values],
    }


def _model(facts: Facts, params: Params) -> str:
    height, width = facts.model.size
    return _bullets(
        [
            f"`model.onnx`, SHA-256 `{facts.model.sha256}`",
            f"input: one RGB picture, {height} x {width} pixels, values from -1 to 1"
            + ("; tall pictures are laid on their side" if facts.model.turn_tall else ""),
            f"{facts.count.macs:,} MACs an image, {weighed(facts, params.contest)}",
            f"{facts.count.parameters:,} parameters",
        ]
    )


def _use(facts: Facts) -> str:
    names = ", ".join(map(plain, facts.classes))
    fallback = plain(facts.model.fallback)
    return (
        f"It names the one of {len(facts.classes)} classes that a photograph of a single object "
        f"belongs to: {names}. A file that cannot be read is called {fallback}, the commonest "
        "class. It is not meant to find objects in a scene, nor to decide anything that nobody "
        "checks."
    )


def _data(facts: Facts) -> str:
    counts = facts.data.fault_counts
    found = ", ".join(f"{many:,} {fault}" for fault, many in counts.items())
    return summary(facts.data) + (f" Faults found: {found}." if found else " No file had a fault.")


def _training(facts: Facts) -> str:
    lines = []
    if facts.search:
        lines.append(f"searched: {plain(study(facts.search))}")
    if facts.tune:
        lines.append(f"recipe: {plain(study(facts.tune))}")
    for stage, history in facts.histories.items():
        lines.append(
            f"{stage}: {several(len(history), 'epoch')}, loss {history[-1]['loss']:.4f} at the end"
        )
    if facts.layers:
        lines.append(f"compressed: {compressed(facts.layers)}")
    if facts.choice:
        lines.append(f"exported: {plain(facts.choice)}")
    versioned = ", ".join(f"{name} {version}" for name, version in versions().items())
    return _bullets([*lines, f"environment: {versioned}"])


def _figures(found: dict[str, Evaluation], params: Params) -> str:
    if not found:
        return UNMEASURED
    rows = []
    for split, evaluation in found.items():
        low, high = evaluation.risk.low, evaluation.risk.high
        rows += [
            (split, "macro F1", evaluation.table.f1, interval(low, high)),
            (split, "accuracy", evaluation.table.accuracy, ""),
            (
                split,
                f"score ({params.contest.score}; lower is better)",
                evaluation.score.value,
                interval(evaluation.score_low, evaluation.score_high),
            ),
        ]
    lines = [f"| {s} | {name} | {value:.4f} | {spread} |" for s, name, value, spread in rows]
    head = "| split | figure | value | 95 % interval |\n|---|---|---|---|"
    held = rules(params.contest)
    text = [head, *lines, "", f"Score, lower is better: {held.formula}"]
    if held.floor is not None:
        text += [
            f"On {split_name(split)} {risk(evaluation, held.floor)}."
            for split, evaluation in found.items()
        ]
    return "\n".join(text)


def _classes(found: dict[str, Evaluation]) -> str:
    if not found:
        return ""
    split, evaluation = next(iter(found.items()))
    lines = [
        f"| {plain(row.name)} | {row.images:,} | {measured(row.precision, 3)} "
        f"| {measured(row.recall, 3)} | {measured(row.f1, 3)} |"
        for row in evaluation.table.rows()
    ]
    head = "| class | images | precision | recall | F1 |\n|---|---|---|---|---|"
    return "\n".join([f"On {split_name(split)}:", "", head, *lines])


def _worse(found: Robustness | None) -> str:
    if found is None:
        return ""
    head = "| degradation | macro F1 | change |\n|---|---|---|"
    lines = [
        f"| {kind}: {DEGRADATIONS[kind][0]} | {measured(f1)} | {change(f1, found.clean)} |"
        for kind, f1 in found.f1.items()
    ]
    told = f"On {several(found.images, 'validation image')}, degraded at the network's own size:"
    return "\n".join([told, "", head, *lines])


def _limits(facts: Facts, found: dict[str, Evaluation], params: Params) -> str:
    limits = [
        "Intervals are bootstrap intervals over images: they know nothing of photographs taken "
        "elsewhere, with another camera or of other things.",
    ]
    if "validation" in found and params.train.all_data:
        limits.append(SEEN)
    elif "validation" in found:
        limits.append(
            "The validation split also chose the network and the recipe, so its figures lean to "
            "the good side; only a test folder that nothing was chosen by is free of that."
        )
    for split, evaluation in found.items():
        occurring = [row for row in evaluation.table.rows() if row.f1 == row.f1]
        worst = min(occurring, key=lambda row: (row.f1, row.name))
        limits.append(
            f"On {split_name(split)} it is weakest on {plain(worst.name)}: "
            f"F1 {measured(worst.f1, 3)} on {several(worst.images, 'image')}."
        )
    near = facts.data.alike_across
    if near:
        limits.append(f"Images that look alike have different classes: {several(near, 'pair')}.")
    return _bullets(limits)


def _rebuild() -> str:
    return (
        f"```\n{REBUILD}\n```\n\ngives every file of this submission again, byte for byte; "
        f"`provenance.json` holds the hashes to compare with.\n\n```\n{GRADE}\n```\n\n"
        "counts the MACs from the graph and labels the folder; "
        "`--truth data/test_truth.csv` scores it."
    )


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
