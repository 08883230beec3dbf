"""Prequential metrics: each prediction is measured by its own label, once, when the label comes (or is
corrected).

Two views. By the arrival of labels: everything so far, and the last labels. By the order of predictions: a
bucket of predictions is final once each of them was answered, timed out or evicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from thalweg.engine.learning.answered import GIVE_UP, LEARN, REVISE, Answered
from thalweg.engine.learning.columns import ByColumn
from thalweg.engine.learning.member import Task
from thalweg.engine.learning.rowwise import ByRow
from thalweg.engine.snapshot import Item

__all__ = [
    "GIVE_UP",
    "LEARN",
    "REVISE",
    "Answered",
    "Measured",
    "measured",
    "merge",
]


class Measured(Protocol):
    """The metrics of one model in one shard."""

    task: Task

    @property
    def closed(self) -> dict[str, Any] | None:
        """The metrics of the bucket of predictions that closed last, with the numbers of its ``first`` and
        ``last`` prediction. Buckets close in order.
        """
        ...

    def update(self, steps: Answered) -> None:
        """Take in ``steps``, in order; how a sequence is cut into calls cannot matter.

        Raises ValueError when a prediction is resolved a second time.
        """
        ...

    def read(self) -> dict[str, Any]:
        """``{"cumulative": {...}, "window": {...}}``: the metrics by name, None where nothing was seen."""
        ...

    def add(self, other: Any) -> None:
        """Take in the cumulative metrics of another shard, of the same task."""
        ...

    def state(self) -> dict[str, Item]:
        """Everything, by name, for a snapshot."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state()``. Raises SnapshotError when it is of another task, bucket size or window."""
        ...


def measured(task: Task, metrics_every: int, window: int = 1000) -> Measured:
    """Empty metrics: buckets of ``metrics_every`` predictions, and a window of the last ``window`` labels.

    Classes of two and numbers are measured by column, in a kernel; any other labels row by row.

    >>> import numpy as np
    >>> metrics = measured("binary", metrics_every=2)
    >>> nothing, one = np.full(2, np.nan), np.ones(2)
    >>> labels, scores, decided = np.array([1.0, 0.0]), np.array([0.9, 0.8]), np.array([1, 1], dtype=np.int8)
    >>> kinds = np.full(2, LEARN, dtype=np.int8)
    >>> metrics.update(Answered(kinds, np.arange(2), labels, nothing, scores, decided, one, one))
    >>> metrics.read()["cumulative"]["precision"], metrics.closed["last"]
    (0.5, 1)
    """
    if metrics_every < 1:
        raise ValueError(f"buckets of at least one prediction are expected, got {metrics_every}")
    if window < 1:
        raise ValueError(f"a window of at least one label is expected, got {window}")
    if task in ("binary", "regression"):
        return ByColumn(task, metrics_every, window)
    return ByRow(task, metrics_every, window)


def merge(shards: Sequence[Measured]) -> dict[str, Any]:
    """The cumulative metrics of several shards together, summed up in the order given."""
    if not shards:
        raise ValueError("the metrics of at least one shard are expected, got none")
    together = measured(shards[0].task, 1)
    for shard in shards:
        together.add(shard)
    return together.read()["cumulative"]  # type: ignore[no-any-return]
