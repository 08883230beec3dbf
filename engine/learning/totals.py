"""What each task sums up and which metrics are read from it, equal to River's own metric objects to the last
digit.
"""

from typing import Any, Protocol

from thalweg.engine.learning.member import Label, Prediction, Task
from thalweg.engine.learning.sums import (
    Confusion,
    Mean,
    ScaleFreeRanks,
    ThresholdRanks,
    cross_entropy,
    log_loss,
    ratio,
)

N_THRESHOLDS = 1001
"""Thresholds of ``roc_auc``: steps of 0.001 in P(True). River's default of 10 is too coarse for rare classes.
"""


class Totals(Protocol):
    """The sums of one task. ``labels`` counts the labels taken in, whether or not something had been
    predicted.
    """

    labels: int

    def update(self, y: Label, prediction: Prediction, weight: float, undo: bool = False) -> None:
        """Take in one label and what had been predicted, or take it back. A score or label that is None is
        left out.
        """
        ...

    def add(self, other: Any) -> None:
        """Take in the totals of another shard, of the same task."""
        ...

    def read(self) -> dict[str, Any]:
        """The metrics by name; None where nothing was seen."""
        ...

    def to_json(self) -> list[Any]:
        """The sums, as lists of numbers and text."""
        ...

    def from_json(self, fields: list[Any]) -> None:
        """Continue from ``to_json``."""
        ...


def totals(task: Task) -> Totals:
    """Empty totals for ``task``."""
    if task == "binary":
        return Binary()
    if task == "multiclass":
        return Multiclass()
    return Regression() if task == "regression" else Anomaly()


class _Parts:
    """Totals that are ``labels`` and some sums: what is the same for all of them."""

    labels: int
    _parts: tuple[Any, ...]

    def add(self, other: Any) -> None:
        """See :class:`Totals`."""
        self.labels += other.labels
        for mine, theirs in zip(self._parts, other._parts, strict=True):
            mine.add(theirs)

    def to_json(self) -> list[Any]:
        """See :class:`Totals`."""
        return [self.labels, *(part.to_json() for part in self._parts)]

    def from_json(self, fields: list[Any]) -> None:
        """See :class:`Totals`."""
        self.labels = fields[0]
        for part, values in zip(self._parts, fields[1:], strict=True):
            part.from_json(values)


class Binary(_Parts):
    """Accuracy, precision, recall, F1, the confusion matrix, log loss, and ROC AUC of P(True)."""

    def __init__(self) -> None:
        self.labels = 0
        self._confusion, self._loss, self._ranks = Confusion(), Mean(), ThresholdRanks(N_THRESHOLDS)
        self._parts = (self._confusion, self._loss, self._ranks)

    def update(self, y: Label, prediction: Prediction, weight: float, undo: bool = False) -> None:
        """See :class:`Totals`."""
        self.labels += -1 if undo else 1
        if prediction.label is not None:
            self._confusion.update(y, prediction.label, weight, undo)
        if isinstance(prediction.score, float):
            self._loss.update(log_loss(bool(y), prediction.score), weight, undo)
            self._ranks.update(bool(y), prediction.score, weight, undo)

    def read(self) -> dict[str, Any]:
        """See :class:`Totals`."""
        confusion = self._confusion
        tp = confusion.cells.get((True, True), 0.0)
        fp, fn = confusion.columns.get(True, 0.0) - tp, confusion.rows.get(True, 0.0) - tp
        precision, recall = ratio(tp, tp + fp), ratio(tp, tp + fn)
        rates = {
            "accuracy": ratio(confusion.diagonal, confusion.total),
            "precision": precision,
            "recall": recall,
            "f1": ratio(2.0 * precision * recall, precision + recall),
        }
        return {
            "labels": self.labels,
            **(rates if confusion.samples else dict.fromkeys(rates)),
            "log_loss": self._loss.read(),
            "roc_auc": self._ranks.read(),
            "confusion": {"tp": tp, "fp": fp, "tn": confusion.diagonal - tp, "fn": fn},
        }


class Multiclass(_Parts):
    """Accuracy, macro F1, log loss (cross entropy) and the confusion matrix as a list of [label, decided
    class, weight].
    """

    def __init__(self) -> None:
        self.labels = 0
        self._confusion, self._loss = Confusion(), Mean()
        self._parts = (self._confusion, self._loss)

    def update(self, y: Label, prediction: Prediction, weight: float, undo: bool = False) -> None:
        """See :class:`Totals`."""
        self.labels += -1 if undo else 1
        if prediction.label is not None:
            self._confusion.update(y, prediction.label, weight, undo)
        if isinstance(prediction.score, dict):
            self._loss.update(cross_entropy(y, prediction.score), weight, undo)

    def read(self) -> dict[str, Any]:
        """See :class:`Totals`."""
        confusion, classes = self._confusion, self._confusion.classes()
        cells = [[y, decided, confusion.cells.get((y, decided), 0.0)] for y in classes for decided in classes]
        return {
            "labels": self.labels,
            "accuracy": ratio(confusion.diagonal, confusion.total) if confusion.samples else None,
            "macro_f1": self._macro_f1(classes) if confusion.samples else None,
            "log_loss": self._loss.read(),
            "confusion": [cell for cell in cells if cell[2]],
        }

    def _macro_f1(self, classes: list[Label]) -> float:
        total = 0.0
        for label in classes:
            hits = self._confusion.cells.get((label, label), 0.0)
            precision = ratio(hits, self._confusion.columns.get(label, 0.0))
            recall = ratio(hits, self._confusion.rows.get(label, 0.0))
            total += ratio(2.0 * precision * recall, precision + recall)
        return ratio(total, float(len(classes)))


class Regression(_Parts):
    """Mean absolute error, root mean squared error, and R2 (0 below two labels and for constant labels, as in
    River).
    """

    def __init__(self) -> None:
        self.labels = 0
        self._absolute, self._squared, self._spread = Mean(), Mean(), _Spread()
        self._parts = (self._absolute, self._squared, self._spread)

    def update(self, y: Label, prediction: Prediction, weight: float, undo: bool = False) -> None:
        """See :class:`Totals`."""
        self.labels += -1 if undo else 1
        if isinstance(prediction.score, float):
            error = float(y) - prediction.score
            self._absolute.update(abs(error), weight, undo)
            self._squared.update(error**2, weight, undo)
            self._spread.update(float(y), error * error, weight, undo)

    def read(self) -> dict[str, Any]:
        """See :class:`Totals`."""
        squared = self._squared.read()
        return {
            "labels": self.labels,
            "mae": self._absolute.read(),
            "rmse": None if squared is None else squared**0.5,
            "r2": self._spread.r2(),
        }


class Anomaly(_Parts):
    """ROC AUC of the anomaly score against labels that are truth values; other labels are only counted."""

    def __init__(self) -> None:
        self.labels = 0
        self._ranks = ScaleFreeRanks()
        self._parts = (self._ranks,)

    def update(self, y: Label, prediction: Prediction, weight: float, undo: bool = False) -> None:
        """See :class:`Totals`."""
        self.labels += -1 if undo else 1
        if isinstance(y, bool) and isinstance(prediction.score, float):
            self._ranks.update(y, prediction.score, weight, undo)

    def read(self) -> dict[str, Any]:
        """See :class:`Totals`."""
        return {"labels": self.labels, "roc_auc": self._ranks.read()}


class _Spread:
    """How far labels lie from their mean (Welford) and from the predictions: R2, as ``river.metrics.R2``."""

    def __init__(self) -> None:
        self._y, self._scatter, self._residual = Mean(), 0.0, 0.0

    def update(self, y: float, squared_error: float, weight: float, undo: bool) -> None:
        before, sign = self._y.mean, -1.0 if undo else 1.0
        self._y.update(y, weight, undo)
        self._scatter += sign * (weight * (y - before) * (y - self._y.mean))
        self._residual += sign * (squared_error * weight)
        if not self._y.samples:
            self._scatter, self._residual = 0.0, 0.0

    def add(self, other: "_Spread") -> None:
        n, apart = self._y.n + other._y.n, self._y.mean - other._y.mean
        self._scatter += other._scatter + ratio(apart**2 * self._y.n * other._y.n, n)
        self._residual += other._residual
        self._y.add(other._y)

    def r2(self) -> float | None:
        if not self._y.samples:
            return None
        free = self._y.n - 1
        scatter = free * (self._scatter / free) if free > 0.0 else 0.0
        return 1 - self._residual / scatter if scatter else 0.0

    def to_json(self) -> list[Any]:
        return [self._y.to_json(), self._scatter, self._residual]

    def from_json(self, fields: list[Any]) -> None:
        y, self._scatter, self._residual = fields
        self._y.from_json(y)
