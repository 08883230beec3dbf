"""A lowered model as a member: whole columns of work in one call of a kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from thalweg.engine import snapshot
from thalweg.engine.errors import SnapshotError
from thalweg.engine.features.plan import Vectors
from thalweg.engine.kernels.arrays import Float64
from thalweg.engine.learning.labels import Words
from thalweg.engine.learning.lowered.lowered import Lowered
from thalweg.engine.learning.member import LARGEST, Features, Label, Prediction, Task
from thalweg.engine.learning.work import LEARN, NOTHING, PREDICT, Answers, Work


class LoweredMember:
    """What :class:`thalweg.engine.learning.river.RiverMember` is for a model that runs in River, with the same
    predictions."""

    def __init__(self, lowered: Lowered, name: str, version: str, task: Task) -> None:
        self.name, self.version, self.task = name, version, task
        self.runs = "lowered: River's arithmetic in kernels"
        self.learned = 0
        self.failures = 0
        self.last_failure: str | None = None
        self._lowered = lowered

    def run(self, work: Work) -> Answers:
        """See :class:`Member`."""
        k = len(work.kinds)
        out = np.empty(k)
        self._lowered.run(work.kinds, np.arange(k), work.vectors.numbers, work.targets, work.weights, out)
        predicts = work.kinds == PREDICT
        learned = ~predicts & ~np.isnan(out)
        before = self.learned + np.cumsum(learned)
        self.learned += int(learned.sum())
        self.failures += int((~predicts & ~learned).sum())
        return self._answers(out[predicts], before[predicts])

    def predict(self, x: Features) -> Prediction:
        """See :class:`Member`."""
        answers = self.run(self._one(PREDICT, x, 0.0, 1.0))
        score, decided = float(answers.scores[0]), int(answers.decided[0])
        known = None if score != score else score
        return Prediction(known, None if decided == NOTHING else bool(decided), bool(answers.degraded[0]))

    def learn(self, x: Features, y: Label | None, weight: float = 1.0) -> bool:
        """See :class:`Member`."""
        assert y is not None and not isinstance(y, str), y
        before = self.learned
        self.run(self._one(LEARN, x, float(y), weight))
        return self.learned > before

    def raise_(self) -> Any:
        """The River model that goes on from here."""
        return self._lowered.raise_()

    def state(self) -> bytes:
        """The arrays and the counters."""
        counters = snapshot.pack_json([self.version, self.learned, self.failures])
        return snapshot.pack({"counters": counters, **self._lowered.state()})

    def restore(self, data: bytes) -> None:
        """Continue from ``state()``. Raises SnapshotError for foreign or damaged bytes."""
        items = snapshot.unpack(data)
        counters = items.pop("counters", None)
        if not isinstance(counters, bytes):
            raise SnapshotError(f"{self.name}: the state of a lowered member expected, got {sorted(items)}")
        version, learned, failures = snapshot.unpack_json(counters)
        if version != self.version:
            raise SnapshotError(f"{self.name}: this state is of version {version}, the definition is {self.version}")
        self._lowered.restore({name: np.asarray(item) for name, item in items.items()})
        self.learned, self.failures, self.last_failure = learned, failures, None

    def _answers(self, scores: Float64, learned: Any) -> Answers:
        """What is not a number, or beyond 1e100, is degraded, unless it says that nothing is known yet."""
        nothing = np.isnan(scores) & self._lowered.nan_is_none
        with np.errstate(invalid="ignore"):
            degraded = ~(np.abs(scores) <= LARGEST) & ~nothing
        if degraded.any():
            self.failures += int(degraded.sum())
            self.last_failure = f"score {scores[degraded][-1]}"
        scores = np.where(degraded, np.nan, scores)
        decided = np.full(len(scores), NOTHING, dtype=np.int8)
        if self.task == "binary":
            known = ~np.isnan(scores)
            of_true, of_false = scores[known], 1.0 - scores[known]
            decided[known] = np.where(of_true == of_false, self._lowered.tie, of_true > of_false)
        return Answers(scores, decided, degraded, learned)

    def _one(self, kind: int, x: Features, y: float, weight: float) -> Work:
        names = self._lowered.names
        numbers = np.array([[x.get(name, np.nan) for name in names]], dtype=np.float64)
        kinds, word = np.array([kind], dtype=np.int8), np.array([y]).view(np.int64)
        return Work(kinds, Vectors(names, numbers, {}), word, Words("f64"), np.array([weight]))
