"""The models of a pipeline side by side: the first serves, the others score and learn beside it.

Every member sees the same vectors and the same labels; its metrics are kept under its own name and
version. Learning and metrics use what was served, never a fresh vector or prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from thalweg.engine.decide import Steps
from thalweg.engine.definition import Definition
from thalweg.engine.drift.detectors import Alarm, ErrorMonitor
from thalweg.engine.features.plan import Vectors
from thalweg.engine.kernels.arrays import Bool, Float64, Int64
from thalweg.engine.kernels.steps import GIVE_UP, LEARN, PREDICT, REPORT, REVISE
from thalweg.engine.learning.baselines import Baseline
from thalweg.engine.learning.labels import Words
from thalweg.engine.learning.metrics import Answered, measured
from thalweg.engine.learning.served import Served
from thalweg.engine.learning.work import Answers, Work
from thalweg.engine.snapshot import below, pack_json, unpack_json

_LOSS = {"binary": "log_loss", "multiclass": "log_loss", "regression": "mae", "anomaly": "log_loss"}


class Panel:
    """Members, their metrics, what they served, and the drift monitors of the one that serves."""

    def __init__(self, definition: Definition, words: Words | None) -> None:
        self.definition = definition
        self.members = definition.open_members()
        self.measured = [measured(m.task, definition.metrics_every) for m in self.members]
        self.alarms = 0
        spec = definition.features
        texts = [at for at, feature in enumerate(spec.features) if feature.is_text]
        self._served = Served(spec.names, texts, [m.task for m in self.members])
        self._words = words
        self._monitors = [ErrorMonitor(detector, fingerprint=spec.fingerprint) for detector in definition.drift]

    def begin(self, steps: Steps, vectors: Vectors, weights: Float64, accepted: Bool, entries: int) -> None:
        """The steps of a reading come next.

        ``vectors``, ``weights`` float64[p] and ``accepted`` bool[p] are of the p rows that are predicted; a late one is
        not accepted. There are ``entries`` places for served predictions.
        """
        self._vectors, self._accepted, self._at = vectors, accepted, 0
        self._answers: list[list[Answers]] = [[] for _ in self.members]
        self._served.ensure(max(entries, 1))  # steps without an entry look at the last one
        of_rows = steps.entries[steps.kinds == PREDICT]
        kept = np.flatnonzero(of_rows >= 0)
        self._served.keep(of_rows[kept], vectors.take(kept), weights[kept])

    def carry_out(self, steps: Steps) -> Iterator[tuple[int, Alarm]]:
        """Predicts, learns, measures and watches the error: the next steps, in order. Gives alarms with the number of
        the step that caused each."""
        rows = np.arange(self._at, self._at + int((steps.kinds == PREDICT).sum()))
        self._at += len(rows)
        self._run(steps, rows)
        self._measure(steps)
        yield from self._watch(steps)

    def answers(self) -> list[Answers]:
        """What each member said of the rows that were predicted since :meth:`begin`."""
        return [Answers.joined(parts) for parts in self._answers]

    def summaries(self) -> list[dict[str, Any]]:
        """The metrics of each member, for metrics records.

        ``skill_vs_baseline`` is ``1 - loss / loss of the best baseline`` (log loss of classes, mean absolute error of
        numbers) so far; None without a baseline.
        """
        read = [metrics.read() for metrics in self.measured]
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
                "by_prediction": own.closed,
            }
            for member, own, metrics, loss in zip(self.members, self.measured, read, losses, strict=True)
        ]

    def _run(self, steps: Steps, rows: Int64) -> None:
        """Members predict the ``rows`` of this reading and learn labels, each in the order of the steps."""
        supervised = self._labelled_work(steps, rows)
        unsupervised = self._unlabelled_work(rows)
        entries = steps.entries[steps.kinds == PREDICT]
        kept = np.flatnonzero(entries >= 0)
        for i, member in enumerate(self.members):
            answers = member.run(unsupervised if member.task == "anomaly" else supervised)
            answers = self._decided(answers)
            self._answers[i].append(answers)
            self._served.answer(i, entries[kept], answers.take(kept))

    def _labelled_work(self, steps: Steps, rows: Int64) -> Work:
        learns = steps.kinds == LEARN
        if self.definition.label is not None and self.definition.label.correct == "learn":
            learns |= steps.kinds == REVISE
        todo = steps.part((steps.kinds == PREDICT) | learns)
        predicts = todo.kinds == PREDICT
        entries = todo.entries[~predicts]
        vectors = self._vectors.take(rows).mixed(self._served.vectors(entries), predicts)
        kinds = np.where(predicts, PREDICT, LEARN).astype(np.int8)
        weights = np.ones(len(todo))
        weights[~predicts] = self._weights(todo.words[~predicts], entries)
        return Work(kinds, vectors, todo.words, self._words, weights)

    def _unlabelled_work(self, rows: Int64) -> Work:
        """Anomaly detectors score a row, then learn it, unless it is late."""
        twice = np.repeat(rows, 1 + self._accepted[rows])
        kinds = np.full(len(twice), PREDICT, dtype=np.int8)
        kinds[1:][twice[1:] == twice[:-1]] = LEARN
        return Work(kinds, self._vectors.take(twice), np.zeros(len(twice), dtype=np.int64), None, np.ones(len(twice)))

    def _decided(self, answers: Answers) -> Answers:
        """With costs, the decision is the score against their threshold; else the model's own."""
        threshold = self.definition.threshold
        if threshold is None:
            return answers
        known = ~np.isnan(answers.scores)
        return answers._replace(decided=np.where(known, answers.scores > threshold, answers.decided).astype(np.int8))

    def _measure(self, steps: Steps) -> None:
        steps = steps.part((steps.kinds != PREDICT) & (steps.kinds != REPORT))
        if not len(steps) or self._words is None:
            return
        before = np.where(steps.has_before, self._words.numbers(steps.before), np.nan)
        labels = self._words.numbers(steps.words)
        weights = self._weights(steps.words, steps.entries)
        weights_before = self._weights(steps.before, steps.entries)
        for i, own in enumerate(self.measured):
            scores, decided = self._served.scores[i][steps.entries], self._served.decided[i][steps.entries]
            said = (labels, before, scores, decided, weights, weights_before, self._objects(i, steps))
            own.update(Answered(steps.kinds, steps.numbers, *said))

    def _objects(self, member: int, steps: Steps) -> list[Any] | None:
        """(label, the label before, prediction) of each step, for members whose labels may be anything."""
        if self.members[member].task in ("binary", "regression") or self._words is None:
            return None
        labels = self._words.labels(steps.words, steps.kinds != GIVE_UP)
        before = self._words.labels(steps.before, steps.has_before)
        return list(zip(labels, before, self._served.said(member, steps.entries), strict=True))

    def _watch(self, steps: Steps) -> Iterator[tuple[int, Alarm]]:
        if not self._monitors or self._words is None:
            return
        learned = np.flatnonzero(steps.kinds == LEARN)
        labels = self._words.labels(steps.words[learned])
        for step, label, prediction in zip(
            learned.tolist(), labels, self._served.said(0, steps.entries[learned]), strict=True
        ):
            for monitor in self._monitors:
                alarm = monitor.update(label, prediction)
                if alarm is not None:
                    self.alarms += 1
                    yield step, alarm

    def _weights(self, words: Int64, entries: Int64) -> Float64:
        """How much each label counts, float64[k]."""
        weight = self.definition.weight
        if not isinstance(weight, Mapping) or self._words is None:
            return self._served.weights[entries]
        unique, at = np.unique(words, return_inverse=True)
        return np.array([float(weight.get(label, 1.0)) for label in self._words.labels(unique)])[at]

    def state(self) -> dict[str, Any]:
        """Arrays and bytes by name; :meth:`restore` takes them back."""
        result: dict[str, Any] = {"panel": pack_json([self.alarms])}
        result |= {f"served/{name}": item for name, item in self._served.state().items()}
        for i, member in enumerate(self.members):
            key = f"{i}/{member.name}/{member.version}"
            result[f"{key}/model"] = member.state()
            result |= {f"{key}/metrics/{n}": v for n, v in self.measured[i].state().items()}
        for i, monitor in enumerate(self._monitors):
            result[f"monitor/{i}"] = monitor.state()
        return result

    def restore(self, state: Mapping[str, Any]) -> None:
        (self.alarms,) = unpack_json(bytes(state["panel"]))
        self._served.restore(below(state, "served/"))
        for i, member in enumerate(self.members):
            key = f"{i}/{member.name}/{member.version}"
            member.restore(state[f"{key}/model"])
            self.measured[i].restore(below(state, f"{key}/metrics/"))
        for i, monitor in enumerate(self._monitors):
            monitor.restore(state[f"monitor/{i}"])
