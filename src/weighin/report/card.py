"""MODEL_CARD.md: what the model is for, what it was made of, how good it is and where it is not.

After Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

import html
import re

from weighin.params import Params
from weighin.report.data_section import summary
from weighin.report.evaluation import Evaluation
from weighin.report.inputs import Facts
from weighin.report.page import GRADE, REBUILD
from weighin.report.words import (
    SEEN,
    UNMEASURED,
    interval,
    macs_of_reference,
    measured,
    risk,
    split_name,
)

MARKS = re.compile(r"([\\`*_\[\]|~#])")


def card(facts: Facts, found: dict[str, Evaluation], params: Params) -> str:
    """Return the model card as Markdown; names are shown as they are, never as markup."""
    sections = {
        "Model": _model(facts, params),
        "Intended use": _use(facts),
        "Data": _data(facts),
        "Figures": _figures(found, params),
        "Classes": _classes(found),
        "Limits": _limits(facts, found, params),
        "Rebuild and grade": _rebuild(),
    }
    parts = [f"## {title}\n\n{text}\n" for title, text in sections.items() if text]
    return "# Model card\n\n" + "\n".join(parts)


def plain(text: str) -> str:
    """Return a name as Markdown that shows it: no HTML, no emphasis, no table cell of its own."""
    return MARKS.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _model(facts: Facts, params: Params) -> str:
    height, width = facts.model.size
    return _bullets(
        [
            f"`model.onnx`, SHA-256 `{facts.model.sha256}`",
            f"input: one RGB picture, {height} x {width} pixels, values from -1 to 1"
            + ("; tall pictures are laid on their side" if facts.model.turn_tall else ""),
            f"{facts.count.macs:,} MACs an image, {macs_of_reference(facts, params.contest)}",
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
    odds = [
        f"On {split_name(split)} {risk(evaluation, params.contest)}."
        for split, evaluation in found.items()
    ]
    return "\n".join([head, *lines, "", *odds])


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
    for evaluation in found.values():
        worst = min(evaluation.table.rows(), key=lambda row: (row.f1, row.name))
        limits.append(
            f"It is weakest on {plain(worst.name)}: F1 {measured(worst.f1, 3)} "
            f"on {worst.images:,} images."
        )
    near = facts.data.alike_across
    if near:
        limits.append(f"{near:,} pairs of training images look alike and have different classes.")
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
