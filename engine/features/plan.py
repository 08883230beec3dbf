"""A feature set compiled: groups of aggregates, the state they keep, and the vectors they give.

``Plan`` is the description, :meth:`Plan.open` the worker with state.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from thalweg.engine.batch import Column
from thalweg.engine.errors import DefinitionError
from thalweg.engine.features.evaluate import Evaluator, fields
from thalweg.engine.features.expressions import Agg
from thalweg.engine.features.featureset import FeatureSetSpec
from thalweg.engine.features.groups import Group, GroupState
from thalweg.engine.features.operators import as_number, number
from thalweg.engine.features.stream import LabelSpec
from thalweg.engine.kernels.arrays import Bool, Float64, Int8, Int64, UInt64
from thalweg.engine.kernels.text import placed, vector_hashes
from thalweg.engine.kernels.windows import ENTER, LEAVE, LOOK
from thalweg.engine.snapshot import below

Value = float | str | None
_NULL, _NUMBER, _TEXT = b"\x00", b"\x01", b"\x02"


@dataclass(frozen=True, slots=True)
class Vectors:
    """Feature vectors of n rows: ``numbers`` float64[n, features] in class order (NaN = null, and where it is text),
    ``texts`` object[n] by the position of the feature (None = null)."""

    names: Sequence[str]
    numbers: Float64
    texts: Mapping[int, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: Int64) -> Vectors:
        """Some of them, in that order."""
        return Vectors(self.names, self.numbers[rows], {at: texts[rows] for at, texts in self.texts.items()})

    def mixed(self, others: Vectors, own: Bool) -> Vectors:
        """These where ``own`` bool[n] is true, the others where not, each in order."""
        numbers = np.empty((len(own), len(self.names)))
        numbers[own], numbers[~own] = self.numbers, others.numbers
        texts = {at: np.full(len(own), None, dtype=object) for at in self.texts}
        for at, column in texts.items():
            column[own], column[~own] = self.texts[at], others.texts[at]
        return Vectors(self.names, numbers, texts)

    def columns(self) -> dict[str, Any]:
        """By feature: float64[n], or a list of text."""
        return {
            name: self.texts[at].tolist() if at in self.texts else np.ascontiguousarray(self.numbers[:, at])
            for at, name in enumerate(self.names)
        }

    def rows(self) -> list[list[Value]]:
        """Python values, ``None`` for null."""
        rows: list[list[Value]] = [[None if x != x else x for x in row] for row in self.numbers.tolist()]
        for at, texts in self.texts.items():
            for row, text in zip(rows, texts.tolist(), strict=True):
                row[at] = text
        return rows

    def hashes(self) -> UInt64:
        """The :func:`vector_hash` of each, uint64[n]."""
        is_text = np.array([at in self.texts for at in range(len(self.names))], dtype=np.int8)
        texts = placed([self.texts[at].tolist() for at in sorted(self.texts)])
        return vector_hashes(self.numbers, is_text, *texts)


@dataclass(frozen=True, slots=True)
class Entering:
    """n rows of the stream in reading order that reach the features.

    ``times`` int64[n] as of which they are answered, ``watermarks`` int64[n] that they met, ``ids`` int64[n] rising
    with log order; ``accepted`` bool[n] (the others, late rows that want an answer, only read); ``scored`` bool[n]
    ask for a vector.
    """

    columns: dict[str, Column]
    times: Int64
    watermarks: Int64
    ids: Int64
    accepted: Bool
    scored: Bool


class Tells(NamedTuple):
    """k labels that enter the label-fed groups (or, REMOVE, leave them), in order.

    ``before`` int64[k]: the number of the row that reaches the features next; ``keys``: of each label its key in every
    label-fed group; ``available`` int64[k] its time, ``values`` float64[k], ``watermarks``, ``ids``, ``acts`` int64[k].
    """

    before: Int64
    keys: Sequence[Sequence[Hashable | None]]
    available: Int64
    values: Float64
    watermarks: Int64
    ids: Int64
    acts: Int64


def vector_hash(vector: Sequence[Value]) -> str:
    """16 hexadecimal digits: XXH64 over a tag byte per feature (null, number, text), then little-endian
    float64, or length and UTF-8 (rule 10 of the contract).

    >>> vector_hash([1.0, None, "JFK"])
    'bff378a3592d2262'
    """
    return xxhash.xxh64_hexdigest(b"".join(map(_encoded, vector)))


def _encoded(value: Value) -> bytes:
    if value is None:
        return _NULL
    if isinstance(value, str):
        text = value.encode()
        return _TEXT + struct.pack("<I", len(text)) + text
    return _NUMBER + struct.pack("<d", value)


@dataclass(frozen=True)
class Plan:
    """What a shard computes for a feature set, whose label-fed features are fed by ``label``."""

    spec: FeatureSetSpec
    label: LabelSpec | None
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, spec: FeatureSetSpec, label: LabelSpec | None = None) -> Plan:
        """Compiles a feature set.

        Raises:
            DefinitionError: a target encoding is fed by another label than ``label``, or by text.
        """
        by_group: dict[str, list[Agg]] = {}
        for aggregate in spec.aggregates:
            _check_feeding(aggregate, label, spec.name)
            by_group.setdefault(aggregate.group, []).append(aggregate)
        return cls(spec, label, tuple(Group.of(members) for members in by_group.values()))

    def open(self) -> FeatureState:
        """A worker with empty state."""
        return FeatureState(self)


def _check_feeding(aggregate: Agg, label: LabelSpec | None, where: str) -> None:
    if aggregate.fed_by is None:
        return
    if label is None or label.name != aggregate.fed_by:
        has = "no label" if label is None else f"label={label.name}"
        raise DefinitionError(
            f"{where}: a target encoding is fed by {aggregate.fed_by}, but the pipeline has {has}; "
            f"write pipeline(..., label={aggregate.fed_by})"
        )
    if label.value_type not in ("bool", "i64", "f64"):
        raise DefinitionError(f"{where}: target encoding needs a numeric label, {label.name} is {label.value_type}")


class FeatureState:
    """Features of the rows of one shard, in log order; no clock, no I/O."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._evaluate = Evaluator(plan.spec.source.schema)
        self._groups = [GroupState(group) for group in plan.groups]
        self._label_groups = [state for state in self._groups if state.group.fed_by is not None]

    @property
    def fed_by_labels(self) -> bool:
        """Whether labels enter features."""
        return bool(self._label_groups)

    @property
    def evicted(self) -> int:
        """How many keys lost their state because a group was full."""
        return sum(state.evicted for state in self._groups)

    def advance(self, events: Entering, tells: Tells) -> Vectors:
        """Folds rows and labels in reading order and gives the vectors of the rows that ask for one."""
        known, n, reads = fields(events.columns), len(events.times), int(events.scored.sum())
        out_rows = np.where(events.scored, np.cumsum(events.scored) - 1, -1)
        aggregates: dict[str, Column] = {}
        for state in self._groups:
            if state.group.fed_by is None:
                acts, values = self._enter(state.group, known, events.accepted)
                keys = self._keys(state.group, known, n)
                out = state.advance(keys, events.times, events.watermarks, events.ids, values, acts, out_rows, reads)
            else:
                which = self._label_groups.index(state)
                out = self._advance_labels(state, which, known, events, tells, out_rows, reads)
            read = number(out, ~np.isnan(out))
            for m, aggregate in enumerate(state.group.aggregates):
                aggregates[aggregate.canonical] = Column(read.values[:, m], read.valid[:, m])
        return self._vectors({name: column.part(events.scored) for name, column in known.items()}, aggregates, reads)

    def label_keys(self, columns: Mapping[str, Column], n: int) -> list[tuple[Hashable | None, ...]]:
        """For each row its key in every label-fed group: where its label will count."""
        known = fields(columns)
        per_group = [self._keys(state.group, known, n) for state in self._label_groups]
        return list(zip(*per_group, strict=True)) if per_group else [()] * n

    def state(self) -> dict[str, Any]:
        """Arrays by name, those of a group under its text."""
        return {f"{g.group.text}/{name}": item for g in self._groups for name, item in g.state().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        for group in self._groups:
            group.restore(below(state, f"{group.group.text}/"))

    def _keys(self, group: Group, known: dict[str, Column], n: int) -> list[Hashable | None]:
        """The key of every row in a group, ``None`` where one part is null."""
        parts = [self._evaluate(key, known, n).tolist() for key in group.by]
        if not parts:
            return [()] * n
        if len(parts) == 1:
            return parts[0]
        return [None if None in key else key for key in zip(*parts, strict=True)]

    def _enter(self, group: Group, known: dict[str, Column], accepted: Bool) -> tuple[Int8, Float64]:
        """Which rows enter the group's windows, and with which values."""
        n = len(accepted)
        folds = accepted
        if group.where is not None:
            where = self._evaluate(group.where, known, n)
            folds = accepted & where.values & where.valid
        values = [as_number(self._evaluate(value, known, n)) for value in group.values]
        acts = np.where(folds, ENTER, _reading(accepted))
        return acts.astype(np.int8), np.column_stack(values) if values else np.empty((n, 0))

    def _advance_labels(
        self,
        state: GroupState,
        which: int,
        known: dict[str, Column],
        events: Entering,
        tells: Tells,
        out_rows: Int64,
        reads: int,
    ) -> Float64:
        """Labels enter between the rows before which they were read; rows only read."""
        n = len(events.times)
        order = np.argsort(np.concatenate([2 * tells.before, 2 * np.arange(n) + 1]), kind="stable")

        def together(of_tells: Int64, of_events: Int64) -> Int64:
            return np.concatenate([of_tells, of_events])[order]

        keys = [keys[which] for keys in tells.keys] + self._keys(state.group, known, n)
        values = np.concatenate([tells.values, np.zeros(n)])[order]
        return state.advance(
            [keys[i] for i in order.tolist()],
            together(tells.available, events.times),
            together(tells.watermarks, events.watermarks),
            together(tells.ids, events.ids),
            np.repeat(values[:, None], len(state.group.values), axis=1),
            together(tells.acts, _reading(events.accepted)).astype(np.int8),
            together(np.full(len(tells.acts), -1), out_rows),
            reads,
        )

    def _vectors(self, known: dict[str, Column], aggregates: dict[str, Column], n: int) -> Vectors:
        known.update(aggregates)
        numbers = np.full((n, len(self.plan.spec.features)), np.nan)
        texts: dict[int, npt.NDArray[Any]] = {}
        for at, feature in enumerate(self.plan.spec.features):
            column = self._evaluate(feature.expr, known, n)
            if feature.is_text:
                texts[at] = np.where(column.valid, column.values, np.array(None, dtype=object))
            else:
                numbers[:, at] = as_number(column)
        return Vectors(self.plan.spec.names, numbers, texts)


def _reading(accepted: Bool) -> Int64:
    """What a row that does not enter does: a late one that wants an answer touches no state."""
    return np.where(accepted, LEAVE, LOOK)
