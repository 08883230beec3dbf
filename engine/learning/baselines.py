"""Models that look at no feature. They are ordinary members: a model that does not beat them has learned
nothing.

On many streams "the same as last time" beats a logistic regression, so they run beside every model.
"""

from dataclasses import dataclass
from itertools import repeat
from typing import Any

from thalweg.engine import snapshot
from thalweg.engine.errors import DefinitionError, SnapshotError
from thalweg.engine.learning import identity
from thalweg.engine.learning.member import TASK_OF_LABEL, Features, Label, LabelType, Prediction, Task
from thalweg.engine.learning.work import Answers, Work, row_by_row

EXECUTOR = "thalweg 1"


@dataclass(frozen=True)
class Majority:
    """Always the class that was the label most often, with certainty (score 1 or 0)."""


@dataclass(frozen=True)
class NoChange:
    """The label that was learned last; for classes with certainty (score 1 or 0)."""


@dataclass(frozen=True)
class Prior:
    """How often each class was the label so far; for a number, the mean of the labels so far."""


Baseline = Majority | NoChange | Prior


def member(
    baseline: Baseline, *, name: str | None = None, fingerprint: str, label_type: LabelType | None
) -> "BaselineMember":
    """A member for ``baseline``. Raises DefinitionError without a label, and for the majority of numbers.

    >>> prior = member(Prior(), fingerprint="f", label_type="bool")
    >>> prior.learn({}, True), prior.predict({})
    (True, Prediction(score=1.0, label=True, degraded=False))
    """
    title = type(baseline).__name__
    if label_type is None:
        raise DefinitionError(
            f"baseline.{title}() repeats labels and the pipeline has none; give label= or leave it out"
        )
    task = TASK_OF_LABEL[label_type]
    if task == "regression" and isinstance(baseline, Majority):
        raise DefinitionError(
            "baseline.Majority() is for classes and the label's value is f64; write baseline.Prior(), their mean"
        )
    version = identity.version_of(baseline, fingerprint=fingerprint, executor=EXECUTOR)
    return BaselineMember(baseline, name or title, version, task)


class BaselineMember:
    """A baseline as a Member. State: the weight of every class in order of appearance, the last label, the
    running mean.
    """

    def __init__(self, baseline: Baseline, name: str, version: str, task: Task) -> None:
        self.name, self.version, self.task = name, version, task
        self.runs = "a baseline"
        self.learned = 0
        self.failures = 0
        self.last_failure: str | None = None
        self._baseline = baseline
        self._weights: dict[Label, float] = {}
        self._last: Label | None = None
        self._total = 0.0
        self._mean = 0.0

    def predict(self, x: Features) -> Prediction:
        """See :class:`Member`; ``x`` is not looked at."""
        if self._last is None:
            return Prediction(None, None)
        if self.task == "regression":
            return Prediction(float(self._last) if isinstance(self._baseline, NoChange) else self._mean, None)
        if isinstance(self._baseline, NoChange):
            return self._certain(self._last)
        if not self._total:
            return Prediction(None, None)
        most = max(self._weights, key=self._weights.__getitem__)  # the first of equals, as River does
        if isinstance(self._baseline, Majority):
            return self._certain(most)
        if self.task == "binary":
            return Prediction(self._weights.get(True, 0.0) / self._total, most)
        return Prediction({label: weight / self._total for label, weight in self._weights.items()}, most)

    def learn(self, x: Features, y: Label | None, weight: float = 1.0) -> bool:
        """See :class:`Member`."""
        if y is None:
            raise ValueError(f"{self.name}: a label is expected, got None; unlabelled rows are not learned")
        self.learned += 1
        self._last = y
        self._total += weight
        if self.task != "regression":
            self._weights[y] = self._weights.get(y, 0.0) + weight
        elif self._total:
            self._mean += (weight / self._total) * (float(y) - self._mean)
        return True

    def run(self, work: Work) -> Answers:
        """See :class:`Member`."""
        return row_by_row(self, work, repeat({}))

    def state(self) -> bytes:
        """See :class:`Member`."""
        weights: list[Any] = [[label, weight] for label, weight in self._weights.items()]
        fields = [self.version, self.learned, weights, self._last, self._total, self._mean]
        return snapshot.pack({"baseline": snapshot.pack_json(fields)})

    def restore(self, data: bytes) -> None:
        """See :class:`Member`."""
        packed = snapshot.unpack(data).get("baseline")
        if not isinstance(packed, bytes):
            raise SnapshotError(f"{self.name}: the state of a baseline expected")
        version, learned, weights, last, total, mean = snapshot.unpack_json(packed)
        if version != self.version:
            raise SnapshotError(f"{self.name}: this state is of version {version}, the definition is {self.version}")
        self.learned, self._last, self._total, self._mean = learned, last, total, mean
        self._weights = dict(weights)

    def _certain(self, label: Label) -> Prediction:
        return Prediction(float(bool(label)) if self.task == "binary" else {label: 1.0}, label)
