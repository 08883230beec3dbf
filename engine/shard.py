"""The chain: what one shard does with what it reads, in the order in which it reads it.

Gate, label join, features, models, drift; the same object runs live, as a backfill and in a test. It
knows no Kafka, no clock and no thread: what comes out is a pure function of what went in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from thalweg.engine.batch import NO_TIME, Column, Log, Reject, Row
from thalweg.engine.decide import GIVE_UP, LEARN, PREDICT, REVISE, Decided, Decider, Rows, Step, Told, told_by
from thalweg.engine.definition import Definition
from thalweg.engine.errors import OrderError, SnapshotError
from thalweg.engine.features.evaluate import Evaluator, fields
from thalweg.engine.features.expressions import Expr
from thalweg.engine.features.gate import LATE, QUARANTINED, Gate, Passed
from thalweg.engine.features.plan import Entering, Vectors
from thalweg.engine.learning.panel import Panel
from thalweg.engine.reading import Reading, Selection, offsets_of
from thalweg.engine.records import Records, dead_letter
from thalweg.engine.schema import column_of
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
        self.panel = Panel(definition)
        self._gate = Gate(stream)
        self._decider = Decider(
            definition.label,
            answer_late=stream.late == "score",
            metrics_every=definition.metrics_every,
            future_us=stream.future_us,
            pass_on=definition.headers,
        )
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

    def push(self, reading: Reading) -> list[Row]:
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
        vectors = self._vectors(events, passed, decided)
        letters = [dead_letter(reject) for reject in reading.in_order(refused)]
        return letters + list(self._carry_out(decided.steps, vectors))

    def _decide(self, reading: Reading, events: Selection, passed: Passed) -> tuple[Decided, list[Reject]]:
        """Row by row, what becomes of each (:mod:`thalweg.engine.decide`)."""
        n, label, stream = len(events), self.definition.label, self.definition.stream
        labels, told = None, list[Told]()
        if label is not None and label.own_topic:
            labels = Selection.of(reading, label.topic, self._nothing[label.topic])
            told = told_by(label, self._evaluate_label, labels.columns, len(labels))
        rows = Rows.of(
            events,
            passed,
            stream.time,
            event_ids=[None] * n if label is None else events.columns[label.on].tolist(),
            keys=self.features.label_keys(events.columns, n),
            weights=self._weights(events.columns, n),
            told=self._told_by_rows(events),
        )
        return self._decider.decide(reading, stream.topic, rows, labels, told, self._gate.watermark)

    def _told_by_rows(self, events: Selection) -> list[Told | None]:
        """What the rows of the stream that are labels tell; None for the others."""
        label, n = self.definition.label, len(events)
        if label is None or label.where is None:
            return [None] * n
        where = self._evaluate(label.where, fields(events.columns), n)
        told = told_by(label, self._evaluate, events.columns, n)
        return [one if tells else None for one, tells in zip(told, (where.values & where.valid).tolist(), strict=True)]

    def _weights(self, columns: dict[str, Column], n: int) -> list[float]:
        weight = self.definition.weight
        if not isinstance(weight, Expr):
            return [1.0] * n
        values = self._evaluate(weight, fields(columns), n).tolist()
        return [float(value) if value is not None and value > 0 else 0.0 for value in values]

    def _turned_away(self, events: Selection, passed: Passed) -> Iterator[Reject]:
        """Quarantined and late rows, for the dead-letter topic."""
        letters = passed.outcomes == QUARANTINED
        if self.definition.stream.late == "dlq":
            letters |= passed.outcomes == LATE
        times = events.columns[self.definition.stream.time].values
        for i in np.flatnonzero(letters).tolist():
            batch, row = events.reading.batches[events.batch[i]], int(events.rows[i])
            if passed.outcomes[i] == LATE:
                by = (int(passed.watermarks[i]) - int(times[i])) / 1e6
                yield batch.refuse(row, "late", f"{by:.6f} seconds behind the watermark")
            else:
                by = (int(times[i]) - int(events.append[i])) / 1e6
                yield batch.refuse(row, "future", f"{by:.6f} seconds ahead of the time it was appended")

    def _vectors(self, events: Selection, passed: Passed, decided: Decided) -> Vectors:
        """Features of all rows at once, and the records' own fields."""
        rows = np.array(decided.entering, dtype=np.int64)
        columns = {name: column.take(rows) for name, column in events.columns.items()}
        accepted, watermarks = passed.accepted[rows], passed.watermarks[rows]
        times = np.where(accepted, columns[self.definition.stream.time].values, watermarks)
        if self._first_time == NO_TIME and accepted.any():
            self._first_time = int(times[np.argmax(accepted)])
        scored = passed.asks[rows]
        ids = self._decider.accepted - int(accepted.sum()) + np.cumsum(accepted) - 1
        asking = {name: column.take(scored) for name, column in columns.items()}
        self._records.begin(asking, times[scored], accepted[scored], self._first_time)
        return self.features.advance(Entering(columns, times, watermarks, ids, accepted, scored), decided.tells)

    def _carry_out(self, steps: list[Step], vectors: Vectors) -> Iterator[Row]:
        """Predictions, learning, metrics and alarms, in reading order."""
        rows = iter(vectors.rows())
        for step in steps:
            if step.kind == PREDICT:
                step.served.vector = next(rows)
                learn = self._records.accepted
                step.served.predictions = self.panel.predict(step.served.vector, learn=learn)
                row = self._records.prediction(step.place, step.served)
                if self._trace and learn:
                    assert isinstance(row.value, dict)
                    self._traced[step.served.number] = row.value["id"]
                yield row
            elif step.kind == LEARN:
                assert step.label is not None
                for alarm in self.panel.join(step.served, step.label):
                    yield self._records.alarm(alarm, step.place)
                yield from self._trace_label(step)
            elif step.kind == GIVE_UP:
                self.panel.give_up(step.served)
            elif step.kind == REVISE:
                assert step.label is not None and self.definition.label is not None
                self.panel.revise(step.served, step.label, self.definition.label.correct == "learn")
                yield from self._trace_label(step)
            else:
                assert step.counters is not None
                yield from self._records.metrics(step.place, step.served, step.counters)

    def _trace_label(self, step: Step) -> Iterator[Row]:
        if self._trace:
            value = {"prediction": self._traced[step.served.number], "label": step.label, "known_at": step.available}
            yield Row("labels", step.place.log.partition, step.place.key, value)

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
