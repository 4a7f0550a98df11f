"""How far a measured F1 may be off on unseen data, and the risk that it falls under the floor.

Bootstrap (Efron, 1979) over images. N images drawn with replacement are, for the confusion counts,
one multinomial draw over the cells that are not empty: 10,000 resamples of 8,148 images take under
0.2 s (tests/grading/test_risk.py measures it) instead of 80 million indices.
"""

from dataclasses import dataclass

import numpy as np

from weighin.determinism import generator
from weighin.grading.f1 import Confusion, Floats, f1_of

CHUNK = 2_000  # resamples at once, to bound the memory


@dataclass(frozen=True)
class Risk:
    """A 95 % interval of the macro F1, and the chance that it is under the floor."""

    low: float
    high: float
    under_floor: float
    resamples: int


def risk(found: Confusion, floor: float, resamples: int, seed: int) -> Risk:
    """Return the bootstrap interval (2.5 % to 97.5 %) and the share of resamples under `floor`."""
    scores = bootstrap_f1(found, resamples, seed)
    low, high = np.quantile(scores, (0.025, 0.975))
    return Risk(float(low), float(high), float(np.mean(scores < floor)), resamples)


def bootstrap_f1(found: Confusion, resamples: int, seed: int) -> Floats:
    """Return the macro F1 of `resamples` bootstrap samples, by the convention of f1.py."""
    counts = found.counts
    true, pred = np.nonzero(counts)
    cells = counts[true, pred]
    classes = np.arange(len(found.classes))
    is_hit = ((true == pred)[:, None] & (true[:, None] == classes)).astype(np.int64)
    in_either = (true[:, None] == classes).astype(np.int64) + (pred[:, None] == classes)
    random = generator(seed, "bootstrap")
    scores = []
    for start in range(0, resamples, CHUNK):
        many = min(CHUNK, resamples - start)
        drawn = random.multinomial(cells.sum(), cells / cells.sum(), size=many)  # (many, cells)
        scores.append(np.nanmean(f1_of(drawn @ is_hit, drawn @ in_either), axis=1))
    return np.concatenate(scores)
