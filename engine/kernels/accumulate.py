"""Exact sums, and the fold of a lifetime: what becomes of an accumulator when it sees one more row.

A sum is kept in two words by error-free transformations: Knuth, The Art of Computer Programming, volume 2,
section 4.2.2 (two-sum); Dekker, Numerische Mathematik 18 (1971), sections 4 and 5 (two-product, double-length
addition). The second word is NaN once two words no longer hold the sum; it is then made from the rows by
Shewchuk's expansions (Discrete & Computational Geometry 18, 1997, section 2.4). Naive twin: ``tests/naive.py``.
"""

from __future__ import annotations

import math

from thalweg.engine.kernels.arrays import Float64, Int64
from thalweg.engine.kernels.jit import inlined_part, part

# What can be read.
OPS = ("rows", "count", "sum", "mean", "var", "std", "min", "max", "first", "last", "decayed_sum", "since_last")
(
    OP_ROWS,
    OP_COUNT,
    OP_SUM,
    OP_MEAN,
    OP_VAR,
    OP_STD,
    OP_MIN,
    OP_MAX,
    OP_FIRST,
    OP_LAST,
    OP_DECAYED_SUM,
    OP_SINCE_LAST,
) = range(12)

# An expansion is exact for any finite doubles: 2^-1074 to 2^1024 are 40 words of 53 bits, and some to spare.
EXPANSION = 48

_SPLIT = 134217729.0  # 2^27 + 1 (Dekker)


@inlined_part
def two_sum(a: float, b: float) -> tuple[float, float]:
    """a + b as rounded sum and exact error."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@inlined_part
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


@part
def add_two(high: float, low: float, x: float, x_low: float) -> tuple[float, float]:
    """(high + low) + (x + x_low), normalised."""
    s, e = two_sum(high, x)
    t, f = two_sum(low, x_low)
    s, e = two_sum(s, e + t)
    return two_sum(s, e + f)


@inlined_part
def add_exact(high: float, low: float, x: float) -> tuple[float, float]:
    """(high + low) + x, normalised: ``high`` is the rounded sum. NaN as second word where two do not hold it."""
    s, e = two_sum(high, x)
    t, rest = two_sum(low, e)
    if rest != 0.0:  # also where the second word was NaN before
        return s, math.nan
    high = s + t
    return high, t - (high - s)


@part
def grow(expansion: Float64, n: int, x: float) -> int:
    """Adds ``x`` to an expansion of ``n`` words, smallest first; returns how many words it has now."""
    if n == len(expansion):
        n = _compress(expansion, n)
    kept = 0
    for j in range(n):
        x, low = two_sum(x, expansion[j])
        if low != 0.0:
            expansion[kept] = low
            kept += 1
    expansion[kept] = x
    return kept + 1


@part
def _compress(expansion: Float64, n: int) -> int:
    """The same number in as few words as it needs (Shewchuk, section 2.8), each below half a unit of the next."""
    held = expansion[:n].copy()
    q = held[n - 1]
    bottom = n
    for j in range(n - 2, -1, -1):
        q, low = two_sum(q, held[j])
        if low != 0.0:
            bottom -= 1
            held[bottom] = q
            q = low
    bottom -= 1
    held[bottom] = q
    kept = 0
    q = held[bottom]
    for j in range(bottom + 1, n):
        q, low = two_sum(held[j], q)
        if low != 0.0:
            expansion[kept] = low
            kept += 1
    expansion[kept] = q
    return kept + 1


@part
def rounded(expansion: Float64, n: int) -> tuple[float, float, bool]:
    """The expansion as its rounded sum and its rounded rest, and whether that is all of it. It is used up."""
    if n == 0:
        return 0.0, 0.0, True
    high = _nearest(expansion, n)
    if not math.isfinite(high):
        return high, 0.0, False
    n = grow(expansion, n, -high)
    low = _nearest(expansion, n)
    n = grow(expansion, n, -low)
    return high, low, expansion[n - 1] == 0.0


@part
def _nearest(expansion: Float64, n: int) -> float:
    """The double nearest to the expansion, ties to even: the words below the first rounding decide a tie."""
    high = expansion[n - 1]
    j = n - 2
    low = 0.0
    while j >= 0:
        high, low = two_sum(high, expansion[j])
        if low != 0.0:
            break
        j -= 1
    if j > 0 and (low < 0.0) == (expansion[j - 1] < 0.0):
        more = high + 2.0 * low
        if more - high == 2.0 * low:
            return float(more)
    return float(high)


@part
def variance(n: float, centre: float, high: float, low: float, squares: float, squares_low: float) -> float:
    """Sum of the squared distances from the mean, (squares - sum^2 / n), with two words throughout.

    ``squares`` are those of the distances from ``centre``, a value of the window or near its mean; ``high`` and
    ``low`` the sum of the values themselves.
    """
    p, e = two_product(n, centre)
    s, s_low = add_two(high, low, -p, -e)
    p, e = two_product(s, s)
    e += 2.0 * s * s_low
    q = p / n
    t, f = two_product(q, n)
    q_low = ((p - t) - f + e) / n
    d, rest = add_two(squares, squares_low, -q, -q_low)
    return float(d + rest)


# The fields of a lifetime; squares are those of the distances from the first value. SPILL is the place in the arena
# of an expansion for a sum that two words do not hold (its length, then its words), 0 where there is none.
ROWS, COUNT, SUM, SUM_LOW, SQUARES, SQUARES_LOW, MIN, MAX, FIRST, LAST, DECAYED, TIME, SPILL = range(13)
LIFE = 13


@part
def live(words: Int64, reals: Float64, a: int, time: int, x: float, half_life: int, ttl: int, squares: int) -> bool:
    """Adds one row to the lifetime at ``words[a:]`` (``reals`` is the same memory); whether it began anew.

    ``x`` is NaN where null. ``half_life`` (microseconds, 0 = no decay). A key idle for ``ttl`` begins anew.
    ``squares``: 0 where no variance is read. Where two words do not hold the sum the second becomes NaN.
    """
    anew = words[a + ROWS] > 0 and time - words[a + TIME] >= ttl
    if anew:
        for i in range(SPILL):
            words[a + i] = 0
    if half_life > 0 and words[a + ROWS] > 0:
        reals[a + DECAYED] = reals[a + DECAYED] * 2.0 ** (-(time - words[a + TIME]) / half_life)
    words[a + ROWS] += 1
    words[a + TIME] = time
    if math.isnan(x):
        return anew  # type: ignore[no-any-return]
    if words[a + COUNT] == 0:
        reals[a + FIRST] = x
        reals[a + MIN] = x
        reals[a + MAX] = x
    elif x < reals[a + MIN]:
        reals[a + MIN] = x
    elif x > reals[a + MAX]:
        reals[a + MAX] = x
    words[a + COUNT] += 1
    reals[a + LAST] = x
    reals[a + DECAYED] += x
    reals[a + SUM], reals[a + SUM_LOW] = add_exact(reals[a + SUM], reals[a + SUM_LOW], x)
    if squares != 0:
        d, d_low = two_sum(x, -reals[a + FIRST])
        p, e = two_product(d, d)
        reals[a + SQUARES], reals[a + SQUARES_LOW] = add_two(
            reals[a + SQUARES], reals[a + SQUARES_LOW], p, e + 2.0 * d * d_low
        )
    return anew  # type: ignore[no-any-return]


@part
def read_life(words: Int64, reals: Float64, a: int, now: int, op: int, half_life: int, ttl: int) -> float:
    """The value of ``OPS[op]`` of a lifetime as of ``now`` (microseconds); NaN is null."""
    rows, n, last_time = words[a + ROWS], words[a + COUNT], words[a + TIME]
    if rows > 0 and now - last_time >= ttl:
        rows = 0
        n = 0
    if op == OP_ROWS:
        return float(rows)
    if op == OP_COUNT:
        return float(n)
    if op == OP_SINCE_LAST:
        return (now - last_time) / 1e6 if rows > 0 else math.nan
    if n == 0:
        return math.nan
    if op == OP_SUM:
        return float(reals[a + SUM])
    if op == OP_MEAN:
        return float(reals[a + SUM] / n)
    if op == OP_MIN:
        return float(reals[a + MIN])
    if op == OP_MAX:
        return float(reals[a + MAX])
    if op == OP_FIRST:
        return float(reals[a + FIRST])
    if op == OP_LAST:
        return float(reals[a + LAST])
    if op == OP_DECAYED_SUM:
        return float(reals[a + DECAYED] * 2.0 ** (-(now - last_time) / half_life))
    if n < 2:
        return math.nan
    squared = max(0.0, variance(n, reals[a + FIRST], reals[a + SUM], reals[a + SUM_LOW], *_squares(reals, a)))
    return squared / (n - 1.0) if op == OP_VAR else math.sqrt(squared / (n - 1.0))


@part
def _squares(reals: Float64, a: int) -> tuple[float, float]:
    return reals[a + SQUARES], reals[a + SQUARES_LOW]
