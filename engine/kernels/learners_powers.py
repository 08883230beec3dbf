"""Roots, squares and inverses as C's ``pow`` rounds them, at the cost of a root, a product and a division.

Python's ``x ** 0.5``, which River writes, calls ``pow``, whose result differs from the nearest number, which the
processor's root gives, only where the exact value lies next to the middle of two numbers: within 0.005 units in the
last place in 300,000 draws with glibc 2.36. There, and with a margin of twice that, ``pow`` itself is asked. A
stream that a model does not survive (a rate that is too high) doubles such differences at every row.

``powers`` float64[3] is :data:`POWERS`, and an argument, because LLVM makes a root and a product of constant powers.
Source: Dekker, Numerische Mathematik 18 (1971), section 5, for the error of a product.
"""

from __future__ import annotations

import math

import numpy as np

from thalweg.engine.kernels.arrays import Float64
from thalweg.engine.kernels.jit import inlined

POWERS = np.array([0.5, 2.0, -1.0])

_SMALL = 1e-280  # below, the error of a product is itself rounded
_SPLIT = 134217729.0  # 2^27 + 1
_MARGIN = 1.02  # the last 2 % before the middle, which is 0.01 units
_HALF_UNIT = math.ldexp(1.0 + math.ulp(1.0), -53)


@inlined
def error_of_product(a: float, b: float, product: float) -> float:
    """a * b less its rounded ``product``; NaN where it would overflow."""
    t = _SPLIT * a
    a1 = t - (t - a)
    a2 = a - a1
    t = _SPLIT * b
    b1 = t - (t - b)
    b2 = b - b1
    return ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


@inlined
def is_root_doubtful(x: float, nearest: float) -> bool:
    """Whether ``pow`` might round the root of ``x`` otherwise than to the ``nearest``."""
    square = nearest * nearest
    rest = (x - square) - error_of_product(nearest, nearest, square)
    unit = (nearest + nearest * _HALF_UNIT) - nearest  # in the last place; so much for not dividing by 2 * nearest
    return abs(rest) * _MARGIN > nearest * unit


@inlined
def root(x: float, powers: Float64) -> float:
    """``x ** 0.5`` of Python, for x that is not negative."""
    nearest = math.sqrt(x)
    return math.pow(x, powers[0]) if is_root_doubtful(x, nearest) or x < _SMALL else nearest


@inlined
def square(x: float, powers: Float64) -> float:
    """``x ** 2`` of Python, but infinite where Python raises."""
    nearest = x * x
    doubtful = nearest + _MARGIN * error_of_product(x, x, nearest) != nearest
    return math.pow(x, powers[1]) if doubtful else nearest


@inlined
def inverse(x: float, powers: Float64) -> float:
    """``x ** -1`` of Python, but infinite where Python raises."""
    nearest = 1.0 / x
    product = nearest * x
    rest = (1.0 - product) - error_of_product(nearest, x, product)
    return math.pow(x, powers[2]) if nearest + _MARGIN * (rest * nearest) != nearest else nearest
