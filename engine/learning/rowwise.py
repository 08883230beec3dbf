"""Metrics of one model row by row: for tasks whose labels are any classes, or any values.

Two views. :class:`Prequential` follows the arrival of labels: everything so far, and the last labels.
:class:`ByPrediction` follows the order of predictions: a metric row of a bucket of predictions is final once
each of them was answered, timed out or evicted.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

from thalweg.engine import snapshot
from thalweg.engine.errors import SnapshotError
from thalweg.engine.learning.answered import GIVE_UP, LEARN, REVISE, Answered
from thalweg.engine.learning.member import Label, Prediction, Task
from thalweg.engine.learning.totals import Totals, totals

_Answer = tuple[Label, Prediction, float]


class ByRow:
    """Multiclass and anomaly: labels of any type, row by row."""

    def __init__(self, task: Task, size: int, window: int) -> None:
        self.task = task
        self.closed: dict[str, Any] | None = None
        self._by_arrival = Prequential(task, window)
        self._by_prediction = ByPrediction(task, size)

    def update(self, steps: Answered) -> None:
        assert steps.objects is not None, f"a {self.task} model is measured by objects"
        numbers, weights, before = steps.numbers.tolist(), steps.weights.tolist(), steps.weights_before.tolist()
        for kind, *step in zip(steps.kinds.tolist(), numbers, weights, before, steps.objects, strict=True):
            self._step(kind, *step)

    def _step(
        self,
        kind: int,
        number: int,
        weight: float,
        old_weight: float,
        answer: tuple[Label | None, Label | None, Prediction],
    ) -> None:
        label, old, prediction = answer
        if kind == REVISE and old is not None:
            self._by_arrival.revert(old, prediction, old_weight)
        if label is not None and kind != GIVE_UP:
            self._by_arrival.update(label, prediction, weight)
        if kind != REVISE:
            closed = self._by_prediction.resolve(number, label if kind == LEARN else None, prediction, weight)
            self.closed = closed[-1] if closed else self.closed
        elif label is not None:
            self._by_prediction.correct(number, old, label, prediction, weight, old_weight)

    def read(self) -> dict[str, Any]:
        return self._by_arrival.read()

    def add(self, other: Any) -> None:
        self._by_arrival.totals.add(other._by_arrival.totals)

    def state(self) -> dict[str, snapshot.Item]:
        closed = snapshot.pack_json(self.closed)
        return self._by_arrival.state() | self._by_prediction.state() | {"closed": closed}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._by_arrival.restore(dict(state))
        self._by_prediction.restore(dict(state))
        self.closed = snapshot.unpack_json(bytes(state["closed"]))


class Prequential:
    """Metrics of one model by arrival of labels: cumulative, and over the last ``window`` labels.

    The window is summed up from its own labels when read, so no rounding of what has left it remains; a read
    costs O(window).

    >>> metrics = Prequential("multiclass", window=2)
    >>> for y in ("a", "b", "a"):
    ...     metrics.update(y, Prediction({"a": 1.0}, "a"))
    >>> metrics.read()["cumulative"]["accuracy"], metrics.read()["window"]["accuracy"]
    (0.6666666666666666, 0.5)
    """

    def __init__(self, task: Task, window: int = 1000) -> None:
        if window < 1:
            raise ValueError(f"a window of at least one label is expected, got {window}")
        self.task = task
        self.totals = totals(task)
        self._window: deque[_Answer] = deque(maxlen=window)

    def update(self, y: Label, prediction: Prediction, weight: float = 1.0) -> None:
        """Measure the served ``prediction`` by its label ``y``. A prediction that knew nothing counts as a
        label only.
        """
        self.totals.update(y, prediction, weight)
        self._window.append((y, prediction, weight))

    def revert(self, y: Label, prediction: Prediction, weight: float = 1.0) -> None:
        """Take back an earlier ``update`` with the same arguments (a label was corrected), also in the window
        if it is still there.
        """
        self.totals.update(y, prediction, weight, undo=True)
        answers = list(self._window)
        for at in range(len(answers) - 1, -1, -1):
            if answers[at] == (y, prediction, weight):
                del self._window[at]
                return

    def read(self) -> dict[str, dict[str, Any]]:
        """``{"cumulative": {...}, "window": {...}}``: the metrics of the task by name, None where nothing was
        seen.
        """
        recent = totals(self.task)
        for y, prediction, weight in self._window:
            recent.update(y, prediction, weight)
        return {"cumulative": self.totals.read(), "window": recent.read()}

    def state(self) -> dict[str, snapshot.Item]:
        """Everything, by name, for a snapshot."""
        window = [[y, _to_json(prediction), weight] for y, prediction, weight in self._window]
        return {"prequential": snapshot.pack_json([self.task, self.totals.to_json(), window])}

    def restore(self, state: dict[str, snapshot.Item]) -> None:
        """Continue from ``state()``. Raises SnapshotError when it is of another task."""
        saved, window = _unpacked(state, "prequential", self.task)
        self.totals.from_json(saved)
        self._window.clear()
        self._window.extend((y, _from_json(prediction), weight) for y, prediction, weight in window)


class ByPrediction:
    """Metrics of one model by prediction: bucket k holds the predictions numbered k * size to (k + 1) * size
    - 1.

    A bucket closes when each of its predictions is resolved (joined, or closed without a label) and every
    earlier bucket has closed. Memory is bounded by the pending labels: an open bucket holds at least one of
    them, or stands behind one that does.

    >>> metrics = ByPrediction("multiclass", size=2)
    >>> metrics.resolve(1, "a", Prediction({"a": 0.9}, "a"))
    []
    >>> metrics.resolve(0, None, Prediction({"a": 0.4}, "b"))[0]["accuracy"]
    1.0
    """

    def __init__(self, task: Task, size: int) -> None:
        if size < 1:
            raise ValueError(f"buckets of at least one prediction are expected, got {size}")
        self.task, self.size = task, size
        self._next = 0
        self._open: dict[int, tuple[Totals, set[int]]] = {}

    def resolve(
        self, number: int, y: Label | None, prediction: Prediction, weight: float = 1.0
    ) -> list[dict[str, Any]]:
        """Prediction ``number`` got its label ``y``, or will have none (None: timed out or evicted).

        Returns the buckets that this closes, in order: the metrics by name, with the numbers of the ``first``
        and ``last`` prediction.
        """
        sums = self._bucket(number)
        if y is not None:
            sums.update(y, prediction, weight)
        return self._closed()

    def correct(
        self,
        number: int,
        old: Label | None,
        new: Label,
        prediction: Prediction,
        weight: float,
        old_weight: float,
    ) -> bool:
        """Replace the label ``old`` (None: it had timed out), which weighed ``old_weight``, of a
        resolved prediction; False if its bucket is final by now.
        """
        found = self._open.get(number // self.size)
        if found is None or number not in found[1]:
            return False
        if old is not None:
            found[0].update(old, prediction, old_weight, undo=True)
        found[0].update(new, prediction, weight)
        return True

    def state(self) -> dict[str, snapshot.Item]:
        """Everything, by name, for a snapshot."""
        buckets = [[at, sums.to_json(), sorted(resolved)] for at, (sums, resolved) in self._open.items()]
        return {"by_prediction": snapshot.pack_json([self.task, [self.size, self._next], buckets])}

    def restore(self, state: dict[str, snapshot.Item]) -> None:
        """Continue from ``state()``. Raises SnapshotError when it is of another task or bucket size."""
        (size, following), buckets = _unpacked(state, "by_prediction", self.task)
        if size != self.size:
            raise SnapshotError(f"metrics by buckets of {size} predictions, the definition has {self.size}")
        self._next, self._open = following, {}
        for at, saved, resolved in buckets:
            sums = totals(self.task)
            sums.from_json(saved)
            self._open[at] = (sums, set(resolved))

    def _bucket(self, number: int) -> Totals:
        at = number // self.size
        if at not in self._open:
            self._open[at] = (totals(self.task), set())
        sums, resolved = self._open[at]
        if at < self._next or number in resolved:
            raise ValueError(f"prediction {number} was resolved before; a later label is a correction: use correct()")
        resolved.add(number)
        return sums

    def _closed(self) -> list[dict[str, Any]]:
        closed = []
        while self._next in self._open and len(self._open[self._next][1]) == self.size:
            sums, _ = self._open.pop(self._next)
            first = self._next * self.size
            closed.append({"first": first, "last": first + self.size - 1, **sums.read()})
            self._next += 1
        return closed


def _unpacked(state: dict[str, snapshot.Item], name: str, task: Task) -> tuple[Any, Any]:
    packed = state.get(name)
    if not isinstance(packed, bytes):
        raise SnapshotError(f"metrics named {name!r} expected in the state, got {sorted(state)}")
    saved_task, first, second = snapshot.unpack_json(packed)
    if saved_task != task:
        raise SnapshotError(f"metrics of a {saved_task} model, the definition has a {task} one")
    return first, second


def _to_json(prediction: Prediction) -> list[Any]:
    score = prediction.score
    packed = [[label, p] for label, p in score.items()] if isinstance(score, dict) else score
    return [packed, prediction.label, prediction.degraded]


def _from_json(fields: list[Any]) -> Prediction:
    score, label, degraded = fields
    return Prediction(dict(score) if isinstance(score, list) else score, label, degraded)
