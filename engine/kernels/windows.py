"""Windows over event time: one pass over the rows of a batch in log order.

Each key (slot) owns a segment of one arena: its rows in (time, log order), from the oldest that any
window may still see to the newest. A lifetime fold keeps a base: the fold of the rows at or behind
the watermark, which no later row can precede. What a row reads is a fold over what is visible to
it, in that order, so a value depends on the window's contents alone (rule 4 and 9 of the contract).

Cost per row: an insertion (a move of the rows ahead of it), and per window a fold of its rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thalweg.engine.kernels.accumulate import WIDTH, clear, fold, read
from thalweg.engine.kernels.arrays import Bool, Float64, Int8, Int64
from thalweg.engine.kernels.jit import kernel

# Kinds of windows.
SLIDING, ROWS, LIFETIME = range(3)

# What a row does to its window; LOOK leaves it, too, and does not even count as a use of its key.
LEAVE, ENTER, REMOVE, LOOK = range(4)


class Program(NamedTuple):
    """What is computed: ``folds`` int64[f, 6] (column or -1, kind, length, ttl, include current,
    squares),
    ``half_lives`` float64[f] (microseconds, 0 = none), ``outputs`` int64[m, 2] (fold, op);
    ``keep_us`` and ``keep_rows``: how far behind the watermark a row may be seen."""

    folds: Int64
    half_lives: Float64
    outputs: Int64
    keep_us: int
    keep_rows: int


class Ring(NamedTuple):
    """State: segments int64[slots, 4] (start, length, capacity, rows in the base), the arena's rows
    (``times`` int64[a] microseconds, ``ids`` int64[a], ``values`` float64[a, columns]), ``used`` int64[1];
    bases ``acc`` float64[slots, f, WIDTH] and ``acc_times`` int64[slots, f]."""

    segments: Int64
    times: Int64
    ids: Int64
    values: Float64
    used: Int64
    acc: Float64
    acc_times: Int64


class Rows(NamedTuple):
    """Input: slot int64[n] (-1 = the key is null or unknown), time int64[n], watermark int64[n], id int64[n],
    values float64[n, columns] (NaN = null), acts int8[n] (LEAVE or LOOK, ENTER the window, or REMOVE the row of
    that time and id), reset bool[n] (the slot
    was taken from another key just before this row), out_row int64[n] (row of ``out`` to fill, or -1)."""

    slots: Int64
    times: Int64
    watermarks: Int64
    ids: Int64
    values: Float64
    acts: Int8
    reset: Bool
    out_rows: Int64


@kernel
def advance(start: int, rows: Rows, ring: Ring, program: Program, out: Float64) -> int:
    """Folds and reads rows ``start`` onwards; ``out`` float64[reads, m] is written.

    Returns the row where the arena is full (call again with a larger one), or the number of rows.
    """
    acc = np.empty(WIDTH)
    for i in range(start, len(rows.slots)):
        slot = rows.slots[i]
        here = -1
        if slot >= 0:
            if rows.reset[i]:
                _reset(ring, slot)
            if rows.acts[i] == REMOVE:
                _remove(ring, slot, rows.times[i], rows.ids[i])
            elif rows.acts[i] == ENTER:
                if not _reserve(ring, slot, rows.watermarks[i], program):
                    return i
                _settle(ring, slot, rows.watermarks[i], program)
                here = _insert(ring, slot, rows, i)
        if rows.out_rows[i] >= 0:
            _read_row(ring, slot, here, rows.times[i], program, acc, out[rows.out_rows[i]])
    return len(rows.slots)


@kernel
def _reset(ring: Ring, slot: int) -> None:
    ring.segments[slot, 1] = 0
    ring.segments[slot, 3] = 0
    ring.acc[slot] = 0.0
    ring.acc_times[slot] = 0


@kernel
def _settle(ring: Ring, slot: int, watermark: int, program: Program) -> None:
    """Folds rows at or behind the watermark into the bases of the lifetime folds."""
    start, length, settled = ring.segments[slot, 0], ring.segments[slot, 1], ring.segments[slot, 3]
    while settled < length and ring.times[start + settled] <= watermark:
        at = start + settled
        for f in range(len(program.folds)):
            if program.folds[f, 1] == LIFETIME:
                column = program.folds[f, 0]
                x = ring.values[at, column] if column >= 0 else np.nan
                ring.acc_times[slot, f] = fold(
                    ring.acc[slot, f],
                    ring.acc_times[slot, f],
                    ring.times[at],
                    x,
                    program.half_lives[f],
                    program.folds[f, 3],
                    program.folds[f, 5],
                )
        settled += 1
    ring.segments[slot, 3] = settled


@kernel
def _reserve(ring: Ring, slot: int, watermark: int, program: Program) -> bool:
    """Makes room for one row: drops what nobody can see, else moves the segment to a larger one."""
    start, length, capacity = ring.segments[slot, 0], ring.segments[slot, 1], ring.segments[slot, 2]
    if length < capacity:
        return True
    _settle(ring, slot, watermark, program)
    drop = _invisible(ring, slot, watermark, program)
    if 4 * drop >= length and drop > 0:
        _move(ring, slot, start, drop)
        return True
    larger = max(4, 2 * (length - drop))
    if ring.used[0] + larger > len(ring.times):
        return False
    _move(ring, slot, ring.used[0], drop)
    ring.segments[slot, 2] = larger
    ring.used[0] += larger
    return True


@kernel
def _invisible(ring: Ring, slot: int, watermark: int, program: Program) -> int:
    """How many of the oldest rows no later row can see: at or behind ``wm - W``, not among the last n."""
    start, length = ring.segments[slot, 0], ring.segments[slot, 1]
    settled = _upper(ring.times, start, start + length, watermark) - start
    if program.keep_us < 0:  # no sliding window
        drop = settled
    else:
        drop = _upper(ring.times, start, start + length, watermark - program.keep_us) - start
    if program.keep_rows > 0:
        drop = min(drop, max(0, settled - program.keep_rows))
    return int(drop)


@kernel
def _move(ring: Ring, slot: int, to: int, drop: int) -> None:
    start, length, settled = ring.segments[slot, 0], ring.segments[slot, 1], ring.segments[slot, 3]
    for k in range(length - drop):
        ring.times[to + k] = ring.times[start + drop + k]
        ring.ids[to + k] = ring.ids[start + drop + k]
        ring.values[to + k] = ring.values[start + drop + k]
    ring.segments[slot, 0] = to
    ring.segments[slot, 1] = length - drop
    ring.segments[slot, 3] = max(0, settled - drop)


@kernel
def _insert(ring: Ring, slot: int, rows: Rows, i: int) -> int:
    """Places the row behind all rows of its time; returns where."""
    start, length = ring.segments[slot, 0], ring.segments[slot, 1]
    at = _upper(ring.times, start, start + length, rows.times[i])
    for k in range(start + length, at, -1):
        ring.times[k] = ring.times[k - 1]
        ring.ids[k] = ring.ids[k - 1]
        ring.values[k] = ring.values[k - 1]
    ring.times[at] = rows.times[i]
    ring.ids[at] = rows.ids[i]
    ring.values[at] = rows.values[i]
    ring.segments[slot, 1] = length + 1
    return at


@kernel
def _upper(times: Int64, low: int, high: int, time: int) -> int:
    """The first place in [low, high) whose time is above ``time``, else ``high``."""
    while low < high:
        middle = (low + high) // 2
        if times[middle] <= time:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _read_row(ring: Ring, slot: int, here: int, now: int, program: Program, acc: Float64, out: Float64) -> None:
    """Every output for one row; ``here`` is its own place in the arena, or -1."""
    done = -1
    last_time = 0
    for m in range(len(program.outputs)):
        f = program.outputs[m, 0]
        if f != done:
            last_time = _fold_window(ring, slot, here, now, program, f, acc)
            done = f
        out[m] = read(acc, last_time, now, program.outputs[m, 1], program.half_lives[f], program.folds[f, 3])


@kernel
def _fold_window(ring: Ring, slot: int, here: int, now: int, program: Program, f: int, acc: Float64) -> int:
    """The fold ``f`` of the rows visible at ``now``, into ``acc``; returns the latest time."""
    clear(acc)
    last_time = 0
    if slot < 0:
        return last_time
    column, kind, length = program.folds[f, 0], program.folds[f, 1], program.folds[f, 2]
    ttl, include, squares = program.folds[f, 3], program.folds[f, 4], program.folds[f, 5]
    start, count, settled = ring.segments[slot, 0], ring.segments[slot, 1], ring.segments[slot, 3]
    high = _upper(ring.times, start, start + count, now)
    skip = here if include == 0 else -1
    low = start
    if kind == SLIDING:
        low = _upper(ring.times, start, high, now - length)
    elif kind == ROWS:
        visible = high - start - (1 if start <= skip < high else 0)
        low = high
        wanted = min(length, visible)
        while wanted > 0:
            low -= 1
            if low != skip:
                wanted -= 1
    else:
        acc[:] = ring.acc[slot, f]
        last_time = ring.acc_times[slot, f]
        low = start + settled
    for at in range(low, high):
        if at != skip:
            x = ring.values[at, column] if column >= 0 else np.nan
            last_time = fold(acc, last_time, ring.times[at], x, program.half_lives[f], ttl, squares)
    return last_time


@kernel
def compact(ring: Ring, larger: Ring, watermark: int, program: Program) -> None:
    """Copies every segment into ``larger`` without the rows that nobody can see.

    ``larger.segments`` may have more slots; each segment gets room for twice its rows, at least four.
    """
    used = 0
    for slot in range(len(ring.segments)):
        _settle(ring, slot, watermark, program)
        drop = _invisible(ring, slot, watermark, program)
        start, length, settled = ring.segments[slot, 0], ring.segments[slot, 1], ring.segments[slot, 3]
        kept = length - drop
        for k in range(kept):
            larger.times[used + k] = ring.times[start + drop + k]
            larger.ids[used + k] = ring.ids[start + drop + k]
            larger.values[used + k] = ring.values[start + drop + k]
        capacity = max(4, 2 * kept) if kept > 0 else 0
        larger.segments[slot, 0] = used
        larger.segments[slot, 1] = kept
        larger.segments[slot, 2] = capacity
        larger.segments[slot, 3] = max(0, settled - drop)
        larger.acc[slot] = ring.acc[slot]
        larger.acc_times[slot] = ring.acc_times[slot]
        used += capacity
    larger.used[0] = used


@kernel
def _remove(ring: Ring, slot: int, time: int, row_id: int) -> None:
    """Takes the row with this time and id out of a slot, if it is there."""
    start, length = ring.segments[slot, 0], ring.segments[slot, 1]
    at = _upper(ring.times, start, start + length, time - 1)
    while at < start + length and ring.times[at] == time and ring.ids[at] != row_id:
        at += 1
    if at == start + length or ring.times[at] != time:
        return
    for k in range(at, start + length - 1):
        ring.times[k] = ring.times[k + 1]
        ring.ids[k] = ring.ids[k + 1]
        ring.values[k] = ring.values[k + 1]
    ring.segments[slot, 1] = length - 1
