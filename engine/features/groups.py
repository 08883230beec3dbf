"""State of one entity: which key sits in which slot, and the rows of each slot.

All aggregates with the same keys, filter and feeding log share one group: one ring of rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from thalweg.engine.errors import SnapshotError
from thalweg.engine.features.expressions import Agg, Expr
from thalweg.engine.features.layout import Program, fold_text, program_of
from thalweg.engine.kernels.arrays import Bool, Float64, Int8, Int64
from thalweg.engine.kernels.rings import ARENA_HEAD, ENTER, LOOK, REMOVE, Rows
from thalweg.engine.kernels.windows import advance, by_slot, compact
from thalweg.engine.snapshot import pack_json, unpack_json

Key = Hashable
_FIRST_WORDS = 4096
_GROUPED_ROWS = 2  # rows a key from which on a batch is taken key by key
_NO_ORDER = np.empty(0, dtype=np.int64)
_NOTHING_CODED: tuple[Sequence[Key], Int64] = ((), np.full(1, -1, dtype=np.int64))


class Coded(NamedTuple):
    """Keys as codes into a list of them, as in a dictionary column of Arrow: ``codes`` int64[n], -1 for null.

    A group remembers the slots of ``names`` as long as it is given the same list, which must not be changed.
    """

    codes: Int64
    names: Sequence[Key]

    def tolist(self) -> list[Key | None]:
        """The keys themselves.

        >>> Coded(np.array([1, -1, 0]), ["a", "b"]).tolist()
        ['b', None, 'a']
        """
        names = [*self.names, None]
        return [names[code] for code in self.codes.tolist()]


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
        ordered = sorted(aggregates, key=fold_text)  # outputs of one fold stand together
        return cls(
            first.group,
            first.by,
            first.where,
            first.fed_by,
            first.capacity,
            tuple(values.values()),
            tuple(ordered),
            program_of(ordered, list(values)),
        )

    @property
    def bytes_per_key(self) -> int:
        """Bytes of a key without its rows: accumulators and when it was touched (text of the key not counted)."""
        return 8 * self.program.record + 8

    @property
    def bytes_per_row(self) -> int:
        """Bytes of a row: its time, values and links, and its id where it can be removed."""
        return 8 * self.program.stride


class GroupState:
    """Keys, slots and rows of one group in one shard.

    A key takes a slot with the first row that enters its window. When ``capacity`` keys are held, the
    key touched longest ago in log order gives its slot away, which ``evicted`` counts.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.evicted = 0
        self._slots: dict[Key, int] = {}
        self._keys: list[Key] = []  # by slot
        self._touched = np.zeros(0, dtype=np.int64)  # by slot: number of the row that last touched its key
        self._rows = 0  # how many rows came so far
        self._queue: list[int] = []  # slots to give away, the next one last; touched since: no longer
        self._queued = self._touched
        self._coded = _NOTHING_CODED
        self._words = _zeros(group.program.record)
        self._arena = _zeros(ARENA_HEAD + _FIRST_WORDS)

    def advance(
        self,
        keys: Sequence[Key | None] | Coded,
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
            keys: n keys, ``None`` for null (reads nothing, enters nothing), or their codes.
            times, watermarks, ids: int64[n].
            values: float64[n, columns of the group], NaN for null.
            acts: int8[n], LEAVE, ENTER, REMOVE or LOOK; REMOVE in a label-fed group only.
            out_rows: int64[n], the row of the result that a row fills, or -1.
            reads: how many rows the result has.

        Returns:
            float64[reads, aggregates], NaN for null.
        """
        assert self.group.fed_by is not None or not (acts == REMOVE).any(), "only labels are taken back"
        out = np.empty((reads, len(self.group.aggregates)))
        slots, reset = self._place(keys, acts)
        times, watermarks, ids, acts, out_rows = map(_plain, (times, watermarks, ids, acts, out_rows))
        rows = Rows(slots, times, watermarks, ids, _plain(values), acts, reset, out_rows)
        order = _by_slot(slots, len(self._slots))
        at = 0
        while True:
            at = advance(at, order, rows, *self._memory(), out)
            if at == len(slots):
                return out
            self._grow(int(watermarks[order[at] if len(order) else at]))

    def _memory(self) -> tuple[Int64, Float64, Int64, Float64, Int64]:
        words, arena = self._words, self._arena
        return words, words.view(np.float64), arena, arena.view(np.float64), self.group.program.code

    def __len__(self) -> int:
        return len(self._slots)

    def state(self) -> dict[str, npt.NDArray[Any] | bytes]:
        """Arrays by name; :meth:`restore` takes them back."""
        slots, record = len(self._slots), self.group.program.record
        return {
            "records": self._words[record : (1 + slots) * record],
            "rings": self._arena[: self._arena[0]],
            "touched": self._touched[:slots],
            "keys": pack_json([list(key) if isinstance(key, tuple) else key for key in self._keys]),
            "counts": np.array([self._rows, self.evicted]),
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any] | bytes]) -> None:
        """Takes back what :meth:`state` gave.

        Raises:
            SnapshotError: an earlier version wrote it, which kept windows in another form.
        """
        if "rings" not in state:
            raise SnapshotError("windows of an earlier version, which kept them in another form; rebuild from the log")
        keys = unpack_json(bytes(state["keys"]))
        self._keys = [tuple(key) if isinstance(key, list) else key for key in keys]
        self._slots = {key: slot for slot, key in enumerate(self._keys)}
        self._touched = np.array(state["touched"])
        self._rows, self.evicted = np.asarray(state["counts"]).tolist()
        self._queue, self._queued, self._coded = [], self._touched, _NOTHING_CODED
        records, arena = np.asarray(state["records"]), np.asarray(state["rings"])
        self._words = _zeros(self.group.program.record + len(records))
        self._words[self.group.program.record :] = records
        self._arena = _zeros(ARENA_HEAD + _FIRST_WORDS + len(arena))
        self._arena[: len(arena)] = arena

    def _place(self, keys: Sequence[Key | None] | Coded, acts: Int8) -> tuple[Int64, Bool]:
        """The slot of every row, and whether the slot was taken over just before it."""
        first, n = self._rows, len(acts)
        self._rows += n
        slots = self._known(keys)
        reset = np.zeros(n, dtype=np.bool_)
        missing = np.flatnonzero((slots < 0) & (acts == ENTER))
        new = [key for key in _distinct(keys, missing) if key not in self._slots]
        if len(self._slots) + len(new) > self.group.capacity:
            return self._take_turns(keys.tolist() if isinstance(keys, Coded) else keys, acts, first)
        if new:
            self._ensure_slots(len(self._slots) + len(new))
            self._slots |= zip(new, range(len(self._slots), len(self._slots) + len(new)), strict=True)
            self._keys += new
        if len(missing):
            self._learn(keys, missing)
            slots = self._known(keys)
        touches = (slots >= 0) & (acts != LOOK)
        self._touched[slots[touches]] = np.arange(first, first + n)[touches]  # the last of equal slots counts
        return slots, reset

    def _known(self, keys: Sequence[Key | None] | Coded) -> Int64:
        """The slot of each key, -1 where it has none."""
        find = self._slots.get
        if not isinstance(keys, Coded):
            return np.fromiter(map(find, keys, repeat(-1)), dtype=np.int64, count=len(keys))
        if self._coded[0] is not keys.names:
            slots = np.array([find(name, -1) for name in keys.names] + [-1], dtype=np.int64)
            self._coded = (keys.names, slots)
        return self._coded[1][keys.codes]

    def _learn(self, keys: Sequence[Key | None] | Coded, rows: Int64) -> None:
        """Keys of these rows have slots now: so have their codes."""
        if isinstance(keys, Coded):
            codes = _distinct_codes(keys.codes[rows], len(keys.names))
            self._coded[1][codes] = [self._slots[keys.names[code]] for code in codes.tolist()]

    def _take_turns(self, keys: Sequence[Key | None], acts: Int8, first: int) -> tuple[Int64, Bool]:
        """Row by row, where keys must go: the one touched longest ago gives its slot to the new one."""
        slots, reset = np.full(len(keys), -1, dtype=np.int64), np.zeros(len(keys), dtype=np.bool_)
        self._coded = _NOTHING_CODED
        self._ensure_slots(min(self.group.capacity, len(self._slots) + len(keys)))
        for i, (key, act) in enumerate(zip(keys, acts.tolist(), strict=True)):
            slot = None if key is None else self._slots.get(key)
            if slot is None:
                if key is None or act != ENTER:
                    continue
                slot, reset[i] = self._take(key)
            slots[i] = slot
            if act != LOOK:
                self._touched[slot] = first + i
        return slots, reset

    def _take(self, key: Key) -> tuple[int, bool]:
        if len(self._slots) < self.group.capacity:
            self._keys.append(key)
            slot = self._slots[key] = len(self._slots)
            return slot, False
        slot = self._oldest()
        del self._slots[self._keys[slot]]
        self._keys[slot] = key
        self._slots[key] = slot
        self.evicted += 1
        return slot, True

    def _oldest(self) -> int:
        """The slot touched longest ago: the next one queued that was not touched since the queue was made."""
        while True:
            while self._queue:
                slot = self._queue.pop()
                if self._touched[slot] == self._queued[slot]:
                    return slot
            self._queued = self._touched[: len(self._slots)].copy()
            self._queue = np.argsort(self._queued)[::-1].tolist()

    def _ensure_slots(self, slots: int) -> None:
        record = self.group.program.record
        held = len(self._touched)
        if slots > held:
            held = max(slots, 2 * held)
            words = _zeros((1 + held) * record)
            words[: len(self._words)] = self._words
            self._words = words
            self._touched = np.concatenate([self._touched, np.zeros(held - len(self._touched), dtype=np.int64)])

    def _grow(self, watermark: int) -> None:
        """A larger arena: compaction never needs more than was used, and a ring at most doubles."""
        program = self.group.program
        larger = _zeros(4 * int(self._arena[0]) + ARENA_HEAD + 64 * program.stride + 8 * program.record)
        compact(*self._memory(), watermark, larger)
        self._arena = larger


def _zeros(n: int) -> Int64:
    """int64[n] of zeros at the beginning of a cache line."""
    held = np.zeros(n + 8, dtype=np.int64)
    skip = -held.ctypes.data % 64 // 8
    return held[skip : skip + n]


def _distinct(keys: Sequence[Key | None] | Coded, rows: Int64) -> list[Key]:
    """The keys of these rows, each once, in the order of their first."""
    if isinstance(keys, Coded):
        codes = _distinct_codes(keys.codes[rows], len(keys.names))
        return list(dict.fromkeys(keys.names[code] for code in codes.tolist()))
    return list(dict.fromkeys(key for key in map(keys.__getitem__, rows.tolist()) if key is not None))


def _distinct_codes(codes: Int64, names: int) -> Int64:
    """The codes of ``names`` names, each once, in the order of their first, without -1.

    Where they are many, by a table of all names: 14 ns a code, a dictionary takes 65 (200,000 codes of 10,000 names).
    """
    codes = codes[codes >= 0]
    if 8 * len(codes) < names:
        return np.array(list(dict.fromkeys(codes.tolist())), dtype=np.int64)
    first = np.full(names, -1)
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # the last of equal places counts
    found = np.flatnonzero(first >= 0)
    return found[np.argsort(first[found])]


def _plain(array: Any) -> Any:
    """Contiguous and writable, as the kernels were compiled for; copied only where it is not."""
    return np.require(array, requirements=["C", "W"])


def _by_slot(slots: Int64, held: int) -> Int64:
    """The order in which rows are taken: key by key where each has several rows, else empty, as they stand."""
    if len(slots) < _GROUPED_ROWS * (held + 1):
        return _NO_ORDER
    order = np.empty(len(slots), dtype=np.int64)
    by_slot(slots, np.zeros(held + 2, dtype=np.int64), order)
    return order
