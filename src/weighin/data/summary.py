"""What `prepare` tells about the data: report.json, the contact sheets and the suspicious pairs."""

from collections import Counter
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weighin.data.faults import Verdict
from weighin.data.near import Pairs
from weighin.data.sheets import PAIRS, contact_sheet, pair_sheet, shown
from weighin.data.splits import SPLITS
from weighin.data.staying import Images

Report = dict[str, Any]
Flags = npt.NDArray[np.bool_]
SHOWN = 200  # faults of each kind, and pairs, that report.json lists; faults.csv has every fault


def summarise(
    images: Images, validates: Flags, verdict: Verdict, pairs: Pairs, files: int
) -> Report:
    """Return the facts of report.json; `files` is how many were looked at."""
    counts = _by_class(images, np.ones(len(images.names), bool))
    listed: Counter[str] = Counter()
    faults = []
    for fault, name, done, detail in verdict.rows:
        listed[fault] += 1
        if listed[fault] <= SHOWN:
            faults.append({"fault": fault, "name": name, "done": done, "detail": detail})
    close = suspicious(images, pairs)
    return {
        "files": files,
        "images": len(images.names),
        "classes": counts,
        "imbalance": round(max(counts.values()) / min(counts.values()), 4),
        "splits": {
            split: _by_class(images, validates == flag)
            for split, flag in zip(SPLITS, (False, True), strict=True)
        },
        "groups": len(set(images.groups) - {""}),
        "fault_counts": dict(sorted(listed.items())),
        "faults": faults,
        "near_duplicates": {
            "pairs": len(pairs),
            "across_classes": sum(what != "alike" for what, _, _ in close),
            "shown": [list(pair) for pair in close[:SHOWN]],
        },
    }


def suspicious(images: Images, pairs: Pairs) -> list[tuple[str, str, str]]:
    """Return (what, name, name) of the near-duplicates, those of two classes first."""
    named = [
        (int(images.labels[a] == images.labels[b]), images.names[a], images.names[b])
        for a, b in pairs.tolist()
    ]
    return [("alike" if same else "alike, two classes", a, b) for same, a, b in sorted(named)]


def draw_pictures(
    root: Path, out: Path, images: Images, verdict: Verdict, pairs: Pairs, pool: Executor
) -> list[Future[str]]:
    """Have `out`/<Class>.jpg and `out`/-pairs.jpg written; each gives its name when it is there."""
    drawn = []
    for label, name in enumerate(images.classes):
        mine = np.flatnonzero(images.labels == label)
        some = mine[shown(images.records["sha256"][mine])]
        title = f"{name}: {len(mine)} images"
        chosen = [images.names[place] for place in some]
        drawn.append(pool.submit(contact_sheet, root, title, chosen, out / f"{name}.jpg"))
    contradictions = {
        tuple(sorted((name, other)))
        for fault, name, _, other in verdict.rows
        if fault == "contradiction"
    }
    doubtful = [("same bytes, two classes", a, b) for a, b in sorted(contradictions)]
    doubtful += suspicious(images, pairs)
    if doubtful:
        drawn.append(pool.submit(pair_sheet, root, doubtful[:PAIRS], out / "-pairs.jpg"))
    return drawn


def _by_class(images: Images, flags: Flags) -> dict[str, int]:
    counts = np.bincount(images.labels[flags], minlength=len(images.classes))
    return dict(zip(images.classes, counts.tolist(), strict=True))
