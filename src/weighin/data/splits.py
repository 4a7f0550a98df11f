"""Which images train and which validate: decided by content, so that adding one moves no other.

The rule. An image's unit is its group where it has one, else its bytes (SHA-256). Units that share
an image or a near-duplicate hang together and stand or fall as one, under the smallest of their
keys. That key, hashed with the seed, gives u in [0, 1); u < `validation` validates. Nothing depends
on names, order or how many images there are.

Such a rule gives a class n images of which v n validate only on average, with a standard deviation
of sqrt(v (1 - v) n), and no rule that moves nothing can do better: what must not move may not look
at the others. So a class is held to its share within a half of it (or three images), by moving its
own threshold just so far. At that bound, an added image may move one other. Simulated at v = 0.2: a
class of 60 validates with 6 to 18 images and one addition in 50 moves another; of 200, with 20 to
60 and one in 1,000; of 700, none in 1,000 (tests/data/test_splits.py). On waste7 the seven classes
have shares of 0.2 +- 0.036 over ten seeds, its bags being grouped by scene.
"""

import hashlib
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from weighin.data.faults import Images
from weighin.data.near_duplicates import Pairs, components
from weighin.data.scan import hexadecimal

SPLITS = ("train", "validation")
Flags = npt.NDArray[np.bool_]


def validates_of(images: Images, pairs: Pairs, validation: float, seed: int) -> Flags:
    """Return (N,) flags: True where an image validates; `pairs` are the near-duplicates."""
    digests = images.records["sha256"]
    ties = [pairs, _copies(digests), _grouped(images.groups)]
    together = components(len(digests), np.concatenate(ties))
    keys = (
        unit_key(hexadecimal(digest), group)
        for digest, group in zip(digests, images.groups, strict=True)
    )
    return assign(keys, together, images.labels, validation, seed)


def _copies(digests: npt.NDArray[np.bytes_]) -> Pairs:
    order = np.argsort(digests, kind="stable")
    same = digests[order[1:]] == digests[order[:-1]]
    return np.stack([order[:-1][same], order[1:][same]], axis=1)


def _grouped(groups: list[str]) -> Pairs:
    """Return each image of a group, paired with the group's first."""
    first: dict[str, int] = {}
    heads = (first.setdefault(group, at) if group else at for at, group in enumerate(groups))
    firsts = np.fromiter(heads, np.int64, len(groups))
    others = np.flatnonzero(firsts != np.arange(len(groups)))
    return np.stack([firsts[others], others], axis=1)


def unit_key(sha256: str, group: str) -> str:
    """Return what an image is split by: its group, or else its content."""
    return f"group {group}" if group else f"image {sha256}"


def position(seed: int, key: str) -> float:
    """Return u in [0, 1) for a component's smallest unit key."""
    digest = hashlib.sha256(f"split\n{seed}\n{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def assign(
    keys: Iterable[str],
    component: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    validation: float,
    seed: int,
) -> Flags:
    """Return (N,) flags: True where an image validates.

    `keys` are the images' unit keys, `component` (N,) the first image that each one hangs together
    with, `labels` (N,) classes.
    """
    u = _positions(keys, component, seed)
    validates = u < validation
    for label in np.unique(labels):
        _hold(validates, u, labels == label, validation)
    return validates


def _positions(
    keys: Iterable[str], component: npt.NDArray[np.int64], seed: int
) -> npt.NDArray[np.float64]:
    """Return (N,) positions; of the keys, only those of images that hang together are held."""
    alone = np.bincount(component, minlength=len(component))[component] == 1
    u = np.zeros(len(component))
    smallest: dict[int, str] = {}  # at the place of each component's first image
    for place, key in enumerate(keys):
        if alone[place]:
            u[place] = position(seed, key)
        else:
            first = int(component[place])
            smallest[first] = min(smallest.get(first, key), key)
    for first, key in smallest.items():
        u[first] = position(seed, key)
    return u[component]


def bounds(images: int, validation: float) -> tuple[int, int]:
    """Return the fewest and the most of a class's images that may validate."""
    share = validation * images
    room = max(3.0, share / 2)
    low = max(1, math.floor(share - room))
    return low, min(images - 1, max(low, math.ceil(share + room)))


def _hold(validates: Flags, u: npt.NDArray[np.float64], mine: Flags, validation: float) -> None:
    """Move components of a class, the nearest to the threshold first, until it is in its bounds.

    A class of one component stays where it is. One whose components are too large for the bounds
    comes as near to them as it can.
    """
    low, high = bounds(int(mine.sum()), validation)
    now = int(validates[mine].sum())
    parts, sizes = np.unique(u[mine], return_counts=True)
    if low <= now <= high or len(parts) < 2:
        return
    counts = np.cumsum(sizes)[:-1]  # images that validate if the threshold follows each part
    outside = np.maximum(np.maximum(low - counts, counts - high), 0)
    last = np.lexsort((np.abs(counts - now), outside))[0]
    own = np.isin(u, parts)
    validates[own] = u[own] <= parts[last]
