"""Windows over event time: one pass over the rows of a batch, each key's rows in log order.

What a row reads is a fold over what is visible to it, in (time, log order): rules 4 and 9 of the contract. The
windows of a slot stand as of its newest row (``AS_OF``), so a row that comes in order moves each window's
edge and reads. A read behind or ahead works on a copy of the record (record 0) with the edges and totals of its own
time; a row that comes behind is counted in with the rows ahead of it.

Keys are independent of each other: given each row's watermark, any order of the rows that keeps the order within
each key gives the same bits. The arguments are those of :mod:`thalweg.engine.kernels.rings`.

Cost per row in order: one addition a column, and for each window the rows that its edge passes and a subtraction.
"""

from __future__ import annotations

import math

from thalweg.engine.kernels.accumulate import (
    OP_DECAYED_SUM,
    OP_FIRST,
    OP_LAST,
    OP_ROWS,
    OP_SINCE_LAST,
    SPILL,
)
from thalweg.engine.kernels.arrays import Float64, Int64
from thalweg.engine.kernels.borrow import borrowed, prefetch
from thalweg.engine.kernels.folds import (
    climb,
    counted,
    earliest,
    enter,
    enter_behind,
    expire,
    extremes,
    faded,
    give_fold,
    latest,
    move,
    refit,
    rewind,
    tally,
    tally_from,
)
from thalweg.engine.kernels.jit import inlined_part, kernel, part
from thalweg.engine.kernels.lifetimes import SPILL_SIZE, SPILL_WORDS, make_tips, move_tips, read_tip, settle
from thalweg.engine.kernels.rings import (
    AFTER,
    AS_OF,
    BEFORE,
    C_LATEST,
    C_MAX,
    C_MIN,
    C_VALUE,
    C_WORDS,
    COLUMN,
    COLUMNS,
    END,
    ENTER,
    F_COLUMN,
    F_FIRST,
    F_VALUE,
    FOLD,
    FOLDS,
    GIVEN,
    IDS,
    KEEP_ROWS,
    KEEP_US,
    L_BASE,
    L_TIP,
    LEAVE,
    LIFE_CODE,
    LIFETIME,
    LIVED,
    LIVES,
    LOOK,
    MASK,
    OLDEST,
    R_FOLD,
    R_HALF_LIFE,
    R_OP,
    R_TO,
    R_WINDOW,
    READ,
    RECORD,
    REMOVE,
    ROWS,
    SETTLED,
    SLIDING,
    START,
    STRIDE,
    VALUES,
    W_FOLDS,
    W_FOLDS_END,
    W_KIND,
    W_LEFT,
    W_LENGTH,
    WINDOW,
    WINDOWS,
    Rows,
    copy,
    give,
    length_of,
    place,
    push,
    size_of,
    take,
    u,
    unwind,
    upper,
)

__all__ = ["ENTER", "LEAVE", "LIFETIME", "LOOK", "REMOVE", "ROWS", "SLIDING", "advance", "by_slot", "compact"]

_AHEAD = 8  # rows before it is taken, what stands in the arena of a row's key is asked for, and its record twice that
_FLOOR = -(2**62)  # a time before all times, from which a window can be subtracted


@kernel
def advance(
    first: int,
    order: Int64,
    rows: Rows,
    words: Int64,
    reals: Float64,
    arena: Int64,
    values: Float64,
    code: Int64,
    out: Float64,
) -> int:
    """Folds and reads rows from place ``first`` on; ``out`` float64[reads, columns] is written.

    ``order`` int64[n] is the order in which rows are taken, or empty: as they stand. Returns the place at which the
    arena is full (call again with a larger one), or n.
    """
    slots, times, watermarks, ids = (
        borrowed(rows.slots),
        borrowed(rows.times),
        borrowed(rows.watermarks),
        borrowed(rows.ids),
    )
    acts, reset, inputs, out_rows = (
        borrowed(rows.acts),
        borrowed(rows.reset),
        borrowed(rows.values),
        borrowed(rows.out_rows),
    )
    words, reals, arena, values = borrowed(words), borrowed(reals), borrowed(arena), borrowed(values)
    order, code, out = borrowed(order), borrowed(code), borrowed(out)
    n, lives = len(slots), code[BEFORE] > code[LIVES]
    for k in range(first, n):
        if k + 2 * _AHEAD < n:
            if len(order) == 0:
                _ask_record(slots[u(k + 2 * _AHEAD)], words, code)
            else:
                j = order[u(k + 2 * _AHEAD)]
                prefetch(slots, j)
                prefetch(times, j)
                prefetch(watermarks, j)
                prefetch(acts, j)
                prefetch(reset, j)
                prefetch(out_rows, j)
                prefetch(inputs, j * inputs.shape[1])
                j = order[u(k + _AHEAD)]
                _ask_record(slots[u(j)], words, code)
                for at in range(max(out_rows[u(j)], 0) * out.shape[1], (out_rows[u(j)] + 1) * out.shape[1], 8):
                    prefetch(out, at)
            _ask_rows(slots[u(k + _AHEAD if len(order) == 0 else order[u(k + 4)])], words, arena, code)
        i = k if len(order) == 0 else order[k]
        now, watermark, reads = times[i], max(watermarks[i], _FLOOR), out_rows[i]
        h = (slots[i] + 1) * code[RECORD]
        if reset[i] or h == 0:
            _clear(words, code, h)
        if words[h + END] == 0:
            words[h + AS_OF] = _FLOOR
        inserts = False
        if acts[i] == ENTER and h > 0:
            full = words[h + START] == 0 or words[h + END] - words[h + OLDEST] > words[h + MASK]
            if (full or lives) and not _room(words, reals, arena, values, code, h, watermark):
                return k
            inserts = now < words[h + AS_OF] or now < watermark
            if not inserts:
                expire(words, reals, arena, values, code, h, now)
                if reads >= 0 and code[AFTER] > code[BEFORE]:
                    _read(words, reals, arena, values, code, h, now, BEFORE, out, reads)
                _append(words, reals, arena, values, code, h, now, ids[i], inputs, i)
                if reads >= 0:
                    _read_all(words, reals, arena, values, code, h, now, AFTER, out, reads)
                continue
        if h > 0:
            move(words, reals, arena, values, code, h, watermark)
        if acts[i] == REMOVE and h > 0:
            _remove(words, reals, arena, values, code, h, now, ids[i])
        if reads >= 0 and code[AFTER] > code[BEFORE]:
            view = _view(words, reals, arena, values, code, h, now)
            _read(words, reals, arena, values, code, view, now, BEFORE, out, reads)
        if inserts:
            _insert(words, reals, arena, values, code, h, now, ids[i], inputs, i)
        if reads >= 0:
            view = _view(words, reals, arena, values, code, h, now)
            _read(words, reals, arena, values, code, view, now, AFTER, out, reads)
    return n


@kernel
def by_slot(slots: Int64, ends: Int64, order: Int64) -> None:
    """A stable counting sort: ``order`` int64[n] is written, the places of the rows slot by slot.

    ``ends`` int64[slots + 2], zeros, is used up; slot -1 comes first. Cost: two passes over n rows, one over the slots.
    """
    slots, ends, order = borrowed(slots), borrowed(ends), borrowed(order)
    for i in range(len(slots)):
        ends[slots[i] + 2] += 1
    for slot in range(1, len(ends)):
        ends[slot] += ends[slot - 1]
    for i in range(len(slots)):
        order[ends[slots[i] + 1]] = i
        ends[slots[i] + 1] += 1


@inlined_part
def _ask_record(slot: int, words: Int64, code: Int64) -> None:
    """Asks for the record of a slot."""
    h = (slot + 1) * code[RECORD]
    for j in range(h, h + code[RECORD], 8):
        prefetch(words, j)


@inlined_part
def _ask_rows(slot: int, words: Int64, arena: Int64, code: Int64) -> None:
    """Asks for the rows of a slot that the next row will need: its own place, and where each window begins."""
    h = (slot + 1) * code[RECORD]
    prefetch(arena, place(words, code, h, words[u(h + END)]))
    for w in range(code[WINDOWS], code[FOLDS], WINDOW):
        p = place(words, code, h, words[u(h + code[u(w + W_LEFT)])])
        prefetch(arena, p)
        prefetch(arena, p + code[STRIDE])


@part
def _clear(words: Int64, code: Int64, h: int) -> None:
    """A record without rows; it keeps its place in the arena."""
    for j in range(OLDEST, code[LIVED]):
        words[h + j] = 0
    for k in range(code[LIVES], code[BEFORE], LIFE_CODE):
        for j in range(SPILL):
            words[h + code[k + L_BASE] + j] = 0
            words[h + code[k + L_TIP] + j] = 0


@part
def _room(words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, watermark: int) -> bool:
    """Makes room for one row: forgets what nobody can see, else moves the ring to a larger place."""
    if arena[0] + (code[BEFORE] - code[LIVES]) // LIFE_CODE * SPILL_WORDS > len(arena):
        return False
    settle(words, reals, arena, values, code, h, watermark)
    capacity = words[h + MASK] + 1 if words[h + START] > 0 else 0
    if words[h + END] - words[h + OLDEST] < capacity:
        return True
    move(words, reals, arena, values, code, h, watermark)
    words[h + OLDEST] = _visible(words, arena, code, h, watermark)
    if words[h + END] - words[h + OLDEST] < capacity:
        return True
    larger = max(4, 2 * capacity)
    to, old = take(arena, size_of(larger), length_of(larger, code)), words[h + START]
    if to == 0:
        return False
    _copy_ring(words, arena, arena, code, h, to, larger)
    words[h + START] = to
    words[h + MASK] = larger - 1
    if old > 0:
        give(arena, size_of(capacity), old)
    return True


@part
def _visible(words: Int64, arena: Int64, code: Int64, h: int, watermark: int) -> int:
    """The first row that a later row may see: ahead of ``wm - W``, or among the last n; the windows are expired."""
    oldest, end = words[h + OLDEST], words[h + END]
    settled = upper(words, arena, code, h, oldest, end, watermark)
    row = settled
    if code[KEEP_US] >= 0:
        row = upper(words, arena, code, h, oldest, end, watermark - code[KEEP_US])
    if code[KEEP_ROWS] > 0:
        row = min(row, max(oldest, settled - code[KEEP_ROWS]))
    if code[BEFORE] > code[LIVES]:
        row = min(row, words[h + SETTLED])
    return row


@part
def _copy_ring(words: Int64, arena: Int64, target: Int64, code: Int64, h: int, to: int, capacity: int) -> None:
    """The rows of a slot, into a ring of another capacity at ``to`` of the arena ``target``."""
    for row in range(words[h + OLDEST], words[h + END]):
        p, q = place(words, code, h, row), to + (row & (capacity - 1)) * code[STRIDE]
        for j in range(code[STRIDE]):
            target[q + j] = arena[p + j]


@inlined_part
def _write(
    words: Int64,
    arena: Int64,
    values: Float64,
    code: Int64,
    h: int,
    row: int,
    time: int,
    row_id: int,
    inputs: Float64,
    i: int,
) -> None:
    """Row ``i`` of the input becomes row ``row`` of the ring; its links are not made."""
    p = place(words, code, h, row)
    arena[u(p)] = time
    if code[IDS] > 0:
        arena[u(p + 1)] = row_id
    for c in range(inputs.shape[1]):
        values[u(p + code[VALUES] + c)] = inputs[u(i), u(c)]


@inlined_part
def _append(
    words: Int64,
    reals: Float64,
    arena: Int64,
    values: Float64,
    code: Int64,
    h: int,
    time: int,
    row_id: int,
    inputs: Float64,
    i: int,
) -> None:
    """A row enters that is the newest of its key; the windows stand as of its time."""
    row = words[u(h + END)]
    _write(words, arena, values, code, h, row, time, row_id, inputs, i)
    words[u(h + END)] = row + 1
    p = place(words, code, h, row)
    for c in range(code[COLUMNS], code[LIVES], COLUMN):
        if code[u(c + C_LATEST)] >= 0 and not math.isnan(values[u(p + code[u(c + C_VALUE)])]):
            words[u(h + code[u(c + C_LATEST)])] = row
        if code[u(c + C_WORDS)] > 0 and not tally(words, arena, values, code, h, c, row, p):
            refit(words, reals, arena, values, code, h, c)
        if code[u(c + C_MAX)] >= 0 or code[u(c + C_MIN)] >= 0:
            push(words, arena, values, code, h, row, c)
    for w in range(code[WINDOWS], code[FOLDS], WINDOW):
        for f in range(code[u(w + W_FOLDS)], code[u(w + W_FOLDS_END)], FOLD):
            x = values[u(p + code[u(f + F_VALUE)])]
            if not math.isnan(x):
                enter(words, reals, code, h, f, row, x)
        if code[u(w + W_KIND)] == ROWS:
            _overflow(words, reals, arena, values, code, h, w)
    if code[BEFORE] > code[LIVES]:
        move_tips(words, reals, arena, values, code, h, row)


@part
def _overflow(words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, w: int) -> None:
    """The oldest of n + 1 rows leaves a window of the last n."""
    left = words[h + code[w + W_LEFT]]
    if words[h + END] - left > code[w + W_LENGTH]:
        words[h + code[w + W_LEFT]] = left + 1
        climb(words, reals, arena, values, code, h, w, left + 1)


@part
def _insert(
    words: Int64,
    reals: Float64,
    arena: Int64,
    values: Float64,
    code: Int64,
    h: int,
    time: int,
    row_id: int,
    inputs: Float64,
    i: int,
) -> None:
    """A row enters behind newer rows of its key, after all rows of its time. Cost: the rows ahead of it."""
    end = words[h + END]
    at = upper(words, arena, code, h, words[h + OLDEST], end, time)
    if at < end:
        _rewind(words, arena, code, h, at)
    for row in range(end, at, -1):
        copy(words, arena, code, h, row - 1, row)
    _write(words, arena, values, code, h, at, time, row_id, inputs, i)
    words[h + END] = end + 1
    for c in range(code[COLUMNS], code[LIVES], COLUMN):
        fits = True
        if code[c + C_WORDS] > 0:
            fits = tally(words, arena, values, code, h, c, at, place(words, code, h, at))
            tally_from(words, arena, values, code, h, c, at + 1)
        if not fits:
            refit(words, reals, arena, values, code, h, c)
        if code[c + C_LATEST] >= 0:
            words[h + code[c + C_LATEST]] = end
        unwind(words, arena, values, code, h, at, c)
        for row in range(at, end + 1):
            push(words, arena, values, code, h, row, c)
    for w in range(code[WINDOWS], code[FOLDS], WINDOW):
        inside = time > words[h + AS_OF] - code[w + W_LENGTH]
        if code[w + W_KIND] == ROWS:
            inside = at >= words[h + END] - code[w + W_LENGTH]
        for f in range(code[w + W_FOLDS], code[w + W_FOLDS_END], FOLD):
            enter_behind(words, reals, code, h, f, at, inputs[i, code[f + F_VALUE] - code[VALUES]], inside)
        if not inside:
            words[h + code[w + W_LEFT]] += 1
        elif code[w + W_KIND] == ROWS:
            _overflow(words, reals, arena, values, code, h, w)
    make_tips(words, reals, arena, values, code, h)


@part
def _rewind(words: Int64, arena: Int64, code: Int64, h: int, row: int) -> None:
    """The totals of all columns become those before row ``row``."""
    for c in range(code[COLUMNS], code[LIVES], COLUMN):
        rewind(words, arena, code, h, c, row)


@part
def _remove(
    words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, time: int, row_id: int
) -> None:
    """Takes the row with this time and id out of a slot, if it is there. Cost: the rows of the slot.

    What has settled in the base of a lifetime stays there; label-fed windows, the only ones to remove, slide.
    """
    end = words[h + END]
    at = upper(words, arena, code, h, words[h + OLDEST], end, time - 1)
    while at < end and arena[place(words, code, h, at)] == time and arena[place(words, code, h, at) + 1] != row_id:
        at += 1
    if at == end or arena[place(words, code, h, at)] != time:
        return
    for w in range(code[WINDOWS], code[FOLDS], WINDOW):
        if at < words[h + code[w + W_LEFT]]:
            words[h + code[w + W_LEFT]] -= 1
    _rewind(words, arena, code, h, at)
    for row in range(at, end - 1):
        copy(words, arena, code, h, row + 1, row)
    words[h + END] = end - 1
    if at < words[h + SETTLED]:
        words[h + SETTLED] -= 1
    for c in range(code[COLUMNS], code[LIVES], COLUMN):
        if code[c + C_WORDS] > 0:
            tally_from(words, arena, values, code, h, c, at)
        for side in (C_MAX, C_MIN):
            if code[c + side] >= 0:
                words[h + code[c + side]] = 0
        if code[c + C_MAX] >= 0 or code[c + C_MIN] >= 0:
            for row in range(words[h + OLDEST], end - 1):
                push(words, arena, values, code, h, row, c)
    for w in range(code[WINDOWS], code[FOLDS], WINDOW):
        _close_up(words, reals, arena, values, code, h, w)
    make_tips(words, reals, arena, values, code, h)


@part
def _close_up(words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, w: int) -> None:
    """A window of the last n rows takes the row before it, and extremes are looked for, after a row was removed."""
    left = words[h + code[w + W_LEFT]]
    fills = code[w + W_KIND] == ROWS and left > words[h + OLDEST] and words[h + END] - left < code[w + W_LENGTH]
    if fills:
        left -= 1
        words[h + code[w + W_LEFT]] = left
    for f in range(code[w + W_FOLDS], code[w + W_FOLDS_END], FOLD):
        if code[f + F_FIRST] >= 0:
            words[h + code[f + F_FIRST]] = 0
        extremes(words, reals, arena, values, code, h, f, left, words[h + END])


@part
def _view(words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, now: int) -> int:
    """The record to read from as of ``now``: the slot's own, or record 0, a copy of it that was moved there."""
    oldest, end = words[h + OLDEST], words[h + END]
    right = upper(words, arena, code, h, oldest, end, now)
    stays = right == end and now >= words[h + AS_OF]
    for w in range(code[WINDOWS], code[FOLDS], WINDOW):
        stays = stays and _left(words, arena, code, h, w, right, now) == words[h + code[w + W_LEFT]]
    if stays:
        return h
    for j in range(code[RECORD]):
        words[j] = words[h + j]
    words[END] = right
    if right < end:
        _rewind(words, arena, code, 0, right)
        make_tips(words, reals, arena, values, code, 0)
    for w in range(code[WINDOWS], code[FOLDS], WINDOW):
        left = _left(words, arena, code, h, w, right, now)
        words[code[w + W_LEFT]] = left
        for f in range(code[w + W_FOLDS], code[w + W_FOLDS_END], FOLD):
            if code[f + F_FIRST] >= 0:
                words[code[f + F_FIRST]] = 0
            extremes(words, reals, arena, values, code, 0, f, left, right)
    return 0


@part
def _left(words: Int64, arena: Int64, code: Int64, h: int, w: int, right: int, now: int) -> int:
    """Where window ``w`` begins that ends before row ``right``."""
    if code[w + W_KIND] == ROWS:
        return max(words[h + OLDEST], right - code[w + W_LENGTH])  # type: ignore[no-any-return]
    return upper(words, arena, code, h, words[h + OLDEST], right, now - code[w + W_LENGTH])


@part
def _read(
    words: Int64,
    reals: Float64,
    arena: Int64,
    values: Float64,
    code: Int64,
    h: int,
    now: int,
    table: int,
    out: Float64,
    reads: int,
) -> None:
    """:func:`_read_all`, called."""
    _read_all(words, reals, arena, values, code, h, now, table, out, reads)


@inlined_part
def _read_all(
    words: Int64,
    reals: Float64,
    arena: Int64,
    values: Float64,
    code: Int64,
    h: int,
    now: int,
    table: int,
    out: Float64,
    reads: int,
) -> None:
    """What is read BEFORE or AFTER, the ``table``, from the record at ``h``, into row ``reads`` of ``out``."""
    for g in range(code[u(table)], code[u(table + 1)], GIVEN):
        give_fold(words, reals, arena, values, code, h, g, out, reads)
    for r in range(code[u(table + 1)], code[u(table + 2)], READ):
        out[reads, code[r + R_TO]] = _read_other(words, reals, arena, values, code, h, now, r)


@part
def _read_other(
    words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, h: int, now: int, r: int
) -> float:
    """The value of an op that is read alone."""
    op, f, w = code[r + R_OP], code[r + R_FOLD], code[r + R_WINDOW]
    if w < 0:
        return read_tip(words, reals, arena, values, code, h, now, op, f)
    left, end = words[h + code[w + W_LEFT]], words[h + END]
    if op == OP_ROWS:
        return float(end - left)
    if op == OP_SINCE_LAST:
        return (now - arena[place(words, code, h, end - 1)]) / 1e6 if end > left else math.nan
    c = code[f + F_COLUMN]
    if counted(words, arena, code, h, c, left) == 0:
        return math.nan
    if op == OP_DECAYED_SUM:
        return faded(words, arena, values, code, h, w, code[f + F_VALUE], now, code[r + R_HALF_LIFE])
    if op == OP_FIRST:
        row = earliest(words, values, code, h, w, f)
    else:
        assert op == OP_LAST
        row = latest(words, values, code, h, c)
    return values[place(words, code, h, row) + code[f + F_VALUE]]  # type: ignore[no-any-return]


@kernel
def compact(
    words: Int64, reals: Float64, arena: Int64, values: Float64, code: Int64, watermark: int, larger: Int64
) -> None:
    """Moves every ring into the arena ``larger``, without the rows that nobody can see.

    Each ring gets the smallest capacity that holds its rows, at least four; none where there are none.
    """
    words, reals, arena, values = borrowed(words), borrowed(reals), borrowed(arena), borrowed(values)
    code, larger = borrowed(code), borrowed(larger)
    for h in range(code[RECORD], len(words), code[RECORD]):
        if words[h + END] > 0:
            move(words, reals, arena, values, code, h, max(watermark, _FLOOR))
            words[h + OLDEST] = _visible(words, arena, code, h, max(watermark, _FLOOR))
        kept, to, capacity = words[h + END] - words[h + OLDEST], 0, 1
        if kept > 0:
            capacity = max(4, 1 << size_of(kept))
            to = take(larger, size_of(capacity), length_of(capacity, code))
            _copy_ring(words, arena, larger, code, h, to, capacity)
        words[h + START] = to
        words[h + MASK] = capacity - 1
        for k in range(code[LIVES], code[BEFORE], LIFE_CODE):
            spill = words[h + code[k + L_BASE] + SPILL]
            if spill > 0:
                to = take(larger, SPILL_SIZE, SPILL_WORDS)
                for j in range(SPILL_WORDS):
                    larger[to + j] = arena[spill + j]
                words[h + code[k + L_BASE] + SPILL] = to
