"""Activations and their derivatives, written as kernels are (vectors.py)."""

from collections.abc import Callable

from weighin.training.vectors import Kernel, Term

Slope = Callable[[Kernel, Term], Term]


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
