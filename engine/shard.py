"""The chain: what one shard does with the rows it reads, in the order in which it reads them.

Gate, label join, features, models, drift; the same object runs live, as a backfill and in a test. It
knows no Kafka, no clock and no thread: what comes out is a pure function of what went in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from thalweg.engine.batch import NO_TIME, Batch, Bool, Column, Int64, Log, Reject, Row
from thalweg.engine.definition import Definition
from thalweg.engine.drift.detectors import Alarm
from thalweg.engine.errors import OrderError, SnapshotError
from thalweg.engine.events import Events, Place, places_of
from thalweg.engine.features.evaluate import Evaluator, fields
from thalweg.engine.features.expressions import Expr
from thalweg.engine.features.gate import LATE, OUTCOMES, QUARANTINED, SCORED, Gate, Passed
from thalweg.engine.features.plan import Vectors
from thalweg.engine.learning.labels import WAITING, Keys, Known, LabelJoin, Served
from thalweg.engine.learning.panel import Panel
from thalweg.engine.records import Records, dead_letter
from thalweg.engine.snapshot import pack, pack_json, unpack, unpack_json

Told = tuple[Any, Any, Any]  # event id, label, available


class _RowOfStream(NamedTuple):
    """One row of a run: ``number`` in the run, ``position`` in the batch."""

    number: int
    position: int
    event_id: Hashable | None
    accepted: bool
    watermark: int
    keys: Keys
    place: Place
    served: Served | None
    told: Told | None
    row_id: int
    time: int


class Shard:
    """One shard of a pipeline, with state.

    Give it batches in the order in which the shard reads them (:meth:`push`); it gives back the rows
    that leave, in order.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.counts: Counter[str] = Counter()
        self.features = definition.plan.open()
        self.panel = Panel(definition)
        self.labels = None if definition.label is None else LabelJoin(definition.label)
        self._gate = Gate(definition.stream)
        self._evaluate = Evaluator(definition.stream.schema)
        self._label_evaluate = Evaluator(definition.stream.schema if self.labels is None else self.labels.spec.schema)
        self._records = Records(definition, self.panel)
        self._next: dict[Log, int] = {}
        self._row = 0  # accepted rows so far
        self._told_rows = 0  # labels so far
        self._numbered = 0  # predictions so far
        self._first_time = NO_TIME
        self._alarms = 0
        self._counts_at: Callable[[int], Counter[str]] = lambda row: self.counts
        self._out: list[Row] = []

    def push(self, batches: Sequence[Batch]) -> list[Row]:
        """What the rows of ``batches`` make leave: predictions, alarms, metrics, dead letters.

        Raises:
            OrderError: a log went backwards, or is not one that the pipeline reads.
        """
        self._out = []
        for batch in batches:
            self._check_order(batch)
            if batch.log.topic == self.definition.stream.topic:
                self._read_events(batch)
            elif self.labels is not None and batch.log.topic == self.labels.spec.topic:
                self._read_labels(batch)
            else:
                raise OrderError(f"rows of {batch.log.topic!r}; the pipeline reads {', '.join(self.definition.topics)}")
        return self._out

    @property
    def watermark(self) -> int:
        """Microseconds; ``NO_TIME`` before the first accepted row."""
        return self._gate.watermark

    def counters(self, counts: Counter[str] | None = None) -> dict[str, int]:
        """Counts since the first row: each row of the stream has one outcome, each prediction one fate."""
        counts = self.counts if counts is None else counts
        result = {name: counts[name] for name in ("read", "rejected", *OUTCOMES)}
        result["alarms"] = self._alarms
        if self.labels is not None:
            predictions, labels = self.labels.predictions, self.labels.labels
            result |= {f"predictions_{name}": predictions[name] for name in ("joined", "timed_out", "evicted")}
            result["predictions_pending"] = self.labels.pending
            result |= {f"labels_{name}": labels[name] for name in ("read", "joined", "duplicate", "corrected")}
            result |= {f"labels_{name}": labels[name] for name in ("early", "unmatched", "rejected")}
        return result

    # Rows of the stream

    def _read_events(self, batch: Batch) -> None:
        passed = self._gate.pass_(batch)
        self._refuse([*batch.rejects, *self._turned_away(batch, passed)])
        rows = np.flatnonzero(passed.accepted | self._answered_late(passed))
        if len(rows) > 0:
            events = self._events(batch, passed, rows)
            self._counts_at = lambda row: self._counted(batch, passed, row)
            start = 0
            for stop in self._cuts(events):
                if stop > start:
                    self._run(events.slice(start, stop))
                    start = stop
        self.counts = self._counted(batch, passed, len(batch))

    def _counted(self, batch: Batch, passed: Passed, row: int) -> Counter[str]:
        """The counts as of the row at this position of the batch, however the log was cut."""
        rejects = batch.rejects
        if row < len(batch):
            row, offset = row + 1, int(batch.offsets[row])
            rejects = [reject for reject in rejects if reject.offset < offset]
        counts = self.counts + Counter(rejected=len(rejects), read=row + len(rejects))
        for outcome, n in enumerate(np.bincount(passed.outcomes[:row], minlength=len(OUTCOMES)).tolist()):
            counts[OUTCOMES[outcome]] += n
        return counts

    def _answered_late(self, passed: Passed) -> Bool:
        if self.definition.stream.late != "score":
            return np.zeros(len(passed.outcomes), dtype=np.bool_)
        return (passed.outcomes == LATE) & passed.asks  # type: ignore[no-any-return]

    def _turned_away(self, batch: Batch, passed: Passed) -> Iterator[Reject]:
        """Quarantined and late rows."""
        times = batch.columns[self.definition.stream.time].values
        letters = passed.outcomes == QUARANTINED
        if self.definition.stream.late == "dlq":
            letters |= passed.outcomes == LATE
        for i in np.flatnonzero(letters).tolist():
            if passed.outcomes[i] == LATE:
                by = (int(passed.watermarks[i]) - int(times[i])) / 1e6
                yield _reject(batch, i, "late", f"{by:.6f} seconds behind the watermark")
            else:
                by = (int(times[i]) - int(batch.append[i])) / 1e6
                yield _reject(batch, i, "future", f"{by:.6f} seconds ahead of the time it was appended")

    def _events(self, batch: Batch, passed: Passed, rows: Int64) -> Events:
        stream = self.definition.stream
        columns = {name: column.take(rows) for name, column in batch.columns.items()}
        accepted = passed.accepted[rows]
        watermarks = passed.watermarks[rows]
        times = columns[stream.time].values
        first = self._row
        self._row += int(accepted.sum())
        if self._first_time == NO_TIME and accepted.any():
            self._first_time = int(times[np.argmax(accepted)])
        return Events(
            batch,
            rows,
            columns,
            np.where(accepted, times, watermarks),
            watermarks,
            first + np.cumsum(accepted) - 1,
            accepted,
            (passed.outcomes[rows] == SCORED) | ~accepted,
            self._label_rows(columns, accepted),
        )

    def _label_rows(self, columns: Mapping[str, Column], accepted: Bool) -> Bool:
        """Which rows of the stream are labels themselves."""
        if self.labels is None or self.labels.spec.own_topic or self.labels.spec.where is None:
            return np.zeros(len(accepted), dtype=np.bool_)
        where = self._evaluate(self.labels.spec.where, fields(columns), len(accepted))
        return where.values & where.valid & accepted

    def _cuts(self, events: Events) -> Iterator[int]:
        """Where the features of later rows depend on a label that is told by then: runs end there."""
        if self.features.label_groups and self.labels is not None:
            for i, event_id in enumerate(self._event_ids(events)):
                if events.labels[i] or self.labels.is_early(event_id):
                    yield i + 1
        yield len(events)

    def _event_ids(self, events: Events) -> list[Any]:
        label = self.definition.label
        return [None] * len(events) if label is None else events.columns[label.on].tolist()

    def _run(self, events: Events) -> None:
        """Features of all rows at once, then row by row: timeouts, prediction, labels."""
        n = len(events)
        vectors = self.features.advance(
            events.columns, events.times, events.watermarks, events.ids, events.accepted, events.scored
        )
        event_ids = self._event_ids(events)
        self._records.begin(events, event_ids, self._first_time)
        rows = map(
            _RowOfStream,
            range(n),
            events.rows.tolist(),
            event_ids,
            events.accepted.tolist(),
            events.watermarks.tolist(),
            self.features.label_keys(events.columns, n),
            places_of(events.batch, events.rows),
            self._serving(vectors, events),
            self._told_by(events),
            events.ids.tolist(),
            events.times.tolist(),
        )
        for row in rows:
            self._read_row(row)

    def _read_row(self, row: _RowOfStream) -> None:
        if row.accepted:
            self._time_out(row.watermark, row.place)
        if row.served is not None:
            row.served.predictions = self.panel.predict(row.served.vector, learn=row.accepted)
            self._out.append(self._records.prediction(row.number, row.place, row.served))
        if row.accepted and row.event_id is not None and (row.served is not None or row.told is None):
            self._remember(row)
        if row.told is not None:
            self._tell(row.told, row.watermark, row.place)
        if row.accepted and row.served is not None:
            self._numbered += 1
            if self._numbered % self.definition.metrics_every == 0:
                counters = self.counters(self._counts_at(row.position))
                self._out += self._records.metrics(row.place, row.time, counters, self._numbered)

    def _remember(self, row: _RowOfStream) -> None:
        """The accepted row waits for its label; a label that is known by now is joined at once."""
        if self.labels is None:
            return
        known, was_early = self.labels.accept(row.event_id, row.row_id, row.time, row.keys)
        if was_early:
            self._feed(known, row.watermark)
        if row.served is None:
            return
        evicted = self.labels.serve(row.event_id, known, row.served)
        if evicted is not None:
            self.panel.give_up(evicted)
        if known.label is not None:
            self._join(row.served, known.label, row.place)

    def _serving(self, vectors: Vectors, events: Events) -> list[Served | None]:
        """For each row that asks, the prediction to be made; late ones take no number."""
        vector_and_weight = iter(zip(vectors.rows(), self._weights(events), strict=True))
        numbers = self._numbered + np.cumsum(events.scored & events.accepted) - 1
        return [
            Served(number, row_id, time, *next(vector_and_weight), predictions=[]) if asks else None
            for asks, number, row_id, time in zip(
                events.scored.tolist(), numbers.tolist(), events.ids.tolist(), events.times.tolist(), strict=True
            )
        ]

    # Labels

    def _read_labels(self, batch: Batch) -> None:
        assert self.labels is not None
        refused = list(batch.rejects)
        places = places_of(batch, np.arange(len(batch)))
        for i, told in enumerate(self._told(self._label_evaluate, batch.columns, len(batch))):
            append = int(batch.append[i])
            if None in told:
                refused.append(_reject(batch, i, "label", "the label's id, value or time is null"))
            elif append != NO_TIME and told[2] > append + self.definition.stream.future_us:
                refused.append(_reject(batch, i, "future", "the label's time is ahead of the time it was appended"))
            else:
                self._tell(told, self.watermark, places[i])
        for _ in refused:
            self.labels.reject()
        self._refuse(refused)

    def _told(self, evaluate: Evaluator, columns: Mapping[str, Column], n: int) -> list[Told]:
        """(event id, label, available) of n label rows."""
        assert self.labels is not None
        spec, known = self.labels.spec, fields(columns)
        parts = [columns[spec.on], evaluate(spec.value, known, n), evaluate(spec.available, known, n)]
        return list(zip(*(part.tolist() for part in parts), strict=True))

    def _told_by(self, events: Events) -> list[Told | None]:
        """What the rows of the stream that are labels tell; None for the others."""
        if not events.labels.any():
            return [None] * len(events)
        told = self._told(self._evaluate, events.columns, len(events))
        return [one if tells else None for one, tells in zip(told, events.labels.tolist(), strict=True)]

    def _tell(self, told: Told, watermark: int, place: Place) -> None:
        assert self.labels is not None
        event_id, label, available = told
        if event_id is None or label is None or available is None:
            self.labels.reject()
            return
        self._told_rows += 1
        outcome = self.labels.tell(event_id, label, available, self._told_rows)
        known = outcome.known
        if known is None:
            return
        if outcome.before is not None and known.fed is not None:
            self.features.untell_label(known.fed, outcome.before.available, outcome.before.row)
        self._feed(known, watermark)
        for served in known.served:
            if served.status == WAITING:
                self._join(served, label, place)
            else:
                self.panel.revise(served, label, self.labels.spec.correct == "learn")

    def _feed(self, known: Known, watermark: int) -> None:
        """The label enters the label-fed features under the keys of the event's latest row."""
        if self.features.label_groups and known.label is not None:
            known.fed = known.keys
            self.features.tell_label(known.keys, known.available, float(known.label), watermark, known.label_row)

    def _join(self, served: Served, label: Any, place: Place) -> None:
        assert self.labels is not None
        self.labels.join(served, label)
        self._sound(self.panel.join(served, label), place)

    def _time_out(self, watermark: int, place: Place) -> None:
        """Predictions whose deadline the watermark has reached: a class stands for no label, or it is lost."""
        if self.labels is None:
            return
        for served in self.labels.due(watermark):
            stands_for_none = self.labels.spec.timeout_class
            if stands_for_none is None:
                self.panel.give_up(served)
            else:
                self._sound(self.panel.join(served, stands_for_none), place)

    def _sound(self, alarms: list[Alarm], place: Place) -> None:
        self._alarms += len(alarms)
        self._out += [self._records.alarm(alarm, place) for alarm in alarms]

    def _refuse(self, rejects: list[Reject]) -> None:
        self._out += [dead_letter(reject) for reject in sorted(rejects, key=lambda reject: reject.offset)]

    def _weights(self, events: Events) -> list[float]:
        weight = self.definition.weight
        n = int(events.scored.sum())
        if not isinstance(weight, Expr):
            return [1.0] * n
        column = self._evaluate(weight, fields(events.columns), len(events)).take(events.scored)
        return [float(value) if value is not None and value > 0 else 0.0 for value in column.tolist()]

    def _check_order(self, batch: Batch) -> None:
        if len(batch) == 0:
            return
        first = int(batch.offsets[0])
        if first < self._next.get(batch.log, 0):
            raise OrderError(
                f"{batch.log.topic}/{batch.log.partition}: offset {first} after {self._next[batch.log] - 1}; "
                "a log is read once, in offset order"
            )
        self._next[batch.log] = int(batch.offsets[-1]) + 1

    # State

    def snapshot(self) -> bytes:
        """All state as bytes: arrays by name, with magic, version and checksum."""
        place = [[log.topic, log.partition, offset] for log, offset in self._next.items()]
        numbers = [self._row, self._told_rows, self._numbered, self._first_time, self._alarms]
        state: dict[str, Any] = {"shard": pack_json([self.definition.fingerprint, numbers, dict(self.counts), place])}
        for name, part in self._parts().items():
            state |= {f"{name}:{key}": item for key, item in part.state().items()}
        return pack(state)

    def restore(self, data: bytes) -> None:
        """Continues from :meth:`snapshot`.

        Raises:
            SnapshotError: the bytes are damaged, or another definition wrote them.
        """
        state = unpack(data)
        fingerprint, numbers, counts, place = unpack_json(bytes(state["shard"]))
        if fingerprint != self.definition.fingerprint:
            raise SnapshotError(
                f"the state was written by definition {fingerprint}, this one is {self.definition.fingerprint}; "
                "start with an empty state folder, or go back to the definition that wrote it"
            )
        self._row, self._told_rows, self._numbered, self._first_time, self._alarms = numbers
        self.counts = Counter(counts)
        self._next = {Log(topic, partition): offset for topic, partition, offset in place}
        for name, part in self._parts().items():
            prefix = f"{name}:"
            part.restore({key[len(prefix) :]: item for key, item in state.items() if key.startswith(prefix)})

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"gate": self._gate, "features": self.features, "panel": self.panel}
        return parts if self.labels is None else {**parts, "labels": self.labels}


def _reject(batch: Batch, i: int, reason: str, detail: str) -> Reject:
    key = None if batch.keys is None else batch.keys[i]
    value = None if batch.values is None else batch.values[i]
    headers = None if batch.headers is None else batch.headers[i]
    return Reject(batch.log, int(batch.offsets[i]), reason, detail, key, value, headers)
