"""What the chain knows of a model: a member predicts, learns, and can be saved and continued bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from thalweg.engine.learning.work import Answers, Work

Task = Literal["binary", "multiclass", "regression", "anomaly"]
LabelType = Literal["bool", "str", "i64", "f64"]
Label = bool | int | float | str
Features = dict[str, float | str]

LARGEST = 1e100
"""A score beyond this counts as non-finite, as a value does (contract, rule 8): its square must stay a
number.
"""


class Prediction(NamedTuple):
    """What a member said of one row; this is what is served, kept until the label comes, and measured.

    ``score``: binary, P(True); multiclass, label -> probability; regression, the value; anomaly, the score.
    None: nothing known yet. ``label``: the class that the model decides for, None for regression.
    ``degraded``: the model raised or was not finite.
    """

    score: float | dict[Label, float] | None
    label: Label | None
    degraded: bool = False


class Member(Protocol):
    """One model of a pipeline. ``version`` names class, parameters, seed, feature set and executor; weights
    move within it.

    ``runs`` says how it is executed, for people; ``learned`` counts the labels learned so far, ``failures`` what the
    model did wrong; ``last_failure`` is text for a log only: it is neither state nor part of a row, since an
    exception's text may hold an address.
    """

    name: str
    version: str
    task: Task
    runs: str
    learned: int
    failures: int
    last_failure: str | None

    def predict(self, x: Features) -> Prediction:
        """The prediction for features ``x``, without learning anything. Never raises for a model's faults."""
        ...

    def learn(self, x: Features, y: Label | None, weight: float = 1.0) -> bool:
        """Learn the label ``y`` of a row that was predicted (an anomaly detector ignores it). False: the
        model failed, counted.
        """
        ...

    def run(self, work: Work) -> Answers:
        """Predicts and learns many rows, in order: what one call a row does."""
        ...

    def state(self) -> bytes:
        """Everything needed to continue. Raises SnapshotError when the model cannot be saved."""
        ...

    def restore(self, data: bytes) -> None:
        """Continue from ``state()``. Raises SnapshotError for foreign, damaged or unsafe bytes; the member is
        then unchanged.
        """
        ...


TASK_OF_LABEL: dict[LabelType, Task] = {
    "bool": "binary",
    "str": "multiclass",
    "i64": "multiclass",
    "f64": "regression",
}
