"""The fold: what becomes of an accumulator when it sees one more row, and what can be read from it.

An accumulator is a row of ``WIDTH`` float64 and one int64 (the time of its latest row, microseconds).
Sums are kept in two words by error-free transformations, so that rounding happens once, at the read:
Knuth, The Art of Computer Programming, volume 2, section 4.2.2 (two-sum); Dekker, Numerische Mathematik 18
(1971), sections 4 and 5 (two-product, double-length addition). Naive twin: ``tests/naive.py``.
"""

from __future__ import annotations

import math

from thalweg.engine.kernels.arrays import Float64
from thalweg.engine.kernels.jit import kernel

# The fields of an accumulator; squares are those of the distances from the first value.
ROWS, COUNT, SUM, SUM_LOW, SQUARES, SQUARES_LOW, MIN, MAX, FIRST, LAST, DECAYED = range(11)
WIDTH = 11

# What can be read.
OPS = ("rows", "count", "sum", "mean", "var", "std", "min", "max", "first", "last", "decayed_sum", "since_last")
(_ROWS, _COUNT, _SUM, _MEAN, _VAR, _STD, _MIN, _MAX, _FIRST, _LAST, _DECAYED_SUM, _SINCE_LAST) = range(12)

_SPLIT = 134217729.0  # 2^27 + 1 (Dekker)


@kernel
def two_sum(a: float, b: float) -> tuple[float, float]:
    """a + b as rounded sum and exact error."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@kernel
def two_product(a: float, b: float) -> tuple[float, float]:
    """a * b as rounded product and exact error, for magnitudes up to 1e150."""
    p = a * b
    t = _SPLIT * a
    a1 = t - (t - a)
    a2 = a - a1
    t = _SPLIT * b
    b1 = t - (t - b)
    b2 = b - b1
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


@kernel
def add_two(high: float, low: float, x: float, x_low: float) -> tuple[float, float]:
    """(high + low) + (x + x_low), normalised."""
    s, e = two_sum(high, x)
    t, f = two_sum(low, x_low)
    s, e = two_sum(s, e + t)
    return two_sum(s, e + f)


@kernel
def clear(acc: Float64) -> None:
    """Makes the accumulator empty."""
    for i in range(WIDTH):
        acc[i] = 0.0


@kernel
def fold(acc: Float64, last_time: int, time: int, x: float, half_life: float, ttl: int, squares: int) -> int:
    """Adds one row; returns its time, the accumulator's new latest time.

    ``x`` is NaN where null. ``half_life`` (microseconds, 0 = no decay). With ``ttl`` > 0 an accumulator
    whose key was idle that long starts anew. ``squares``: 0 where no variance is read. Cost: about 20
    floating-point operations, 60 with squares.
    """
    if acc[ROWS] > 0.0 and ttl > 0 and time - last_time >= ttl:
        for i in range(WIDTH):
            acc[i] = 0.0
    if half_life > 0.0 and acc[ROWS] > 0.0:
        acc[DECAYED] = acc[DECAYED] * 2.0 ** (-(time - last_time) / half_life)
    acc[ROWS] += 1.0
    if not math.isnan(x):
        if acc[COUNT] == 0.0:
            acc[FIRST] = x
            acc[MIN] = x
            acc[MAX] = x
        elif x < acc[MIN]:
            acc[MIN] = x
        elif x > acc[MAX]:
            acc[MAX] = x
        acc[COUNT] += 1.0
        acc[LAST] = x
        acc[DECAYED] += x
        acc[SUM], acc[SUM_LOW] = add_two(acc[SUM], acc[SUM_LOW], x, 0.0)
        if squares != 0:
            d, d_low = two_sum(x, -acc[FIRST])
            p, e = two_product(d, d)
            acc[SQUARES], acc[SQUARES_LOW] = add_two(acc[SQUARES], acc[SQUARES_LOW], p, e + 2.0 * d * d_low)
    return time


@kernel
def _variance(acc: Float64) -> float:
    """Sample variance, (squares - sum^2 / n) / (n - 1) with two words throughout.

    Squares and sum are those of the distances from the first value: else two words are too few where the
    values are close to each other and far from zero (1e-12 is lost from mean / std = 1e10 on).
    """
    n = acc[COUNT]
    p, e = two_product(n, acc[FIRST])
    s, s_low = add_two(acc[SUM], acc[SUM_LOW], -p, -e)
    p, e = two_product(s, s)
    e += 2.0 * s * s_low
    q = p / n
    t, f = two_product(q, n)
    q_low = ((p - t) - f + e) / n
    d, low = add_two(acc[SQUARES], acc[SQUARES_LOW], -q, -q_low)
    return float(max(0.0, (d + low) / (n - 1.0)))


@kernel
def read(acc: Float64, last_time: int, now: int, op: int, half_life: float, ttl: int) -> float:
    """The value of ``OPS[op]`` as of ``now`` (microseconds); NaN is null."""
    rows = acc[ROWS]
    n = acc[COUNT]
    if rows > 0.0 and ttl > 0 and now - last_time >= ttl:
        rows = 0.0
        n = 0.0
    if op == _ROWS:
        return float(rows)
    if op == _COUNT:
        return float(n)
    if op == _SINCE_LAST:
        return (now - last_time) / 1e6 if rows > 0.0 else math.nan
    if n == 0.0:
        return math.nan
    if op == _SUM:
        return float(acc[SUM])
    if op == _MEAN:
        return float(acc[SUM] / n)
    if op == _MIN:
        return float(acc[MIN])
    if op == _MAX:
        return float(acc[MAX])
    if op == _FIRST:
        return float(acc[FIRST])
    if op == _LAST:
        return float(acc[LAST])
    if op == _DECAYED_SUM:
        return float(acc[DECAYED] * 2.0 ** (-(now - last_time) / half_life))
    if n < 2.0:
        return math.nan
    variance = _variance(acc)
    return variance if op == _VAR else math.sqrt(variance)
