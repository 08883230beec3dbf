"""The rows that leave a shard: their fields and their ids (rule 10 of the contract).

No clock, host or attempt is in a row. The key and the partition are the source's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from thalweg.engine.batch import NO_TIME, Column, Headers, Log, Reject, Row
from thalweg.engine.definition import Definition
from thalweg.engine.drift.detectors import Alarm
from thalweg.engine.features.plan import Vectors
from thalweg.engine.kernels.arrays import Bool, Int64
from thalweg.engine.learning.member import Task
from thalweg.engine.learning.panel import Panel
from thalweg.engine.learning.work import Answers
from thalweg.engine.reading import Place, Selection
from thalweg.engine.table import Constant, Flag, Hex, Numbered, Table, Times, Values, dicts, iso_times, texts


def row_id(kind: str, place: Place, name: str = "", version: str = "") -> str:
    """(kind, topic, partition, offset, name, version) as text."""
    offset = str(place.offset) if place.row is None else f"{place.offset}.{place.row}"
    parts = [kind, place.log.topic, str(place.log.partition), offset, name, version]
    return "/".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one kind that leave for one partition, by column; ``keys`` and ``headers`` are those of their sources,
    ``order`` int64[n] their places among all that left for any partition."""

    kind: str
    partition: int
    keys: Sequence[bytes | None]
    table: Table
    order: Int64
    headers: Sequence[Headers] | None = None

    def __len__(self) -> int:
        return len(self.table)

    def ids(self) -> list[str]:
        """The id of each row."""
        return [row["id"] for row in dicts(Table(len(self), {"id": self.table.fields["id"]}))]

    def rows(self) -> list[Row]:
        """One by one, with the value as it is read back from the topic."""
        headers = [[]] * len(self) if self.headers is None else self.headers
        rows = zip(self.keys, dicts(self.table), headers, strict=True)
        return [Row(self.kind, self.partition, key, value, sent) for key, value, sent in rows]


@dataclass(frozen=True, slots=True)
class Left:
    """What left a shard: predictions by column, the rest row by row. Walking over it gives rows, of each kind in the
    order in which they left."""

    predictions: Sequence[Block]
    rows: Sequence[Row]

    def __iter__(self) -> Iterator[Row]:
        predictions = [row for block in self.predictions for row in block.rows()]
        if len(self.predictions) > 1:
            order = np.argsort(np.concatenate([block.order for block in self.predictions]))
            predictions = [predictions[i] for i in order.tolist()]
        yield from predictions
        yield from self.rows

    def __len__(self) -> int:
        return sum(map(len, self.predictions)) + len(self.rows)


@dataclass(frozen=True, slots=True)
class Asked:
    """p rows of the stream that asked for a prediction: where they stand, as of which ``times`` int64[p] they were
    answered, and which were ``accepted`` bool[p] (the others were late)."""

    selection: Selection
    times: Int64
    accepted: Bool

    def part(self, rows: Int64) -> Asked:
        """Some of them, in that order."""
        return Asked(self.selection.take(rows), self.times[rows], self.accepted[rows])


class Records:
    """Builds the rows that leave one shard."""

    def __init__(self, definition: Definition, panel: Panel) -> None:
        self._definition = definition
        self._panel = panel
        self._names = [(member.name, member.version) for member in panel.members]
        windows = [a.window.length for a in definition.features.aggregates if a.window.kind == "sliding"]
        self._longest_us = max(windows, default=0)
        self._alarmed: tuple[Place | None, Counter[tuple[str, str]]] = None, Counter()

    def predictions(self, asked: Asked, vectors: Vectors, answers: Sequence[Answers], first_time: int) -> list[Block]:
        """What was predicted for these rows, by the log that they stand in; ``first_time`` of the shard's rows."""
        blocks = []
        for log, rows in asked.selection.by_log().items():
            own = asked.part(rows)
            table = self._table(log, own, vectors.take(rows), [a.take(rows) for a in answers], first_time)
            headers = own.selection.headers(self._definition.headers)
            blocks.append(Block("predictions", log.partition, own.selection.keys(), table, rows, headers))
        return blocks

    def _table(self, log: Log, asked: Asked, vectors: Vectors, answers: Sequence[Answers], first_time: int) -> Table:
        definition, own = self._definition, asked.selection
        stream, columns = definition.stream, asked.selection.columns
        name, version = self._names[0] if self._names else (definition.features.name, definition.features.fingerprint)
        offsets, rows = own.offsets()
        prefix = f"{log.topic}/{log.partition}/"
        warm = NO_TIME if first_time == NO_TIME else first_time + self._longest_us
        fields: dict[str, Values] = {
            "id": Numbered(f"predictions/{prefix}", offsets, f"/{name}/{version}", rows),
            "event_id": self._event_ids(columns, Numbered(f"event/{prefix}", offsets, "", rows)),
            "key": columns[stream.key].tolist(),
            "time": Times(columns[stream.time].values),
        }
        if self._names:
            fields |= self._scores(answers)
        fields |= {
            "features": Constant(definition.features.fingerprint),
            "vector_hash": Hex(vectors.hashes()),
            "cold": (asked.times < warm) | (first_time == NO_TIME),
            "late": Flag(~asked.accepted),
        }
        if definition.carry:
            carried = {name: _values(columns[name], stream.schema[name].type) for name in definition.carry}
            fields["carry"] = Table(len(own), carried)
        if definition.vector:
            fields["vector"] = Table(len(own), vectors.columns())
        return Table(len(own), fields)

    def _event_ids(self, columns: Mapping[str, Column], own: Numbered) -> Values:
        """The event's own id, else its place."""
        label = self._definition.label
        if label is None:
            return own
        ids = columns[label.on]
        if ids.valid.all():
            return ids.tolist()
        data, ends = texts(own)
        starts = [0, *ends.tolist()]
        places = [data[a:b].decode() for a, b in pairwise(starts)]
        return [place if one is None else one for one, place in zip(ids.tolist(), places, strict=True)]

    def _scores(self, answers: Sequence[Answers]) -> dict[str, Values]:
        name, version = self._names[0]
        first, task = answers[0], self._panel.members[0].task
        result: dict[str, Values] = {"score": _score(first), "decision": _decision(first, task)}
        if self._definition.threshold is not None:
            result["threshold"] = Constant(self._definition.threshold)
        result |= {"model": Constant(name), "version": Constant(version), "learned": first.learned}
        result["degraded"] = Flag(first.degraded)
        if len(answers) > 1:
            others = zip(self._names[1:], answers[1:], strict=True)
            result["others"] = Table(len(first.scores), {other: _score(said) for (other, _), said in others})
        return result

    def metrics(self, place: Place, time: int, predictions: int, counters: Mapping[str, int]) -> list[Row]:
        """One row a model, at the prediction that completed another ``metrics_every``."""
        common = {"time": iso_times(np.array([time]))[0], "predictions": predictions}
        rows = []
        for (name, version), summary in zip(self._names, self._panel.summaries(), strict=True):
            value = {"id": row_id("metrics", place, name, version), **common, **summary}
            value["counters"] = {**counters, "alarms": self._panel.alarms}
            rows.append(Row("metrics", place.log.partition, place.key, value))
        return rows

    def alarm(self, alarm: Alarm, place: Place) -> Row:
        """A detector found a change at the row that stands at ``place``.

        One row can make a detector alarm several times (its label answers several predictions); the second
        alarm is called ``ADWIN 2`` in its id.
        """
        if self._alarmed[0] != place:
            self._alarmed = place, Counter()
        self._alarmed[1][alarm.detector, alarm.version] += 1
        nth = self._alarmed[1][alarm.detector, alarm.version]
        name = alarm.detector if nth == 1 else f"{alarm.detector} {nth}"
        cause = {"topic": place.log.topic, "partition": place.log.partition, "offset": place.offset}
        value = {
            "id": row_id("alarms", place, name, alarm.version),
            "cause": cause,
            "model": self._names[0][0],
            "version": self._names[0][1],
            "detector": alarm.detector,
            "detector_version": alarm.version,
            "signal": "error",
            "error": alarm.error,
            "statistics": alarm.statistics,
        }
        return Row("alarms", place.log.partition, place.key, value)


def dead_letter(reject: Reject) -> Row:
    """The refused message with its bytes, key and headers; why it was refused stands in headers."""
    place = Place(reject.log, reject.offset, reject.key, reject.row)
    headers: Headers = list(reject.headers or [])
    headers += [
        ("thalweg.id", row_id("dlq", place).encode()),
        ("thalweg.reason", reject.reason.encode()),
        ("thalweg.detail", reject.detail.encode(errors="replace")),
        ("thalweg.topic", reject.log.topic.encode()),
        ("thalweg.partition", str(reject.log.partition).encode()),
        ("thalweg.offset", str(reject.offset).encode()),
    ]
    return Row("dlq", reject.log.partition, reject.key, reject.value, headers)


def _score(answers: Answers) -> Values:
    if answers.predictions is None:
        return answers.scores
    scores = [prediction.score for prediction in answers.predictions.tolist()]
    return [{str(c): p for c, p in score.items()} if isinstance(score, dict) else score for score in scores]


def _decision(answers: Answers, task: Task) -> Values:
    if answers.predictions is not None:
        return [prediction.label for prediction in answers.predictions.tolist()]
    if task == "regression":
        return Constant(None)
    if (answers.decided >= 0).all():
        return answers.decided > 0
    return [None if label < 0 else bool(label) for label in answers.decided.tolist()]


def _values(column: Column, kind: str) -> Values:
    """A column as it stands in a record."""
    if kind == "timestamp":
        return Times(column.values, column.valid)
    return column.values if kind == "f64" or (kind != "str" and column.valid.all()) else column.tolist()
