"""What a member is given to do at once, and what it answers: columns, not rows.

A member that runs in kernels takes the columns; any other goes row by row (:func:`row_by_row`). How a
sequence is cut into pieces of work cannot matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from thalweg.engine.features.plan import Vectors
from thalweg.engine.kernels.arrays import Bool, Float64, Int8, Int64
from thalweg.engine.kernels.steps import LEARN, PREDICT
from thalweg.engine.learning.labels import Words
from thalweg.engine.learning.member import Features, Label, Prediction, Task

__all__ = ["LEARN", "PREDICT", "Answers", "Work", "row_by_row"]

NOTHING = -1


@dataclass(frozen=True, slots=True)
class Work:
    """k things to do in order: ``kinds`` int8[k] (PREDICT or LEARN) with the ``vectors`` of k rows; the words of their
    labels, int64[k], and ``weights`` float64[k] count for LEARN only."""

    kinds: Int8
    vectors: Vectors
    words: Int64
    vocabulary: Words | None
    weights: Float64

    @property
    def targets(self) -> Float64:
        """The labels as numbers, float64[k]: a condition as 1.0 or 0.0."""
        return np.zeros(len(self.kinds)) if self.vocabulary is None else self.vocabulary.numbers(self.words)

    def labels(self) -> list[Any]:
        """The labels, None where there is none."""
        known = self.kinds == LEARN
        return [None] * len(known) if self.vocabulary is None else self.vocabulary.labels(self.words, known)

    def features(self) -> list[Features]:
        """As dicts, without the features that are null."""
        names = self.vectors.names
        return [
            {name: value for name, value in zip(names, row, strict=True) if value is not None}
            for row in self.vectors.rows()
        ]


class Answers(NamedTuple):
    """What one member said of p rows: ``scores`` float64[p] (P(True), the number, the anomaly score; NaN = nothing
    known), ``decided`` int8[p] (the class, -1 = none), ``degraded`` bool[p], ``learned`` int64[p] (labels before it),
    and of a multiclass member the predictions themselves, object[p]."""

    scores: Float64
    decided: Int8
    degraded: Bool
    learned: Int64
    predictions: npt.NDArray[Any] | None = None

    @classmethod
    def of(cls, predictions: Sequence[Prediction], learned: Sequence[int], task: Task) -> Answers:
        """The same, from predictions."""
        whole: npt.NDArray[Any] | None = None
        if task == "multiclass":
            whole = np.fromiter(predictions, dtype=object, count=len(predictions))
        scores = [p.score if isinstance(p.score, float) else np.nan for p in predictions]
        decided = [NOTHING if p.label is None or whole is not None else int(bool(p.label)) for p in predictions]
        degraded = np.array([p.degraded for p in predictions], dtype=np.bool_)
        return cls(
            np.array(scores, dtype=np.float64),
            np.array(decided, dtype=np.int8),
            degraded,
            np.array(learned, dtype=np.int64),
            whole,
        )

    def take(self, rows: Int64) -> Answers:
        """Some of them, in that order."""
        columns: Any = (None if column is None else column[rows] for column in self)
        return Answers(*columns)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """At least one, one after the other."""
        columns: Any = (None if column[0] is None else np.concatenate(column) for column in zip(*parts, strict=True))
        return cls(*columns)


class RowByRow(Protocol):
    """A member that takes one row at a time."""

    task: Task
    learned: int

    def predict(self, x: Features) -> Prediction: ...

    def learn(self, x: Features, y: Label | None, weight: float = 1.0) -> bool: ...


def row_by_row(member: RowByRow, work: Work, features: Iterable[Features] | None = None) -> Answers:
    """The answers of a member that predicts and learns one row after the other, from other ``features`` where given."""
    predictions: list[Prediction] = []
    learned: list[int] = []
    xs = work.features() if features is None else features
    for kind, label, weight, x in zip(work.kinds.tolist(), work.labels(), work.weights.tolist(), xs, strict=False):
        if kind == PREDICT:
            learned.append(member.learned)
            predictions.append(member.predict(x))
        else:
            member.learn(x, label, weight)
    return Answers.of(predictions, learned, member.task)
