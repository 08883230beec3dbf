"""The naive twin of the metrics: one prediction at a time, Python's own numbers, lists and dictionaries.

Slow and plain. It says what :mod:`thalweg.engine.learning.metrics` must give, to the last digit.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from thalweg.engine.learning.member import Label, Prediction, Task
from thalweg.engine.learning.metrics import REVISE, Answered
from thalweg.engine.learning.sums import Confusion, Mean, Ranks, ratio
from thalweg.engine.learning.totals import totals


class Step(NamedTuple):
    """What becomes of one prediction: its first label, another one (``before`` None: it had none), or none."""

    kind: int
    number: int
    prediction: Prediction
    label: Label | None = None
    before: Label | None = None
    weight: float = 1.0
    weight_before: float = 1.0


def answered(steps: Sequence[Step]) -> Answered:
    """The steps by column."""

    def floats(values: Iterable[Any]) -> Any:
        numeric = [v if isinstance(v, int | float) else math.nan for v in values]
        return np.array(numeric, dtype=np.float64)

    decided = [s.prediction.label if isinstance(s.prediction.label, bool) else -1 for s in steps]
    return Answered(
        np.array([s.kind for s in steps], dtype=np.int8),
        np.array([s.number for s in steps], dtype=np.int64),
        floats(s.label for s in steps),
        floats(s.before for s in steps),
        floats(s.prediction.score for s in steps),
        np.array(decided, dtype=np.int8),
        floats(s.weight for s in steps),
        floats(s.weight_before for s in steps),
        [(s.label, s.before, s.prediction) for s in steps],
    )


class Naive:
    """Both views of one model, step by step."""

    def __init__(self, task: Task, size: int, window: int) -> None:
        self.task, self.size, self.window = task, size, window
        self.total: Any = sums(task)
        self.recent: list[tuple[Label, Prediction, float]] = []
        self.resolved: set[int] = set()
        self.buckets: dict[int, Any] = {}
        self.closed: dict[str, Any] | None = None
        self.n_closed = 0

    def step(self, step: Step) -> None:
        bucket = self.buckets.setdefault(step.number // self.size, sums(self.task))
        final = step.number // self.size < self.n_closed or (step.kind == REVISE and step.number not in self.resolved)
        if step.before is not None:
            old = (step.before, step.prediction, step.weight_before)
            self.total.update(*old, undo=True)
            if old in self.recent:
                del self.recent[len(self.recent) - 1 - self.recent[::-1].index(old)]
            if not final:
                bucket.update(*old, undo=True)
        if step.label is not None:
            new = (step.label, step.prediction, step.weight)
            self.total.update(*new)
            self.recent = [*self.recent, new][-self.window :]
            if not final:
                bucket.update(*new)
        self.resolved.add(step.number)
        while self.resolved >= set(range(self.n_closed * self.size, (self.n_closed + 1) * self.size)):
            first = self.n_closed * self.size
            self.closed = {"first": first, "last": first + self.size - 1, **self.buckets[self.n_closed].read()}
            self.n_closed += 1

    def read(self) -> dict[str, Any]:
        recent: Any = sums(self.task)
        for answer in self.recent:
            recent.update(*answer)
        return {"cumulative": self.total.read(), "window": recent.read()}


def sums(task: Task) -> Any:
    """Empty sums of one task."""
    return NaiveBinary() if task == "binary" else NaiveRegression() if task == "regression" else totals(task)


class NaiveBinary:
    """Accuracy, precision, recall, F1, the confusion matrix, log loss, and ROC AUC of P(True)."""

    def __init__(self) -> None:
        self.labels, self.confusion, self.loss = 0, Confusion(), Mean()
        thresholds = [i / 1000 for i in range(1001)]
        thresholds[0] -= 1e-7
        thresholds[-1] += 1e-7
        bin_of: Callable[[float], int] = lambda score: bisect.bisect_left(thresholds, score)  # noqa: E731
        self.ranks = Ranks(bin_of)

    def update(self, y: bool, prediction: Prediction, weight: float, undo: bool = False) -> None:
        self.labels += -1 if undo else 1
        if prediction.label is not None:
            self.confusion.update(y, prediction.label, weight, undo)
        if prediction.score is not None:
            p = max(min(prediction.score, 1 - 1e-15), 1e-15)
            self.loss.update(-math.log(p) if y else -math.log(1 - p), weight, undo)
            self.ranks.update(y, prediction.score, weight, undo)

    def read(self) -> dict[str, Any]:
        confusion = self.confusion
        tp = confusion.cells.get((True, True), 0.0)
        fp, fn = confusion.columns.get(True, 0.0) - tp, confusion.rows.get(True, 0.0) - tp
        precision, recall = ratio(tp, tp + fp), ratio(tp, tp + fn)
        f1 = ratio(2.0 * precision * recall, precision + recall)
        rates = [ratio(confusion.diagonal, confusion.total), precision, recall, f1] if confusion.samples else [None] * 4
        return {
            "labels": self.labels,
            **dict(zip(("accuracy", "precision", "recall", "f1"), rates, strict=True)),
            "log_loss": self.loss.read(),
            "roc_auc": self.ranks.area(np.arange(1001)),
            "confusion": {"tp": tp, "fp": fp, "tn": confusion.diagonal - tp, "fn": fn},
        }


class NaiveRegression:
    """Mean absolute error, root mean squared error, and R2."""

    def __init__(self) -> None:
        self.labels, self.absolute, self.squared, self.y = 0, Mean(), Mean(), Mean()
        self.scatter = self.residual = 0.0

    def update(self, y: float, prediction: Prediction, weight: float, undo: bool = False) -> None:
        self.labels += -1 if undo else 1
        if prediction.score is None:
            return
        error, before, sign = y - prediction.score, self.y.mean, -1.0 if undo else 1.0
        self.absolute.update(abs(error), weight, undo)
        self.squared.update(error**2, weight, undo)
        self.y.update(y, weight, undo)
        self.scatter += sign * (weight * (y - before) * (y - self.y.mean))
        self.residual += sign * (error * error * weight)
        if not self.y.samples:
            self.scatter = self.residual = 0.0

    def read(self) -> dict[str, Any]:
        squared, free = self.squared.read(), self.y.n - 1
        scatter = free * (self.scatter / free) if free > 0.0 else 0.0
        return {
            "labels": self.labels,
            "mae": self.absolute.read(),
            "rmse": None if squared is None else max(0.0, squared) ** 0.5,
            "r2": None if squared is None else 1 - self.residual / scatter if scatter else 0.0,
        }
