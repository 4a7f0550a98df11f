"""Which images are kept: each fault is dropped, kept or fails the stage, as params.yaml says.

Near-duplicates are told by perceptual hashes: ImageHash's `phash`, the lowest 8 x 8 cosine terms of
32 x 32 grey pixels, each above their median or not. Computed here for many pictures at once, 15
times as fast, and held to that library bit for bit by tests/data/test_near_duplicates.py, which
also measures what it tells apart.

Two hashes within b bits agree wholly on one of b + 1 bands of bits, and on two of b + 2
(pigeonhole), so only hashes that share these are compared. For 4 bits two bands are 21 bits, which
hardly two of a million hashes share by chance, so the time is proportional to their number.
"""

import bisect
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from weighin.data.listing import Listing, class_of
from weighin.errors import DataError
from weighin.image_formats import MAX_HEAD, kind_of
from weighin.params import Faults

# A record's `marks` are bits in this order
UNREADABLE = ("unreadable", "zero-byte", "not-an-image", "truncated", "bomb")
UNUSUAL = (
    "damaged",
    "animated",
    "cmyk",
    "16-bit",
    "range-guessed",
    "palette-transparency",
    "exif-rotated",
    "extreme-aspect",
)
MARKS = UNREADABLE + UNUSUAL
RECORD = np.dtype([("sha256", "S32"), ("hash", "u8"), ("marks", "u4")])

Records = npt.NDArray[np.void]
Found = tuple[str, str, str]  # fault, name, detail
Row = tuple[str, str, str, str]  # fault, name, what was done, detail
DONE = {"drop": "dropped", "keep": "kept", "fail": "failed"}
# fault: the policy that decides on it
POLICY_OF = {
    **dict.fromkeys(UNREADABLE, "unreadable"),
    "damaged": "damaged",
    "animated": "animated",
    "cmyk": "cmyk",
    "16-bit": "sixteen_bit",
    "range-guessed": "sixteen_bit",
    "palette-transparency": "transparent",
    "exif-rotated": "rotated",
    "extreme-aspect": "extreme_aspect",
    "name-collision": "name_collision",
    "escaping-link": "escaping_link",
    "no-class": "escaping_link",
    "duplicate": "duplicate",
    "contradiction": "contradiction",
    "near-duplicate": "near_duplicate",
    "small-class": "small_class",
}
Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Pairs = npt.NDArray[np.int64]  # (P, 2), the smaller index first
Band = npt.NDArray[np.uint16]  # (N,) some neighboring bits of each hash
SIDE, TERMS = 32, 8
# whole numbers, so that every sum is exact and the bits are the same on every processor
COSINES = np.round(
    2**14 * np.cos(np.pi * np.outer(np.arange(TERMS), 2 * np.arange(SIDE) + 1) / (2 * SIDE))
)
MATRIX = 2048  # hashes of which all pairs are compared at once, 1 ns a pair
PART = 2**14  # hashes
BATCH = 64  # hashes that are compared with all of a family at once
FAMILY = 32  # hashes that share bands; of more, a video's frames say, not all pairs are listed


def hexadecimal(sha256: bytes) -> str:
    """Return a record's SHA-256 as text; NumPy's fixed-width bytes drop the zeros at their end."""
    return sha256.ljust(32, b"\0").hex()


def mark(*faults: str) -> int:
    """Return the bits of faults."""
    return sum(1 << MARKS.index(fault) for fault in faults)


@dataclass
class Verdict:
    """Which images stay, and one row for every fault found."""

    keep: npt.NDArray[np.bool_]  # (N,)
    rows: list[Row] = field(default_factory=list)


def judge(listing: Listing, records: Records, near_bits: int, policy: Faults) -> Verdict:
    """Return what stays of a listing after every policy.

    What is no image is looked at again, to be named. Duplicates, contradictions and near-duplicates
    are looked for among what is readable and not yet dropped, small classes last of all.

    Raises:
        DataError: faults whose policy is "fail", named.
    """
    names = listing.names
    verdict = Verdict(np.ones(len(names), bool))
    _apply(verdict, listing.faults, names, policy)
    _apply(verdict, _marked(listing, records), names, policy)
    _apply(verdict, _same_bytes(names, records, verdict.keep), names, policy)
    _apply(verdict, _alike(names, records, verdict.keep, near_bits), names, policy)
    _apply(verdict, list(_small_classes(names, verdict, policy.min_per_class)), names, policy)
    verdict.rows.sort()
    failed = [row for row in verdict.rows if row[2] == "failed"]
    if failed:
        _fail(failed)
    return verdict


def _apply(verdict: Verdict, faults: Iterable[Found], names: list[str], policy: Faults) -> None:
    for fault, name, detail in faults:
        done = DONE[getattr(policy, POLICY_OF[fault])]
        place = bisect.bisect_left(names, name)
        listed = names[place : place + 1] == [name]
        if not listed and done == "kept":  # what is no image cannot be kept
            done = "dropped"
        if listed and done == "dropped":
            verdict.keep[place] = False
        verdict.rows.append((fault, name, done, detail))


def _fail(failed: list[Row]) -> None:
    shown = "\n".join(
        f"{fault}: {name}{detail and f' ({detail})'}" for fault, name, _, detail in failed[:10]
    )
    more = f"\nand {len(failed) - 10:,} more" if len(failed) > 10 else ""
    policies = ", ".join(sorted({f"prepare.faults.{POLICY_OF[row[0]]}" for row in failed}))
    raise DataError(
        f"{len(failed):,} fault{'s' * (len(failed) > 1)} must not pass:\n{shown}{more}",
        f"fix or remove the files, or change {policies} in params.yaml",
    )


def _marked(listing: Listing, records: Records) -> Iterator[Found]:
    marks = records["marks"]
    for place in np.flatnonzero(marks):
        for bit, fault in enumerate(MARKS):
            if int(marks[place]) >> bit & 1:
                name, no_image = listing.names[place], fault == "not-an-image"
                yield fault, name, kind_of(listing.read(name, MAX_HEAD)) if no_image else ""


def _same_bytes(names: list[str], records: Records, keep: npt.NDArray[np.bool_]) -> Iterator[Found]:
    """Yield contradictions (every image of them), and duplicates (all but the first name)."""
    places = np.flatnonzero(keep)
    order = places[np.argsort(records["sha256"][places], kind="stable")]
    sha = records["sha256"][order]
    ends = np.append(np.flatnonzero(sha[1:] != sha[:-1]) + 1, len(sha))
    counts = np.diff(ends, prepend=0)
    for end, count in zip(ends[counts > 1], counts[counts > 1], strict=True):
        same = [names[place] for place in order[end - count : end]]
        if len({class_of(name) for name in same}) > 1:
            for name in same:
                other = next(o for o in same if class_of(o) != class_of(name))
                yield "contradiction", name, other
        else:
            for name in same[1:]:
                yield "duplicate", name, same[0]


def _alike(
    names: list[str], records: Records, keep: npt.NDArray[np.bool_], bits: int
) -> Iterator[Found]:
    """Yield the images that look like an earlier one which is not among them itself."""
    places = np.flatnonzero(keep)
    places = places[np.unique(close_pairs(records["hash"][places], bits))]
    for place, other in near_an_earlier(records["hash"][places], bits).items():
        yield "near-duplicate", names[places[place]], names[places[other]]


def dropped(rows: Iterable[Row]) -> list[tuple[str, int, Row]]:
    """Return each fault that images were dropped for, how many, and the first of these rows."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row[2] == "dropped":
            found.setdefault(row[0], []).append(row)
    return [(fault, len(own), own[0]) for fault, own in sorted(found.items())]


def _small_classes(names: list[str], verdict: Verdict, least: int) -> Iterator[Found]:
    """Yield the images of small classes; a class of which nothing is left by its name alone."""
    counts = Counter(class_of(names[place]) for place in np.flatnonzero(verdict.keep))
    small = {label for label, count in counts.items() if count < least}
    for place in np.flatnonzero(verdict.keep) if small else ():
        label = class_of(names[place])
        if label in small:
            yield "small-class", names[place], f"{counts[label]} images in its class"
    if len(counts) < 2:  # then there is no data set, which is told in full
        return
    gone = Counter(label for label in map(class_of, names) if label not in counts)
    for label, files in sorted(gone.items()):
        rows = [row for row in verdict.rows if row[2] == "dropped" and class_of(row[1]) == label]
        why = ", ".join(f"{many:,} {fault}" for fault, many, _ in dropped(rows))
        both = (f", such as {row[1]} and {row[3]}" for row in rows if row[0] == "contradiction")
        why += min(both, default="")
        yield "small-class", label, f"none of its {files:,} files can be used: {why}"


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
    hashes share bands, each is paired with one that is close to it. So an image has a bounded
    number of pairs, and 5,000 frames of one video take no more each than 50.
    """
    if bits < 0 or len(hashes) < 2:
        return np.empty((0, 2), np.int64)
    order = _grouped(_bands(hashes, 4))
    same = hashes[order[1:]] == hashes[order[:-1]]
    found = [np.stack([order[:-1][same], order[1:][same]], axis=1)]
    repeated = np.zeros(len(hashes), bool)
    repeated[order[1:][same]] = True
    first = np.flatnonzero(~repeated)
    distinct = hashes[first]
    agree = 2 if bits <= 8 else 1  # of more bits, two bands hold too few to tell hashes apart
    for place, band in enumerate(_bands(distinct, bits + agree)):
        for part in _parts(band):
            held = distinct[part]
            own, *rest = _bands(held, bits + agree)[place:]
            for others in itertools.combinations(rest, agree - 1):
                found += [first[part[p]] for p in _pairs_sharing([own, *others], held, bits)]
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def near_an_earlier(hashes: Hashes, bits: int) -> dict[int, int]:
    """Return {image: the earlier image that it is dropped for}.

    An image is dropped if it is within `bits` bits of an earlier one that is not dropped itself:
    what is alike only through a chain of others stays.
    """
    near: dict[int, int] = {}
    later = [_buckets(band) for band in _bands(hashes, bits + 1)] if bits >= 0 else []
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


def _buckets(values: Band) -> dict[int, list[Indices]]:
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


def _bands(hashes: Hashes, count: int) -> list[Band]:
    """Return `count` bands of the hashes' 64 bits, of wider ones their first 16 bits."""
    edges = np.linspace(0, 64, count + 1).astype(int).tolist()
    masks = ((low, min(high - low, 16)) for low, high in itertools.pairwise(edges))
    return [
        (hashes >> np.uint64(low) & np.uint64(2**wide - 1)).astype(np.uint16) for low, wide in masks
    ]


def _grouped(bands: Sequence[Band]) -> Indices:
    """Return the order by the last band, then the one before, ..., then by place: a radix sort."""
    order = np.argsort(bands[0], kind="stable")
    for band in bands[1:]:
        order = order[np.argsort(band[order], kind="stable")]
    return order


def _parts(band: Band) -> list[Indices]:
    """Return the places of some values of the band each, no more than the processor's cache holds.

    A value's places are in one part, in their order.
    """
    order = _grouped([band])
    return np.split(order, np.unique(np.searchsorted(band[order], band[order[PART::PART]])))


def _pairs_sharing(shared: Sequence[Band], hashes: Hashes, bits: int) -> list[Pairs]:
    """Return close pairs among the hashes that agree in `shared` bands."""
    order = _grouped(shared)
    alike = np.all([np.diff(band[order]) == 0 for band in shared], axis=0)
    left, step = np.flatnonzero(alike), 1  # those that agree with the next in order
    starts = np.flatnonzero(np.diff(left, prepend=-2) > 1)
    sizes = np.diff(starts, append=len(left))
    large = sizes >= FAMILY
    found: list[Pairs] = []
    for start, size in zip(left[starts[large]], sizes[large], strict=True):
        found += _spanning_pairs(hashes, order[start : start + size + 1], bits)
    left = left[np.repeat(~large, sizes)]
    while len(left):
        a, b = order[left], order[left + step]
        near = np.bitwise_count(hashes[a] ^ hashes[b]) <= bits
        found.append(np.stack([a[near], b[near]], axis=1))
        left = left[left + step < len(alike)]
        left, step = left[alike[left + step]], step + 1
    return found


def _spanning_pairs(hashes: Hashes, left: Indices, bits: int) -> list[Pairs]:
    """Return pairs that join what hangs together in `left`: one less than it has members."""
    if len(left) <= MATRIX:  # many members may be alike in these bands alone
        close = np.bitwise_count(hashes[left][:, None] ^ hashes[left]) <= bits
        left = left[close.sum(1) > 1]
    found = []
    while len(left):
        reached, left, at = left[:1], left[1:], 0
        while at < len(reached) and len(left):
            some = reached[at : at + BATCH]
            near = np.bitwise_count(hashes[some][:, None] ^ hashes[left]) <= bits
            new = near.any(axis=0)
            found.append(np.stack([some[near[:, new].argmax(axis=0)], left[new]], axis=1))
            reached, at = np.concatenate([reached, left[new]]), at + len(some)
            left = left[~new]
    return found
