"""The label join: which prediction a label belongs to, and what becomes of predictions without one.

Rule 7 of the contract. Everything here is decided by the order in which a shard reads rows and by its
watermark, never by a clock. An id is remembered for two horizons: until the first its predictions
wait, until the second a label still counts as a correction.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from thalweg.engine.features.stream import LabelSpec
from thalweg.engine.learning.member import Label, Prediction
from thalweg.engine.snapshot import pack_json, unpack_json

Vector = tuple[float | str | None, ...]
Keys = tuple[Hashable | None, ...]
WAITING, JOINED, TIMED_OUT, EVICTED = range(4)
OUTCOMES = ("joined", "duplicate", "corrected", "early", "unmatched", "rejected")


@dataclass(slots=True)
class Served:
    """A prediction as it was served, for learning and measuring when its label comes."""

    number: int
    row_id: int
    time: int
    vector: Vector
    weight: float
    predictions: list[Prediction]
    status: int = WAITING
    counted: Label | None = None  # the label that metrics hold for it


@dataclass(slots=True)
class Known:
    """What is known of an event id: its latest accepted row, its predictions, its label."""

    expires: int
    time: int | None = None
    keys: Keys = ()
    served: list[Served] = field(default_factory=list)
    label: Label | None = None
    available: int = 0
    label_row: int = 0
    fed: Keys | None = None  # where the label counts in label-fed features


class Before(NamedTuple):
    """The label that a correction replaces: when it was known, and its row."""

    available: int
    row: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a label row did: ``kind`` is one of OUTCOMES; ``known`` is None where nothing follows from it."""

    kind: str
    known: Known | None = None
    before: Before | None = None


class LabelJoin:
    """Predictions that wait, labels that came early, and their counts, of one shard."""

    def __init__(self, spec: LabelSpec) -> None:
        self.spec = spec
        self.labels: Counter[str] = Counter()
        self.predictions: Counter[str] = Counter()
        self._known: dict[Any, Known] = {}
        self._waiting: OrderedDict[int, tuple[Any, Served]] = OrderedDict()
        self._deadlines: list[tuple[int, int, Any]] = []  # (deadline, row, event id) of waiting predictions
        self._expiries: list[tuple[int, int, Any]] = []

    @property
    def pending(self) -> int:
        """How many predictions wait for their label."""
        return len(self._waiting)

    def accept(self, event_id: Any, row_id: int, time: int, keys: Keys, watermark: int) -> tuple[Known, bool]:
        """An accepted row of the event: the latest one decides where its label counts.

        Predictions of the same id that are two horizons behind the watermark are forgotten. Returns what is
        known of the event, and whether its label had come before.
        """
        known = self._known.get(event_id)
        expires = time + 2 * self.spec.horizon_us
        if known is None:
            known = self._known[event_id] = Known(expires)
        if known.served:
            oldest = watermark - 2 * self.spec.horizon_us
            known.served = [served for served in known.served if served.time > oldest]
        was_early = known.time is None and known.label is not None
        if was_early:
            self.labels["early"] -= 1
            self.labels["joined"] += 1
        known.time, known.keys = time, keys
        known.expires = max(known.expires, expires)
        heapq.heappush(self._expiries, (known.expires, row_id, event_id))
        return known, was_early

    def serve(self, event_id: Any, known: Known, served: Served) -> Served | None:
        """A prediction was made; returns the oldest waiting one if it had to give way.

        One whose label is known does not wait: :meth:`join` it at once.
        """
        self.predictions["made"] += 1
        known.served.append(served)
        if known.label is not None:
            return None
        self._waiting[served.number] = (event_id, served)
        heapq.heappush(self._deadlines, (served.time + self.spec.horizon_us, served.row_id, event_id))
        if len(self._waiting) <= self.spec.pending:
            return None
        _, (_, oldest) = self._waiting.popitem(last=False)
        self._close(oldest, EVICTED, "evicted")
        return oldest

    def give_up(self, served: Served) -> None:
        """A prediction was made for a row without an id: no label can ever be told for it."""
        self.predictions["made"] += 1
        self._close(served, EVICTED, "evicted")

    def join(self, served: Served) -> None:
        """The prediction has its label."""
        self._waiting.pop(served.number, None)
        self._close(served, JOINED, "joined")

    def tell(self, event_id: Any, label: Label, available: int, row_id: int) -> Outcome:
        """A label row was read."""
        self.labels["read"] += 1
        known = self._known.get(event_id)
        if known is None:
            expires = available + self.spec.horizon_us
            known = self._known[event_id] = Known(expires, label=label, available=available, label_row=row_id)
            heapq.heappush(self._expiries, (expires, row_id, event_id))
            return self._count("early", None)
        if known.label is None:
            known.label, known.available, known.label_row = label, available, row_id
            after_timeout = any(s.status == TIMED_OUT for s in known.served)
            return self._count("corrected" if after_timeout else "joined", known)
        if known.label == label:
            return self._count("duplicate", None)
        before = Before(known.available, known.label_row)
        known.label, known.available, known.label_row = label, available, row_id
        return Outcome(self._count("corrected", None).kind, None if known.time is None else known, before)

    def reject(self) -> None:
        """A label row was refused before it could be told."""
        self.labels["read"] += 1
        self.labels["rejected"] += 1

    def due(self, watermark: int) -> Iterator[Served]:
        """Predictions whose deadline the watermark has reached, in (deadline, row) order; forgets old ids."""
        while self._deadlines and self._deadlines[0][0] <= watermark:
            _, row_id, event_id = heapq.heappop(self._deadlines)
            for served in self._of(event_id, row_id):
                if served.status == WAITING:
                    self._waiting.pop(served.number)
                    self._close(served, TIMED_OUT, "timed_out")
                    self.predictions["censored"] += self.spec.timeout == "censored"
                    yield served
        self._expire(watermark)

    def _expire(self, watermark: int) -> None:
        while self._expiries and self._expiries[0][0] <= watermark:
            expires, _, event_id = heapq.heappop(self._expiries)
            known = self._known.get(event_id)
            if known is not None and known.expires <= expires:
                if known.time is None:
                    self.labels["early"] -= 1
                    self.labels["unmatched"] += 1
                del self._known[event_id]

    def _of(self, event_id: Any, row_id: int) -> list[Served]:
        known = self._known.get(event_id)
        return [] if known is None else [served for served in known.served if served.row_id == row_id]

    def _close(self, served: Served, status: int, count: str) -> None:
        served.status = status
        self.predictions[count] += 1

    def _count(self, kind: str, known: Known | None) -> Outcome:
        self.labels[kind] += 1
        return Outcome(kind, known)

    def state(self) -> dict[str, Any]:
        """Bytes by name; :meth:`restore` takes them back."""
        served = [
            [event_id, s.number, s.row_id, s.time, s.vector, s.weight, s.status, s.counted, _plain(s.predictions)]
            for event_id, known in self._known.items()
            for s in known.served
        ]
        known = [
            [event_id, k.expires, k.time, k.keys, k.label, k.available, k.label_row, k.fed]
            for event_id, k in self._known.items()
        ]
        return {
            "known": pack_json(known),
            "served": pack_json(served),
            "counts": pack_json([dict(self.labels), dict(self.predictions)]),
            "expiries": pack_json(self._expiries),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._known = {
            event_id: Known(expires, time, _keys(keys), [], label, available, row, None if fed is None else _keys(fed))
            for event_id, expires, time, keys, label, available, row, fed in unpack_json(bytes(state["known"]))
        }
        waiting: list[tuple[Any, Served]] = []
        for event_id, number, row_id, time, vector, weight, status, counted, predictions in unpack_json(
            bytes(state["served"])
        ):
            one = Served(number, row_id, time, tuple(vector), weight, _predictions(predictions), status, counted)
            self._known[event_id].served.append(one)
            if status == WAITING:
                waiting.append((event_id, one))
        waiting.sort(key=lambda item: item[1].number)
        self._waiting = OrderedDict((one.number, (event_id, one)) for event_id, one in waiting)
        self._deadlines = sorted((one.time + self.spec.horizon_us, one.row_id, event_id) for event_id, one in waiting)
        self._expiries = [tuple(item) for item in unpack_json(bytes(state["expiries"]))]
        labels, predictions = unpack_json(bytes(state["counts"]))
        self.labels, self.predictions = Counter(labels), Counter(predictions)


def _keys(keys: list[Any]) -> Keys:
    return tuple(tuple(key) if isinstance(key, list) else key for key in keys)


def _plain(predictions: list[Prediction]) -> list[list[Any]]:
    return [[list(p.score.items()) if isinstance(p.score, dict) else p.score, p.label, p.degraded] for p in predictions]


def _predictions(plain: list[list[Any]]) -> list[Prediction]:
    return [
        Prediction(dict(score) if isinstance(score, list) else score, label, degraded)
        for score, label, degraded in plain
    ]
