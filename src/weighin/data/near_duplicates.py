"""Near-duplicates: perceptual hashes, the pairs that are close, and what hangs together.

The hash is ImageHash's `phash`: the lowest 8 x 8 cosine terms of 32 x 32 grey pixels, each above
their median or not. Computed here for many pictures at once, 15 times as fast, and held to that
library bit for bit by tests/data/test_near_duplicates.py, which also measures what it tells apart.
"""

import itertools

import numpy as np
import numpy.typing as npt
from PIL import Image

Hashes = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]  # (P, 2), the smaller index first

SIDE, TERMS = 32, 8
# whole numbers, so that every sum is exact and the bits are the same on every processor
COSINES = np.round(
    2**14 * np.cos(np.pi * np.outer(np.arange(TERMS), 2 * np.arange(SIDE) + 1) / (2 * SIDE))
)


def thumbnail(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return the (32, 32) grey pixels that a picture is hashed by."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=1.5)
    return np.asarray(small)


def perceptual_hashes(thumbnails: npt.NDArray[np.uint8]) -> Hashes:
    """Return the (N,) hashes of (N, 32, 32) grey pixels."""
    terms = COSINES @ thumbnails.astype(np.float64) @ COSINES.T
    terms = terms.reshape(len(terms), TERMS * TERMS)
    bits = terms > np.median(terms, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def close_pairs(hashes: Hashes, bits: int) -> Pairs:
    """Return the pairs of `hashes` (N,) that differ in at most `bits` bits, in order.

    Two hashes within b bits agree wholly on one of b + 1 bands (pigeonhole), so only hashes that
    share a band are compared. Equal hashes are chained, first to second to third, not all paired.
    """
    if bits < 0 or len(hashes) < 2:
        return np.empty((0, 2), np.int64)
    order = np.argsort(hashes, kind="stable")
    ranked = hashes[order]
    same = ranked[1:] == ranked[:-1]
    chained = np.stack([order[:-1][same], order[1:][same]], axis=1)
    first = order[np.concatenate([[True], ~same])]  # one index for every distinct hash
    found = [chained.astype(np.int64)]
    edges = np.linspace(0, 64, bits + 2).astype(int)
    for low, high in itertools.pairwise(edges):
        found.append(_band_pairs(hashes, first, bits, int(low), int(high)))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0)


def _band_pairs(
    hashes: Hashes, index: npt.NDArray[np.int64], bits: int, low: int, high: int
) -> Pairs:
    """Return the close pairs among `index` whose bits from `low` to `high` agree."""
    mask = np.uint64(((1 << (high - low)) - 1) << low)
    band = hashes[index] & mask
    order = np.argsort(band, kind="stable")
    band, index = band[order], index[order]
    found = [np.empty((0, 2), np.int64)]
    left = np.arange(len(index) - 1)
    for step in range(1, len(index)):
        left = left[: np.searchsorted(left, len(index) - step)]
        left = left[band[left] == band[left + step]]
        if not len(left):
            break
        a, b = index[left], index[left + step]
        near = np.bitwise_count(hashes[a] ^ hashes[b]) <= bits
        found.append(np.stack([a[near], b[near]], axis=1))
    return np.concatenate(found)


def components(count: int, pairs: Pairs) -> npt.NDArray[np.int64]:
    """Return for each of `count` items the smallest index that it hangs together with."""
    parent = np.arange(count)

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = int(parent[item])
        return item

    for a, b in pairs:
        low, high = sorted((root(int(a)), root(int(b))))
        parent[high] = low
    while True:
        higher = parent[parent]
        if np.array_equal(higher, parent):
            return parent
        parent = higher
