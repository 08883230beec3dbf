"""Windows that move: totals that rows leave behind them, extremes that climb, and what a fold gives when it is read.

The sum of a window is the column's total now less that before its first row, both exact integers in the column's unit
(:mod:`thalweg.engine.kernels.fixed`), rounded once. A value that is no integer of that size is marked in the totals,
and what sees a mark is made from the rows. Variance is what squares leave over the squared mean, and where they
cancel, from the integers themselves. The arguments are those of :mod:`thalweg.engine.kernels.rings`; ``w``, ``f``,
``c`` and ``g`` are places in the code, ``p`` is where a row stands.
"""

from __future__ import annotations

import math

import numpy as np

from thalweg.engine.kernels.accumulate import EXPANSION, add_two, grow, rounded, two_product, two_sum
from thalweg.engine.kernels.arrays import Float64, Int64
from thalweg.engine.kernels.fixed import (
    LEAST_UNIT,
    MOST,
    NO_UNIT,
    ONE_MORE,
    WIDEST,
    about,
    added,
    exponent_of,
    mantissa_of,
    nearest,
    parted,
    shifted,
    spread,
    square,
    taken,
    whole,
)
from thalweg.engine.kernels.jit import inlined_part, part
from thalweg.engine.kernels.rings import (
    AS_OF,
    C_LATEST,
    C_MAX_LINK,
    C_PREFIX,
    C_TOTALS,
    C_UNIT,
    C_VALUE,
    C_WORDS,
    COUNTED,
    END,
    F_COLUMN,
    F_FIRST,
    F_MAX,
    F_MIN,
    F_VALUE,
    FOLD,
    FOLDS,
    G_COLUMN,
    G_COUNT,
    G_FOLD,
    G_MAX,
    G_MEAN,
    G_MIN,
    G_STD,
    G_SUM,
    G_VAR,
    G_WINDOW,
    MARK,
    MASK,
    OLDEST,
    RETRY,
    SIZE,
    SLIDING,
    SQUARED,
    START,
    STRIDE,
    SUMMED,
    W_FOLDS,
    W_FOLDS_END,
    W_KIND,
    W_LEFT,
    W_LENGTH,
    WINDOW,
    WINDOWS,
    above,
    extreme,
    place,
    u,
)


@inlined_part
def tally(words: Int64, arena: Int64, values: Float64, code: Int64, h: int, c: int, row: int, p: int) -> bool:
    """Column ``c`` of row ``row`` is counted as the newest: it keeps the totals before it. Whether its value fits."""
    a, q, width = h + code[u(c + C_TOTALS)], p + code[u(c + C_PREFIX)], code[u(c + C_WORDS)]
    at = p + code[u(c + C_VALUE)]
    null = math.isnan(values[u(at)])
    low = words[u(a)]
    arena[u(q)] = low
    if width == COUNTED:
        words[u(a)] = low + (0 if null else 1)
        return True
    high = words[u(a + 1)]
    arena[u(q + 1)] = high
    if width == SQUARED:
        for j in range(SUMMED, SQUARED):
            arena[u(q + j)] = words[u(a + j)]
    if null:
        return True
    size = h + code[u(c + C_UNIT)]
    bits, unit = arena[u(at)], exponent_of(words[u(size)]) + NO_UNIT
    mantissa, shift = mantissa_of(bits), exponent_of(bits) - unit
    if shift < 0 or unit == NO_UNIT:
        mantissa, shift = whole(bits, unit), 0
    if mantissa < 0 or shift > WIDEST:
        words[u(a + 1)] = high + ONE_MORE
        words[u(size + MARK)] = row + 1
        return False
    x0, x1 = shifted(mantissa, shift, bits < 0)
    low, carry = added(low, x0, 0)
    words[u(a)] = low
    words[u(a + 1)] = high + ONE_MORE + x1 + carry
    if width == SQUARED:
        x0, x1, x2 = square(mantissa, shift)
        low, carry = added(words[u(a + 2)], x0, 0)
        words[u(a + 2)] = low
        low, carry = added(words[u(a + 3)], x1, carry)
        words[u(a + 3)] = low
        words[u(a + 4)] = words[u(a + 4)] + x2 + carry
    return True


@part
def rewind(words: Int64, arena: Int64, code: Int64, h: int, c: int, row: int) -> None:
    """The totals of column ``c`` become those before row ``row``."""
    q = place(words, code, h, row) + code[c + C_PREFIX]
    for j in range(code[c + C_WORDS]):
        words[h + code[c + C_TOTALS] + j] = arena[q + j]


@part
def tally_from(words: Int64, arena: Int64, values: Float64, code: Int64, h: int, c: int, row: int) -> None:
    """Counts the rows from ``row`` on again; the totals are those before it."""
    unit = code[c + C_UNIT]
    if unit >= 0 and words[h + unit + MARK] > row:
        words[h + unit + MARK] = row  # as if there were one before: where there is none, more is made from the rows
    for i in range(row, words[h + END]):
        tally(words, arena, values, code, h, c, i, place(words, code, h, i))


@part
def refit(words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, c: int) -> None:
    """Another unit, as the newest value does not fit: one in which the largest of the windows has a place.

    Where values are too far apart the small ones stay marked, and it is tried again after half as many rows more, so
    that a row costs as much as a few. The rows of the windows decide, and what they are the log alone decides.
    """
    unit, end = h + code[c + C_UNIT], words[h + END]
    if end < words[unit + RETRY]:
        return
    left = end - 1
    for w in range(code[WINDOWS], code[FOLDS], WINDOW):
        left = min(left, words[h + code[w + W_LEFT]])
    words[unit + RETRY] = end + (end - left) // 2
    highest, lowest = 0, 2047
    for row in range(left, end):
        bits = arena[place(words, code, h, row) + code[c + C_VALUE]]
        exponent = exponent_of(bits)
        if 0 < exponent < 2047:
            highest, lowest = max(highest, exponent), min(lowest, exponent)
    base = highest - WIDEST
    chosen = max(LEAST_UNIT, (base + max(base, lowest)) // 2)
    words[unit + SIZE] = (chosen - NO_UNIT) << 52
    words[unit + MARK] = 0
    tally_from(words, arena, values, code, h, c, words[h + OLDEST])


@inlined_part
def climb(words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, w: int, left: int) -> None:
    """The extremes of window ``w``, which begins at ``left`` now."""
    for f in range(code[u(w + W_FOLDS)], code[u(w + W_FOLDS_END)], FOLD):
        for side in range(2):
            word = code[u(f + F_MAX + side)]
            if word >= 0 and 0 < words[u(h + word + 1)] <= left:
                link = code[u(code[u(f + F_COLUMN)] + C_MAX_LINK + 2 * side)]
                row = words[u(h + word + 1)] - 1
                while row < left:
                    row_above = above(words, arena, code, h, row, link)
                    if row_above == row:
                        break
                    row = row_above
                words[u(h + word + 1)] = row + 1 if row >= left else 0
                if row >= left:
                    reals[u(h + word)] = values[u(place(words, code, h, row) + code[u(f + F_VALUE)])]


@inlined_part
def expire(words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, now: int) -> None:
    """Moves the windows of a slot to ``now``, unless they stand further."""
    if now <= words[u(h + AS_OF)]:
        return
    words[u(h + AS_OF)] = now
    start, mask, stride, end = words[u(h + START)], words[u(h + MASK)], code[STRIDE], words[u(h + END)]
    for w in range(code[WINDOWS], code[FOLDS], WINDOW):
        if code[u(w + W_KIND)] == SLIDING:
            edge = now - code[u(w + W_LENGTH)]
            before = words[u(h + code[u(w + W_LEFT)])]
            left = before
            while left < end and arena[u(start + (left & mask) * stride)] <= edge:
                left += 1
            if left > before:
                words[u(h + code[u(w + W_LEFT)])] = left
                climb(words, reals, arena, values, code, h, w, left)


@part
def move(words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, now: int) -> None:
    """:func:`expire`, called."""
    expire(words, reals, arena, values, code, h, now)


@part
def latest(words: Int64, values: Float64, code: Int64, h: int, c: int) -> int:
    """The latest row with a value in column ``c``; there is one. The record's own word is not before it."""
    row = min(words[h + code[c + C_LATEST]], words[h + END] - 1)
    while math.isnan(values[place(words, code, h, row) + code[c + C_VALUE]]):
        row -= 1
    words[h + code[c + C_LATEST]] = row
    return row  # type: ignore[no-any-return]


@part
def earliest(words: Int64, values: Float64, code: Int64, h: int, w: int, f: int) -> int:
    """The first row of the window with a value; there is one. The record's own word is not after it."""
    row = max(words[h + code[f + F_FIRST]], words[h + code[w + W_LEFT]])
    while math.isnan(values[place(words, code, h, row) + code[f + F_VALUE]]):
        row += 1
    words[h + code[f + F_FIRST]] = row
    return row  # type: ignore[no-any-return]


@part
def counted(words: Int64, arena: Int64, code: Int64, h: int, c: int, left: int) -> int:
    """Whether column ``c`` has values from row ``left`` on: how many, modulo MOST where there are sums."""
    if left >= words[h + END]:
        return 0
    a, q = h + code[c + C_TOTALS], place(words, code, h, left) + code[c + C_PREFIX]
    n, borrow = taken(words[a], arena[q], 0)
    if code[c + C_WORDS] > COUNTED:
        _, n = parted(words[a + 1] - arena[q + 1] - borrow)
    return n


@inlined_part
def give_fold(
    words: Int64,
    reals: Float64,
    arena: Int64,
    values: Float64,
    code: Int64,
    h: int,
    g: int,
    out: Float64,
    reads: int,
) -> None:
    """Writes what is read of a fold into row ``reads`` of ``out``."""
    c, f = code[u(g + G_COLUMN)], code[u(g + G_FOLD)]
    left, end, a = words[u(h + code[u(code[u(g + G_WINDOW)] + W_LEFT)])], words[u(h + END)], h + code[u(c + C_TOTALS)]
    unit, n, q, low, high, borrow = h + code[u(c + C_UNIT)], 0, 0, 0, 0, 0
    if left < end:
        q = place(words, code, h, left) + code[u(c + C_PREFIX)]
        low, borrow = taken(words[u(a)], arena[u(q)], 0)
        n = low
        if unit >= h:
            high, n = parted(words[u(a + 1)] - arena[u(q + 1)] - borrow)
    total, mean, variance = math.nan, math.nan, math.nan
    if unit >= h and (words[u(unit + MARK)] > left or end - left >= MOST):
        n, total, mean, variance = from_rows(words, values, code, h, c, left)
    elif unit >= h and n > 0:
        size = reals[u(unit + SIZE)]
        total = nearest(low, high) * size
        mean = total / n
        if n > 1 and (code[u(g + G_VAR)] >= 0 or code[u(g + G_STD)] >= 0):
            q0, borrow = taken(words[u(a + 2)], arena[u(q + 2)], 0)
            q1, borrow = taken(words[u(a + 3)], arena[u(q + 3)], borrow)
            q2 = words[u(a + 4)] - arena[u(q + 4)] - borrow
            squares = about(q0, q1, q2) * size * size
            rest = squares - total * mean
            if rest > 0.0078125 * squares:  # 7 bits lost at most: 6e-14 is left
                variance = rest / (n - 1.0)
            else:
                variance = spread(n, low, high, q0, q1, q2) * size * size / n / (n - 1.0)
    if code[u(g + G_COUNT)] >= 0:
        out[u(reads), u(code[u(g + G_COUNT)])] = float(n)
    if code[u(g + G_SUM)] >= 0:
        out[u(reads), u(code[u(g + G_SUM)])] = total
    if code[u(g + G_MEAN)] >= 0:
        out[u(reads), u(code[u(g + G_MEAN)])] = mean
    if code[u(g + G_VAR)] >= 0:
        out[u(reads), u(code[u(g + G_VAR)])] = variance
    if code[u(g + G_STD)] >= 0:
        out[u(reads), u(code[u(g + G_STD)])] = math.sqrt(variance)
    if code[u(g + G_MAX)] >= 0:
        out[u(reads), u(code[u(g + G_MAX)])] = reals[u(h + code[u(f + F_MAX)])] if n > 0 else math.nan
    if code[u(g + G_MIN)] >= 0:
        out[u(reads), u(code[u(g + G_MIN)])] = reals[u(h + code[u(f + F_MIN)])] if n > 0 else math.nan


@part
def from_rows(words: Int64, values: Float64, code: Int64, h: int, c: int, left: int) -> tuple[int, float, float, float]:
    """Count, sum, mean and variance (NaN where there is none) of column ``c`` from row ``left`` on, of any values."""
    expansion, k, n = np.empty(EXPANSION), 0, 0
    for row in range(left, words[h + END]):
        x = values[place(words, code, h, row) + code[c + C_VALUE]]
        if not math.isnan(x):
            n += 1
            k = grow(expansion, k, x)
    if n == 0:
        return n, math.nan, math.nan, math.nan
    total, _, _ = rounded(expansion, k)
    mean = total / n
    if n < 2:
        return n, total, mean, math.nan
    high, low, rest, rest_low = 0.0, 0.0, 0.0, 0.0
    for row in range(left, words[h + END]):
        x = values[place(words, code, h, row) + code[c + C_VALUE]]
        if not math.isnan(x):
            d, d_low = two_sum(x, -mean)
            p, e = two_product(d, d)
            high, low = add_two(high, low, p, e + 2.0 * d * d_low)
            rest, rest_low = add_two(rest, rest_low, d, d_low)
    rest += rest_low  # what the rounded mean is off, times n
    return n, total, mean, max(0.0, (high - rest * rest / n) + low) / (n - 1.0)


@part
def extremes(
    words: Int64,
    reals: Float64,
    arena: Int64,
    values: Float64,
    code: Int64,
    h: int,
    f: int,
    left: int,
    right: int,
) -> None:
    """Looks for maximum and minimum of the rows [left, right) for fold ``f`` of the record at ``h``."""
    n = counted(words, arena, code, h, code[f + F_COLUMN], left)
    for side in range(2):
        m = h + code[f + F_MAX + side]
        if m >= h:
            words[m + 1] = 0
            if n > 0:
                link = code[code[f + F_COLUMN] + C_MAX_LINK + 2 * side]
                row = extreme(words, arena, code, h, left, right, link)
                words[m + 1] = row + 1
                reals[m] = values[place(words, code, h, row) + code[f + F_VALUE]]


@inlined_part
def enter(words: Int64, reals: Float64, code: Int64, h: int, f: int, row: int, x: float) -> None:
    """A value is the newest of a fold: is it an extreme?"""
    word = code[u(f + F_MAX)]
    if word >= 0 and (words[u(h + word + 1)] == 0 or x > reals[u(h + word)]):
        reals[u(h + word)] = x
        words[u(h + word + 1)] = row + 1
    word = code[u(f + F_MIN)]
    if word >= 0 and (words[u(h + word + 1)] == 0 or x < reals[u(h + word)]):
        reals[u(h + word)] = x
        words[u(h + word + 1)] = row + 1


@part
def enter_behind(words: Int64, reals: Float64, code: Int64, h: int, f: int, row: int, x: float, inside: bool) -> None:
    """A row was inserted into the ring: into fold ``f`` where it is inside its window. ``x`` is NaN where null."""
    if code[f + F_FIRST] >= 0:
        words[h + code[f + F_FIRST]] = 0
    for side in range(2):
        m = h + code[f + F_MAX + side]
        if m >= h:
            newer = words[m + 1] > row  # the extreme so far is after the row: its number rose
            if newer:
                words[m + 1] += 1
            beats = words[m + 1] == 0 or (x > reals[m] if side == 0 else x < reals[m])
            if inside and not math.isnan(x) and (beats or (newer and x == reals[m])):
                reals[m] = x
                words[m + 1] = row + 1


@part
def faded(
    words: Int64, arena: Int64, values: Float64, code: Int64, h: int, w: int, c: int, now: int, half_life: int
) -> float:
    """The decayed sum of a window with a value: folded anew, as each factor would lose a bit if it were taken back."""
    first = words[h + code[w + W_LEFT]]
    total, last_time = 0.0, arena[place(words, code, h, first)]
    for row in range(first, words[h + END]):
        p = place(words, code, h, row)
        total *= 2.0 ** (-(arena[p] - last_time) / half_life)
        last_time = arena[p]
        x = values[p + c]
        total += 0.0 if math.isnan(x) else x
    return float(total * 2.0 ** (-(now - last_time) / half_life))
