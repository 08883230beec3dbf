"""Metrics of classes of two and of numbers, by column: arrays, and a kernel that goes through the steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from thalweg.engine import snapshot
from thalweg.engine.errors import SnapshotError
from thalweg.engine.kernels import metrics as kernels
from thalweg.engine.kernels.arrays import Float64, Int8, Int64
from thalweg.engine.kernels.metrics import CLOSED, FIELDS, HEAD, LENGTH, SETTLED, TOP
from thalweg.engine.learning.answered import Answered
from thalweg.engine.learning.member import Task
from thalweg.engine.learning.sums import ratio

_TWO = 2.0  # an exponent that the kernels must not know when they are compiled
_CELLS = 1024  # a table in which each bin of a score has its own cell


class ByColumn:
    """Binary and regression: arrays, and a kernel that goes through the steps."""

    def __init__(self, task: Task, size: int, window: int) -> None:
        self.task, self._size = task, size
        self._window = np.zeros((window, FIELDS))
        self._begin()

    def _begin(self) -> None:
        task, size = self.task, self._size
        self._total = _tally(task, 1, _CELLS)
        self._buckets = _tally(task, 1 + 2, _cells(size))
        self._resolved = np.zeros(64, dtype=np.int8)
        self._marks = np.array([0, 0, 0, 0, -1], dtype=np.int64)

    @property
    def closed(self) -> dict[str, Any] | None:
        bucket, size = int(self._marks[CLOSED]), self._size
        if bucket < 0:
            return None
        return {"first": bucket * size, "last": (bucket + 1) * size - 1, **_READ[self.task](self._buckets, 0)}

    def update(self, steps: Answered) -> None:
        columns = _columns(steps)
        k = len(columns.kinds)
        if k == 0:
            return
        self._reserve(int(columns.numbers.max()))
        binary, state = self.task == "binary", (self._total, self._buckets, self._window, self._resolved, self._marks)
        done = kernels.measure(binary, columns, *state, self._size, _TWO)
        if done < k:
            raise ValueError(
                f"prediction {columns.numbers[done]} was resolved before; a later label is a revision: REVISE"
            )

    def read(self) -> dict[str, Any]:
        recent, (old, new) = _tally(self.task, 1, _CELLS), self._window_parts()
        for part in (old, new):
            kernels.post(self.task == "binary", part, np.zeros(len(part), dtype=np.int64), recent)
        read = _READ[self.task]
        return {"cumulative": read(self._total, 0), "window": read(recent, 0)}

    def add(self, other: Any) -> None:
        mine, theirs = self._total.sums[0], other._total.sums[0]
        n, sums = mine[kernels.N] + theirs[kernels.N], mine + theirs
        for mean in (kernels.LOSS,) if self.task == "binary" else (kernels.ABSOLUTE, kernels.SQUARED, kernels.MEAN):
            sums[mean] = mine[mean] + ratio(theirs[kernels.N], n) * (theirs[mean] - mine[mean])
        if self.task == "regression":
            apart = mine[kernels.MEAN] - theirs[kernels.MEAN]
            sums[kernels.SCATTER] += ratio(apart**2 * mine[kernels.N] * theirs[kernels.N], n)
        mine[:] = sums
        np.maximum(self._total.used, other._total.used, out=self._total.used)
        np.add(self._total.bins, other._total.bins, out=self._total.bins)

    def state(self) -> dict[str, snapshot.Item]:
        marks = self._marks[[SETTLED, TOP, CLOSED]].tolist()
        about = [self.task, self._size, len(self._window), marks]
        rows = np.append(0, self._rows(self._open(), len(self._buckets.sums)))
        window = np.concatenate(self._window_parts())
        return {
            "metrics": snapshot.pack_json(about),
            "window": window[:, [kernels.Y, kernels.SCORE, kernels.DECIDED, kernels.WEIGHT]],
            "resolved": self._resolved[self._unsettled() & (len(self._resolved) - 1)],
            **_packed("total", self._total, np.zeros(1, dtype=np.int64)),
            **_packed("buckets", self._buckets, rows),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        (settled, top, closed) = _checked(state, self.task, self._size, len(self._window))
        self._begin()
        window = np.asarray(state["window"])
        self._marks[[LENGTH, SETTLED, TOP, CLOSED]] = len(window), settled, top, closed
        labels, scores, decided, weights = window.T
        self._window[: len(window)] = _entries(self.task, labels, scores, decided, weights)
        self._reserve(max(settled, top - 1))
        self._resolved[self._unsettled() & (len(self._resolved) - 1)] = state["resolved"]
        rows = np.append(0, self._rows(self._open(), len(self._buckets.sums)))
        _unpack("total", state, self._total, np.zeros(1, dtype=np.int64))
        _unpack("buckets", state, self._buckets, rows)

    def _window_parts(self) -> tuple[Float64, Float64]:
        """The ring in order: what stands from its head to the end of the array, and what follows at its start."""
        head, length = int(self._marks[HEAD]), int(self._marks[LENGTH])
        over = max(0, head + length - len(self._window))
        return self._window[head : head + length - over], self._window[:over]

    def _unsettled(self) -> Int64:
        return np.arange(self._marks[SETTLED], self._marks[TOP], dtype=np.int64)

    def _open(self) -> Int64:
        """The buckets with a prediction that is resolved, and those before them."""
        settled, top = int(self._marks[SETTLED]), int(self._marks[TOP])
        return np.arange(settled // self._size, -(-top // self._size), dtype=np.int64)

    def _rows(self, buckets: Int64, rows: int) -> Int64:
        return 1 + (buckets & (rows - 2))

    def _reserve(self, number: int) -> None:
        """Make the rings span from what is settled to prediction ``number``. They never shrink: what they hold at
        most is what the label join lets wait.
        """
        settled, live = int(self._marks[SETTLED]), self._unsettled()
        if number - settled >= len(self._resolved):
            larger = np.zeros(_power_of_two(number - settled + 1), dtype=np.int8)
            larger[live & (len(larger) - 1)] = self._resolved[live & (len(self._resolved) - 1)]
            self._resolved = larger
        spanned, rows = number // self._size - settled // self._size + 1, len(self._buckets.sums)
        if spanned > rows - 1:
            more, buckets = _tally(self.task, 1 + _power_of_two(spanned), _cells(self._size)), self._open()
            source = np.append(0, self._rows(buckets, rows))
            target = np.append(0, self._rows(buckets, len(more.sums)))
            more.sums[target] = self._buckets.sums[source]
            more.used[target] = self._buckets.used[source]
            more.bins[target] = self._buckets.bins[source]
            self._buckets = more


def metrics_of(
    task: Task, labels: Float64, scores: Float64, decided: Int8 | None = None, weights: Float64 | None = None
) -> dict[str, Any]:
    """The metrics of n labels at once, binary or regression: arguments as in :class:`Answered`.

    >>> import numpy as np
    >>> metrics_of("regression", np.array([1.0, 2.0]), np.array([1.5, 2.5]))["mae"]
    0.5
    """
    n = len(labels)
    classes = np.full(n, -1, dtype=np.int8) if decided is None else decided
    entries = _entries(task, labels, scores, classes, np.ones(n) if weights is None else weights)
    tally = _tally(task, 1, _CELLS)
    kernels.post(task == "binary", entries, np.zeros(n, dtype=np.int64), tally)
    return _READ[task](tally, 0)


def _columns(steps: Answered) -> kernels.Steps:
    """The arrays of ``steps`` as the kernel was compiled for them."""
    return kernels.Steps(*map(np.ascontiguousarray, steps[:8]))


def _entries(task: Task, labels: Any, scores: Any, decided: Any, weights: Any) -> Float64:
    out = np.empty((len(labels), FIELDS))
    y, predicted, weighed = (np.ascontiguousarray(v, dtype=np.float64) for v in (labels, scores, weights))
    classes = np.ascontiguousarray(decided, dtype=np.int8)
    kernels.enter_all(task == "binary", y, predicted, classes, weighed, _TWO, out)
    return out


def _tally(task: Task, rows: int, cells: int) -> kernels.Tally:
    cells = cells if task == "binary" else 0
    sums, used = np.zeros((rows, kernels.WIDTH)), np.zeros((rows, cells), dtype=np.int16)
    return kernels.Tally(sums, used, np.zeros((rows, cells, 2)))


def _cells(size: int) -> int:
    return min(_CELLS, _power_of_two(2 * size))


def _power_of_two(n: int) -> int:
    """The smallest that is not less than ``n``."""
    return 1 << (n - 1).bit_length()


def _packed(name: str, tally: kernels.Tally, rows: Int64) -> dict[str, snapshot.Item]:
    """Rows of a tally for a snapshot: of the tables, the cells in use (row, cell, bin + 1)."""
    used = tally.used[rows]
    row, cell = np.nonzero(used)
    cells = np.stack([row, cell, used[row, cell]]).astype(np.int32)
    return {f"{name}/sums": tally.sums[rows], f"{name}/cells": cells, f"{name}/bins": tally.bins[rows[row], cell]}


def _unpack(name: str, state: Mapping[str, Any], tally: kernels.Tally, rows: Int64) -> None:
    row, cell, used = np.asarray(state[f"{name}/cells"])
    tally.sums[rows] = state[f"{name}/sums"]
    tally.used[rows[row], cell] = used
    tally.bins[rows[row], cell] = state[f"{name}/bins"]


def _checked(state: Mapping[str, Any], task: Task, size: int, window: int) -> tuple[int, int, int]:
    """The marks of a state, if it is of these metrics."""
    packed = state.get("metrics")
    if not isinstance(packed, bytes):
        raise SnapshotError(f"metrics expected in the state, got {sorted(state)}")
    saved_task, saved_size, saved_window, (settled, top, closed) = snapshot.unpack_json(packed)
    if saved_task != task:
        raise SnapshotError(f"metrics of a {saved_task} model, the definition has a {task} one")
    if saved_size != size:
        raise SnapshotError(f"metrics by buckets of {saved_size} predictions, the definition has {size}")
    if saved_window != window:
        raise SnapshotError(f"metrics over a window of {saved_window} labels, the definition has {window}")
    return settled, top, closed


def _read_binary(tally: kernels.Tally, row: int) -> dict[str, Any]:
    """Accuracy, precision, recall, F1, the confusion matrix, log loss, and ROC AUC of P(True)."""
    sums = tally.sums[row].tolist()
    tp, diagonal = sums[kernels.CELLS + 3], sums[kernels.DIAGONAL]
    fp, fn = sums[kernels.ALARMS] - tp, sums[kernels.POSITIVES] - tp
    precision, recall = ratio(tp, tp + fp), ratio(tp, tp + fn)
    rates = {
        "accuracy": ratio(diagonal, sums[kernels.TOTAL]),
        "precision": precision,
        "recall": recall,
        "f1": ratio(2.0 * precision * recall, precision + recall),
    }
    seen = sums[kernels.SAMPLES] != 0.0
    return {
        "labels": int(sums[kernels.LABELS]),
        **(rates if sums[kernels.DECISIONS] else dict.fromkeys(rates)),
        "log_loss": sums[kernels.LOSS] if seen else None,
        "roc_auc": _roc_auc(tally, row) if seen else None,
        "confusion": {"tp": tp, "fp": fp, "tn": diagonal - tp, "fn": fn},
    }


def _roc_auc(tally: kernels.Tally, row: int) -> float:
    """The area under the curve through N_THRESHOLDS points, as ``river.metrics.ROCAUC`` adds it up."""
    out = np.empty(kernels.N_THRESHOLDS - 1)
    kernels.trapezoids(tally.used[row], tally.bins[row], out)
    return 0.0 - float(np.sum(out))


def _read_regression(tally: kernels.Tally, row: int) -> dict[str, Any]:
    """Mean absolute error, root mean squared error, and R2 (0 below two labels and for constant labels, as in
    River).
    """
    sums = tally.sums[row].tolist()
    seen = sums[kernels.SAMPLES] != 0.0
    return {
        "labels": int(sums[kernels.LABELS]),
        "mae": sums[kernels.ABSOLUTE] if seen else None,
        "rmse": max(0.0, sums[kernels.SQUARED]) ** 0.5 if seen else None,
        "r2": _r2(sums) if seen else None,
    }


def _r2(sums: list[float]) -> float:
    free = sums[kernels.N] - 1
    scatter = free * (sums[kernels.SCATTER] / free) if free > 0.0 else 0.0
    return 1 - sums[kernels.RESIDUAL] / scatter if scatter else 0.0


_READ = {"binary": _read_binary, "regression": _read_regression}
