"""Near-duplicates: perceptual hashes, which images are alike, and what hangs together.

The hash is ImageHash's `phash`: the lowest 8 x 8 cosine terms of 32 x 32 grey pixels, each above
their median or not. Computed here for many pictures at once, 15 times as fast, and held to that
library bit for bit by tests/data/test_near_duplicates.py, which also measures what it tells apart.

Two hashes within b bits agree wholly on one of b + 1 bands of bits (pigeonhole), so only hashes
that share a band are compared.
"""

import itertools

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Pairs = npt.NDArray[np.int64]  # (P, 2), the smaller index first

SIDE, TERMS = 32, 8
# whole numbers, so that every sum is exact and the bits are the same on every processor
COSINES = np.round(
    2**14 * np.cos(np.pi * np.outer(np.arange(TERMS), 2 * np.arange(SIDE) + 1) / (2 * SIDE))
)
MATRIX = 2048  # hashes of which all pairs are compared at once, 1 ns a pair
FAMILY = 32  # hashes that share a band; of so many, a video's frames say, not all pairs are listed


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
    """Return pairs of `hashes` (N,) that differ in at most `bits` bits, in order.

    Every such pair is listed but in large families, of which as many are as make them hang
    together: equal hashes are chained, first to second to third, and where more than `FAMILY`
    hashes share a band, each is paired with one that is close to it. So there are at most
    (bits + 1) * FAMILY pairs an image, and 5,000 frames of one video take no more each than 50.
    """
    if bits < 0 or len(hashes) < 2:
        return np.empty((0, 2), np.int64)
    order = np.argsort(hashes, kind="stable")
    ranked = hashes[order]
    same = ranked[1:] == ranked[:-1]
    found = [np.stack([order[:-1][same], order[1:][same]], axis=1)]
    first = order[np.concatenate([[True], ~same])]  # one index for every distinct hash
    for band in _bands(bits):
        found += _band_pairs(hashes, first, bits, band)
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def near_an_earlier(hashes: Hashes, bits: int) -> dict[int, int]:
    """Return {image: the earlier image that it is dropped for}.

    An image is dropped if it is within `bits` bits of an earlier one that is not dropped itself:
    what is alike only through a chain of others stays.
    """
    near: dict[int, int] = {}
    later = [_buckets(hashes & band) for band in _bands(bits)] if bits >= 0 else []
    dropped = np.zeros(len(hashes), bool)
    for index in range(len(hashes) if later else 0):
        for buckets in () if dropped[index] else later:
            left = buckets.get(index)
            if left is None:
                continue
            items = left[0][(left[0] > index) & ~dropped[left[0]]]
            alike = np.bitwise_count(hashes[items] ^ hashes[index]) <= bits
            for other in items[alike].tolist():
                near[other] = index
            dropped[items[alike]] = True
            left[0] = items[~alike]  # so a family grows smaller with each that is kept
    return near


def _buckets(values: Hashes) -> dict[int, list[Indices]]:
    """Return the indices of each value that comes several times, in a list that they share."""
    order = np.argsort(values, kind="stable")
    ends = np.flatnonzero(np.diff(values[order])) + 1
    shared = (members for members in np.split(order, ends) if len(members) > 1)
    return {
        index: cell for members in shared for cell in ([members],) for index in members.tolist()
    }


def components(count: int, pairs: Pairs) -> Indices:
    """Return for each of `count` items the smallest index that it hangs together with."""
    graph = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(count, count))
    part = connected_components(graph, directed=False)[1]
    smallest: Indices = np.unique(part, return_index=True)[1][part]
    return smallest


def _bands(bits: int) -> list[np.uint64]:
    edges = np.linspace(0, 64, bits + 2).astype(int).tolist()
    return [np.uint64((1 << high) - (1 << low)) for low, high in itertools.pairwise(edges)]


def _band_pairs(hashes: Hashes, index: Indices, bits: int, mask: np.uint64) -> list[Pairs]:
    """Return close pairs among `index` whose bits under `mask` agree."""
    order = np.argsort(hashes[index] & mask, kind="stable")
    band, index = hashes[index[order]] & mask, index[order]
    starts = np.concatenate([[0], np.flatnonzero(band[1:] != band[:-1]) + 1])
    sizes = np.diff(starts, append=len(band))
    found = [
        pairs
        for start, size in zip(starts, sizes, strict=True)
        if size > FAMILY
        for pairs in _spanning_pairs(hashes, np.sort(index[start : start + size]), bits)
    ]
    small = np.repeat(sizes <= FAMILY, sizes)
    band, index = band[small], index[small]
    left = np.arange(max(0, len(index) - 1))
    for step in range(1, FAMILY):
        left = left[: np.searchsorted(left, len(index) - step)]
        left = left[band[left] == band[left + step]]
        a, b = index[left], index[left + step]
        near = np.bitwise_count(hashes[a] ^ hashes[b]) <= bits
        found.append(np.stack([a[near], b[near]], axis=1))
    return found


def _spanning_pairs(hashes: Hashes, left: Indices, bits: int) -> list[Pairs]:
    """Return pairs that join what hangs together in `left`: one less than it has members."""
    found = []
    if len(left) <= MATRIX:  # most of a band's members are alike in that band alone
        close = np.bitwise_count(hashes[left][:, None] ^ hashes[left]) <= bits
        left = left[close.sum(1) > 1]
    while len(left):
        reached, left = [int(left[0])], left[1:]
        for item in reached:  # grows as more are reached
            if not len(left):
                break
            near = np.bitwise_count(hashes[left] ^ hashes[item]) <= bits
            found.append(np.stack([np.full(int(near.sum()), item), left[near]], axis=1))
            reached += left[near].tolist()
            left = left[~near]
    return found
