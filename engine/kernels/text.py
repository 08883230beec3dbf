"""Bytes by the row: records as JSON, times from text and to it, hashes of vectors.

Rows of JSON are written from columns that are rendered already: each column is one JSON array, or numbers that
are written here. Naive twins: ``orjson.dumps`` of a row's dict, and ``vector_hash`` of ``engine/features/plan.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from thalweg.engine.kernels.arrays import Bool, Float64, Int8, Int64, UInt8, UInt64
from thalweg.engine.kernels.jit import kernel

# What stands behind a piece of constant text: nothing, an item of a JSON array, or a number in a notation.
NOTHING, ITEM, WHOLE, TRUTH, TIME, HEX, POINT, FLAG, UNCOMMA = range(9)
NO_ROW: int = -1  # POINT of it is nothing
NO_TIME: int = int(np.iinfo(np.int64).min)  # TIME of it is null
MIN_TIME, MAX_TIME = -62_167_219_200_000_000, 253_402_300_799_999_999  # the years 0000 to 9999
WIDEST = 29  # bytes of the longest number: a time in quotes

_DAY_US = 86_400_000_000
_QUOTE, _COMMA, _BACKSLASH, _PLUS, _MINUS, _POINT, _ZERO, _NINE, _COLON = 34, 44, 92, 43, 45, 46, 48, 57, 58
_OPEN_LIST, _CLOSE_LIST, _OPEN_OBJECT, _CLOSE_OBJECT = 91, 93, 123, 125
_ONE, _TWO, _TEN = np.uint64(1), np.uint64(2), np.uint64(10)
_NIBBLE, _FOUR, _LONG, _DEEP = np.uint64(15), np.uint64(4), np.uint64(255), np.uint64(1999)
_LOWER, _E, _U_POINT, _U_NINE = np.uint8(32), np.uint8(101), np.uint8(46), np.uint8(57)

# XXH64 (Yann Collet, xxHash fast digest algorithm, specification 0.1.1).
_P1, _P2 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F)
_P3, _P4 = np.uint64(0x165667B19E3779F9), np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)


@kernel
def write_rows(
    pieces: Int64,
    constants: UInt8,
    items: UInt8,
    numbers: Int64,
    first: int,
    at: Int64,
    out: UInt8,
    out_ends: Int64,
) -> None:
    """Writes rows ``first`` and following, each the same pieces of constant text with a value behind each.

    ``pieces`` int64[p, 4] (read): what follows (``ITEM`` ...), start and stop of the text in ``constants``, and which
    of the columns: a row of ``at`` for ITEM, of ``numbers`` for the others. ``constants`` uint8 (read). ``items``
    uint8 (read): compact JSON arrays of n items. ``numbers`` int64[columns, n] (read): truths are 0 and 1,
    hexadecimals the bits of uint64. A FLAG that is 0 leaves out its text, an UNCOMMA takes back the comma that was
    written last. ``at`` int64[arrays] (read and written): where the next item of each array starts. ``out`` uint8
    (written), large enough; ``out_ends`` int64[rows] (written): where each row ends. Cost per row: a nanosecond per
    byte of items, a fifth per byte of constant text, about 20 per number.
    """
    p = 0
    for r in range(len(out_ends)):
        i = first + r
        for k in range(len(pieces)):
            kind, column = pieces[k, 0], pieces[k, 3]
            if kind == FLAG and numbers[column, i] == 0:
                continue
            if kind == UNCOMMA and out[p - 1] == _COMMA:
                p -= 1
            p = copy(constants, pieces[k, 1], pieces[k, 2], out, p)
            if kind == ITEM:
                start = at[column]
                stop = _item_end(items, start)
                at[column] = stop + 1
                p = copy(items, start, stop, out, p)
            elif kind == WHOLE:
                p = _write_whole(numbers[column, i], out, p)
            elif kind == TRUTH:
                p = _write_truth(numbers[column, i], out, p)
            elif kind == TIME:
                p = _write_time(numbers[column, i], out, p)
            elif kind == HEX:
                p = _write_hex(numbers[column, i], out, p)
            elif kind == POINT and numbers[column, i] != NO_ROW:
                out[p] = _POINT
                p = _write_whole(numbers[column, i], out, p + 1)
        out_ends[r] = p


@kernel
def copy(source: UInt8, start: int, stop: int, out: UInt8, p: int) -> int:
    """Bytes ``start`` to ``stop`` to ``out`` at ``p``; gives the end. Unsigned indices are five times as fast."""
    count, a, b = np.uint64(stop - start), np.uint64(start), np.uint64(p)
    for j in range(count):
        out[b + j] = source[a + j]
    return p + (stop - start)


@kernel
def _item_end(items: UInt8, start: int) -> int:
    """Where the comma or bracket stands behind the item of a compact JSON array that begins at ``start``."""
    j, depth = np.uint64(start), 0
    while True:
        c = items[j]
        if c == _QUOTE:
            j += _ONE
            while items[j] != _QUOTE:
                j += _TWO if items[j] == _BACKSLASH else _ONE
        elif c in (_OPEN_LIST, _OPEN_OBJECT):
            depth += 1
        elif c in (_CLOSE_LIST, _CLOSE_OBJECT):
            if depth == 0:
                return int(np.int64(j))
            depth -= 1
        elif c == _COMMA and depth == 0:
            return int(np.int64(j))
        j += _ONE


@kernel
def _write_whole(value: int, out: UInt8, p: int) -> int:
    left = np.uint64(value)
    if value < 0:
        out[p] = _MINUS
        p += 1
        left = np.uint64(0) - left
    width, rest = 1, left // _TEN
    while rest > np.uint64(0):
        width += 1
        rest = rest // _TEN
    for j in range(p + width - 1, p - 1, -1):
        rest = left // _TEN
        out[j] = _ZERO + np.int64(left - rest * _TEN)
        left = rest
    return p + width


@kernel
def _write_truth(value: int, out: UInt8, p: int) -> int:
    if value:
        out[p], out[p + 1], out[p + 2], out[p + 3] = 116, 114, 117, 101  # true
        return p + 4
    out[p], out[p + 1], out[p + 2], out[p + 3], out[p + 4] = 102, 97, 108, 115, 101  # false
    return p + 5


@kernel
def _write_hex(value: int, out: UInt8, p: int) -> int:
    bits = np.uint64(value)
    for j in range(15, -1, -1):
        digit = np.int64(bits & _NIBBLE)
        out[p + j] = _ZERO + digit if digit < 10 else 87 + digit
        bits = bits >> _FOUR
    return p + 16


@kernel
def _write_digits(value: int, width: int, out: UInt8, p: int) -> int:
    for j in range(p + width - 1, p - 1, -1):
        out[j] = _ZERO + value % 10
        value = value // 10
    return p + width


@kernel
def _write_time(time: int, out: UInt8, p: int) -> int:
    """``"2013-01-01T05:00:00.000000Z"`` with its quotes, of a time from MIN_TIME to MAX_TIME, or ``null``."""
    if time == NO_TIME:
        out[p], out[p + 1], out[p + 2], out[p + 3] = 110, 117, 108, 108  # null
        return p + 4
    days = time // _DAY_US
    rest = time - days * _DAY_US
    year, month, day = civil(days)
    seconds = rest // 1_000_000
    out[p] = _QUOTE
    _write_digits(year, 4, out, p + 1)
    out[p + 5] = _MINUS
    _write_digits(month, 2, out, p + 6)
    out[p + 8] = _MINUS
    _write_digits(day, 2, out, p + 9)
    out[p + 11] = 84  # T
    _write_digits(seconds // 3600, 2, out, p + 12)
    out[p + 14] = 58  # :
    _write_digits(seconds // 60 % 60, 2, out, p + 15)
    out[p + 17] = 58
    _write_digits(seconds % 60, 2, out, p + 18)
    out[p + 20] = _POINT
    _write_digits(rest - seconds * 1_000_000, 6, out, p + 21)
    out[p + 27] = 90  # Z
    out[p + 28] = _QUOTE
    return p + 29


@kernel
def civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of the day that is ``days`` behind 1970-01-01, proleptic Gregorian, from year 0 on.

    Source: Howard Hinnant, chrono-Compatible Low-Level Date Algorithms, civil_from_days.
    """
    shifted = days + 719_468
    era = shifted // 146_097
    of_era = shifted - era * 146_097
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return year + era * 400 + (1 if month <= 2 else 0), month, day


@kernel
def read_times(data: UInt8, ends: Int64, out: Int64) -> None:
    """Times as ``YYYY-MM-DD``, T or a blank, ``HH:MM:SS``, perhaps a point and digits, then Z or ``+HH:MM``.

    ``data`` uint8 (read), one text behind the other; ``ends`` int64[n] (read); ``out`` int64[n] (written):
    microseconds since 1970, finer is floored, ``NO_TIME`` where the text is anything else. About 20 ns a text. Naive
    twin: ``datetime.fromisoformat``, which also knows other forms.
    """
    start = 0
    for i in range(len(ends)):
        out[i] = _read_time(data, start, ends[i])
        start = ends[i]


@kernel
def _read_time(data: UInt8, p: int, end: int) -> int:
    if end - p < 20 or data[p + 4] != _MINUS or data[p + 7] != _MINUS or (data[p + 10] != 84 and data[p + 10] != 32):
        return NO_TIME
    year, month, day = _digits(data, p, 4), _digits(data, p + 5, 2), _digits(data, p + 8, 2)
    seconds = _clock(data, p + 11, end)
    if data[p + 16] != _COLON or _digits(data, p + 17, 2) < 0 or _digits(data, p + 17, 2) > 59:
        return NO_TIME
    if year < 1 or month < 1 or month > 12 or day < 1 or day > _days_of(year, month) or seconds < 0:
        return NO_TIME
    seconds += _digits(data, p + 17, 2) + 86_400 * days_before(year, month, day)
    q, micros, unit = p + 19, 0, 100_000
    if data[q] == _POINT:
        q += 1
        while q < end and _ZERO <= data[q] <= _NINE:
            micros += (int(data[q]) - _ZERO) * unit
            unit //= 10
            q += 1
        if q == p + 20:
            return NO_TIME
    if end - q == 6 and (data[q] == _PLUS or data[q] == _MINUS):
        offset = _clock(data, q + 1, end)
        if offset < 0:
            return NO_TIME
        seconds += offset if data[q] == _MINUS else -offset
    elif end - q != 1 or data[q] != 90:  # Z
        return NO_TIME
    return seconds * 1_000_000 + micros


@kernel
def _clock(data: UInt8, p: int, end: int) -> int:
    """Seconds of ``HH:MM``, -1 where there is something else."""
    hours, minutes = _digits(data, p, 2), _digits(data, p + 3, 2)
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59 or data[p + 2] != _COLON:
        return -1
    return hours * 3600 + minutes * 60


@kernel
def _digits(data: UInt8, p: int, width: int) -> int:
    value = 0
    for j in range(p, p + width):
        if data[j] < _ZERO or data[j] > _NINE:
            return -1
        value = 10 * value + (int(data[j]) - _ZERO)
    return value


@kernel
def _days_of(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


@kernel
def days_before(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 to that day, the inverse of :func:`civil`."""
    if month <= 2:
        year -= 1
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


@kernel
def find_doubtful(data: UInt8, ends: Int64, out: Bool) -> None:
    """Which JSON texts may hold a number beyond float64, or nest deeper than 1000.

    ``data`` uint8 (read), one text behind the other; ``ends`` int64[n] (read); ``out`` bool[n] (written). A number is
    doubtful with an exponent of three digits, or 256 digits in a row. Every such text is found, and some that are
    harmless. A fiftieth of a nanosecond a byte where no digit stands before an e, else half a nanosecond.
    """
    anywhere = _has_digit_before_e(data)
    start = np.uint64(0)
    for i in range(len(ends)):
        end = np.uint64(ends[i])
        out[i] = (anywhere and _has_exponent(data, start, end)) or _has_long_number(data, start, end)
        if end - start > _DEEP:
            out[i] |= _brackets(data[ends[i] - np.int64(end - start) : ends[i]]) >= 1000
        start = end


@kernel
def _has_digit_before_e(data: UInt8) -> bool:
    """Or a point. Two views and no early end, so that the loop becomes vector code: 25 times as fast."""
    found = False
    before, letters = data[:-1], data[1:]
    for j in range(len(letters)):
        found |= ((letters[j] | _LOWER) == _E) & (before[j] >= _U_POINT) & (before[j] <= _U_NINE)
    return found


@kernel
def _has_exponent(data: UInt8, start: np.uint64, end: np.uint64) -> bool:
    """A digit or a point, e or E, perhaps plus, and three digits."""
    for j in range(start + _ONE, end):
        if (data[j] | _LOWER) == _E and data[j - _ONE] <= _NINE and data[j - _ONE] >= _POINT:
            k = j + _ONE
            if k < end and data[k] == _PLUS:
                k += _ONE
            if _digits_from(data, k, end) >= 3:
                return True
    return False


@kernel
def _has_long_number(data: UInt8, start: np.uint64, end: np.uint64) -> bool:
    """256 digits in a row, which cover one of the bytes number 255, 511, ..."""
    for j in range(start + _LONG, end, _LONG + _ONE):
        if _ZERO <= data[j] <= _NINE:
            k = np.uint64(j)
            while k > start and _ZERO <= data[k - _ONE] <= _NINE:
                k -= _ONE
            if _digits_from(data, k, end) >= 256:
                return True
    return False


@kernel
def _digits_from(data: UInt8, start: np.uint64, end: np.uint64) -> int:
    width = 0
    for j in range(start, end):
        if data[j] < _ZERO or data[j] > _NINE:
            break
        width += 1
    return width


@kernel
def _brackets(data: UInt8) -> int:
    count = 0
    for j in range(len(data)):
        count += (data[j] == _OPEN_LIST) | (data[j] == _OPEN_OBJECT)
    return count


def vector_hashes(numbers: Float64, is_text: Int8, text_bytes: UInt8, places: Int64) -> UInt64:
    """XXH64 (seed 0) of n feature vectors; uint64[n], the numbers whose hexadecimals are ``vector_hash``'s.

    ``numbers`` float64[n, f]: NaN is null, the columns of text are not read. ``is_text`` int8[f]. ``text_bytes``
    uint8[]: UTF-8. ``places`` int64[n, t, 2]: start and length in ``text_bytes`` of each row's t texts, in the order of
    the features; length -1 is null, and several may share bytes. See :func:`placed`.

    >>> text, places = placed([["JFK"]])
    >>> f"{vector_hashes(np.array([[1.0, np.nan, 0.0]]), np.array([0, 0, 1], dtype=np.int8), text, places)[0]:016x}"
    'bff378a3592d2262'
    """
    out = np.empty(len(numbers), dtype=np.uint64)
    longest = int(places[:, :, 1].sum(axis=1, initial=0, where=places[:, :, 1] > 0).max(initial=0))
    scratch = np.empty(9 * numbers.shape[1] + longest, dtype=np.uint8)
    known = text_bytes.view()
    known.setflags(write=False)  # one signature, whoever made the bytes
    _hash_vectors(np.ascontiguousarray(numbers).view(np.uint64), is_text, known, places, scratch, out)
    return out


def placed(columns: Sequence[Sequence[str | None]]) -> tuple[UInt8, Int64]:
    """Text columns of n values each (None is null) as bytes and int64[n, columns, 2], for :func:`vector_hashes`.

    >>> text, places = placed([["a", None], ["é", "b"]])
    >>> bytes(text), places.tolist()
    (b'a\\xc3\\xa9b', [[[0, 1], [1, 2]], [[3, -1], [3, 1]]])
    """
    if not columns:
        return np.empty(0, dtype=np.uint8), np.empty((0, 0, 2), dtype=np.int64)
    rows, count = len(columns[0]), len(columns)
    values = list(columns[0]) if count == 1 else list(chain.from_iterable(zip(*columns, strict=True)))
    present: list[Any] = [value or "" for value in values] if None in values else values
    data = "".join(present)
    if not data.isascii():
        present = [value.encode() for value in present]
    lengths = np.fromiter(map(len, present), dtype=np.int64, count=len(present))
    ends = np.cumsum(lengths)
    places = np.column_stack([ends - lengths, lengths])
    if present is not values:
        places[[value is None for value in values], 1] = -1
    return np.frombuffer(data.encode(), dtype=np.uint8), places.reshape(rows, count, 2)


@kernel
def _hash_vectors(
    numbers: UInt64, is_text: Int8, text_bytes: UInt8, places: Int64, scratch: UInt8, out: UInt64
) -> None:
    """As :func:`vector_hashes`; ``numbers`` are the bits, ``scratch`` (written) holds the encoding of one vector."""
    infinity = np.uint64(0x7FF0000000000000)
    for i in range(len(out)):
        p, t = 0, 0
        for f in range(len(is_text)):
            if is_text[f]:
                start, length = places[i, t, 0], places[i, t, 1]
                t += 1
                if length < 0:
                    scratch[p] = 0
                    p += 1
                    continue
                scratch[p] = 2
                _put(np.uint64(length), 4, scratch, p + 1)
                p = copy(text_bytes, start, start + length, scratch, p + 5)
            elif (numbers[i, f] << _ONE) >> _ONE > infinity:  # NaN
                scratch[p] = 0
                p += 1
            else:
                scratch[p] = 1
                _put(numbers[i, f], 8, scratch, p + 1)
                p += 9
        out[i] = xxh64(scratch, p)


@kernel
def _put(value: np.uint64, width: int, out: UInt8, p: int) -> None:
    for j in range(width):
        out[p + j] = value & np.uint64(255)
        value = value >> np.uint64(8)


@kernel
def _get(data: UInt8, p: int, width: int) -> np.uint64:
    value = np.uint64(0)
    for j in range(width):
        value |= np.uint64(data[p + j]) << np.uint64(8 * j)
    return value


@kernel
def _rotated(value: np.uint64, bits: int) -> np.uint64:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@kernel
def _round(lane: np.uint64, word: np.uint64) -> np.uint64:
    return _rotated(lane + word * _P2, 31) * _P1


@kernel
def xxh64(data: UInt8, length: int) -> np.uint64:
    """XXH64 with seed 0 of the first ``length`` bytes."""
    p = 0
    if length >= 32:
        a, b, c, d = _P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1
        while p + 32 <= length:
            a, b = _round(a, _get(data, p, 8)), _round(b, _get(data, p + 8, 8))
            c, d = _round(c, _get(data, p + 16, 8)), _round(d, _get(data, p + 24, 8))
            p += 32
        h = _rotated(a, 1) + _rotated(b, 7) + _rotated(c, 12) + _rotated(d, 18)
        for lane in (a, b, c, d):
            h = (h ^ _round(np.uint64(0), lane)) * _P1 + _P4
    else:
        h = _P5
    h += np.uint64(length)
    while p + 8 <= length:
        h = _rotated(h ^ _round(np.uint64(0), _get(data, p, 8)), 27) * _P1 + _P4
        p += 8
    if p + 4 <= length:
        h = _rotated(h ^ (_get(data, p, 4) * _P1), 23) * _P2 + _P3
        p += 4
    while p < length:
        h = _rotated(h ^ (np.uint64(data[p]) * _P5), 11) * _P1
        p += 1
    h = (h ^ (h >> np.uint64(33))) * _P2
    h = (h ^ (h >> np.uint64(29))) * _P3
    return h ^ (h >> np.uint64(32))
