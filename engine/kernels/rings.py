"""Where the rows of a key stand: a ring in (time, log order), shared by all windows of a group.

A slot has a record of words and a ring of rows in one arena. Rows are numbered in that order and numbers only rise,
so row ``i`` stands at ``START + (i & MASK) * stride``. A row is its time, its id where rows can be removed, the
totals of each column before it, its values, and for each minimum or maximum a link word.

So count, sum and squares of any rows in a line are the totals after them less those before them, exactly, as totals
are integers (``fixed.py``): a row that leaves a window costs nothing, and rows that come behind are counted again
from their place on.

The links are a monotone stack (the sliding window maximum in amortised constant time, folklore): below each row
on it stands the latest row before that is not smaller. All windows end at the newest row, so they share the stack,
and each window remembers only where on it its own maximum stands.

What the functions of this folder's windows share as arguments:

=========  ==========================================================================================================
``words``  int64[(1 + slots) * record]: the records, of which the first is scratch
``reals``  the same memory as float64
``arena``  int64[a]: first its heads (how many words are used, and by size the first free piece), then the rings
``values`` the same memory as float64
``code``   int64[c]: what is computed, see below
``h``      where the record begins
=========  ==========================================================================================================
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from thalweg.engine.kernels.arrays import Bool, Float64, Int8, Int64
from thalweg.engine.kernels.jit import inlined_part, part

# Kinds of windows.
SLIDING, ROWS, LIFETIME = range(3)

# What a row does to its window; LOOK leaves it, too, and does not even count as a use of its key.
LEAVE, ENTER, REMOVE, LOOK = range(4)

# The first words of a record: its ring (MASK is the capacity less one), the numbers of the oldest row and of the next
# one, the time as of which the windows stand, how many rows are in the bases of the lifetimes; then where each window
# begins.
START, MASK, OLDEST, END, AS_OF, SETTLED, HEADER = range(7)

# The head of the code: how far behind the watermark a row may be seen (KEEP_US -1 = no sliding window), words of a
# record and of a row, whether rows have ids, the first of a row's values, the first word of the lifetimes; then where
# in the code each table begins, one behind the other. What is read before and after a row enters is each two tables: of
# folds, and the rest.
(
    KEEP_US,
    KEEP_ROWS,
    RECORD,
    STRIDE,
    IDS,
    VALUES,
    LIVED,
    WINDOWS,
    FOLDS,
    COLUMNS,
    LIVES,
    BEFORE,
    BEFORE_ROWS,
    AFTER,
    AFTER_ROWS,
    CODE_END,
    CODE_HEAD,
) = range(17)

# A window: kind (SLIDING or ROWS), length, the word of its first row, its folds in the code.
W_KIND, W_LENGTH, W_LEFT, W_FOLDS, W_FOLDS_END, WINDOW = range(6)
# A fold: its column's place in a row and in the code, the words of maximum and minimum (+ 1: its row + 1, 0 = none) and
# of the first value's row; -1 = nobody reads it.
F_VALUE, F_COLUMN, F_MAX, F_MIN, F_FIRST, FOLD = range(6)
# A column: its place in a row, the word of its latest row, and for maxima and minima the word of the stack's top and
# the link, -1 = nobody reads it; the word of its totals, their place in a row and how many (COUNTED, with sums SUMMED,
# with squares SQUARED), and where there are sums the word of its unit.
(
    C_VALUE,
    C_LATEST,
    C_MAX,
    C_MAX_LINK,
    C_MIN,
    C_MIN_LINK,
    C_TOTALS,
    C_PREFIX,
    C_WORDS,
    C_UNIT,
    COLUMN,
) = range(11)
# A lifetime: its column's place in a row (-1 = none), time to live, whether squares are read, half-life (microseconds,
# 0 = none), the words of its base and its tip.
L_VALUE, L_TTL, L_SQUARES, L_HALF_LIFE, L_BASE, L_TIP, LIFE_CODE = range(7)
# What is read of a fold: fold, window and column in the code, and the column of the result for each op, -1 = none.
G_FOLD, G_WINDOW, G_COLUMN, G_COUNT, G_SUM, G_MEAN, G_VAR, G_STD, G_MAX, G_MIN, GIVEN = range(11)
# What else is read: the column of the result, op, the fold or lifetime in the code (-1 = none), the window in the code
# (-1 = a lifetime), half-life of a decayed sum.
R_TO, R_OP, R_FOLD, R_WINDOW, R_HALF_LIFE, READ = range(6)

# Totals: how many values; with sums the sum in two words, of which the upper has that number, too; squares in three.
COUNTED, SUMMED, SQUARED = 1, 2, 5
# Words of a unit: its value (0 = none yet), the row from which on it may be changed, and the latest row + 1 whose value
# does not fit.
SIZE, RETRY, MARK, UNIT = range(4)

# A place as the compiler likes it: without a sign it need not ask whether to count from the end.
u = np.uint64

_PREVIOUS = 0xFFFFFFFF
ARENA_HEAD = 48


class Rows(NamedTuple):
    """Input: slot int64[n] (-1 = the key is null or unknown), time int64[n], watermark int64[n], id int64[n],
    values float64[n, columns] (NaN = null), acts int8[n] (LEAVE or LOOK, ENTER the window, or REMOVE the row of
    that time and id), reset bool[n] (the slot was taken from another key just before this row), out_row int64[n]
    (row of ``out`` to fill, or -1)."""

    slots: Int64
    times: Int64
    watermarks: Int64
    ids: Int64
    values: Float64
    acts: Int8
    reset: Bool
    out_rows: Int64


@inlined_part
def place(words: Int64, code: Int64, h: int, row: int) -> int:
    """Where a row stands in the arena."""
    return words[u(h + START)] + (row & words[u(h + MASK)]) * code[STRIDE]  # type: ignore[no-any-return]


@part
def upper(words: Int64, arena: Int64, code: Int64, h: int, low: int, high: int, time: int) -> int:
    """The first row in [low, high) whose time is above ``time``, else ``high``; looks from the newest backwards."""
    step = 1
    while high - step >= low and arena[place(words, code, h, high - step)] > time:
        high -= step
        step *= 2
    low = max(low, high - step)
    while low < high:
        middle = (low + high) // 2
        if arena[place(words, code, h, middle)] <= time:
            low = middle + 1
        else:
            high = middle
    return low


@part
def copy(words: Int64, arena: Int64, code: Int64, h: int, source: int, target: int) -> None:
    """A row with its links, as they are."""
    p, q = place(words, code, h, source), place(words, code, h, target)
    for j in range(code[STRIDE]):
        arena[q + j] = arena[p + j]


@inlined_part
def push(words: Int64, arena: Int64, values: Float64, code: Int64, h: int, row: int, c: int) -> None:
    """Puts the newest row on the stacks of column ``c``.

    The link holds how far below on the stack the row before stands, and how far above the one after; 0 = none.
    A null has the former only. What is equal stays: the earliest of equal values counts.
    """
    start, mask, stride = words[u(h + START)], words[u(h + MASK)], code[STRIDE]
    column, p = code[u(c + C_VALUE)], start + (row & mask) * stride
    x = values[u(p + column)]
    for side in (C_MAX, C_MIN):
        if code[u(c + side)] < 0:
            continue
        word, link = h + code[u(c + side)], code[u(c + side + 1)]
        top, back = words[u(word)] - 1, 0
        while top >= words[u(h + OLDEST)]:
            q = start + (top & mask) * stride
            y = values[u(q + column)]
            if math.isnan(x) or (y >= x if side == C_MAX else y <= x):
                back = row - top
                if not math.isnan(x):
                    arena[u(q + link)] = (arena[u(q + link)] & _PREVIOUS) | (back << 32)
                break
            below = arena[u(q + link)] & _PREVIOUS
            top = top - below if below > 0 else -1
        arena[u(p + link)] = back
        if not math.isnan(x):
            words[u(word)] = row + 1


@part
def unwind(words: Int64, arena: Int64, values: Float64, code: Int64, h: int, row: int, c: int) -> None:
    """Makes the stacks of column ``c`` what they were before row ``row``: on top is the latest value before it."""
    for side in (C_MAX, C_MIN):
        if code[c + side] >= 0:
            top = row - 1
            if top >= words[h + OLDEST]:
                p = place(words, code, h, top)
                if math.isnan(values[p + code[c + C_VALUE]]):
                    below = arena[p + code[c + side + 1]] & _PREVIOUS
                    top = top - below if below > 0 else -1
            words[h + code[c + side]] = top + 1


@part
def above(words: Int64, arena: Int64, code: Int64, h: int, row: int, link: int) -> int:
    """The row above on the stack, which is the extreme of what is after ``row``."""
    return row + (arena[place(words, code, h, row) + link] >> 32)  # type: ignore[no-any-return]


@part
def extreme(words: Int64, arena: Int64, code: Int64, h: int, left: int, right: int, link: int) -> int:
    """The row of the extreme of [left, right), which has a value: down the links from its last row."""
    row = right - 1
    while True:
        below = arena[place(words, code, h, row) + link] & _PREVIOUS
        if below == 0 or row - below < left:
            return row
        row -= below


@part
def take(arena: Int64, size: int, length: int) -> int:
    """A piece of the arena, of ``length`` words; ``size`` numbers what is of equal size. 0 where the arena is full."""
    at = arena[1 + size]
    if at > 0:
        arena[1 + size] = arena[at]
        return at  # type: ignore[no-any-return]
    at = max(arena[0], ARENA_HEAD)
    if at + length > len(arena):
        return 0
    arena[0] = at + length
    return at  # type: ignore[no-any-return]


@part
def give(arena: Int64, size: int, at: int) -> None:
    """Takes a piece back."""
    arena[at] = arena[1 + size]
    arena[1 + size] = at


@part
def size_of(capacity: int) -> int:
    """The number of a ring's size: the logarithm of its capacity."""
    size = 0
    while 1 << size < capacity:
        size += 1
    return size


@part
def length_of(capacity: int, code: Int64) -> int:
    """Words of a ring, a multiple of a cache line's eight."""
    return (capacity * code[STRIDE] + 7) // 8 * 8  # type: ignore[no-any-return]
