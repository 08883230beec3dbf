"""The rows that leave a shard: their fields and their ids (rule 10 of the contract).

No clock, host or attempt is in a row. The key and the partition are the source's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from thalweg.engine.batch import NO_TIME, Column, Headers, Reject, Row
from thalweg.engine.definition import Definition
from thalweg.engine.drift.detectors import Alarm
from thalweg.engine.features.plan import vector_hash
from thalweg.engine.kernels.arrays import Bool, Int64
from thalweg.engine.learning.labels import Served
from thalweg.engine.learning.panel import Panel
from thalweg.engine.reading import Place


def row_id(kind: str, place: Place, name: str = "", version: str = "") -> str:
    """(kind, topic, partition, offset, name, version) as text."""
    offset = str(place.offset) if place.row is None else f"{place.offset}.{place.row}"
    parts = [kind, place.log.topic, str(place.log.partition), offset, name, version]
    return "/".join(part for part in parts if part)


def iso_times(times: Int64) -> list[str]:
    """ISO 8601 text with Z of int64[n] microseconds."""
    return [f"{text}Z" for text in np.datetime_as_string(times.astype("M8[us]"), unit="us").tolist()]


class Records:
    """Builds the rows of one shard; :meth:`begin` takes the rows whose predictions come next."""

    def __init__(self, definition: Definition, panel: Panel) -> None:
        self._definition = definition
        self._panel = panel
        self._names = [(member.name, member.version) for member in panel.members]
        windows = [a.window.length for a in definition.features.aggregates if a.window.kind == "sliding"]
        self._longest_us = max(windows, default=0)
        self._alarmed: tuple[Place | None, Counter[tuple[str, str]]] = None, Counter()

    def begin(self, columns: dict[str, Column], times: Int64, accepted: Bool, first_time: int) -> None:
        """The rows that ask for a prediction next; ``times`` int64[n] as of which they are answered."""
        stream, label = self._definition.stream, self._definition.label
        warm = NO_TIME if first_time == NO_TIME else first_time + self._longest_us
        self._at = -1
        self._accepted = accepted.tolist()
        self._event_ids = [None] * len(times) if label is None else columns[label.on].tolist()
        self._keys = columns[stream.key].tolist()
        self._times = iso_times(columns[stream.time].values)
        self._cold = ((times < warm) | (first_time == NO_TIME)).tolist()
        self._carry = {name: _plain(columns[name], stream.schema[name].type) for name in self._definition.carry}

    @property
    def accepted(self) -> bool:
        """Whether the next row is an accepted one, not a late one that wants an answer."""
        return bool(self._accepted[self._at + 1])

    def prediction(self, place: Place, served: Served) -> Row:
        """The next row has been predicted."""
        self._at += 1
        i, definition = self._at, self._definition
        name, version = self._names[0] if self._names else (definition.features.name, definition.features.fingerprint)
        value: dict[str, Any] = {
            "id": row_id("predictions", place, name, version),
            "event_id": row_id("event", place) if self._event_ids[i] is None else self._event_ids[i],
            "key": self._keys[i],
            "time": self._times[i],
        }
        if self._names:
            value |= self._scores(served)
        value |= {"features": definition.features.fingerprint, "vector_hash": vector_hash(served.vector)}
        value |= {"cold": self._cold[i]}
        if not self._accepted[i]:
            value["late"] = True
        if definition.carry:
            value["carry"] = {name: column[i] for name, column in self._carry.items()}
        if definition.vector:
            value["vector"] = dict(zip(definition.features.names, served.vector, strict=True))
        return Row("predictions", place.log.partition, place.key, value, place.headers or [])

    def _scores(self, served: Served) -> dict[str, Any]:
        name, version = self._names[0]
        first = served.predictions[0]
        result: dict[str, Any] = {"score": _score(first.score), "decision": first.label}
        if self._definition.threshold is not None:
            result["threshold"] = self._definition.threshold
        result |= {"model": name, "version": version, "learned": self._panel.members[0].learned}
        if first.degraded:
            result["degraded"] = True
        if len(served.predictions) > 1:
            others = zip(self._names[1:], served.predictions[1:], strict=True)
            result["others"] = {other: _score(p.score) for (other, _), p in others}
        return result

    def metrics(self, place: Place, served: Served, counters: Mapping[str, int]) -> list[Row]:
        """One row a model, at the prediction that completed another ``metrics_every``."""
        time = iso_times(np.array([served.time]))[0]
        common = {"time": time, "predictions": served.number + 1}
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


def _score(score: Any) -> Any:
    return {str(label): p for label, p in score.items()} if isinstance(score, dict) else score


def _plain(column: Column, kind: str) -> list[Any]:
    if kind != "timestamp":
        return column.tolist()
    texts = iso_times(np.where(column.valid, column.values, 0))
    return [text if ok else None for text, ok in zip(texts, column.valid.tolist(), strict=True)]
