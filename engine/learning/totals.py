"""What multiclass and anomaly models are measured by, row by row, equal to River's own metric objects to the last
digit. Classes of two and numbers are measured in :mod:`thalweg.engine.learning.columns`.
"""

from typing import Any, Protocol

from thalweg.engine.learning.member import Label, Prediction, Task
from thalweg.engine.learning.sums import Confusion, Mean, ScaleFreeRanks, cross_entropy, ratio


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
    """Empty totals for ``task``, multiclass or anomaly."""
    assert task in ("multiclass", "anomaly"), task
    return Multiclass() if task == "multiclass" else Anomaly()


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
