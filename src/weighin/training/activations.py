"""Activations with their derivatives, and the kernels that end in one: batch norms, shifts, gates.

Maps lie channels last: P pixels (B * H * W) of C floats.
"""

from collections.abc import Callable

from weighin.training.vectors import Kernel, Term, Variable, compiled

Slope = Callable[[Kernel, Term], Term]
PIXELS = 64  # of a batch norm at a time: a block that stays in the first cache


def exponential(k: Kernel, x: Term) -> Term:
    """Return e^x: 2^n times a polynomial (Cephes' expf)."""
    x = x.at_least(-87.0).at_most(88.0)
    near = k.fma(x, 1.44269504088896341, 12582912.0)  # 1.5 * 2^23: rounds to a whole number
    n = near - 12582912.0
    r = k.fma(n, 2.12194440e-4, k.fma(n, -0.693359375, x))
    y = k.vector(1.9875691500e-4)
    for factor in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5):
        y = k.fma(y, r, factor)
    return k.power_of_two(near, k.fma(y, r * r, r) + 1.0)


def sigmoid(k: Kernel, z: Term) -> Term:
    """Return 1 / (1 + e^-z)."""
    one = k.vector(1.0)
    return one / (one + exponential(k, k.vector(0.0) - z))


def ramp(k: Kernel, z: Term) -> Term:
    """Return the hard sigmoid: (z + 3) / 6 between 0 and 1."""
    return (z + 3.0).at_least(0.0).at_most(6.0) * (1 / 6)


def between(low: float, high: float, inside: Slope, above: float) -> Slope:
    """Return a slope that is 0 up to `low`, `inside` up to `high`, and then `above`."""

    def slope(k: Kernel, z: Term) -> Term:
        return (z > low).choose((z < high).choose(inside(k, z), above), 0.0)

    return slope


def _silu_slope(k: Kernel, z: Term) -> Term:
    s = sigmoid(k, z)
    return s * k.fma(z, k.vector(1.0) - s, 1.0)


def _sigmoid_slope(k: Kernel, z: Term) -> Term:
    s = sigmoid(k, z)
    return s * (k.vector(1.0) - s)


def _number(value: float) -> Slope:
    return lambda k, z: k.vector(value)


ACTIVATIONS: dict[str, tuple[Slope, Slope]] = {  # each with its derivative
    "Identity": (lambda k, z: z, _number(1.0)),
    "ReLU": (lambda k, z: z.at_least(0.0), lambda k, z: (z > 0.0).choose(k.vector(1.0), 0.0)),
    "ReLU6": (lambda k, z: z.at_least(0.0).at_most(6.0), between(0.0, 6.0, _number(1.0), 0.0)),
    "Hardswish": (
        lambda k, z: z * ramp(k, z),
        between(-3.0, 3.0, lambda k, z: k.fma(z, 1 / 3, 0.5), 1.0),
    ),
    "Hardsigmoid": (ramp, between(-3.0, 3.0, _number(1 / 6), 0.0)),
    "SiLU": (lambda k, z: z * sigmoid(k, z), _silu_slope),
    "Sigmoid": (sigmoid, _sigmoid_slope),
}


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
