"""Perceptual hashes against the library's, close pairs against all pairs."""

import io
import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from imagehash import phash
from photos import photo
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from weighin.data.near_duplicates import close_pairs, components, perceptual_hashes, thumbnail
from weighin.images import LEAST, Source


def hashes_of(pictures: list[Image.Image]) -> npt.NDArray[np.uint64]:
    return perceptual_hashes(np.stack([thumbnail(picture) for picture in pictures]))


def librarys(grey: npt.NDArray[np.uint8]) -> list[int]:
    bits = (phash(Image.fromarray(one)).hash for one in grey)
    return [int.from_bytes(np.packbits(bit).tobytes(), "big") for bit in bits]


def test_the_hash_is_the_librarys_bit_for_bit() -> None:
    smooth = np.stack([thumbnail(photo(number, 70 + number, 90)) for number in range(100)])
    noise = np.random.default_rng(0).integers(0, 256, (100, 32, 32), np.uint8)
    for grey in (smooth, noise):
        assert perceptual_hashes(grey).tolist() == librarys(grey)


def test_the_hash_does_not_depend_on_its_neighbours() -> None:
    grey = np.stack([thumbnail(photo(number)) for number in range(33)])
    together = perceptual_hashes(grey)
    assert together.tolist() == [int(perceptual_hashes(one[None])[0]) for one in grey]


def again(picture: Image.Image, share: float, quality: int) -> bytes:
    size = tuple(max(1, round(side * share)) for side in picture.size)
    out = io.BytesIO()
    picture.resize(size).save(out, "JPEG", quality=quality)
    return out.getvalue()


def test_copies_are_near_and_others_far() -> None:
    pictures = [photo(number, 300, 400) for number in range(60)]
    hashes = hashes_of(pictures)
    copies = hashes_of([Source(again(p, 0.6, 40)).image(LEAST) for p in pictures])
    apart = np.bitwise_count(hashes[:, None] ^ copies)
    assert np.diag(apart).max() <= 4
    assert np.min(apart + 64 * np.eye(60)) > 8


@pytest.mark.growth
def test_what_four_bits_tell_apart_on_photographs(real: Path) -> None:
    """The figures behind prepare.near_bits = 4: waste7's 2,864 photographs, each copied worse."""
    files = sorted((real / "waste7/train").glob("*/*.jpg"))
    sources = [Source(path.read_bytes()) for path in files]
    hashes = hashes_of([source.image(LEAST) for source in sources])
    copies = hashes_of([Source(again(s.image(), 0.6, 40)).image(LEAST) for s in sources])
    assert np.mean(np.bitwise_count(hashes ^ copies) <= 4) > 0.995
    pairs = close_pairs(hashes, 4)
    assert (len(files), len(pairs)) == (2864, 13)
    crossing = [(files[a].name, files[b].name) for a, b in pairs if _class(files, a, b)]
    assert crossing == [("metal154.jpg", "plastic10.jpg")]


def _class(files: list[Path], a: int, b: int) -> bool:
    return files[a].parent != files[b].parent


def brute(hashes: npt.NDArray[np.uint64], bits: int) -> set[tuple[int, int]]:
    pairs = itertools.combinations(range(len(hashes)), 2)
    return {(a, b) for a, b in pairs if int(hashes[a] ^ hashes[b]).bit_count() <= bits}


@pytest.mark.parametrize("bits", [0, 1, 4, 7, 16])
def test_close_pairs_are_all_close_pairs(bits: int) -> None:
    rng = np.random.default_rng(bits)
    centres = rng.integers(0, 2**64, 20, np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, (300, 8)).astype(np.uint64)
    used = np.where(rng.random((300, 8)) < 0.5, flips, np.uint64(0))
    hashes = np.unique(rng.choice(centres, 300) ^ np.bitwise_xor.reduce(used, axis=1))
    rng.shuffle(hashes)
    found = close_pairs(hashes, bits)
    assert {(a, b) for a, b in found.tolist()} == brute(hashes, bits)
    assert np.array_equal(found, np.unique(found, axis=0))  # in order, each once
    assert (len(found) > 100) == (bits >= 4)


def test_equal_hashes_are_chained() -> None:
    hashes = np.array([7, 2**63, 7, 7, 2**63 + 1], np.uint64)
    assert close_pairs(hashes, 0).tolist() == [[0, 2], [2, 3]]
    assert close_pairs(hashes, 1).tolist() == [[0, 2], [1, 4], [2, 3]]
    assert close_pairs(np.zeros(10_000, np.uint64), 4).shape == (9_999, 2)


@pytest.mark.parametrize("hashes", [[], [5]])
def test_too_few_to_be_close(hashes: list[int]) -> None:
    assert close_pairs(np.array(hashes, np.uint64), 4).shape == (0, 2)


def test_minus_one_finds_nothing() -> None:
    assert close_pairs(np.zeros(10, np.uint64), -1).shape == (0, 2)


def test_components_are_scipys() -> None:
    rng = np.random.default_rng(0)
    for count, links in ((1, 0), (50, 10), (500, 240), (500, 600)):
        pairs = rng.integers(0, count, (links, 2))
        found = components(count, pairs)
        graph = coo_array((np.ones(links), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
        theirs = connected_components(graph, directed=False)[1]
        smallest = [int(np.flatnonzero(theirs == part)[0]) for part in theirs]
        assert found.tolist() == smallest
