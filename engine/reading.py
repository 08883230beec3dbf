"""What a shard reads at once: batches of several logs, and the order of their messages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from thalweg.engine.batch import Batch, Column, Headers, Log, Reject
from thalweg.engine.kernels.arrays import Bool, Int64


@dataclass(frozen=True, slots=True)
class Reading:
    """Messages in the order in which a shard reads them.

    ``which`` int64[m] is the batch of each message, ``rows`` int64[m] its row there, or ``-1 - k`` for
    the batch's reject number k.
    """

    batches: Sequence[Batch]
    which: Int64
    rows: Int64

    @classmethod
    def of(cls, *batches: Batch) -> Reading:
        """One batch after the other, each in offset order."""
        rows = [in_offset_order(batch) for batch in batches]
        which = [np.full(len(part), i) for i, part in enumerate(rows)]
        return cls(batches, *(np.concatenate(parts) if parts else np.empty(0, np.int64) for parts in (which, rows)))

    @classmethod
    def of_runs(cls, batches: Sequence[Batch], runs: Sequence[tuple[int, int, int]]) -> Reading:
        """Runs of logs, one after the other: (which batch, its first and its last offset)."""
        which = np.array([run[0] for run in runs], dtype=np.int64)
        pieces = [np.empty(0, dtype=np.int64)] * len(runs)
        for b, batch in enumerate(batches):
            own = np.flatnonzero(which == b).tolist()
            rows = in_offset_order(batch)
            offsets = offsets_of(batch, rows)
            starts = np.searchsorted(offsets, [runs[i][1] for i in own], side="left")
            stops = np.searchsorted(offsets, [runs[i][2] for i in own], side="right")
            for i, start, stop in zip(own, starts.tolist(), stops.tolist(), strict=True):
                pieces[i] = rows[start:stop]
        together = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)
        return cls(batches, np.repeat(which, [len(piece) for piece in pieces]), together)

    def __len__(self) -> int:
        return len(self.which)

    def pieces(self, messages: int) -> Sequence[Reading]:
        """The same messages in readings of at most ``messages``; how a log is cut cannot matter."""
        cuts = range(0, len(self), messages)
        return [Reading(self.batches, self.which[i : i + messages], self.rows[i : i + messages]) for i in cuts]

    def place(self, message: int) -> Place:
        """Where a message stands that is no reject."""
        batch, row = self.batches[self.which[message]], int(self.rows[message])
        key = None if batch.keys is None else batch.keys[row]
        return Place(
            batch.log, int(batch.offsets[row]), key, None if batch.indices is None else int(batch.indices[row])
        )

    def in_order(self, rejects: Sequence[Reject]) -> list[Reject]:
        """Rejects of these messages in the order in which those are read, which no cut can change."""
        if not rejects:
            return []
        offsets = self._offsets()
        positions = np.empty(len(rejects), dtype=np.int64)
        for log in {reject.log for reject in rejects}:
            own = np.array([batch.log == log for batch in self.batches], dtype=np.bool_)
            at = np.flatnonzero(own[self.which])
            mine = [k for k, reject in enumerate(rejects) if reject.log == log]
            positions[mine] = at[np.searchsorted(offsets[at], [rejects[k].offset for k in mine])]
        return [rejects[k] for k in np.argsort(positions, kind="stable").tolist()]

    def _offsets(self) -> Int64:
        """The offset of every message, int64[m]."""
        result = np.empty(len(self), dtype=np.int64)
        for b in np.unique(self.which).tolist():
            batch, at = self.batches[b], self.which == b
            refused = np.array([reject.offset for reject in reversed(batch.rejects)], dtype=np.int64)
            result[at] = np.concatenate([batch.offsets, refused])[self.rows[at]]  # -1 - k is reject number k
        return result


def in_offset_order(batch: Batch) -> Int64:
    """Rows and rejects (``-1 - k``) of a batch, by offset."""
    rows = np.arange(len(batch))
    if not batch.rejects:
        return rows
    rejects = np.array([reject.offset for reject in batch.rejects])
    codes = np.concatenate([rows, -1 - np.arange(len(rejects))])
    order = np.argsort(np.concatenate([batch.offsets, rejects]), kind="stable")
    return codes[order]


def offsets_of(batch: Batch, codes: Int64) -> Int64:
    """The offset of each row or reject (``-1 - k``) of a batch."""
    rejected = np.array([reject.offset for reject in batch.rejects], dtype=np.int64)
    offsets = np.empty(len(codes), dtype=np.int64)
    offsets[codes >= 0] = batch.offsets[codes[codes >= 0]]
    offsets[codes < 0] = rejected[-1 - codes[codes < 0]]
    return offsets


class Place(NamedTuple):
    """The message that causes something to leave: its log, offset and record key; ``row`` within it, where a message
    holds several rows."""

    log: Log
    offset: int
    key: bytes | None
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Decoded rows of one topic, in reading order: ``batch`` int64[n] and ``rows`` int64[n] say where from."""

    reading: Reading
    batch: Int64
    rows: Int64
    columns: dict[str, Column]
    append: Int64

    @classmethod
    def of(cls, reading: Reading, topic: str, empty: dict[str, Column]) -> Selection:
        """The rows of ``topic``; ``empty`` are columns for when there is none."""
        mask = _of_topic(reading, topic) & (reading.rows >= 0)
        which, rows = reading.which[mask], reading.rows[mask]
        used = np.unique(which).tolist()
        if not used:
            return cls(reading, which, rows, empty, np.empty(0, dtype=np.int64))
        if len(used) == 1:
            only = reading.batches[used[0]]
            taken = {name: column.part(rows) for name, column in only.columns.items()}
            return cls(reading, which, rows, taken, only.append[rows])
        back = np.argsort(np.argsort(which, kind="stable"))  # from one batch after the other to reading order
        parts = [(reading.batches[b], rows[which == b]) for b in used]
        columns = {
            name: Column(
                np.concatenate([part.columns[name].values[at] for part, at in parts])[back],
                np.concatenate([part.columns[name].valid[at] for part, at in parts])[back],
            )
            for name in parts[0][0].columns
        }
        return cls(reading, which, rows, columns, np.concatenate([part.append[at] for part, at in parts])[back])

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, at: Int64 | Bool) -> Selection:
        """Some of the rows, by rising indices or a mask."""
        columns = {name: column.part(at) for name, column in self.columns.items()}
        return Selection(self.reading, self.batch[at], self.rows[at], columns, self.append[at])

    def refuse(self, at: int, reason: str, detail: str) -> Reject:
        """A decoded row that is turned away after all."""
        batch: Batch = self.reading.batches[self.batch[at]]
        return batch.refuse(int(self.rows[at]), reason, detail)

    def by_log(self) -> dict[Log, Int64]:
        """Which rows stand in each log."""
        used = np.unique(self.batch).tolist()
        found: dict[Log, list[int]] = {}
        for b in used:
            found.setdefault(self.reading.batches[b].log, []).append(b)
        if len(found) == 1:
            return dict.fromkeys(found, np.arange(len(self)))
        return {log: np.flatnonzero(np.isin(self.batch, own)) for log, own in found.items()}

    def offsets(self) -> tuple[Int64, Int64 | None]:
        """The offset of each row, int64[n], and its place within its message where messages hold several rows."""
        offsets, places, several = np.empty(len(self), np.int64), np.full(len(self), -1, np.int64), False
        for b, at in self._by_batch():
            batch, rows = self.reading.batches[b], self.rows[at]
            offsets[at] = batch.offsets[rows]
            if batch.indices is not None:
                places[at], several = batch.indices[rows], True
        return offsets, places if several else None

    def keys(self) -> list[bytes | None]:
        """The record key of each row's message."""
        return self._of_messages([batch.keys for batch in self.reading.batches])

    def headers(self, pass_on: Collection[str]) -> list[Headers] | None:
        """The headers of the names ``pass_on`` of each row's message; None where none is asked for."""
        if not pass_on:
            return None
        found: list[Headers | None] = self._of_messages([batch.headers for batch in self.reading.batches])
        return [[header for header in own or [] if header[0] in pass_on] for own in found]

    def _of_messages(self, sources: Sequence[Sequence[Any] | None]) -> list[Any]:
        pairs = zip(self.batch.tolist(), self.rows.tolist(), strict=True)
        used = np.unique(self.batch).tolist()
        if len(used) == 1:
            only = sources[used[0]]
            if only is not None and len(only) != len(self):
                return [only[row] for row in self.rows.tolist()]
            return [None] * len(self) if only is None else list(only)
        return [None if (source := sources[b]) is None else source[row] for b, row in pairs]

    def _by_batch(self) -> Iterator[tuple[int, Int64]]:
        for b in np.unique(self.batch).tolist():
            yield b, np.flatnonzero(self.batch == b)


def _of_topic(reading: Reading, topic: str) -> Bool:
    own = np.array([batch.log.topic == topic for batch in reading.batches], dtype=np.bool_)
    return own[reading.which]
