"""The first pass over what a shard reads: row by row, what becomes of each, before anything is computed.

Which label belongs to which prediction, what times out, and where a label enters the features depend
on rows, times and ids only, never on features or models. So the pass decides all of it in reading
order, and leaves a list of steps; features are then computed for all rows at once, and the steps
(predict, learn, give up, report) are carried out in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from thalweg.engine.batch import NO_TIME, Column, Reject
from thalweg.engine.features.evaluate import Evaluator, fields
from thalweg.engine.features.gate import FOLDED, LATE, OUTCOMES, Passed
from thalweg.engine.features.plan import Tell
from thalweg.engine.features.stream import LabelSpec
from thalweg.engine.kernels.windows import ENTER, REMOVE
from thalweg.engine.learning.labels import JOINED, TIMED_OUT, WAITING, Keys, Known, LabelJoin, Served
from thalweg.engine.learning.member import Label
from thalweg.engine.reading import Place, Reading, Selection
from thalweg.engine.snapshot import pack_json, unpack_json

PREDICT, LEARN, REVISE, GIVE_UP, REPORT = range(5)


class Step(NamedTuple):
    """One thing to do after the features are computed, caused by the row at ``place``.

    ``label`` is what is learned or counted, known since ``available``, ``counters`` what a metrics record (REPORT)
    shows.
    """

    kind: int
    place: Place
    served: Served
    label: Label | None = None
    available: int | None = None
    counters: dict[str, int] | None = None


@dataclass
class Decided:
    """What the pass found: steps in order, labels that enter features, and which rows reach them."""

    steps: list[Step] = field(default_factory=list)
    tells: list[Tell] = field(default_factory=list)
    entering: list[int] = field(default_factory=list)


Told = tuple[Hashable | None, Label | None, int | None]  # event id, label, available


@dataclass
class Rows:
    """Rows of the stream with what the gate said, as Python lists: the pass goes row by row."""

    selection: Selection
    outcomes: list[int]
    watermarks: list[int]
    asks: list[bool]
    times: list[int]
    event_ids: Sequence[Hashable | None]
    keys: Sequence[Keys]
    weights: Sequence[float]
    told: Sequence[Told | None]

    @classmethod
    def of(cls, selection: Selection, passed: Passed, time: str, **more: Any) -> Rows:
        times = selection.columns[time].values.tolist()
        return cls(selection, passed.outcomes.tolist(), passed.watermarks.tolist(), passed.asks.tolist(), times, **more)


class Decider:
    """Counts and join of one shard; :meth:`decide` takes one reading after the other."""

    def __init__(
        self,
        label: LabelSpec | None,
        *,
        answer_late: bool,
        metrics_every: int,
        future_us: int,
        pass_on: Sequence[str] = (),
    ) -> None:
        self.labels = None if label is None else LabelJoin(label)
        self.counts: Counter[str] = Counter()
        self.accepted = 0
        self.predicted = 0
        self.told = 0
        self._answer_late = answer_late
        self._metrics_every = metrics_every
        self._future_us = future_us
        self._pass_on = frozenset(pass_on)

    def counters(self) -> dict[str, int]:
        """Counts since the first row: each row of the stream has one outcome, each prediction one fate.

        ``predictions_censored`` are those of ``predictions_timed_out`` whose label says ``timeout="censored"``.
        """
        result = {name: self.counts[name] for name in ("read", "rejected", *OUTCOMES)}
        if self.labels is None:
            return result
        fates = ("joined", "timed_out", "censored", "evicted")
        result |= {f"predictions_{name}": self.labels.predictions[name] for name in fates}
        result["predictions_pending"] = self.labels.pending
        names = ("read", "joined", "duplicate", "corrected", "early", "unmatched", "rejected")
        return result | {f"labels_{name}": self.labels.labels[name] for name in names}

    def decide(
        self, reading: Reading, stream: str, events: Rows, labels: Selection | None, told: Sequence[Told], newest: int
    ) -> tuple[Decided, list[Reject]]:
        """Goes through a reading; ``newest`` is the watermark behind its last row. Also returns refused labels."""
        self._result, self._refused = Decided(), list[Reject]()
        self._events, self._places = events, events.selection.places(self._pass_on)
        self._after = [*events.watermarks[1:], newest] if events.watermarks else [newest]
        is_event = [batch.log.topic == stream for batch in reading.batches]
        label_places = [] if labels is None else labels.places()
        next_event = next_label = 0
        watermark = events.watermarks[0] if events.watermarks else newest
        for b, row in zip(reading.which.tolist(), reading.rows.tolist(), strict=True):
            if row < 0:
                self._reject(is_event[b])
            elif is_event[b]:
                self._read_event(next_event)
                watermark = self._after[next_event]
                next_event += 1
            else:
                assert labels is not None
                self._read_label(labels, next_label, told[next_label], watermark, label_places[next_label])
                next_label += 1
        return self._result, self._refused

    def _reject(self, is_event: bool) -> None:
        if is_event:
            self.counts["read"] += 1
            self.counts["rejected"] += 1
        elif self.labels is not None:
            self.labels.reject()

    # Rows of the stream

    def _read_event(self, i: int) -> None:
        events, place = self._events, self._places[i]
        outcome = events.outcomes[i]
        self.counts["read"] += 1
        self.counts[OUTCOMES[outcome]] += 1
        if outcome >= FOLDED:
            self._accept(i, place)
        elif outcome == LATE and self._answer_late and events.asks[i]:
            self._result.entering.append(i)
            self._step(PREDICT, place, self._serve(i, events.watermarks[i]))

    def _accept(self, i: int, place: Place) -> None:
        events = self._events
        told = events.told[i]
        self._time_out(events.watermarks[i], place)
        self._result.entering.append(i)
        served = self._serve(i, events.times[i]) if events.asks[i] else None
        if served is not None:
            self.predicted += 1
            self._step(PREDICT, place, served)
        event_id = events.event_ids[i]
        if self.labels is not None and event_id is not None and (served is not None or told is None):
            self._remember(self.labels, event_id, i, served, place)
        elif self.labels is not None and served is not None:
            self.labels.give_up(served)
            self._step(GIVE_UP, place, served)
        self.accepted += 1
        if told is not None:
            self._tell(told, events.watermarks[i], place)
        if served is not None and self.predicted % self._metrics_every == 0:
            self._step(REPORT, place, served, counters=self.counters())

    def _serve(self, i: int, time: int) -> Served:
        return Served(self.predicted, self.accepted, time, (), self._events.weights[i], [])

    def _remember(self, labels: LabelJoin, event_id: Hashable, i: int, served: Served | None, place: Place) -> None:
        """The accepted row waits for its label; a label that is known by now is joined at once."""
        events = self._events
        watermark = events.watermarks[i]
        known, was_early = labels.accept(event_id, self.accepted, events.times[i], events.keys[i], watermark)
        if was_early:
            self._feed(known, watermark)
        if served is None:
            return
        evicted = labels.serve(event_id, known, served)
        if evicted is not None:
            self._step(GIVE_UP, place, evicted)
        if known.label is not None:
            labels.join(served)
            self._step(LEARN, place, served, label=known.label, available=known.available)

    def _time_out(self, watermark: int, place: Place) -> None:
        """Predictions whose deadline the watermark has reached: a class stands for no label, or it is lost."""
        if self.labels is None:
            return
        stands_for_none = self.labels.spec.timeout_class
        for served in self.labels.due(watermark):
            self._step(GIVE_UP if stands_for_none is None else LEARN, place, served, label=stands_for_none)

    # Labels

    def _read_label(self, labels: Selection, i: int, told: Told, watermark: int, place: Place) -> None:
        assert self.labels is not None
        available = told[2]
        append = int(labels.append[i])
        if None in told:
            self._refuse(labels, i, "label", "the label's id, value or time is null")
        elif append != NO_TIME and available is not None and available > append + self._future_us:
            self._refuse(labels, i, "future", "the label's time is ahead of the time it was appended")
        else:
            self._tell(told, watermark, place)

    def _refuse(self, labels: Selection, i: int, reason: str, detail: str) -> None:
        assert self.labels is not None
        self.labels.reject()
        batch = labels.reading.batches[labels.batch[i]]
        self._refused.append(batch.refuse(int(labels.rows[i]), reason, detail))

    def _tell(self, told: Told, watermark: int, place: Place) -> None:
        assert self.labels is not None
        event_id, label, available = told
        if event_id is None or label is None or available is None:
            self.labels.reject()
            return
        self.told += 1
        outcome = self.labels.tell(event_id, label, available, self.told)
        known = outcome.known
        if known is None:
            return
        if outcome.before is not None and known.fed is not None:
            before = outcome.before
            self._enter(known.fed, before.available, 0.0, watermark, before.row, REMOVE)
        self._feed(known, watermark)
        for served in known.served:
            if served.status == WAITING:
                self.labels.join(served)
                self._step(LEARN, place, served, label=label, available=available)
            elif served.status in (JOINED, TIMED_OUT):
                self._step(REVISE, place, served, label=label, available=available)

    def _feed(self, known: Known, watermark: int) -> None:
        """The label enters the label-fed features under the keys of the event's latest row."""
        assert known.label is not None
        if known.keys:
            known.fed = known.keys
            value = float(known.label)
            self._enter(known.keys, known.available, value, watermark, known.label_row, ENTER)

    def _enter(self, keys: Keys, available: int, value: float, watermark: int, row: int, act: int) -> None:
        before = len(self._result.entering)
        self._result.tells.append(Tell(before, keys, available, value, watermark, row, act))

    def _step(self, kind: int, place: Place, served: Served, **more: Any) -> None:
        self._result.steps.append(Step(kind, place, served, **more))

    def state(self) -> dict[str, Any]:
        """Arrays and bytes by name; :meth:`restore` takes them back."""
        numbers = np.array([self.accepted, self.predicted, self.told])
        own = {"numbers": numbers, "rows": pack_json(dict(self.counts))}
        return own if self.labels is None else own | self.labels.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.accepted, self.predicted, self.told = (int(n) for n in state["numbers"])
        self.counts = Counter(unpack_json(bytes(state["rows"])))
        if self.labels is not None:
            self.labels.restore(state)


def told_by(spec: LabelSpec, evaluate: Evaluator, columns: dict[str, Column], n: int) -> list[Told]:
    """(event id, label, available) of n rows that are labels."""
    known = fields(columns)
    parts = [columns[spec.on], evaluate(spec.value, known, n), evaluate(spec.available, known, n)]
    return list(zip(*(part.tolist() for part in parts), strict=True))
