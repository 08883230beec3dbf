"""Windows that move: what an accumulator becomes when a row enters its window, and when one leaves.

Sums are exact in two words as long as two words hold them, whatever came and went; else they are made anew from the
rows at the read. Squares are those of the distances from a value of the window (``CENTRE``), in two words, with a
bound of what was dropped on the way: where that could matter they are made anew, too. An emptied window is zero.
The arguments are those of :mod:`thalweg.engine.kernels.rings`; ``w`` and ``f`` are places in the code.
"""

from __future__ import annotations

import math

import numpy as np

from thalweg.engine.kernels.accumulate import (
    EXPANSION,
    add_exact,
    grow,
    rounded,
    two_product,
    two_sum,
    variance,
)
from thalweg.engine.kernels.arrays import Float64, Int64
from thalweg.engine.kernels.jit import inlined_part, part
from thalweg.engine.kernels.rings import (
    AS_OF,
    C_LATEST,
    C_MAX_LINK,
    C_VALUE,
    END,
    F_COLUMN,
    F_COUNT,
    F_FIRST,
    F_MAX,
    F_MIN,
    F_SQUARES,
    F_SUM,
    F_VALUE,
    FOLD,
    FOLDS,
    MASK,
    SLIDING,
    START,
    STRIDE,
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
)

# Words of a fold's squares: the centre, two words of sum, the bound of its error.
CENTRE, HIGH, LOW, BOUND = range(4)

_LOST = 2.0**-100  # of the squares' sum, more than one addition drops: an addition in two words keeps 2^-104
_COARSE = 2.0**-70  # bound / squares from which on they are made anew


@inlined_part
def add(words: Int64, reals: Float64, code: Int64, h: int, f: int, x: float) -> None:
    """A value enters fold ``f``."""
    n = words[h + code[f + F_COUNT]] + 1
    words[h + code[f + F_COUNT]] = n
    a, q = h + code[f + F_SUM], h + code[f + F_SQUARES]
    if a >= h:
        reals[a], reals[a + 1] = add_exact(reals[a], reals[a + 1], x)
    if q >= h:
        if n == 1:
            reals[q + CENTRE] = x
        else:
            _square(reals, q, x, 1.0)


@inlined_part
def drop(words: Int64, reals: Float64, code: Int64, h: int, f: int, x: float) -> None:
    """A value leaves fold ``f``."""
    n = words[h + code[f + F_COUNT]] - 1
    if n == 0:
        empty(words, reals, code, h, f)
        return
    words[h + code[f + F_COUNT]] = n
    a, q = h + code[f + F_SUM], h + code[f + F_SQUARES]
    if a >= h:
        reals[a], reals[a + 1] = add_exact(reals[a], reals[a + 1], -x)
    if q >= h:
        _square(reals, q, x, -1.0)


@part
def empty(words: Int64, reals: Float64, code: Int64, h: int, f: int) -> None:
    """Nothing is left in fold ``f``."""
    words[h + code[f + F_COUNT]] = 0
    if code[f + F_SUM] >= 0:
        reals[h + code[f + F_SUM]] = 0.0
        reals[h + code[f + F_SUM] + 1] = 0.0
    if code[f + F_SQUARES] >= 0:
        for j in range(4):
            reals[h + code[f + F_SQUARES] + j] = 0.0


@inlined_part
def _square(reals: Float64, q: int, x: float, sign: float) -> None:
    """The squared distance of ``x`` from the centre enters (1.0) or leaves (-1.0) the squares at ``q``."""
    d, d_low = two_sum(x, -reals[q + CENTRE])
    p, e = two_product(d, d)
    high = reals[q + HIGH]
    s, t = two_sum(high, sign * p)
    t += reals[q + LOW] + sign * (e + 2.0 * d * d_low)
    total = s + t
    reals[q + HIGH] = total
    reals[q + LOW] = t - (total - s)
    reals[q + BOUND] += (high + p) * _LOST


@inlined_part
def leave(
    words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, w: int, row: int, p: int
) -> None:
    """Row ``row`` at ``p``, which was the first of window ``w``, leaves it; the window begins after it already."""
    for f in range(code[w + W_FOLDS], code[w + W_FOLDS_END], FOLD):
        x = values[p + code[f + F_VALUE]]
        if math.isnan(x):
            continue
        drop(words, reals, code, h, f, x)
        if words[h + code[f + F_COUNT]] == 0:
            continue
        q = h + code[f + F_SQUARES]
        if q >= h and not reals[q + BOUND] <= reals[q + HIGH] * _COARSE:
            mend(words, reals, values, code, h, w, f)
        for side in range(2):
            m = h + code[f + F_MAX + side]
            if m >= h and words[m + 1] == row:
                row_above = above(words, arena, code, h, row, code[code[f + F_COLUMN] + C_MAX_LINK + 2 * side])
                words[m + 1] = row_above
                reals[m] = values[place(words, code, h, row_above) + code[f + F_VALUE]]


@inlined_part
def expire(words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, now: int) -> None:
    """Moves the windows of a slot to ``now``, unless they stand further."""
    if now <= words[h + AS_OF]:
        return
    words[h + AS_OF] = now
    start, mask, stride, end = words[h + START], words[h + MASK], code[STRIDE], words[h + END]
    for w in range(code[WINDOWS], code[FOLDS], WINDOW):
        if code[w + W_KIND] == SLIDING:
            edge = now - code[w + W_LENGTH]
            left = words[h + code[w + W_LEFT]]
            while left < end:
                p = start + (left & mask) * stride
                if arena[p] > edge:
                    break
                left += 1
                words[h + code[w + W_LEFT]] = left
                leave(words, reals, arena, values, code, h, w, left - 1, p)


@part
def move(words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, now: int) -> None:
    """:func:`expire`, called."""
    expire(words, reals, arena, values, code, h, now)


@part
def mend(words: Int64, reals: Float64, values: Float64, code: Int64, h: int, w: int, f: int) -> None:
    """Makes the squares of a fold anew around its latest value."""
    q = h + code[f + F_SQUARES]
    right = latest(words, values, code, h, code[f + F_COLUMN])
    reals[q + CENTRE] = values[place(words, code, h, right) + code[f + F_VALUE]]
    for j in range(1, 4):
        reals[q + j] = 0.0
    for row in range(words[h + code[w + W_LEFT]], right):
        x = values[place(words, code, h, row) + code[f + F_VALUE]]
        if not math.isnan(x):
            _square(reals, q, x, 1.0)


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
def sum_again(
    words: Int64, reals: Float64, values: Float64, code: Int64, h: int, w: int, f: int
) -> tuple[float, float]:
    """The sum of a fold whose two words do not hold it, from the rows: rounded, and the rounded rest."""
    expansion, n = np.empty(EXPANSION), 0
    for row in range(words[h + code[w + W_LEFT]], words[h + END]):
        x = values[place(words, code, h, row) + code[f + F_VALUE]]
        if not math.isnan(x):
            n = grow(expansion, n, x)
    high, low, whole = rounded(expansion, n)
    reals[h + code[f + F_SUM]] = high
    reals[h + code[f + F_SUM] + 1] = low if whole else math.nan
    return high, low


@inlined_part
def squared(
    words: Int64, reals: Float64, values: Float64, code: Int64, h: int, w: int, f: int, high: float, low: float
) -> float:
    """The sum of squared distances from the mean, at least 0; ``high`` and ``low`` are the sum."""
    n, q = float(words[h + code[f + F_COUNT]]), h + code[f + F_SQUARES]
    squares = reals[q + HIGH]
    p, e = two_product(n, reals[q + CENTRE])
    d = (high - p) + (low - e)
    rest = squares - d * d / n
    if reals[q + BOUND] <= squares * _COARSE and rest > 0.0078125 * squares:  # 7 bits lost at most: 4e-14 is left
        return rest  # type: ignore[no-any-return]
    return _squared(words, reals, values, code, h, w, f, high, low)


@part
def _squared(
    words: Int64, reals: Float64, values: Float64, code: Int64, h: int, w: int, f: int, high: float, low: float
) -> float:
    """The same in two words throughout, and around another centre where that does not do."""
    n, q = float(words[h + code[f + F_COUNT]]), h + code[f + F_SQUARES]
    rest = variance(n, reals[q + CENTRE], high, low, reals[q + HIGH], reals[q + LOW])
    if reals[q + BOUND] + reals[q + HIGH] * _LOST > rest * 2.0**-44:
        mend(words, reals, values, code, h, w, f)
        rest = variance(n, reals[q + CENTRE], high, low, reals[q + HIGH], reals[q + LOW])
    return max(0.0, rest)


@part
def cover(
    words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, w: int, left: int, right: int
) -> None:
    """Moves window ``w`` of record 0, a copy of the one at ``h``, to the rows [left, right), the shorter way."""
    old_left, old_right = words[h + code[w + W_LEFT]], words[h + END]
    anew = right - left <= abs(right - old_right) + abs(left - old_left)
    if anew:
        old_left, old_right = left, left
    words[code[w + W_LEFT]] = left
    for f in range(code[w + W_FOLDS], code[w + W_FOLDS_END], FOLD):
        if anew:
            empty(words, reals, code, 0, f)
        for side in range(2):  # first what enters, on either end
            low, high = (left, old_left) if side == 0 else (old_right, right)
            for row in range(low, high):
                x = values[place(words, code, h, row) + code[f + F_VALUE]]
                if not math.isnan(x):
                    add(words, reals, code, 0, f, x)
        for side in range(2):
            low, high = (old_left, left) if side == 0 else (right, old_right)
            for row in range(low, high):
                x = values[place(words, code, h, row) + code[f + F_VALUE]]
                if not math.isnan(x):
                    drop(words, reals, code, 0, f, x)
        if code[f + F_FIRST] >= 0:
            words[code[f + F_FIRST]] = 0
        extremes(words, reals, arena, values, code, h, 0, f, left, right)


@part
def extremes(
    words: Int64,
    reals: Float64,
    arena: Int64,
    values: Float64,
    code: Int64,
    h: int,
    to: int,
    f: int,
    left: int,
    right: int,
) -> None:
    """Looks for maximum and minimum of the rows [left, right) of the slot, for fold ``f`` of the record at ``to``."""
    for side in range(2):
        m = to + code[f + F_MAX + side]
        if m >= to and words[to + code[f + F_COUNT]] > 0:
            link = code[code[f + F_COLUMN] + C_MAX_LINK + 2 * side]
            row = extreme(words, arena, code, h, left, right, link)
            words[m + 1] = row
            reals[m] = values[place(words, code, h, row) + code[f + F_VALUE]]


@inlined_part
def enter(words: Int64, reals: Float64, code: Int64, h: int, f: int, row: int, x: float) -> None:
    """A value enters a fold as its newest."""
    add(words, reals, code, h, f, x)
    alone = words[h + code[f + F_COUNT]] == 1
    m = h + code[f + F_MAX]
    if m >= h and (alone or x > reals[m]):
        reals[m] = x
        words[m + 1] = row
    m = h + code[f + F_MIN]
    if m >= h and (alone or x < reals[m]):
        reals[m] = x
        words[m + 1] = row


@part
def enter_behind(words: Int64, reals: Float64, code: Int64, h: int, f: int, row: int, x: float, inside: bool) -> None:
    """A row was inserted into the ring: into fold ``f`` where it is inside its window. ``x`` is NaN where null."""
    alone = words[h + code[f + F_COUNT]] == 0
    if inside and not math.isnan(x):
        add(words, reals, code, h, f, x)
    if code[f + F_FIRST] >= 0:
        words[h + code[f + F_FIRST]] = 0
    for side in range(2):
        m = h + code[f + F_MAX + side]
        if m >= h:
            newer = words[m + 1] >= row  # the extreme so far is after the row: its number rose
            if newer:
                words[m + 1] += 1
            beats = x > reals[m] if side == 0 else x < reals[m]
            if inside and not math.isnan(x) and (alone or beats or (newer and x == reals[m])):
                reals[m] = x
                words[m + 1] = row


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
