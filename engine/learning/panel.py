"""The models of a pipeline side by side: the first serves, the others score and learn beside it.

Every member sees the same vectors and the same labels; its metrics are kept under its own name and
version. Learning and metrics use what was served, never a fresh vector or prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thalweg.engine.definition import Definition
from thalweg.engine.drift.detectors import Alarm, ErrorMonitor
from thalweg.engine.learning.baselines import Baseline
from thalweg.engine.learning.labels import Served, Vector
from thalweg.engine.learning.member import Features, Label, Prediction
from thalweg.engine.learning.metrics import ByPrediction, Prequential
from thalweg.engine.snapshot import below, pack_json, unpack_json

_LOSS = {"binary": "log_loss", "multiclass": "log_loss", "regression": "mae", "anomaly": "log_loss"}


class Panel:
    """Members, their metrics and the drift monitors of the one that serves."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.members = definition.open_members()
        self.by_arrival = [Prequential(m.task) for m in self.members]
        self.by_prediction = [ByPrediction(m.task, definition.metrics_every) for m in self.members]
        self.closed: list[dict[str, Any] | None] = [None] * len(self.members)
        self.alarms = 0
        self._unsupervised = [m for m in self.members if m.task == "anomaly"]
        self._supervised = [m for m in self.members if m.task != "anomaly"]
        vector = definition.features.fingerprint
        self._monitors = [ErrorMonitor(detector, fingerprint=vector) for detector in definition.drift]

    def predict(self, vector: Vector, *, learn: bool = True) -> list[Prediction]:
        """What each member says. Only anomaly detectors learn from it (if ``learn``): they score, then learn."""
        x = self._features(vector)
        predictions = [self._decide(member.predict(x)) for member in self.members]
        if learn:
            for member in self._unsupervised:
                member.learn(x, None)
        return predictions

    def join(self, served: Served, label: Label) -> list[Alarm]:
        """The label of a prediction arrived: measure, learn, watch the error."""
        weight = self._weight(served, label)
        served.counted = label
        for i, prediction in enumerate(served.predictions):
            self.by_arrival[i].update(label, prediction, weight)
            self._close(i, self.by_prediction[i].resolve(served.number, label, prediction, weight))
        self._learn(served.vector, label, weight)
        return self._watch(served.predictions[0], label) if served.predictions else []

    def revise(self, served: Served, label: Label, learn: bool) -> None:
        """Another label than the one that was counted: metrics are put right; learning only if asked for."""
        weight = self._weight(served, label)
        old = served.counted
        for i, prediction in enumerate(served.predictions):
            if old is not None:
                self.by_arrival[i].revert(old, prediction, self._weight(served, old))
            self.by_arrival[i].update(label, prediction, weight)
            self.by_prediction[i].correct(served.number, old, label, prediction, weight)
        served.counted = label
        if learn:
            self._learn(served.vector, label, weight)

    def give_up(self, served: Served) -> None:
        """The prediction will have no label."""
        for i, prediction in enumerate(served.predictions):
            self._close(i, self.by_prediction[i].resolve(served.number, None, prediction))

    def summaries(self) -> list[dict[str, Any]]:
        """The metrics of each member, for metrics records.

        ``skill_vs_baseline`` is ``1 - loss / loss of the best baseline`` (log loss of classes, mean absolute error of
        numbers) so far; None without a baseline.
        """
        read = [metrics.read() for metrics in self.by_arrival]
        losses = [metrics["cumulative"].get(_LOSS[m.task]) for metrics, m in zip(read, self.members, strict=True)]
        baselines = [isinstance(model, Baseline) for _, model in self.definition.models]
        best = min((loss for loss, b in zip(losses, baselines, strict=True) if b and loss is not None), default=None)
        return [
            {
                "model": member.name,
                "version": member.version,
                "task": member.task,
                "learned": member.learned,
                "failures": member.failures,
                **metrics,
                "skill_vs_baseline": None if loss is None or not best else float(1.0 - loss / best),
                "by_prediction": closed,
            }
            for member, metrics, loss, closed in zip(self.members, read, losses, self.closed, strict=True)
        ]

    def _features(self, vector: Vector) -> Features:
        names = self.definition.features.names
        return {name: value for name, value in zip(names, vector, strict=True) if value is not None}

    def _decide(self, prediction: Prediction) -> Prediction:
        """With costs, the decision is the score against their threshold; else the model's own."""
        threshold = self.definition.threshold
        if threshold is None or not isinstance(prediction.score, float):
            return prediction
        return prediction._replace(label=prediction.score > threshold)

    def _weight(self, served: Served, label: Label) -> float:
        weight = self.definition.weight
        return float(weight.get(label, 1.0)) if isinstance(weight, Mapping) else served.weight

    def _close(self, which: int, buckets: list[dict[str, Any]]) -> None:
        if buckets:
            self.closed[which] = buckets[-1]

    def _learn(self, vector: Vector, label: Label, weight: float) -> None:
        x = self._features(vector)
        for member in self._supervised:
            member.learn(x, label, weight)

    def _watch(self, prediction: Prediction, label: Label) -> list[Alarm]:
        found = (monitor.update(label, prediction) for monitor in self._monitors)
        alarms = [alarm for alarm in found if alarm is not None]
        self.alarms += len(alarms)
        return alarms

    def state(self) -> dict[str, Any]:
        """Arrays and bytes by name; :meth:`restore` takes them back."""
        result: dict[str, Any] = {"panel": pack_json([self.alarms, self.closed])}
        for i, member in enumerate(self.members):
            key = f"{i}/{member.name}/{member.version}"
            result[f"{key}/model"] = member.state()
            result |= {f"{key}/arrival/{n}": v for n, v in self.by_arrival[i].state().items()}
            result |= {f"{key}/prediction/{n}": v for n, v in self.by_prediction[i].state().items()}
        for i, monitor in enumerate(self._monitors):
            result[f"monitor/{i}"] = monitor.state()
        return result

    def restore(self, state: Mapping[str, Any]) -> None:
        self.alarms, self.closed = unpack_json(bytes(state["panel"]))
        for i, member in enumerate(self.members):
            key = f"{i}/{member.name}/{member.version}"
            member.restore(state[f"{key}/model"])
            self.by_arrival[i].restore(below(state, f"{key}/arrival/"))
            self.by_prediction[i].restore(below(state, f"{key}/prediction/"))
        for i, monitor in enumerate(self._monitors):
            monitor.restore(state[f"monitor/{i}"])
