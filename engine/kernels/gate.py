"""The gate, row by row: the watermark that each row meets, and what becomes of it (contract, rules 2, 3 and 5)."""

from __future__ import annotations

from typing import NamedTuple

from thalweg.engine.kernels.arrays import Bool, Int8, Int64
from thalweg.engine.kernels.jit import kernel

QUARANTINED, LATE, DUPLICATE, FOLDED, SCORED = range(5)
NO_TIME = -(2**63)


class Rules(NamedTuple):
    """Microseconds: how far behind the newest a row may be, how far ahead of its append time, and for how long an
    id is remembered."""

    disorder: int
    future: int
    horizon: int


class Arrivals(NamedTuple):
    """n rows in log order: times int64[n], append times int64[n] (NO_TIME = none), asks bool[n] for a prediction,
    ids int64[n] (slot of the row's id, -1 = none)."""

    times: Int64
    append: Int64
    asks: Bool
    ids: Int64


@kernel
def gate(newest: int, rows: Arrivals, rules: Rules, until: Int64, outcomes: Int8, watermarks: Int64) -> int:
    """Decides n rows; ``until`` int64[ids] (read and written): until when an id repeats an accepted one.

    ``newest`` is the largest time of an accepted row, NO_TIME before the first; returns the new one. Writes
    ``outcomes`` int8[n] and ``watermarks`` int64[n].
    """
    for i in range(len(rows.times)):
        time = rows.times[i]
        watermark = NO_TIME if newest == NO_TIME else newest - rules.disorder
        watermarks[i] = watermark
        if rows.append[i] != NO_TIME and time > rows.append[i] + rules.future:
            outcomes[i] = QUARANTINED
        elif time < watermark:
            outcomes[i] = LATE
        elif rows.ids[i] >= 0 and time < until[rows.ids[i]]:
            outcomes[i] = DUPLICATE
        else:
            if rows.ids[i] >= 0:
                until[rows.ids[i]] = time + rules.horizon
            newest = max(newest, time)
            outcomes[i] = SCORED if rows.asks[i] else FOLDED
    return newest
