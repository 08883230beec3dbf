"""State of one entity: which key sits in which slot, and the rows of each slot.

All aggregates with the same keys, filter and feeding log share one group: one ring of rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thalweg.engine.batch import NO_TIME
from thalweg.engine.features.expressions import Agg, Expr
from thalweg.engine.kernels.accumulate import OPS, WIDTH
from thalweg.engine.kernels.arrays import Bool, Float64, Int8, Int64
from thalweg.engine.kernels.windows import ENTER, LIFETIME, LOOK, ROWS, SLIDING, Program, Ring, Rows, advance, compact
from thalweg.engine.snapshot import pack_json, unpack_json

_KINDS = {"sliding": SLIDING, "rows": ROWS, "lifetime": LIFETIME}
_FIRST_ROWS = 1024
Key = Hashable


@dataclass(frozen=True, slots=True)
class Group:
    """What a group computes: ``aggregates[m]`` is column ``m`` of what a row reads."""

    text: str
    by: tuple[Expr, ...]
    where: Expr | None
    fed_by: str | None
    capacity: int
    values: tuple[Expr, ...]
    aggregates: tuple[Agg, ...]
    program: Program

    @classmethod
    def of(cls, aggregates: Sequence[Agg]) -> Group:
        """The group of aggregates that share :attr:`Agg.group`."""
        first = aggregates[0]
        values = {a.value.canonical: a.value for a in aggregates if a.value is not None}
        ordered = sorted(aggregates, key=_fold_text)  # outputs of one fold stand together
        return cls(
            first.group,
            first.by,
            first.where,
            first.fed_by,
            first.capacity,
            tuple(values.values()),
            tuple(ordered),
            _program(ordered, list(values)),
        )

    @property
    def bytes_per_key(self) -> int:
        """Bytes of a key without its rows: segment and bases (text of the key not counted)."""
        return 32 + len(self.program.folds) * (8 * WIDTH + 8)

    @property
    def bytes_per_row(self) -> int:
        """Bytes of a row in the ring: time, id and values."""
        return 16 + 8 * len(self.values)


def _fold_text(aggregate: Agg) -> str:
    value = "" if aggregate.value is None else aggregate.value.canonical
    return f"{aggregate.window.text}|{value}|{aggregate.include_current}|{aggregate.half_life_us}"


def _program(aggregates: Sequence[Agg], columns: Sequence[str]) -> Program:
    folds: dict[str, list[int]] = {}
    half_lives: list[float] = []
    outputs: list[tuple[int, int]] = []
    for a in aggregates:
        text = _fold_text(a)
        if text not in folds:
            column = -1 if a.value is None else columns.index(a.value.canonical)
            folds[text] = [column, _KINDS[a.window.kind], a.window.length, a.window.ttl_us, int(a.include_current), 0]
            half_lives.append(float(a.half_life_us))
        folds[text][5] |= a.op in ("var", "std")
        outputs.append((list(folds).index(text), OPS.index(a.op)))
    sliding = [a.window.length for a in aggregates if a.window.kind == "sliding"]
    last = [a.window.length for a in aggregates if a.window.kind == "rows"]
    return Program(
        np.array(list(folds.values()), dtype=np.int64),
        np.array(half_lives),
        np.array(outputs, dtype=np.int64),
        max(sliding, default=-1),
        max(last, default=0),
    )


class GroupState:
    """Keys, slots and rows of one group in one shard.

    A key takes a slot with the first row that enters its window. When ``capacity`` keys are held, the
    key touched longest ago in log order gives its slot away, which ``evicted`` counts.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.evicted = 0
        self._slots: OrderedDict[Key, int] = OrderedDict()
        self._ring = _ring(group, 0, _FIRST_ROWS)

    def advance(
        self,
        keys: Sequence[Key | None],
        times: Int64,
        watermarks: Int64,
        ids: Int64,
        values: Float64,
        acts: Int8,
        out_rows: Int64,
        reads: int,
    ) -> Float64:
        """Folds and reads rows in log order.

        Args:
            keys: n keys, ``None`` for null (reads nothing, enters nothing).
            times, watermarks, ids: int64[n].
            values: float64[n, columns of the group], NaN for null.
            acts: int8[n], LEAVE, ENTER, REMOVE or LOOK.
            out_rows: int64[n], the row of the result that a row fills, or -1.
            reads: how many rows the result has.

        Returns:
            float64[reads, aggregates], NaN for null.
        """
        out = np.empty((reads, len(self.group.aggregates)))
        slots, reset = self._place(keys, acts)
        rows = Rows(slots, times, watermarks, ids, values, acts, reset, out_rows)
        at = 0
        while True:
            at = advance(at, rows, self._ring, self.group.program, out)
            if at == len(slots):
                return out
            self._grow(int(watermarks[at]))

    def __len__(self) -> int:
        return len(self._slots)

    def state(self) -> dict[str, npt.NDArray[Any] | bytes]:
        """Arrays by name; :meth:`restore` takes them back."""
        ring = {f"ring.{name}": array for name, array in self._ring._asdict().items()}
        keys = [[list(key) if isinstance(key, tuple) else key, slot] for key, slot in self._slots.items()]
        return {**ring, "keys": pack_json(keys), "evicted": np.array([self.evicted])}

    def restore(self, state: Mapping[str, npt.NDArray[Any] | bytes]) -> None:
        self._ring = Ring(*(np.array(state[f"ring.{name}"]) for name in Ring._fields))
        keys = unpack_json(bytes(state["keys"]))
        self._slots = OrderedDict((tuple(key) if isinstance(key, list) else key, slot) for key, slot in keys)
        self.evicted = int(np.asarray(state["evicted"])[0])

    def _place(self, keys: Sequence[Key | None], acts: Int8) -> tuple[Int64, Bool]:
        """The slot of every row, and whether the slot was taken over just before it."""
        slots = np.full(len(keys), -1, dtype=np.int64)
        reset = np.zeros(len(keys), dtype=np.bool_)
        known = self._slots
        for i, (key, act) in enumerate(zip(keys, acts.tolist(), strict=True)):
            if key is None:
                continue
            slot = known.get(key)
            if slot is not None:
                if act != LOOK:
                    known.move_to_end(key)
            elif act == ENTER:
                slot, reset[i] = self._take(key)
            else:
                continue
            slots[i] = slot
        self._ensure_slots(len(known))
        return slots, reset

    def _take(self, key: Key) -> tuple[int, bool]:
        known = self._slots
        if len(known) < self.group.capacity:
            slot = known[key] = len(known)
            return slot, False
        _, slot = known.popitem(last=False)
        self.evicted += 1
        known[key] = slot
        return slot, True

    def _ensure_slots(self, slots: int) -> None:
        held = len(self._ring.segments)
        if slots > held:
            more = max(slots, 2 * held) - held
            grown = {
                name: np.concatenate([array, np.zeros((more, *array.shape[1:]), dtype=array.dtype)])
                for name, array in self._ring._asdict().items()
                if name in ("segments", "acc", "acc_times")
            }
            self._ring = self._ring._replace(**grown)

    def _grow(self, watermark: int) -> None:
        rows = int(self._ring.segments[:, 1].sum())
        larger = _ring(self.group, len(self._ring.segments), 4 * rows + 4 * len(self._ring.segments) + _FIRST_ROWS)
        compact(self._ring, larger, watermark, self.group.program)
        self._ring = larger


def _ring(group: Group, slots: int, rows: int) -> Ring:
    folds = len(group.program.folds)
    return Ring(
        segments=np.zeros((slots, 4), dtype=np.int64),
        times=np.full(rows, NO_TIME, dtype=np.int64),
        ids=np.zeros(rows, dtype=np.int64),
        values=np.zeros((rows, len(group.values))),
        used=np.zeros(1, dtype=np.int64),
        acc=np.zeros((slots, folds, WIDTH)),
        acc_times=np.zeros((slots, folds), dtype=np.int64),
    )
