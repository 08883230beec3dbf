"""The first pass over what a shard reads: row by row, what becomes of each, before anything is computed.

Which label belongs to which prediction, what times out, and where a label enters the features depend
on rows, times and ids only, never on features or models. So the pass (:mod:`thalweg.engine.kernels.join`)
decides all of it in reading order, and leaves steps; features are then computed for all rows at once, and
the steps (predict, learn, give up, report) are carried out in order.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any, NamedTuple

import numpy as np

from thalweg.engine.batch import NO_TIME, Column
from thalweg.engine.features.evaluate import Evaluator, fields
from thalweg.engine.features.gate import OUTCOMES, Passed
from thalweg.engine.features.plan import Tells
from thalweg.engine.features.stream import LabelSpec
from thalweg.engine.kernels import join as kernel
from thalweg.engine.kernels.arrays import Bool, Float64, Int8, Int64
from thalweg.engine.kernels.join import Events, Join, JoinRules, Labels
from thalweg.engine.kernels.windows import REMOVE
from thalweg.engine.learning.labels import Words
from thalweg.engine.learning.member import LabelType
from thalweg.engine.slots import NONE, Slots
from thalweg.engine.snapshot import pack_json, unpack_json

Keys = Sequence[Hashable | None]

_FATES = ("made", "joined", "timed_out", "censored", "evicted")
_LABELS = ("read", "joined", "duplicate", "corrected", "early", "unmatched", "rejected")
_FEW = 1024


class Told(NamedTuple):
    """n rows that are labels: the event's slot, the label's word, when it became known, int64[n]; ``whole`` bool[n]
    where none of these is null."""

    ids: Int64
    words: Int64
    available: Int64
    whole: Bool


@dataclass(frozen=True, slots=True)
class Steps:
    """k things to do once the features are computed, in order.

    ``kinds`` int8[k]; the rest int64[k]: the ``messages`` of the reading that caused them, the ``entries`` of the
    served predictions (-1 = not kept) and their ``numbers``, the labels' ``words``, known ``since``, the label that
    metrics hold ``before`` (where ``has_before``), and the ``rows`` of the stream that are predicted or reported.
    """

    kinds: Int8
    messages: Int64
    entries: Int64
    numbers: Int64
    words: Int64
    since: Int64
    has_before: Bool
    before: Int64
    rows: Int64

    def __len__(self) -> int:
        return len(self.kinds)

    def part(self, which: slice | Bool | Int64) -> Steps:
        """Some of them."""
        return Steps(*(getattr(self, field.name)[which] for field in fields_of(self)))


class Decided(NamedTuple):
    """What the pass found: the steps, the labels that enter features, which rows reach them (int64[e]), and the
    counters at each report."""

    steps: Steps
    tells: Tells
    entering: Int64
    reports: list[dict[str, int]]


class Decider:
    """Counts and join of one shard; :meth:`decide` takes one reading after the other."""

    def __init__(self, label: LabelSpec | None, *, answer_late: bool, metrics_every: int, keyed: bool) -> None:
        self.words = None if label is None else Words(_type(label))
        self._ids = Slots()
        self._keys: dict[int, Keys] = {}
        self._sweep_at = _FEW
        self._rules = _rules(label, self.words, answer_late, metrics_every, keyed)
        self._join = Join(
            np.zeros((0, kernel.ID_WIDTH), dtype=np.int64),
            np.zeros((0, kernel.SERVED_WIDTH), dtype=np.int64),
            np.zeros((0, 3), dtype=np.int64),
            np.zeros((0, 3), dtype=np.int64),
            np.zeros(0, dtype=np.int64),
            np.zeros(kernel.NUMBERS, dtype=np.int64),
            np.zeros(kernel.COUNTS_WIDTH, dtype=np.int64),
        )
        self._join.numbers[[kernel.OLDEST, kernel.NEWEST]] = NONE
        self._join.numbers[kernel.PASSED] = NO_TIME

    @property
    def accepted(self) -> int:
        """How many rows were folded or scored so far."""
        return int(self._join.numbers[kernel.ACCEPTED])

    @property
    def entries(self) -> int:
        """How many places there are for served predictions."""
        return len(self._join.served)

    def counters(self) -> dict[str, int]:
        """Counts since the first row: each row of the stream has one outcome, each prediction one fate.

        ``predictions_censored`` are those of ``predictions_timed_out`` whose label says ``timeout="censored"``.
        """
        return self._named(self._join.counts, int(self._join.numbers[kernel.PENDING]))

    def place(self, ids: Column) -> Int64:
        """The slots of event ids, int64[n], -1 where null."""
        return self._ids.place(ids.tolist())

    def decide(
        self,
        sources: Int8,
        times: Int64,
        passed: Passed,
        *,
        told: Told,
        tells: Bool,
        labels: Told,
        newest: int,
        keys: Sequence[Keys],
    ) -> Decided:
        """Goes through a reading.

        Args:
            sources: int8[m], what each message is (``EVENT``, ``EVENT_REJECT``, ``LABEL``, ``LABEL_REJECT``).
            times, passed: of the n rows of the stream, in order.
            told, tells: those rows with the slots of their ids, as labels, and which of them are (bool[n]).
            labels: the rows of the label's own log; those that are not ``whole`` are refused.
            newest: the watermark behind the last row.
            keys: of each row of the stream, in every label-fed group.
        """
        self._make_room(len(sources), int(passed.asks.sum()))
        events = Events(passed.outcomes, passed.watermarks, passed.asks, times, told.ids, tells, *told[1:])
        if self._rules.keyed:
            first = self.accepted
            accepted = np.flatnonzero(passed.accepted).tolist()
            self._keys.update(zip(range(first, first + len(accepted)), (keys[i] for i in accepted), strict=True))
        out = self._run(sources, events, Labels(*labels), newest)
        decided = self._decided(out)
        self._release_ids(np.concatenate([told.ids, labels.ids]))
        if self._ids.taken > self._sweep_at:
            self._sweep()
        return decided

    def _run(self, sources: Int8, events: Events, labels: Labels, newest: int) -> kernel.Decided:
        m = len(sources)
        reports = (int(self._join.numbers[kernel.PREDICTED]) % self._rules.every + m) // self._rules.every + 1
        out = kernel.Decided(
            np.empty((4 * m + 64, kernel.STEP_WIDTH), dtype=np.int64),
            np.empty((kernel.MOST_TELLS * m, kernel.TELL_WIDTH), dtype=np.int64),
            np.empty(kernel.MOST_RELEASED * m, dtype=np.int64),
            np.empty(len(events.times), dtype=np.int64),
            np.empty((reports, kernel.COUNTS_WIDTH + 1), dtype=np.int64),
            np.zeros(kernel.USED, dtype=np.int64),
        )
        at = kernel.decide(0, sources, events, labels, newest, self._rules, self._join, out)
        while at < m:
            more = max(len(out.steps), int(self._join.numbers[kernel.PENDING]) + len(self._join.served))
            out = out._replace(steps=_grown(out.steps, more))
            at = kernel.decide(at, sources, events, labels, newest, self._rules, self._join, out)
        return out

    def _decided(self, out: kernel.Decided) -> Decided:
        used = out.used
        steps = out.steps[: used[kernel.STEPS]]
        columns = np.ascontiguousarray(steps.T)
        tells = self._tells(np.ascontiguousarray(out.tells[: used[kernel.TELLS]].T))
        for row in out.released[: used[kernel.RELEASED]].tolist():
            del self._keys[row]
        return Decided(
            Steps(
                columns[kernel.KIND].astype(np.int8),
                columns[kernel.MESSAGE],
                columns[kernel.ENTRY],
                columns[kernel.PREDICTION],
                columns[kernel.LABEL_WORD],
                columns[kernel.SINCE],
                columns[kernel.HAS_BEFORE] != 0,
                columns[kernel.BEFORE],
                columns[kernel.AT],
            ),
            tells,
            out.entering[: used[kernel.ENTERING]],
            [self._named(row[:-1], int(row[-1])) for row in out.reports[: used[kernel.REPORTS]]],
        )

    def _tells(self, columns: Int64) -> Tells:
        words = columns[kernel.TELL_WORD]
        values: Float64 = np.zeros(0) if self.words is None else self.words.numbers(words)
        return Tells(
            columns[kernel.TELL_BEFORE],
            [self._keys[row] for row in columns[kernel.TELL_KEYS].tolist()],
            columns[kernel.TELL_TIME],
            np.where(columns[kernel.TELL_ACT] == REMOVE, 0.0, values),
            columns[kernel.TELL_WATERMARK],
            columns[kernel.TELL_ROW],
            columns[kernel.TELL_ACT],
        )

    def _make_room(self, messages: int, asks: int) -> None:
        """Before a reading: what was freed may be used again, and every array is large enough."""
        join, numbers = self._join, self._join.numbers
        freed = int(numbers[kernel.FREED])
        free = int(numbers[kernel.FREE])
        if freed:
            join.free[free : free + freed] = join.free[len(join.free) - freed :].copy()
            numbers[kernel.FREE], numbers[kernel.FREED] = free + freed, 0
        if numbers[kernel.DEADLINES] > 2 * numbers[kernel.PENDING] + _FEW:
            kernel.tidy(join)
        new = len(self._ids) - len(join.ids)
        if new > 0:
            self._join = join = join._replace(ids=_grown(join.ids, max(new, len(join.ids))))
        for name, size in (("deadlines", kernel.DEADLINES), ("early", kernel.EARLY)):
            heap = getattr(join, name)
            missing = int(numbers[size]) + messages - len(heap)
            if missing > 0:
                self._join = join = join._replace(**{name: _grown(heap, max(missing, len(heap)))})
        if self._rules.labels and numbers[kernel.FREE] < asks:
            self._more_entries(max(asks, self.entries))

    def _more_entries(self, more: int) -> None:
        join, numbers = self._join, self._join.numbers
        held, free = self.entries, int(numbers[kernel.FREE])
        grown = _grown(join.free, more)
        grown[free : free + more] = np.arange(held + more - 1, held - 1, -1)
        numbers[kernel.FREE] += more
        self._join = join._replace(served=_grown(join.served, more), free=grown)

    def _sweep(self) -> None:
        released = np.empty(2 * len(self._join.ids), dtype=np.int64)
        for row in released[: kernel.sweep(self._join, released)].tolist():
            del self._keys[row]
        self._ids.release(np.flatnonzero(self._join.ids[: len(self._ids), kernel.ALIVE] == 0))
        self._sweep_at = max(_FEW, 2 * self._ids.taken)

    def _release_ids(self, slots: Int64) -> None:
        """Of this reading, those of which nothing is known after all."""
        slots = slots[slots != NONE]
        dead = slots[self._join.ids[slots, kernel.ALIVE] == 0]
        if len(dead):
            self._ids.release(np.unique(dead))

    def _named(self, counts: Int64, pending: int) -> dict[str, int]:
        values = counts.tolist()
        names = ["read", "rejected", *OUTCOMES]
        result = dict(zip(names, values, strict=False))
        if self._rules.labels:
            fates = {f"predictions_{name}": values[kernel.MADE_ + k] for k, name in enumerate(_FATES) if k}
            result |= fates | {"predictions_pending": pending}
            result |= {f"labels_{name}": values[kernel.L_READ + k] for k, name in enumerate(_LABELS)}
        return result

    def state(self) -> dict[str, Any]:
        """Arrays and bytes by name; :meth:`restore` takes them back."""
        join = self._join
        arrays = {f"join.{name}": array for name, array in join._asdict().items()}
        arrays["join.ids"] = join.ids[: len(self._ids)]
        arrays["join.deadlines"] = join.deadlines[: join.numbers[kernel.DEADLINES]]
        arrays["join.early"] = join.early[: join.numbers[kernel.EARLY]]
        texts = None if self.words is None else self.words.to_json()
        rest = {
            "ids": self._ids.to_json(),
            "texts": texts,
            "sweep_at": self._sweep_at,
            "keys": list(self._keys.items()),
        }
        return {**arrays, "join": pack_json(rest)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._join = Join(*(np.array(state[f"join.{name}"]) for name in Join._fields))
        rest = unpack_json(bytes(state["join"]))
        self._ids.from_json(rest["ids"])
        self._sweep_at = rest["sweep_at"]
        self._keys = {row: tuple(_key(key) for key in keys) for row, keys in rest["keys"]}
        if self.words is not None:
            self.words.from_json(rest["texts"])


def told_by(spec: LabelSpec, words: Words, evaluate: Evaluator, columns: Mapping[str, Column], ids: Int64) -> Told:
    """n rows of ``columns`` as labels; ``ids`` int64[n] are the slots of their event ids."""
    known = fields(columns)
    value, available = evaluate(spec.value, known, len(ids)), evaluate(spec.available, known, len(ids))
    whole = (ids != NONE) & value.valid & available.valid
    return Told(ids, words.encode(value), available.values, whole)


def nothing_told(ids: Int64) -> Told:
    """n rows that are no labels, with the slots of their event ids."""
    return Told(ids, ids, ids, np.zeros(len(ids), dtype=np.bool_))


def _rules(label: LabelSpec | None, words: Words | None, answer_late: bool, every: int, keyed: bool) -> JoinRules:
    if label is None or words is None:
        return JoinRules(0, 0, 1, 0, 0, int(answer_late), every, 0)
    timeout = {"drop": 0, "censored": 1, "class": 2}[label.timeout]
    word = 0 if label.timeout_class is None else words.word(label.timeout_class)
    return JoinRules(1, label.horizon_us, label.pending, timeout, word, int(answer_late), every, int(keyed))


def _type(label: LabelSpec) -> LabelType:
    return label.value_type  # type: ignore[return-value]


def _grown(array: Int64, more: int) -> Int64:
    return np.concatenate([array, np.zeros((more, *array.shape[1:]), dtype=np.int64)])


def _key(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key
