"""What each part of the waste7 chain is worth: `python -m bench.parts` (two CPU hours).

The chain of results/waste7, but 360 epochs and the validation split kept apart, is built whole and
with one part otherwise; each seed has another split and other weights. No figure of
`bench/results.json`: bench/parts.json has every build, docs/waste7.md a table of them. Name a
folder to go on there after an interruption.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean
from typing import Any

from bench.pages import markdown, put, spread
from bench.results import build, cloned
from bench.waste7 import ROOT
from weighin.determinism import pin
from weighin.files import read_json, write_json

BUILDS, PAGE = ROOT / "bench/parts.json", ROOT / "docs/waste7.md"
SEEDS = (0, 1, 2)
WHOLE = "the whole chain"
BASE: dict[str, Any] = {"train.epochs": 360, "train.all_data": False}
PARTS: dict[str, dict[str, Any]] = {
    WHOLE: {},
    "all of the augmentation in finetuning": {"finetune.augment": 1.0},
    "no finetuning": {"finetune.enabled": False},
    "no factorizing": {"decompose.enabled": False},
    "a quarter of the hidden channels cut instead": {
        "decompose.prune_channels": 0.25,
        "decompose.budget": 1.0,
    },
    "no worse photographs": {
        f"recipe.augment.{name}": 0.0 for name in ("blur", "dark", "noise", "jpeg")
    },
    "no other backgrounds": {"recipe.augment.background": 0.0},
}
NAMES = {
    "f1": "F1",
    "macs": "MACs",
    "score": "score",
    "background": "on blots of color",
    "noise": "noise",
    "dark": "dark",
}


@dataclass(frozen=True)
class Built:
    """What a chain hands in, with its figures on the validation split as it is and degraded."""

    part: str
    seed: int
    f1: float
    macs: int
    score: float
    background: float
    noise: float
    dark: float


def measured(clone: Path, part: str, seed: int) -> Built:
    """Build a chain in a clone and return its figures."""
    build(clone, seed, {**BASE, **PARTS[part]})
    found = read_json(clone / "submission/metrics.json")
    facts = {**found, **found["robustness"], "part": part, "seed": seed}
    return Built(**{field.name: facts[field.name] for field in fields(Built)})


def table(builds: Sequence[Built]) -> str:
    """Return a Markdown table: means over the seeds, with the lowest and highest."""
    whole = {one.seed: one.f1 for one in builds if one.part == WHOLE}
    rows = []
    for part in PARTS:
        mine = [one for one in builds if one.part == part]
        more = mean(one.f1 - whole[one.seed] for one in mine)
        figures = [spread([getattr(one, name) for one in mine]) for name in NAMES]
        rows.append([part, f"{more:+.4f}" if part != WHOLE else "", *figures])
    return markdown(["", "F1 more", *NAMES.values()], rows)


def show(builds: Sequence[Built]) -> None:
    """Write the builds and their table."""
    write_json(BUILDS, [asdict(one) for one in builds])
    put(PAGE, "parts", table(builds))


if __name__ == "__main__":
    pin()
    with tempfile.TemporaryDirectory() as name:
        folder = cloned(Path(sys.argv[1] if sys.argv[1:] else name) / "clone")
        show([measured(folder, part, seed) for part in PARTS for seed in SEEDS])
