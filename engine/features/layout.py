"""The program of a group's aggregates: which words of a record hold what, and what is read from where.

Only what somebody reads has a place. Folds over the same window and column are one, whether they see the current row
or not; windows of one group share their rows. The code is described in ``kernels/rings.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thalweg.engine.features.expressions import Agg, Window
from thalweg.engine.kernels import rings
from thalweg.engine.kernels.accumulate import LIFE, OPS
from thalweg.engine.kernels.arrays import Int64

_SUMS = {"sum", "mean", "var", "std"}
_SQUARES = {"var", "std"}
_GIVEN = ("count", "sum", "mean", "var", "std", "max", "min")  # in the order of rings.G_COUNT and those after it


@dataclass(frozen=True, slots=True)
class Program:
    """``code`` int64[c]; how far behind the watermark a row may be seen, microseconds (-1 = no sliding window) and
    rows; int64 words of a key's record and of a row."""

    code: Int64
    keep_us: int
    keep_rows: int
    record: int
    stride: int


def fold_text(aggregate: Agg) -> tuple[str, str, bool, int]:
    """Aggregates in this order have those of one window together, and in it those of one value."""
    value = "" if aggregate.value is None else aggregate.value.canonical
    return aggregate.window.text, value, aggregate.include_current, aggregate.half_life_us


def program_of(aggregates: Sequence[Agg], columns: Sequence[str]) -> Program:
    """The program of aggregates in the order of :func:`fold_text`, over values with these canonical texts."""
    return _Layout(aggregates, columns).program()


class _Layout:
    """Hands out the words of a record, one after the other."""

    def __init__(self, aggregates: Sequence[Agg], columns: Sequence[str]) -> None:
        moving = [a for a in aggregates if a.window.kind != "lifetime"]
        lasting = [a for a in aggregates if a.window.kind == "lifetime"]
        self._aggregates = aggregates
        self._columns = list(columns)
        self._moving = moving
        self._ids = int(aggregates[0].fed_by is not None)
        self._windows = list(dict.fromkeys(a.window for a in moving))
        self._folds = list(dict.fromkeys((a.window, self._column(a)) for a in moving if a.value is not None))
        self._lives = list(dict.fromkeys((a.window, self._column(a), a.half_life_us) for a in lasting))
        self._at = [rings.CODE_HEAD]  # where the tables begin in the code
        for rows, width in (
            (self._windows, rings.WINDOW),
            (self._folds, rings.FOLD),
            (self._columns, rings.COLUMN),
            (self._lives, rings.LIFE_CODE),
            (self._given(False), rings.GIVEN),
            (self._others(False), rings.READ),
            (self._given(True), rings.GIVEN),
            (self._others(True), rings.READ),
        ):
            self._at.append(self._at[-1] + len(rows) * width)
        self._next = rings.HEADER + len(self._windows)
        self._totals = [self._total_words(column) for column in range(len(columns))]
        self._values = 1 + self._ids + sum(self._totals)  # beside the time is what is read when a window begins there
        self._stride = self._values + len(columns)

    def program(self) -> Program:
        """The whole."""
        columns = [self._column_words(column) for column in range(len(self._columns))]
        folds = [self._fold_words(*fold) for fold in self._folds]
        lived = self._next
        lives = [self._life_words(*life) for life in self._lives]
        windows = [self._window(w) for w in range(len(self._windows))]
        reads = []
        for current in (False, True):
            reads += [self._give(*given) for given in self._given(current)]
            reads += [self._read(m) for m in self._others(current)]
        keep_us = max((w.length for w in self._windows if w.kind == "sliding"), default=-1)
        keep_rows = max((w.length for w in self._windows if w.kind == "rows"), default=0)
        record = (self._next + 7) // 8 * 8  # whole cache lines
        head = [keep_us, keep_rows, record, self._stride, self._ids, self._values, lived, *self._at]
        tables = [word for table in (windows, folds, columns, lives, reads) for row in table for word in row]
        return Program(np.array(head + tables, dtype=np.int64), keep_us, keep_rows, record, self._stride)

    def _column(self, aggregate: Agg) -> int:
        return -1 if aggregate.value is None else self._columns.index(aggregate.value.canonical)

    def _take(self, words: int, needed: bool = True) -> int:
        """The next words of the record, -1 where nobody needs them."""
        if not needed:
            return -1
        self._next += words
        return self._next - words

    def _window(self, w: int) -> list[int]:
        window = self._windows[w]
        of = [f for f, (its, _) in enumerate(self._folds) if its == window]
        low, high = (of[0], of[-1] + 1) if of else (0, 0)
        kind = rings.SLIDING if window.kind == "sliding" else rings.ROWS
        folds = [self._at[1] + f * rings.FOLD for f in (low, high)]
        return [kind, window.length, rings.HEADER + w, *folds]

    def _column_words(self, column: int) -> list[int]:
        ops = {a.op for a in self._moving if self._column(a) == column}
        words = [self._values + column, self._take(1, "last" in ops)]
        for op in ("max", "min"):
            words += [self._take(1, op in ops), self._stride if op in ops else -1]
            self._stride += op in ops
        before = 1 + self._ids + sum(self._totals[:column])
        return [
            *words,
            self._take(self._totals[column]),
            before,
            self._totals[column],
            self._take(rings.UNIT, bool(ops & _SUMS)),
        ]

    def _total_words(self, column: int) -> int:
        ops = {a.op for a in self._moving if self._column(a) == column}
        return rings.SQUARED if ops & _SQUARES else rings.SUMMED if ops & _SUMS else rings.COUNTED if ops else 0

    def _fold_words(self, window: Window, column: int) -> list[int]:
        ops = {a.op for a in self._moving if a.window == window and self._column(a) == column}
        return [
            self._values + column,
            self._at[2] + column * rings.COLUMN,
            self._take(2, "max" in ops),
            self._take(2, "min" in ops),
            self._take(1, "first" in ops),
        ]

    def _life_words(self, window: Window, column: int, half_life: int) -> list[int]:
        of = [a for a in self._aggregates if (a.window, self._column(a), a.half_life_us) == (window, column, half_life)]
        squares = any(a.op in _SQUARES for a in of)
        value = -1 if column < 0 else self._values + column
        return [value, window.ttl_us, int(squares), half_life, self._take(LIFE), self._take(LIFE)]

    def _is_given(self, a: Agg) -> bool:
        """Whether an aggregate is read with the others of its fold."""
        return a.window.kind != "lifetime" and a.value is not None and a.op in _GIVEN

    def _given(self, current: bool) -> list[tuple[Window, int, dict[str, int]]]:
        """The folds of which something is read, before or after the current row enters, and where each op of it goes.

        A fold is there twice where an op of it is wanted twice.
        """
        given: list[tuple[Window, int, dict[str, int]]] = []
        for m, a in enumerate(self._aggregates):
            if a.include_current != current or not self._is_given(a):
                continue
            for window, column, to in given:
                if (window, column) == (a.window, self._column(a)) and a.op not in to:
                    to[a.op] = m
                    break
            else:
                given.append((a.window, self._column(a), {a.op: m}))
        return given

    def _others(self, current: bool) -> list[int]:
        """What else is read."""
        of = enumerate(self._aggregates)
        return [m for m, a in of if a.include_current == current and not self._is_given(a)]

    def _give(self, window: Window, column: int, to: dict[str, int]) -> list[int]:
        """Where in the result the ops of a fold stand."""
        fold = self._at[1] + self._folds.index((window, column)) * rings.FOLD
        at = self._at[0] + self._windows.index(window) * rings.WINDOW
        return [fold, at, self._at[2] + column * rings.COLUMN] + [to.get(op, -1) for op in _GIVEN]

    def _read(self, m: int) -> list[int]:
        """Where aggregate ``m`` is read from."""
        a = self._aggregates[m]
        column, op = self._column(a), OPS.index(a.op)
        if a.window.kind == "lifetime":
            life = self._lives.index((a.window, column, a.half_life_us))
            return [m, op, self._at[3] + life * rings.LIFE_CODE, -1, a.half_life_us]
        fold = -1 if column < 0 else self._at[1] + self._folds.index((a.window, column)) * rings.FOLD
        window = self._at[0] + self._windows.index(a.window) * rings.WINDOW
        return [m, op, fold, window, a.half_life_us]
