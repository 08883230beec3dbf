"""The naive twin: what a shard does, written from CONTRACT.md with plain lists and ``math.fsum``.

Every value is recomputed from all rows that were read, one row at a time. Nothing is shared with the engine but
the description that both are given (streams, labels, expressions). Models are baselines: no change, and the prior.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.naive_expressions import Time, number, truth, value_of
from tests.naive_windows import Windows, key_of
from tests.strategies import EVENTS, Message
from thalweg.engine.batch import NO_TIME
from thalweg.engine.definition import Definition
from thalweg.engine.features.expressions import Agg

Keys = dict[str, Any]  # of an event, by the canonical text of a label-fed aggregate


@dataclass
class Prediction:
    """A prediction as it was served, and what became of it."""

    number: int
    message: Message
    time: int
    vector: list[float | str | None]
    cold: bool
    late: bool
    learned: int
    scores: list[Any]
    order: int = -1
    status: str = "none"
    counted: Any = None


@dataclass
class Event:
    """What is known of an event's id."""

    expires: int
    accepted: bool = False
    keys: Keys = field(default_factory=dict)
    predictions: list[Prediction] = field(default_factory=list)
    label: Any = None
    available: int = 0
    told: int = 0
    row: int = 0
    fed: tuple[Keys, int] | None = None


class Learned(NamedTuple):
    """``kind``: learn, revise or give_up; of which prediction, by which label."""

    kind: str
    prediction: int
    label: Any


class Fed(NamedTuple):
    """A label in label-fed features, for the second oracle: rows numbered ``since`` or later see it, those numbered
    ``until`` or later no longer."""

    event: int
    since: int
    until: int | None
    available: int
    value: float


@dataclass
class Answer:
    """What one row of the stream became: for the second oracle, and to be counted."""

    message: Message
    outcome: str
    watermark: int


class Twin:
    """One shard. :meth:`read` takes its messages; the results are attributes."""

    def __init__(self, definition: Definition) -> None:
        self.definition, self.stream, self.label = definition, definition.stream, definition.label
        self.windows = {a.canonical: Windows(a) for a in definition.features.aggregates}
        self.newest: int | None = None
        self.first_time: int | None = None
        self.ids: dict[Any, int] = {}
        self.orders = 0
        self.told = 0
        self.answers: list[Answer] = []
        self.predictions: list[Prediction] = []
        self.dead_letters: list[tuple[Any, int, str]] = []
        self.journal: list[Learned] = []
        self.fed: list[Fed] = []
        self.counts: Counter[str] = Counter()
        self.reports: list[dict[str, int]] = []
        self.events: dict[Any, Event] = {}
        self.labels_learned: list[Any] = []
        self.served = 0

    def read(self, messages: Sequence[Message]) -> Twin:
        """Reads on."""
        for message in messages:
            if message.log.topic == EVENTS:
                self._read_event(message)
            else:
                self._read_label(message)
        return self

    # Rules 2, 3, 5: what becomes of a row

    @property
    def watermark(self) -> int:
        """The newest accepted time, less the disorder."""
        return NO_TIME if self.newest is None else self.newest - self.stream.disorder_us

    def _read_event(self, message: Message) -> None:
        self.counts["read"] += 1
        row = typed(message.row)
        watermark = self.watermark
        outcome = self._outcome(message, row)
        self.counts[outcome] += 1
        self.answers.append(Answer(message, outcome, watermark))
        reason = {"rejected": "null", "quarantined": "future"}.get(outcome)
        if outcome == "late" and self.stream.late == "dlq":
            reason = "late"
        if reason is not None:
            self.dead_letters.append((message.log, message.offset, reason))
        if outcome in ("folded", "scored"):
            self.newest = max(row["at"], self.newest or row["at"])
            self._accept(message, row, watermark, outcome == "scored")
        elif outcome == "late" and self.stream.late == "score" and truth(self.stream.score, row):
            self._predict(message, row, watermark, late=True)

    def _outcome(self, message: Message, row: dict[str, Any]) -> str:
        if message.bad:
            return "rejected"
        time = row["at"]
        if message.append != NO_TIME and time > message.append + self.stream.future_us:
            return "quarantined"
        if time < self.watermark:
            return "late"
        if self.stream.dedupe is not None:
            name = value_of(self.stream.dedupe, row)
            if name is not None:
                if name in self.ids and time < self.ids[name] + self.stream.dedupe_us:
                    return "duplicate"
                self.ids[name] = time
        return "scored" if truth(self.stream.score, row) else "folded"

    # Rule 4: features

    def _accept(self, message: Message, row: dict[str, Any], watermark: int, asks: bool) -> None:
        self._time_out(watermark)
        if self.first_time is None:
            self.first_time = row["at"]
        order = self.orders
        for windows in self.windows.values():
            node = windows.node
            key = key_of(node, row)
            if node.fed_by is None and truth(node.where, row):
                x = None if node.value is None else value_of(node.value, row)
                windows.enter(key, row["at"], order, None if x is None else float(x))
            elif key is not None:
                windows.touch(key, False)
        told = self._told(row)
        prediction = None
        if asks:
            prediction = self._predict(message, row, row["at"], order=order)
        if self.label is not None and (asks or told is None):
            self._remember(row, prediction, watermark)
        self.orders += 1
        if told is not None:
            self._tell(*told)
        if prediction is not None and self.served % self.definition.metrics_every == 0:
            self.reports.append(self.counters())

    def _predict(
        self, message: Message, row: dict[str, Any], now: int, order: int | None = None, late: bool = False
    ) -> Prediction:
        def aggregate(node: Agg) -> float | None:
            return self.windows[node.canonical].read(key_of(node, row), now, order)

        vector = [value_of(feature.expr, row, aggregate) for feature in self.definition.features.features]
        plain = [v if v is None or isinstance(v, str) else number(v) for v in vector]
        longest = max((a.window.length for a in self._aggregates() if a.window.kind == "sliding"), default=0)
        cold = self.first_time is None or now < self.first_time + longest
        scores = [no_change(self), prior(self)] if self.definition.models else []
        learned = len(self.labels_learned)
        prediction = Prediction(self.served, message, row["at"], plain, cold, late, learned, scores)
        self.predictions.append(prediction)
        if not late:
            assert order is not None
            prediction.order = order
            self.served += 1
        return prediction

    def _aggregates(self) -> list[Agg]:
        return [windows.node for windows in self.windows.values()]

    # Rule 7: labels

    def _told(self, row: dict[str, Any]) -> tuple[Any, Any, Any] | None:
        """What a row of the stream tells as a label."""
        label = self.label
        if label is None or label.own_topic or not truth(label.where, row):
            return None
        return row[label.on], value_of(label.value, row), value_of(label.available, row)

    def _read_label(self, message: Message) -> None:
        assert self.label is not None
        row = typed(message.row)
        told: tuple[Any, Any, Any] = (None, None, None)
        if not message.bad:
            told = row[self.label.on], value_of(self.label.value, row), value_of(self.label.available, row)
        reason = None
        if message.bad:
            reason = "null"
        elif None in told:
            reason = "label"
        elif message.append != NO_TIME and told[2] > message.append + self.stream.future_us:
            reason = "future"
        if reason is None:
            self._tell(*told)
        else:
            self.counts["labels_read"] += 1
            self.counts["labels_rejected"] += 1
            self.dead_letters.append((message.log, message.offset, reason))

    def _tell(self, name: Any, value: Any, available: Any) -> None:
        assert self.label is not None
        self.counts["labels_read"] += 1
        if name is None or value is None or available is None:
            self.counts["labels_rejected"] += 1
            return
        event = self.events.get(name)
        self.told += 1
        if event is None:
            event = self.events[name] = Event(available + self.label.horizon_us)
            event.label, event.available, event.told = value, available, self.told
            self.counts["labels_early"] += 1
            return
        if event.label == value:
            self.counts["labels_duplicate"] += 1
            return
        timed_out = any(p.status == "timed_out" for p in event.predictions)
        self.counts["labels_corrected" if event.label is not None or timed_out else "labels_joined"] += 1
        if event.fed is not None:
            self._unfeed(event)
        event.label, event.available, event.told = value, available, self.told
        if event.accepted:
            self._feed(event)
        for prediction in event.predictions:
            if prediction.status == "pending":
                self._join(prediction, value)
            elif prediction.status in ("joined", "timed_out"):
                self._learn("revise", prediction, value, self.label.correct == "learn")

    def _remember(self, row: dict[str, Any], prediction: Prediction | None, watermark: int) -> None:
        """The row stands for its event until the next one with that id."""
        assert self.label is not None
        name = row[self.label.on]
        if name is None:  # no label can ever come
            if prediction is not None:
                self._give_up(prediction, "evicted")
            return
        event = self.events.setdefault(name, Event(0))
        forgotten = watermark - 2 * self.label.horizon_us
        event.predictions = [p for p in event.predictions if p.time > forgotten]
        was_early = event.label is not None and not event.accepted
        event.accepted = True
        event.expires = max(event.expires, row["at"] + 2 * self.label.horizon_us)
        event.keys = {w.node.canonical: key_of(w.node, row) for w in self.windows.values() if w.node.fed_by}
        event.row = len(self.answers) - 1
        if was_early:
            self.counts["labels_early"] -= 1
            self.counts["labels_joined"] += 1
            self._feed(event)
        if prediction is None:
            return
        event.predictions.append(prediction)
        if event.label is not None:
            self._join(prediction, event.label)
            return
        prediction.status = "pending"
        waiting = self._waiting()
        if len(waiting) > self.label.pending:
            self._give_up(waiting[0], "evicted")

    def _waiting(self) -> list[Prediction]:
        return [p for p in self.predictions if p.status == "pending"]

    def _time_out(self, watermark: int) -> None:
        """At the first accepted row whose watermark has reached the deadline; then ids are forgotten."""
        if self.label is None:
            return
        horizon = self.label.horizon_us
        due = [p for p in self._waiting() if p.time + horizon <= watermark]
        for prediction in sorted(due, key=lambda p: (p.time + horizon, p.order)):
            self.counts["predictions_censored"] += self.label.timeout == "censored"
            if self.label.timeout_class is None:
                self._give_up(prediction, "timed_out")
            else:
                prediction.status = "timed_out"
                self.counts["predictions_timed_out"] += 1
                self._learn("learn", prediction, self.label.timeout_class)
        for name, event in list(self.events.items()):
            if event.expires <= watermark:
                if not event.accepted:
                    self.counts["labels_early"] -= 1
                    self.counts["labels_unmatched"] += 1
                del self.events[name]

    def _join(self, prediction: Prediction, label: Any) -> None:
        prediction.status = "joined"
        self.counts["predictions_joined"] += 1
        self._learn("learn", prediction, label)

    def _give_up(self, prediction: Prediction, status: str) -> None:
        prediction.status = status
        self.counts[f"predictions_{status}"] += 1
        self.journal.append(Learned("give_up", prediction.number, None))

    def _learn(self, kind: str, prediction: Prediction, label: Any, learns: bool = True) -> None:
        self.journal.append(Learned(kind, prediction.number, label))
        prediction.counted = label
        if learns:
            self.labels_learned.append(label)

    def _feed(self, event: Event) -> None:
        """The label counts in label-fed features, under the keys of the event's latest row."""
        event.fed = event.keys, len(self.fed)
        for text, key in event.keys.items():
            self.windows[text].enter(key, event.available, event.told, float(event.label))
        self.fed.append(Fed(event.row, len(self.answers), None, event.available, event.label))

    def _unfeed(self, event: Event) -> None:
        assert event.fed is not None
        keys, at = event.fed
        for text, key in keys.items():
            self.windows[text].leave(key, event.told)
        self.fed[at] = self.fed[at]._replace(until=len(self.answers))

    def counters(self) -> dict[str, int]:
        """As :meth:`Shard.counters`, without alarms."""
        names = "read rejected quarantined late duplicate folded scored".split()
        if self.label is not None:
            names += [f"predictions_{name}" for name in ("joined", "timed_out", "censored", "evicted")]
            names += [f"labels_{n}" for n in "read joined duplicate corrected early unmatched rejected".split()]
        result = {name: self.counts[name] for name in names}
        return result if self.label is None else {**result, "predictions_pending": len(self._waiting())}

    @property
    def evicted_keys(self) -> int:
        """Keys thrown out, counted once for all aggregates that share their keys and rows."""
        return sum({windows.node.group: windows.evicted for windows in self.windows.values()}.values())


def typed(row: dict[str, Any]) -> dict[str, Any]:
    """Times told apart from whole numbers."""
    return {name: Time(v) if name in ("at", "due") and v is not None else v for name, v in row.items()}


def no_change(twin: Twin) -> Any:
    """The label that was learned last."""
    if not twin.labels_learned:
        return None
    last = twin.labels_learned[-1]
    return {last: 1.0} if isinstance(last, str) else float(last)


def prior(twin: Twin) -> Any:
    """How often each class was the label; for numbers, their mean."""
    learned = twin.labels_learned
    if not learned:
        return None
    if isinstance(learned[0], bool):
        return learned.count(True) / len(learned)
    if isinstance(learned[0], str):
        return {label: learned.count(label) / len(learned) for label in learned}
    return math.fsum(learned) / len(learned)
