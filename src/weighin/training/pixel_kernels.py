"""The kernels of a batch's pixels: uint8 (B, H, W, 3), P = H * W pixels, 16 or more.

Like the kernels of a training step (compiled.py) they give the same bits on every processor.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from weighin.training.vectors import LANES, Kernel, Term, Variable, compiled


@contextmanager
def _blocks(k: Kernel, count: Term) -> Iterator[Term]:
    """Repeat for the first of every 16; the last 16 may overlap those before."""
    with k.loop(0, count, LANES) as start:
        yield start.at_most(count - LANES)


@compiled("x maps y", "B H W", "grey")
def warping(k: Kernel, finer: int) -> None:
    """y (B, H, W, 3) = x at each pixel's source, interpolated; grey where that lies outside.

    x has `finer` times as many pixels a side, and as many places of each pixel of y are averaged.
    `maps` (B, 6) are the first two rows of the maps from a pixel's center to its source, both in
    pixels of y. Memory goes on for a byte after x: 4 bytes are read of the 3 of a pixel.
    """
    pixels, width, height = k.H * k.W, k.number(k.W * finer), k.number(k.H * finer)
    places = [(2 * place + 1) / (2 * finer) for place in range(finer)]

    def between(source: Term, side: Term) -> tuple[Term, Term, Term]:
        """Return the pixels before and after a source, and the share of the second."""
        place = (source * finer - 0.5).at_least(0.0).at_most(side - 1.0)
        before = k.floor(place)
        return before, (before + 1.0).at_most(side - 1.0), place - before

    def sampled(image: Term, u: Term, v: Term) -> list[Term]:
        (left, right, along), (top, bottom, down) = between(u, width), between(v, height)
        corners = [k.pixels_at(image, y * width + x) for y in (top, bottom) for x in (left, right)]
        inside = (u < 0.0).choose(k.vector(0.0), (u < k.number(k.W)).choose(k.vector(1.0), 0.0))
        inside = (v < 0.0).choose(k.vector(0.0), (v < k.number(k.H)).choose(inside, 0.0))
        colors = []
        for one, two, three, four in zip(*corners, strict=True):
            above, below = k.fma(along, two - one, one), k.fma(along, four - three, three)
            value = k.fma(down, below - above, above)
            colors.append((inside > 0.0).choose(value, k.every_lane(k.grey)))
        return colors

    with k.loop(0, k.B) as n:
        a, b, c, d, e, f = (k.one(k.maps, n * 6 + i) for i in range(6))
        image = k.byte(k.x, n * pixels * (3 * finer * finer))
        with _blocks(k, pixels) as start:
            number = k.number(start) + k.lanes()
            row = k.floor((number + 0.5) / k.number(k.W))
            column = number - row * k.number(k.W)
            sums = [k.vector(0.0)] * 3
            for across, along in itertools.product(places, places):
                x, y = column + along, row + across
                u, v = k.fma(a, x, k.fma(b, y, c)), k.fma(d, x, k.fma(e, y, f))
                sums = [s + color for s, color in zip(sums, sampled(image, u, v), strict=True)]
            mixed = [k.fma(s, k.vector(1 / finer**2), 0.5) for s in sums]
            k.store_pixels(mixed, k.y, n * pixels + start)


@compiled("x moves y", "B H W")
def moving(k: Kernel) -> None:
    """y (B, H, W, 3) = x, mirrored, at each pixel's place plus a shift; the edges are reflected.

    `moves` (B, 4) are each image's shift down and right, and 1 or 0: mirrored top to bottom, left
    to right. Memory goes on for a byte after x, as in `warping`.
    """
    pixels = k.H * k.W

    def source(place: Term, shift: Term, mirrored: Term, side: Term) -> Term:
        last, place = side - 1.0, place + shift
        place = place.at_least(k.vector(0.0) - place)
        place = place.at_most(last + last - place)
        return (mirrored > 0.0).choose(last - place, place)

    with k.loop(0, k.B) as n:
        down, right, upside_down, mirrored = (k.one(k.moves, n * 4 + i) for i in range(4))
        image = k.byte(k.x, n * pixels * 3)
        with _blocks(k, pixels) as start:
            number, width = k.number(start) + k.lanes(), k.number(k.W)
            row = k.floor((number + 0.5) / width)
            column = number - row * width
            y = source(row, down, upside_down, k.number(k.H))
            x = source(column, right, mirrored, width)
            k.store_pixels(k.pixels_at(image, y * width + x), k.y, n * pixels + start)


@compiled("x y", "B N")
def summing(k: Kernel) -> None:
    """y (B, 16) = parts of the sum of each row's bytes x (B, N); exact for rows of a megabyte."""
    with k.loop(0, k.B) as n:
        total, whole = Variable(k), k.N / LANES * LANES
        with k.loop(0, whole, LANES) as index:
            total.set(total.get() + k.bytes(k.x, n * k.N + index))
        last = k.bytes(k.x, (n + 1) * k.N - LANES)  # some of these were added before
        new = k.lanes() > k.number(k.size(LANES - 1) - (k.N - whole))
        k.store(total.get() + new.choose(last, 0.0), k.y, n * LANES)


@compiled("x y", "N", "scale")
def scaling(k: Kernel) -> None:
    """y (N,), floats = the bytes x (N,) times `scale`, rounded, less 1."""
    scale = k.every_lane(k.scale)
    with _blocks(k, k.N) as start:
        k.store(k.bytes(k.x, start) * scale - 1.0, k.y, start)


@compiled("x matrix shift y", "B P")
def mix_colors(k: Kernel) -> None:
    """y = each color of x times its image's matrix (B, 3, 3), plus its shift (B,), cut to bytes."""
    with k.loop(0, k.B) as n:
        factors = [k.one(k.matrix, n * 9 + i) for i in range(9)]
        shift = k.one(k.shift, n)
        with _blocks(k, k.P) as start:
            red, green, blue = k.pixels(k.x, n * k.P + start)
            mixed = []
            for r, g, b in zip(factors[:3], factors[3:6], factors[6:], strict=True):
                value = k.fma(red, r, k.fma(green, g, k.fma(blue, b, shift)))
                mixed.append(value.at_least(0.0).at_most(255.0))
            k.store_pixels(mixed, k.y, n * k.P + start)


@compiled("first second y", "P", "weight")
def blending(k: Kernel) -> None:
    """y = `weight` of the first and the rest of the second, rounded, pixel by pixel (P, 3)."""
    weight = k.every_lane(k.weight)
    rest = k.vector(1.0) - weight
    with _blocks(k, k.P) as start:
        pairs = zip(k.pixels(k.first, start), k.pixels(k.second, start), strict=True)
        k.store_pixels([k.fma(a, weight, k.fma(b, rest, 0.5)) for a, b in pairs], k.y, start)
