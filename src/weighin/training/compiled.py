"""The kernels of a training step: products of matrices, windows of maps, and a batch's pixels.

Maps lie channels last: pixels (B * H * W) of C floats. The images of a batch are uint8
(B, H, W, 3) of P = H * W pixels, 16 or more. All give the same bits on every processor.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from weighin.training.vectors import LANES, Kernel, Term, Variable, compiled, registers

DEPTH = 256  # terms of a sum of a product at a time
SHAPE = "B H W C OH OW PAD"
Taps = Callable[[], AbstractContextManager[tuple[Term, Term]]]


@compiled("a right out", "M N K ROW COLUMN")
def product(k: Kernel) -> None:
    """out (M, N) = sum over K of a[m * ROW + k * COLUMN] * right (K, N), in the order of k.

    As many rows at a time as leave vectors for `right`: no sum depends on how many.
    """
    most = 16 if registers() == 32 else 6

    def rows(m: Term, width: int, start: Term, stop: Term) -> None:
        def columns(n: Term) -> None:
            sums = [Variable(k) for _ in range(width)]
            places = [(m + r) * k.N + n for r in range(width)]
            with k.when(start > 0):
                for total, place in zip(sums, places, strict=True):
                    total.set(k.load(k.out, place))
            bases = [k.place(k.a, (m + r) * k.ROW) for r in range(width)]
            with k.loop(start, stop) as i:
                right = k.load(k.right, i * k.N + n)
                for total, base in zip(sums, bases, strict=True):
                    total.set(k.fma(k.one(base, i * k.COLUMN), right, total.get()))
            for total, place in zip(sums, places, strict=True):
                k.store(total.get(), k.out, place)

        k.channels(k.N, columns)

    with k.loop(0, k.K, DEPTH) as start:
        stop = (start + DEPTH).at_most(k.K)
        k.halving_steps(0, k.M, most, lambda m, width: rows(m, width, start, stop))


@compiled("x y", "M N")
def transposed(k: Kernel, turned: bool = False) -> None:
    """y (N, M) = x (M, N), its rows from the last to the first where it is turned."""

    def rows(m: Term, width: int) -> None:
        with k.loop(0, k.N) as n:
            row = k.N - 1 - n if turned else n
            for r in range(width):
                k.copy(k.x, (m + r) * k.N + n, k.y, row * k.M + m + r)

    k.steps(0, k.M, LANES, rows)


def _inside(k: Kernel, tap: Term, size: Term, count: Term, stride: int) -> tuple[Term, Term]:
    """Return the first output whose input at a tap is inside `size`, and the one after the last."""
    shift = tap - k.PAD
    first = (k.size(stride - 1) - shift).at_least(0) / stride
    after = (size - shift + (stride - 1)) / stride
    return first, after.at_most(count).at_least(first)


def _taps(k: Kernel, first: Term, size: Term, side: int) -> tuple[Term, Term]:
    """Return the first tap of a window from `first` on that is inside `size`, and the one after."""
    return (k.size(0) - first).at_least(0), (size - first).at_most(side)


@compiled("x w y", SHAPE)
def depthwise_forward(k: Kernel, side: int, stride: int) -> None:
    """y = the depthwise convolution of x with w (side * side, C)."""
    x0 = _inside(k, k.size(0), k.W, k.OW, stride)[0]
    x1 = _inside(k, k.size(side - 1), k.W, k.OW, stride)[1].at_least(x0)
    with k.loop(0, k.B) as n, k.loop(0, k.OH) as oy:
        top = oy * stride - k.PAD
        i0, i1 = _taps(k, top, k.H, side)

        def channels(c: Term) -> None:
            def border(ox: Term) -> None:
                left = ox * stride - k.PAD
                j0, j1 = _taps(k, left, k.W, side)
                total = Variable(k)
                with k.loop(i0, i1) as i, k.loop(j0, j1) as j:
                    x = k.load(k.x, (((n * k.H + top + i) * k.W) + left + j) * k.C + c)
                    w = k.load(k.w, (i * side + j) * k.C + c)
                    total.set(k.fma(x, w, total.get()))
                k.store(total.get(), k.y, ((n * k.OH + oy) * k.OW + ox) * k.C + c)

            def interior(ox: Term, width: int) -> None:
                left = ox * stride - k.PAD
                sums = [Variable(k) for _ in range(width)]
                with k.loop(i0, i1) as i:
                    base = k.place(k.x, (((n * k.H + top + i) * k.W) + left) * k.C + c)
                    weights = k.place(k.w, i * side * k.C + c)
                    pixels = [k.load(base, k.C * j) for j in range((width - 1) * stride + side)]
                    for j in range(side):
                        w = k.load(weights, k.C * j)
                        for r, total in enumerate(sums):
                            total.set(k.fma(pixels[r * stride + j], w, total.get()))
                for r, total in enumerate(sums):
                    k.store(total.get(), k.y, ((n * k.OH + oy) * k.OW + ox + r) * k.C + c)

            with k.loop(0, x0.at_most(k.OW)) as ox:
                border(ox)
            k.steps(x0, x1, 4, interior)
            with k.loop(x1, k.OW) as ox:
                border(ox)

        k.channels(k.C, channels)


@compiled("dy w dx", SHAPE)
def depthwise_input(k: Kernel, side: int, stride: int) -> None:
    """dx = the gradient of depthwise_forward's x."""

    def reach(at: Term, outputs: Term) -> tuple[Term, Term]:
        low = (at - (outputs - 1) * stride).at_least(0)
        return low + (at - low) % stride, (at + 1).at_most(side)

    with k.loop(0, k.B) as n, k.loop(0, k.H) as y:
        i0, i1 = reach(y + k.PAD, k.OH)
        with k.loop(0, k.W) as x:
            j0, j1 = reach(x + k.PAD, k.OW)

            def channels(c: Term) -> None:
                total = Variable(k)
                with k.loop(i0, i1, stride) as i, k.loop(j0, j1, stride) as j:
                    oy, ox = (y + k.PAD - i) / stride, (x + k.PAD - j) / stride
                    g = k.load(k.dy, ((n * k.OH + oy) * k.OW + ox) * k.C + c)
                    w = k.load(k.w, (i * side + j) * k.C + c)
                    total.set(k.fma(g, w, total.get()))
                k.store(total.get(), k.dx, ((n * k.H + y) * k.W + x) * k.C + c)

            k.channels(k.C, channels)


@compiled("x dy dw", SHAPE)
def depthwise_weight(k: Kernel, side: int, stride: int) -> None:
    """dw (side * side, C) = the gradient of depthwise_forward's w: rows' sums, added in order."""
    ranges = [_inside(k, k.size(j), k.W, k.OW, stride) for j in range(side)]
    x0, x1 = ranges[0][0], ranges[-1][1]
    x1 = x1.at_least(x0)

    def channels(c: Term) -> None:
        for tap in range(side * side):
            k.store(k.vector(0.0), k.dw, k.C * tap + c)
        with k.loop(0, k.B) as n, k.loop(0, k.OH) as oy:
            top = oy * stride - k.PAD
            with k.loop(*_taps(k, top, k.H, side)) as i:
                x = k.place(k.x, ((n * k.H + top + i) * k.W - k.PAD) * k.C + c)
                dy = k.place(k.dy, (n * k.OH + oy) * k.OW * k.C + c)
                sums = [[Variable(k) for _ in range(side)] for _ in range(2)]

                def add(ox: Term, width: int, taps: range) -> None:
                    for r in range(width):
                        g = k.load(dy, (ox + r) * k.C)
                        for j in taps:
                            v = k.load(x, ((ox + r) * stride + j) * k.C)
                            sums[r][j].set(k.fma(v, g, sums[r][j].get()))

                for j, (first, after) in enumerate(ranges):
                    with k.loop(first, x0.at_most(after)) as ox:
                        add(ox, 1, range(j, j + 1))
                k.steps(x0, x1, 2, lambda ox, width: add(ox, width, range(side)))
                for j, (first, after) in enumerate(ranges):
                    with k.loop(x1.at_least(first), after) as ox:
                        add(ox, 1, range(j, j + 1))
                for j in range(side):
                    at = (i * side + j) * k.C + c
                    k.store(k.load(k.dw, at) + (sums[0][j].get() + sums[1][j].get()), k.dw, at)

    k.channels(k.C, channels)


@contextmanager
def _windows(k: Kernel, side: int, stride: int) -> Iterator[tuple[Term, Taps]]:
    """Repeat for every window: where its output's channels begin, and a loop over its taps.

    Of each tap that loop gives its number, and where its input's channels begin.
    """
    with k.loop(0, k.B) as n, k.loop(0, k.OH) as oy, k.loop(0, k.OW) as ox:
        top, left = oy * stride - k.PAD, ox * stride - k.PAD
        (i0, i1), (j0, j1) = _taps(k, top, k.H, side), _taps(k, left, k.W, side)

        @contextmanager
        def taps() -> Iterator[tuple[Term, Term]]:
            with k.loop(i0, i1) as i, k.loop(j0, j1) as j:
                yield k.number(i * side + j), ((n * k.H + top + i) * k.W + left + j) * k.C

        yield ((n * k.OH + oy) * k.OW + ox) * k.C, taps


@compiled("x y taken", SHAPE)
def max_pool_forward(k: Kernel, side: int, stride: int) -> None:
    """y = the largest of each window of x, `taken` = the first tap that has it, NaN before all."""
    with _windows(k, side, stride) as (out, taps):

        def channels(c: Term) -> None:
            largest, taken = Variable(k, -math.inf), Variable(k, -1.0)
            with taps() as (tap, place):
                x, before = k.load(k.x, place + c), largest.get()
                larger = (x > before).or_nan(x)
                largest.set(larger.choose(x, before))
                taken.set(larger.choose(tap, taken.get()))
            k.store(largest.get(), k.y, out + c)
            k.store(taken.get(), k.taken, out + c)

        k.channels(k.C, channels)


@compiled("dy taken dx", SHAPE)
def max_pool_backward(k: Kernel, side: int, stride: int) -> None:
    """dx = the gradient of max_pool_forward's x: added window by window."""
    with k.loop(0, k.B * k.H * k.W) as p:
        k.channels(k.C, lambda c: k.store(k.vector(0.0), k.dx, p * k.C + c))
    with _windows(k, side, stride) as (out, taps):

        def channels(c: Term) -> None:
            dy, taken = k.load(k.dy, out + c), k.load(k.taken, out + c)
            with taps() as (tap, place):
                more = taken.equals(tap).choose(dy, 0.0)
                k.store(k.load(k.dx, place + c) + more, k.dx, place + c)

        k.channels(k.C, channels)


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
