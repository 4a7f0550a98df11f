"""Which images train and which validate: decided by content, so that adding one moves no other.

The rule. An image's unit is its group where it has one, else its bytes (SHA-256). Units that share
an image or a near-duplicate hang together and stand or fall as one, under the smallest of their
units' keys. That key, hashed with the seed, gives u in [0, 1); u < `validation` validates. Nothing
depends on names, order or how many images there are, so an added image can move only those that it
is a near-duplicate of. The price: a class's share is `validation` on average, with a standard
deviation of sqrt(v (1 - v) / units), not to the image.

One exception: a class that would be missing from a split gives it the component nearest to that
side of the threshold, because an F1 without one of its classes means nothing.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SPLITS = ("train", "validation")


def unit_key(sha256: str, group: str) -> str:
    """Return what an image is split by: its group, or else its content."""
    return f"group {group}" if group else f"image {sha256}"


def position(seed: int, key: str) -> float:
    """Return u in [0, 1) for a component's smallest unit key."""
    digest = hashlib.sha256(f"split\n{seed}\n{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def assign(
    keys: Sequence[str],
    component: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    validation: float,
    seed: int,
) -> npt.NDArray[np.bool_]:
    """Return (N,) flags: True where an image validates.

    `keys` are the images' unit keys, `component` (N,) what hangs together, `labels` (N,) classes.
    """
    smallest: dict[int, str] = {}
    for key, part in zip(keys, component.tolist(), strict=True):
        if part not in smallest or key < smallest[part]:
            smallest[part] = key
    place = {part: position(seed, key) for part, key in smallest.items()}
    u = np.array([place[part] for part in component.tolist()])
    validates = u < validation
    for label in np.unique(labels):
        _fill_empty_side(validates, u, component, labels == label, validation)
    return validates


def _fill_empty_side(
    validates: npt.NDArray[np.bool_],
    u: npt.NDArray[np.float64],
    component: npt.NDArray[np.int64],
    mine: npt.NDArray[np.bool_],
    validation: float,
) -> None:
    """Move one component of a class that has images on one side only, if it has two components."""
    side = validates[mine]
    if side.any() != side.all() or len(np.unique(component[mine])) < 2:
        return
    distance = np.where(mine, np.abs(u - validation), np.inf)
    nearest = component[int(distance.argmin())]
    validates[component == nearest] = ~side[0]
