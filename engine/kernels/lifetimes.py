"""Lifetimes: folds over all rows of a key since it was idle for a ``ttl``.

Each has a base, the fold of the rows at or behind the watermark, which no later row can precede, and a tip: the base
and the rows ahead of it. A row that comes in order moves the tip; one that comes behind makes it anew. A sum that two
words do not hold goes on in the arena, as an expansion. The arguments are those of
:mod:`thalweg.engine.kernels.rings`; ``l`` is a place in the code.
"""

from __future__ import annotations

import math

import numpy as np

from thalweg.engine.kernels.accumulate import (
    COUNT,
    EXPANSION,
    LIFE,
    OP_MEAN,
    OP_STD,
    OP_SUM,
    OP_VAR,
    SPILL,
    SUM,
    SUM_LOW,
    TIME,
    grow,
    live,
    read_life,
    rounded,
)
from thalweg.engine.kernels.accumulate import ROWS as LIVED_ROWS
from thalweg.engine.kernels.arrays import Float64, Int64
from thalweg.engine.kernels.jit import part
from thalweg.engine.kernels.rings import (
    BEFORE,
    END,
    L_BASE,
    L_HALF_LIFE,
    L_SQUARES,
    L_TIP,
    L_TTL,
    L_VALUE,
    LIFE_CODE,
    LIVES,
    SETTLED,
    place,
    take,
)

SPILL_WORDS = 56  # length, EXPANSION words, up to a multiple of a cache line's eight
SPILL_SIZE = 40


@part
def settle(words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, watermark: int) -> None:
    """Folds rows at or behind the watermark into the bases."""
    settled = words[h + SETTLED]
    while settled < words[h + END] and arena[place(words, code, h, settled)] <= watermark:
        p = place(words, code, h, settled)
        for k in range(code[LIVES], code[BEFORE], LIFE_CODE):
            x = values[p + code[k + L_VALUE]] if code[k + L_VALUE] >= 0 else math.nan
            a = h + code[k + L_BASE]
            high, low = reals[a + SUM], reals[a + SUM_LOW]
            anew = live(words, reals, a, arena[p], x, code[k + L_HALF_LIFE], code[k + L_TTL], code[k + L_SQUARES])
            if math.isnan(reals[a + SUM_LOW]) and not (anew or math.isnan(x)):
                _spill(words, arena, values, a, high, low, x)
        settled += 1
        words[h + SETTLED] = settled


@part
def _spill(words: Int64, arena: Int64, values: Float64, a: int, high: float, low: float, x: float) -> None:
    """Adds ``x`` to the sum of the base at ``a`` in the arena; so far it is there, or ``high`` and ``low``."""
    if words[a + SPILL] == 0:
        words[a + SPILL] = take(arena, SPILL_SIZE, SPILL_WORDS)
    at = words[a + SPILL]
    expansion = values[at + 1 : at + 1 + EXPANSION]
    n = arena[at]
    if not math.isnan(low):
        n = grow(expansion, grow(expansion, 0, low), high)
    arena[at] = grow(expansion, n, x)


@part
def move_tips(words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, row: int) -> None:
    """A row enters the tips."""
    p = place(words, code, h, row)
    for k in range(code[LIVES], code[BEFORE], LIFE_CODE):
        x = values[p + code[k + L_VALUE]] if code[k + L_VALUE] >= 0 else math.nan
        a = h + code[k + L_TIP]
        live(words, reals, a, arena[p], x, code[k + L_HALF_LIFE], code[k + L_TTL], code[k + L_SQUARES])


@part
def make_tips(words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int) -> None:
    """Makes the tips from their bases and the rows ahead of them."""
    for k in range(code[LIVES], code[BEFORE], LIFE_CODE):
        for j in range(LIFE):
            words[h + code[k + L_TIP] + j] = words[h + code[k + L_BASE] + j]
    for row in range(words[h + SETTLED], words[h + END]):
        move_tips(words, reals, arena, values, code, h, row)


@part
def read_tip(
    words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, now: int, op: int, k: int
) -> float:
    """The value of an op of a lifetime as of ``now``; NaN is null."""
    a = h + code[k + L_TIP]
    spilled = op in (OP_SUM, OP_MEAN, OP_STD, OP_VAR) and math.isnan(reals[a + SUM_LOW])
    if spilled:
        reals[a + SUM], reals[a + SUM_LOW] = _sum(words, reals, arena, values, code, h, k)
    value = read_life(words, reals, a, now, op, code[k + L_HALF_LIFE], code[k + L_TTL])
    if spilled:
        reals[a + SUM_LOW] = math.nan
    return value


@part
def _sum(
    words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, k: int
) -> tuple[float, float]:
    """The sum of a tip with all its words: rounded, and the rounded rest."""
    base = h + code[k + L_BASE]
    expansion, n = np.empty(EXPANSION), 0
    if math.isnan(reals[base + SUM_LOW]):
        at = words[base + SPILL]
        n = arena[at]
        for j in range(n):
            expansion[j] = values[at + 1 + j]
    elif words[base + COUNT] > 0:
        n = grow(expansion, grow(expansion, 0, reals[base + SUM_LOW]), reals[base + SUM])
    rows, last_time = words[base + LIVED_ROWS], words[base + TIME]
    for row in range(words[h + SETTLED], words[h + END]):
        p = place(words, code, h, row)
        if rows > 0 and arena[p] - last_time >= code[k + L_TTL]:
            n = 0
        rows, last_time = 1, arena[p]
        x = values[p + code[k + L_VALUE]]
        if not math.isnan(x):
            n = grow(expansion, n, x)
    high, low, _ = rounded(expansion, n)
    return high, low
