"""The kernels of a training step: products, batch norm with its activation, windows of maps.

Maps lie channels last: P pixels (B * H * W) of C floats.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from weighin.training.activations import ACTIVATIONS
from weighin.training.vectors import LANES, Kernel, Term, Variable, compiled

ROWS, DEPTH = 6, 256  # of a product: rows at a time; terms of a sum at a time
PIXELS = 64  # of a batch norm at a time: a block that stays in the first cache


@compiled("a right out", "M N K ROW COLUMN")
def product(k: Kernel) -> None:
    """out (M, N) = sum over K of a[m * ROW + k * COLUMN] * right (K, N), in the order of k."""

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
        k.steps(0, k.M, ROWS, lambda m, width: rows(m, width, start, stop))


@compiled("x y", "M N")
def transposed(k: Kernel, turned: bool = False) -> None:
    """y (N, M) = x (M, N), its rows from the last to the first where it is turned."""

    def rows(m: Term, width: int) -> None:
        with k.loop(0, k.N) as n:
            row = k.N - 1 - n if turned else n
            for r in range(width):
                k.copy(k.x, (m + r) * k.N + n, k.y, row * k.M + m + r)

    k.steps(0, k.M, LANES, rows)


def _clear(k: Kernel, *sums: Term) -> None:
    """Set sums (C,) to 0."""

    def start(c: Term) -> None:
        for place in sums:
            k.store(k.vector(0.0), place, c)

    k.channels(k.C, start)


def _statistics(k: Kernel) -> None:
    """Leave the mean, and the sum of squared deviations from it in `inverse`, block by block."""
    with k.loop(0, k.P, PIXELS) as first:
        last = (first + PIXELS).at_most(k.P)
        share = k.number(last - first) / k.number(last)
        weight = k.number(first) * share

        def block(c: Term) -> None:
            sums = [Variable(k) for _ in range(4)]

            def add(p: Term, width: int) -> None:
                for r in range(width):
                    sums[r].set(sums[r].get() + k.load(k.x, (p + r) * k.C + c))

            k.steps(first, last, 4, add)
            mean = _total(sums) / k.number(last - first)
            squares = [Variable(k) for _ in range(4)]

            def square(p: Term, width: int) -> None:
                for r in range(width):
                    d = k.load(k.x, (p + r) * k.C + c) - mean
                    squares[r].set(k.fma(d, d, squares[r].get()))

            k.steps(first, last, 4, square)
            old = k.load(k.mean, c)
            apart = mean - old
            k.store(k.fma(apart, share, old), k.mean, c)
            more = k.fma(apart * apart, weight, _total(squares))
            k.store(k.load(k.inverse, c) + more, k.inverse, c)

        k.channels(k.C, block)


@compiled("x y gain shift mean inverse means variances", "P C", "each unbias eps momentum")
def norm_forward(k: Kernel, act: str) -> None:
    """y = act(norm(x)); mean and inverse deviation of x; running means and variances move.

    A block's sum and squared deviations join the others' as in Chan, Golub and LeVeque, "Updating
    formulae and a pairwise algorithm for computing sample variances" (1979).
    """

    _clear(k, k.mean, k.inverse)
    _statistics(k)

    def finish(c: Term) -> None:
        variance = k.load(k.inverse, c) * k.every_lane(k.each)
        k.store(k.vector(1.0) / k.sqrt(variance + k.every_lane(k.eps)), k.inverse, c)
        momentum = k.every_lane(k.momentum)
        moving = ((k.means, k.load(k.mean, c)), (k.variances, variance * k.every_lane(k.unbias)))
        for place, value in moving:
            old = k.load(place, c)
            k.store(k.fma(momentum, value - old, old), place, c)

    k.channels(k.C, finish)
    with k.loop(0, k.P, PIXELS) as passed:  # from the end, which the caches still hold
        last = k.P - passed
        first = (last - PIXELS).at_least(0)

        def apply(c: Term) -> None:
            mean, inverse = k.load(k.mean, c), k.load(k.inverse, c)
            gain, shift = k.load(k.gain, c), k.load(k.shift, c)
            with k.loop(first, last) as p:
                at = p * k.C + c
                z = k.fma((k.load(k.x, at) - mean) * inverse, gain, shift)
                k.store(ACTIVATIONS[act][0](k, z), k.y, at)

        k.channels(k.C, apply)


@compiled("dy x gain shift mean inverse dgain dshift dx", "P C", "each")
def norm_backward(k: Kernel, act: str) -> None:
    """Gradients of norm_forward's x, gain and shift from that of y."""
    kept = act in ("SiLU", "Sigmoid")  # a slope that costs more than to store and load it

    _clear(k, k.dgain, k.dshift)
    with k.loop(0, k.P, PIXELS) as first:
        last = (first + PIXELS).at_most(k.P)

        def block(c: Term) -> None:
            mean, inverse = k.load(k.mean, c), k.load(k.inverse, c)
            gain, shift = k.load(k.gain, c), k.load(k.shift, c)
            grads, products = ([Variable(k) for _ in range(4)] for _ in range(2))

            def add(p: Term, width: int) -> None:
                for r in range(width):
                    at = (p + r) * k.C + c
                    x, g = (k.load(k.x, at) - mean) * inverse, k.load(k.dy, at)
                    if act != "Identity":
                        g = g * ACTIVATIONS[act][1](k, k.fma(x, gain, shift))
                    if kept:
                        k.store(g, k.dx, at)
                    grads[r].set(grads[r].get() + g)
                    products[r].set(k.fma(g, x, products[r].get()))

            k.steps(first, last, 4, add)
            k.store(k.load(k.dgain, c) + _total(products), k.dgain, c)
            k.store(k.load(k.dshift, c) + _total(grads), k.dshift, c)

        k.channels(k.C, block)
    with k.loop(0, k.P, PIXELS) as passed:  # from the end, which the caches still hold
        last = k.P - passed
        first = (last - PIXELS).at_least(0)

        def apply(c: Term) -> None:
            mean, inverse = k.load(k.mean, c), k.load(k.inverse, c)
            scale, each = k.load(k.gain, c) * inverse, k.every_lane(k.each)
            offset, along = k.load(k.dshift, c) * each, k.vector(0.0) - k.load(k.dgain, c) * each
            with k.loop(first, last) as p:
                at = p * k.C + c
                x, g = (k.load(k.x, at) - mean) * inverse, k.load(k.dx if kept else k.dy, at)
                if act != "Identity" and not kept:
                    g = g * ACTIVATIONS[act][1](k, k.fma(x, k.load(k.gain, c), k.load(k.shift, c)))
                k.store(scale * k.fma(along, x, g - offset), k.dx, at)

        k.channels(k.C, apply)


def _total(sums: list[Variable]) -> Term:
    a, b, c, d = (s.get() for s in sums)
    return (a + b) + (c + d)


SHAPE = "B H W C OH OW PAD"
Taps = Callable[[], AbstractContextManager[tuple[Term, Term]]]


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


@compiled("x shift y", "P C")
def shift_forward(k: Kernel, act: str) -> None:
    """y = act(x + shift), for rows of C floats."""
    with k.loop(0, k.P) as p:

        def apply(c: Term) -> None:
            z = k.load(k.x, p * k.C + c) + k.load(k.shift, c)
            k.store(ACTIVATIONS[act][0](k, z), k.y, p * k.C + c)

        k.channels(k.C, apply)


@compiled("dy x shift dx dshift", "P C")
def shift_backward(k: Kernel, act: str) -> None:
    """Gradients of shift_forward's x and shift from that of y."""

    def column(c: Term) -> None:
        shift, total = k.load(k.shift, c), Variable(k)
        with k.loop(0, k.P) as p:
            at = p * k.C + c
            g = k.load(k.dy, at) * ACTIVATIONS[act][1](k, k.load(k.x, at) + shift)
            k.store(g, k.dx, at)
            total.set(total.get() + g)
        k.store(total.get(), k.dshift, c)

    k.channels(k.C, column)


@compiled("x out", "B P C", "each")
def means(k: Kernel) -> None:
    """out (B, C) = `each` times the sum of x over an image's P pixels."""
    with k.loop(0, k.B) as n:

        def column(c: Term) -> None:
            total = Variable(k)
            with k.loop(0, k.P) as p:
                total.set(total.get() + k.load(k.x, (n * k.P + p) * k.C + c))
            k.store(total.get() * k.every_lane(k.each), k.out, n * k.C + c)

        k.channels(k.C, column)


@compiled("x gate y", "B P C")
def gate_forward(k: Kernel, act: str) -> None:
    """y = act(x * gate), gate (B, C)."""
    with k.loop(0, k.B) as n:

        def column(c: Term) -> None:
            gate = k.load(k.gate, n * k.C + c)
            with k.loop(0, k.P) as p:
                at = (n * k.P + p) * k.C + c
                k.store(ACTIVATIONS[act][0](k, k.load(k.x, at) * gate), k.y, at)

        k.channels(k.C, column)


@compiled("dy x gate dgate", "B P C")
def gate_gradient(k: Kernel, act: str) -> None:
    """dgate (B, C) = the gradient of gate_forward's gate."""
    with k.loop(0, k.B) as n:

        def column(c: Term) -> None:
            gate, total = k.load(k.gate, n * k.C + c), Variable(k)
            with k.loop(0, k.P) as p:
                at = (n * k.P + p) * k.C + c
                x = k.load(k.x, at)
                g = k.load(k.dy, at) * ACTIVATIONS[act][1](k, x * gate)
                total.set(k.fma(g, x, total.get()))
            k.store(total.get(), k.dgate, n * k.C + c)

        k.channels(k.C, column)


@compiled("dy x gate dmean dx", "B P C", "each")
def gate_backward(k: Kernel, act: str) -> None:
    """dx = the gradient of gate_forward's x, and `each` times that of its mean."""
    with k.loop(0, k.B) as n:

        def column(c: Term) -> None:
            gate = k.load(k.gate, n * k.C + c)
            more = k.load(k.dmean, n * k.C + c) * k.every_lane(k.each)
            with k.loop(0, k.P) as p:
                at = (n * k.P + p) * k.C + c
                g = k.load(k.dy, at)
                if act != "Identity":
                    g = g * ACTIVATIONS[act][1](k, k.load(k.x, at) * gate)
                k.store(k.fma(g, gate, more), k.dx, at)

        k.channels(k.C, column)
