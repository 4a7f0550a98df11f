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

from weighin.data import faults
from weighin.data.faults import (
    close_pairs,
    components,
    near_an_earlier,
    perceptual_hashes,
    thumbnail,
)
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
def test_close_pairs_are_all_close_pairs(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(bits)
    centres = rng.integers(0, 2**64, 20, np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, (300, 8)).astype(np.uint64)
    used = np.where(rng.random((300, 8)) < 0.5, flips, np.uint64(0))
    hashes = np.unique(rng.choice(centres, 300) ^ np.bitwise_xor.reduce(used, axis=1))
    rng.shuffle(hashes)
    monkeypatch.setattr(faults, "FAMILY", 300)
    found = close_pairs(hashes, bits)
    every = brute(hashes, bits)
    assert {(a, b) for a, b in found.tolist()} == every
    assert np.array_equal(found, np.unique(found, axis=0))  # in order, each once
    assert (len(found) > 100) == (bits >= 4)
    # in families too large to list, true pairs that join the same images
    monkeypatch.setattr(faults, "FAMILY", 4)
    fewer = close_pairs(hashes, bits)
    assert {(a, b) for a, b in fewer.tolist()} <= every
    assert np.array_equal(components(len(hashes), fewer), components(len(hashes), found))
    assert (len(fewer) < len(found)) == (bits >= 4)


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


def test_components_are_told_by_their_first() -> None:
    assert components(6, np.array([[4, 1], [5, 4], [2, 3]])).tolist() == [0, 1, 2, 2, 1, 1]
    assert components(3, np.empty((0, 2), np.int64)).tolist() == [0, 1, 2]
    rng = np.random.default_rng(0)
    for count, links in ((1, 0), (50, 10), (500, 240), (500, 600)):
        pairs = rng.integers(0, count, (links, 2))
        first = list(range(count))
        for _ in range(count):  # the smaller of two that are joined, until nothing changes
            for a, b in pairs.tolist():
                first[a] = first[b] = min(first[a], first[b])
        assert components(count, pairs).tolist() == first


def test_what_is_alike_through_a_chain_only_is_not_near() -> None:
    """0 - 3 - 6 - 9 bits: each is within 3 of the next, and the third is not near the first."""
    chain = np.array([0, 0b111, 0b111111, 0b111111111, 0b111], np.uint64)
    assert near_an_earlier(chain, 3) == {1: 0, 3: 2, 4: 0}
    assert near_an_earlier(chain, 2) == {4: 1}
    assert near_an_earlier(chain, -1) == {}
    assert components(5, close_pairs(chain, 3)).tolist() == [0] * 5


@pytest.mark.parametrize("bits", [0, 4, 7])
def test_what_is_dropped_is_near_what_is_kept_and_nothing_else_is(bits: int) -> None:
    rng = np.random.default_rng(bits)
    flips = np.uint64(1) << rng.integers(0, 64, (400, 5)).astype(np.uint64)
    hashes = rng.integers(0, 2**64, 8, np.uint64)[rng.integers(0, 8, 400)]
    hashes ^= np.bitwise_xor.reduce(flips, axis=1)
    near = near_an_earlier(hashes, bits)
    kept = [index for index in range(400) if index not in near]
    apart = np.bitwise_count(hashes[:, None] ^ hashes)
    assert all(apart[index, other] <= bits and other in kept for index, other in near.items())
    assert all(other < index for index, other in near.items())
    assert np.min(apart[np.ix_(kept, kept)] + 64 * np.eye(len(kept))) > bits
    assert (len(near) > 20) == (bits >= 4)


def video(frames: int) -> npt.NDArray[np.uint64]:
    """Return the hashes of a video in which a few bits flicker: hardly two frames are equal."""
    rng = np.random.default_rng(0)
    flips = np.uint64(1) << rng.integers(0, 64, (frames, 2)).astype(np.uint64)
    return np.uint64(0x123456789ABCDEF0) ^ np.bitwise_xor.reduce(flips, axis=1)


def test_a_video_of_thousands_of_frames_is_one_family_of_few_pairs() -> None:
    hashes = video(5000)
    assert len(np.unique(hashes)) > 1500
    pairs = close_pairs(hashes, 4)
    assert components(5000, pairs).tolist() == [0] * 5000
    assert len(pairs) < 5 * 5000
    assert len(close_pairs(video(10_000), 4)) < 2.2 * len(pairs)
    assert len(near_an_earlier(hashes, 4)) == 4999
