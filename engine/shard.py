"""The chain: what one shard does with what it reads, in the order in which it reads it.

Gate, label join, features, models, drift; the same object runs live, as a backfill and in a test. It
knows no Kafka, no clock and no thread: what comes out is a pure function of what went in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from thalweg.engine.batch import NO_TIME, Column, Log, Reject, Row
from thalweg.engine.decide import Decided, Decider, Steps, Told, nothing_told, told_by
from thalweg.engine.definition import Definition
from thalweg.engine.errors import OrderError, SnapshotError
from thalweg.engine.features.evaluate import Evaluator, fields
from thalweg.engine.features.expressions import Expr
from thalweg.engine.features.gate import LATE, QUARANTINED, Gate, Passed
from thalweg.engine.features.plan import Entering, Vectors
from thalweg.engine.kernels.arrays import Bool, Float64, Int8, Int64
from thalweg.engine.kernels.join import EVENT, EVENT_REJECT, LABEL, LABEL_REJECT
from thalweg.engine.kernels.steps import LEARN, PREDICT, REPORT, REVISE
from thalweg.engine.learning.panel import Panel
from thalweg.engine.reading import Reading, Selection, offsets_of
from thalweg.engine.records import Asked, Block, Left, Records, dead_letter
from thalweg.engine.schema import column_of
from thalweg.engine.slots import NONE
from thalweg.engine.snapshot import below, pack, pack_json, unpack, unpack_json


class Shard:
    """One shard of a pipeline, with state.

    Give it what the shard reads (:meth:`push`); it gives back the rows that leave, in order. With ``trace``
    there are also rows of kind ``labels``: which prediction got which label, known since when.
    """

    def __init__(self, definition: Definition, *, trace: bool = False) -> None:
        stream = definition.stream
        self.definition = definition
        self._trace = trace
        self._traced: dict[int, str] = {}
        self.features = definition.plan.open()
        self._gate = Gate(stream)
        self._decider = Decider(
            definition.label,
            answer_late=stream.late == "score",
            metrics_every=definition.metrics_every,
            keyed=self.features.fed_by_labels,
        )
        self.panel = Panel(definition, self._decider.words)
        self._evaluate = Evaluator(stream.schema)
        self._evaluate_label = Evaluator(stream.schema if definition.label is None else definition.label.schema)
        self._records = Records(definition, self.panel)
        self._nothing = {t: _empty(definition, t) for t in definition.topics}
        self._next: dict[Log, int] = {}
        self._first_time = NO_TIME

    @property
    def watermark(self) -> int:
        """Microseconds; ``NO_TIME`` before the first accepted row."""
        return self._gate.watermark

    def counters(self) -> dict[str, int]:
        """Counts since the first row: each row of the stream has one outcome, each prediction one fate."""
        own = {"alarms": self.panel.alarms, "evicted_keys": self.features.evicted}
        return self._decider.counters() | own

    def push(self, reading: Reading) -> Left:
        """What these messages make leave: predictions, alarms, metrics, dead letters.

        Raises:
            OrderError: a log went backwards, or is not one that the pipeline reads.
        """
        self._check_order(reading)
        stream = self.definition.stream
        events = Selection.of(reading, stream.topic, self._nothing[stream.topic])
        passed = self._gate.pass_(events.columns, events.append)
        decided, refused = self._decide(reading, events, passed)
        refused += self._turned_away(events, passed)
        refused += _rejects(reading)
        asked, vectors = self._vectors(events, passed, decided)
        letters = [dead_letter(reject) for reject in reading.in_order(refused)]
        predictions, rows = self._carry_out(reading, events, decided, asked, vectors)
        return Left(predictions, letters + rows)

    def _decide(self, reading: Reading, events: Selection, passed: Passed) -> tuple[Decided, list[Reject]]:
        """Row by row, what becomes of each (:mod:`thalweg.engine.decide`)."""
        label, columns = self.definition.label, events.columns
        ids = np.full(len(events), NONE) if label is None else self._decider.place(columns[label.on])
        told, tells = self._told_by_events(events, ids)
        labels, refused = self._told_by_labels(reading)
        decided = self._decider.decide(
            self._sources(reading),
            columns[self.definition.stream.time].values,
            passed,
            told=told,
            tells=tells,
            labels=labels,
            newest=self._gate.watermark,
            keys=self.features.label_keys(columns, len(events)),
        )
        return decided, refused

    def _sources(self, reading: Reading) -> Int8:
        """What each message is, int8[m]."""
        topic = self.definition.stream.topic
        is_event = np.array([batch.log.topic == topic for batch in reading.batches], dtype=np.bool_)[reading.which]
        refused = reading.rows < 0
        sources = np.where(is_event, np.where(refused, EVENT_REJECT, EVENT), np.where(refused, LABEL_REJECT, LABEL))
        return sources.astype(np.int8)

    def _told_by_events(self, events: Selection, ids: Int64) -> tuple[Told, Bool]:
        """The rows of the stream as labels, and which of them are."""
        label, words, n = self.definition.label, self._decider.words, len(events)
        if label is None or words is None or label.where is None:
            return nothing_told(ids), np.zeros(n, dtype=np.bool_)
        where = self._evaluate(label.where, fields(events.columns), n)
        return told_by(label, words, self._evaluate, events.columns, ids), where.values & where.valid

    def _told_by_labels(self, reading: Reading) -> tuple[Told, list[Reject]]:
        """The rows of the label's own log; those that are refused are not whole."""
        label, words = self.definition.label, self._decider.words
        if label is None or words is None or not label.own_topic:
            return nothing_told(np.empty(0, dtype=np.int64)), []
        labels = Selection.of(reading, label.topic, self._nothing[label.topic])
        ids = self._decider.place(labels.columns[label.on])
        told = told_by(label, words, self._evaluate_label, labels.columns, ids)
        ahead = (labels.append != NO_TIME) & (told.available > labels.append + self.definition.stream.future_us)
        refused = [
            labels.refuse(i, "future", "the label's time is ahead of the time it was appended")
            if told.whole[i]
            else labels.refuse(i, "label", "the label's id, value or time is null")
            for i in np.flatnonzero(~told.whole | ahead).tolist()
        ]
        return told._replace(whole=told.whole & ~ahead), refused

    def _weights(self, columns: dict[str, Column], n: int) -> Float64:
        weight = self.definition.weight
        if not isinstance(weight, Expr):
            return np.ones(n)
        values = self._evaluate(weight, fields(columns), n)
        numbers = values.values.astype(np.float64)
        return np.where(values.valid & (numbers > 0.0), numbers, 0.0)

    def _turned_away(self, events: Selection, passed: Passed) -> Iterator[Reject]:
        """Quarantined and late rows, for the dead-letter topic."""
        letters = passed.outcomes == QUARANTINED
        if self.definition.stream.late == "dlq":
            letters |= passed.outcomes == LATE
        times = events.columns[self.definition.stream.time].values
        for i in np.flatnonzero(letters).tolist():
            if passed.outcomes[i] == LATE:
                by = (int(passed.watermarks[i]) - int(times[i])) / 1e6
                yield events.refuse(i, "late", f"{by:.6f} seconds behind the watermark")
            else:
                by = (int(times[i]) - int(events.append[i])) / 1e6
                yield events.refuse(i, "future", f"{by:.6f} seconds ahead of the time it was appended")

    def _vectors(self, events: Selection, passed: Passed, decided: Decided) -> tuple[Asked, Vectors]:
        """Features of all rows at once, of those that ask for a prediction."""
        rows = decided.entering
        columns = {name: column.part(rows) for name, column in events.columns.items()}
        accepted, watermarks, scored = passed.accepted[rows], passed.watermarks[rows], passed.asks[rows]
        times = np.where(accepted, columns[self.definition.stream.time].values, watermarks)
        if self._first_time == NO_TIME and accepted.any():
            self._first_time = int(times[np.argmax(accepted)])
        ids = self._decider.accepted - int(accepted.sum()) + np.cumsum(accepted) - 1
        entering = Entering(columns, times, watermarks, ids, accepted, scored)
        asked = Asked(events.take(rows[scored]), times[scored], accepted[scored])
        return asked, self.features.advance(entering, decided.tells)

    def _carry_out(
        self, reading: Reading, events: Selection, decided: Decided, asked: Asked, vectors: Vectors
    ) -> tuple[list[Block], list[Row]]:
        """Predictions, learning, metrics and alarms, in reading order; reports see what stands before them."""
        steps, panel, rows = decided.steps, self.panel, list[Row]()
        times = events.columns[self.definition.stream.time].values
        weights = self._weights(asked.selection.columns, len(vectors))
        panel.begin(steps, vectors, weights, asked.accepted, self._decider.entries)
        ends = [*(np.flatnonzero(steps.kinds == REPORT) + 1).tolist(), len(steps)]
        start = 0
        for end, counters in zip(ends, [*decided.reports, None], strict=True):
            part = steps.part(slice(start, end))
            for at, alarm in panel.carry_out(part):
                rows.append(self._records.alarm(alarm, reading.place(part.messages[at])))
            if counters is not None:
                place, last = reading.place(steps.messages[end - 1]), steps.rows[end - 1]
                rows += self._records.metrics(place, int(times[last]), int(steps.numbers[end - 1]) + 1, counters)
            start = end
        predictions = self._records.predictions(asked, vectors, panel.answers(), self._first_time)
        if self._trace:
            rows += self._labels_of(reading, steps, predictions, asked)
        return predictions, rows

    def _labels_of(self, reading: Reading, steps: Steps, predictions: list[Block], asked: Asked) -> Iterator[Row]:
        """Which prediction got which label."""
        ids = {block.partition: iter(block.ids()) for block in predictions}
        partitions = [reading.batches[b].log.partition for b in asked.selection.batch.tolist()]
        numbers = steps.numbers[steps.kinds == PREDICT].tolist()
        for partition, number, accepted in zip(partitions, numbers, asked.accepted.tolist(), strict=True):
            one = next(ids[partition])
            if accepted:
                self._traced[number] = one
        words = self._decider.words
        told = steps.part((steps.kinds == LEARN) | (steps.kinds == REVISE))
        labels = [] if words is None else words.labels(told.words)
        rest = (told.messages.tolist(), told.numbers.tolist(), told.since.tolist())
        for label, message, number, since in zip(labels, *rest, strict=True):
            place = reading.place(message)
            value = {
                "prediction": self._traced[number],
                "label": label,
                "known_at": None if since == NO_TIME else since,
            }
            yield Row("labels", place.log.partition, place.key, value)

    def _check_order(self, reading: Reading) -> None:
        for batch in reading.batches:
            if batch.log.topic not in self.definition.topics:
                raise OrderError(f"rows of {batch.log.topic!r}; the pipeline reads {', '.join(self.definition.topics)}")
        for b in np.unique(reading.which).tolist():
            batch = reading.batches[b]
            rows = reading.rows[reading.which == b]
            first, last = offsets_of(batch, rows[[0, -1]]).tolist()
            several = batch.indices is not None  # rows a message: a reading may end within one
            if first < self._next.get(batch.log, 0) - several:
                raise OrderError(
                    f"{batch.log.topic}/{batch.log.partition}: offset {first} after {self._next[batch.log] - 1}; "
                    "a log is read once, in offset order"
                )
            self._next[batch.log] = last + 1

    def snapshot(self) -> bytes:
        """All state as bytes: arrays by name, with magic, version and checksum."""
        place = [[log.topic, log.partition, offset] for log, offset in self._next.items()]
        state: dict[str, Any] = {"shard": pack_json([self.definition.fingerprint, self._first_time, place])}
        for name, part in self._parts().items():
            state |= {f"{name}:{key}": item for key, item in part.state().items()}
        return pack(state)

    def restore(self, data: bytes) -> None:
        """Continues from :meth:`snapshot`.

        Raises:
            SnapshotError: the bytes are damaged, or another definition wrote them.
        """
        state = unpack(data)
        fingerprint, self._first_time, place = unpack_json(bytes(state["shard"]))
        if fingerprint != self.definition.fingerprint:
            raise SnapshotError(
                f"the state was written by definition {fingerprint}, this one is {self.definition.fingerprint}; "
                "go back to the definition that wrote it, or give the pipeline a new name: a new name has topics and "
                "state of its own, so that no topic holds rows of two definitions"
            )
        self._next = {Log(topic, partition): offset for topic, partition, offset in place}
        for name, part in self._parts().items():
            part.restore(below(state, f"{name}:"))

    def _parts(self) -> dict[str, Any]:
        return {"gate": self._gate, "features": self.features, "panel": self.panel, "decider": self._decider}


def _rejects(reading: Reading) -> Iterator[Reject]:
    """Messages that did not decode."""
    refused = reading.rows < 0
    for b, row in zip(reading.which[refused].tolist(), reading.rows[refused].tolist(), strict=True):
        yield reading.batches[b].rejects[-1 - row]


def _empty(definition: Definition, topic: str) -> dict[str, Column]:
    return {field.name: column_of(field.type, []) for field in definition.schema_of(topic).fields}
