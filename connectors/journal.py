"""What a shard read, and in which order: journal records, the merge that makes them, following them.

Pure: the clock is an argument, rows come in by :meth:`Hands.add` and leave by :meth:`Hands.take` (reading
freely) or :meth:`Hands.follow` (exactly as a record says).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import orjson

from thalweg.connectors.merged import Merged, cut
from thalweg.engine.batch import NO_TIME, Log, Raw
from thalweg.engine.errors import ThalwegError
from thalweg.engine.kernels.arrays import Int64

PATIENCE_US = 2_000_000


class JournalError(ThalwegError):
    """The journal is damaged, or the logs no longer hold what it says was read."""


class Extent(NamedTuple):
    """A run of rows of one log, by the offsets of its first and its last row; offsets between may be missing."""

    log: Log
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Record:
    """One step of a shard: what it read in one go, in that order.

    ``read_at`` (microseconds) stands in as the append time of rows that have none of the broker's. The first
    record of a shard has ``start``, the offset at which each of its logs begins, and no reads.
    """

    topic: str
    shard: int
    number: int
    read_at: int
    reads: tuple[Extent, ...] = ()
    start: Mapping[Log, int] | None = None
    counters: Mapping[str, int] | None = None

    @property
    def id(self) -> str:
        return f"journal/{self.topic}/{self.shard}/{self.number}"

    def encode(self) -> bytes:
        """JSON, as it stands on the journal topic."""
        value: dict[str, Any] = {"id": self.id, "shard": self.shard, "number": self.number, "read_at": self.read_at}
        value["reads"] = [[*log, first, last] for log, first, last in self.reads]
        if self.start is not None:
            value["start"] = [[*log, offset] for log, offset in sorted(self.start.items())]
        if self.counters is not None:
            value["counters"] = dict(self.counters)
        return orjson.dumps(value)


def decode(data: bytes | None) -> Record:
    """The record that :meth:`Record.encode` wrote.

    >>> record = Record("flights.journal", 0, 1, 5, (Extent(Log("flights", 0), 3, 9),))
    >>> record.id, decode(record.encode()) == record
    ('journal/flights.journal/0/1', True)

    Raises:
        JournalError: it is something else.
    """
    try:
        value = orjson.loads(data or b"")
        topic = value["id"].removeprefix("journal/").rsplit("/", 2)[0]
        reads = tuple(Extent(Log(topic, partition), first, last) for topic, partition, first, last in value["reads"])
        start = {Log(topic, partition): at for topic, partition, at in value["start"]} if "start" in value else None
        numbers = int(value["shard"]), int(value["number"]), int(value["read_at"])
        return Record(topic, *numbers, reads, start, value.get("counters"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise JournalError(f"this is no journal record ({error!r}): {(data or b'')[:200]!r}") from None


def in_order(records: Iterable[Record]) -> Iterator[Record]:
    """The records by number, each once; a record that was written twice, with the same content, counts once.

    Raises:
        JournalError: a number is missing, or two writers gave it different contents.
    """
    last: Record | None = None
    for record in records:
        if last is not None and record.number == last.number and record != last:
            raise JournalError(
                f"{record.id} was written twice, with different contents: two processes ran this pipeline at the "
                "same time. Stop one, and give the other a pipeline name and output topics of its own"
            )
        if last is not None and record.number > last.number + 1:
            raise JournalError(
                f"{record.id} follows number {last.number}: records between them are gone. Keep the journal topic "
                "as long as the inputs (retention.ms=-1); restore it, or begin anew with a new pipeline name"
            )
        if last is None or record.number > last.number:
            yield record
            last = record


def ordered(records: Iterable[Record]) -> list[Record]:
    """Journal records of all shards, each shard's by number and once."""
    by_shard: dict[int, list[Record]] = {}
    for record in records:
        by_shard.setdefault(record.shard, []).append(record)
    return [r for own in by_shard.values() for r in in_order(sorted(own, key=lambda record: record.number))]


def extents(raws: Iterable[Raw]) -> tuple[Extent, ...]:
    """What was read, compact: neighbours of one log are one entry."""
    merged = Merged.of(raws)
    last_of_run = np.flatnonzero(np.diff(merged.which, append=-1))
    first_of_run = np.concatenate([[0], last_of_run[:-1] + 1]) if len(last_of_run) else last_of_run
    stops = merged.stops()
    firsts, lasts = np.empty(len(stops), dtype=np.int64), np.empty(len(stops), dtype=np.int64)
    for i, part in enumerate(merged.parts):
        own = merged.which == i
        firsts[own], lasts[own] = part.offsets[(stops - merged.counts)[own]], part.offsets[stops[own] - 1]
    logs = [merged.parts[i].log for i in merged.which[first_of_run].tolist()]
    return tuple(map(Extent, logs, firsts[first_of_run].tolist(), lasts[last_of_run].tolist()))


def stamped(raw: Raw, read_at: int) -> Raw:
    """``raw`` with ``read_at`` as the append time of the rows for which the broker gave none."""
    return replace(raw, append=np.where(raw.append == NO_TIME, read_at, raw.append))


class Hand:
    """The fetched rows of one log that the shard has not taken yet, and what is known of the rest."""

    def __init__(self, log: Log) -> None:
        self.log = log
        # As they were fetched, never joined: what is far ahead would be copied with each fetch and each take.
        self._parts: deque[Raw] = deque()
        self._taken = 0  # how many rows of the first part
        # int64[n]: per row the prefix maximum of min(record timestamp, read time); `floor` is the last one.
        self.order: Int64 = np.empty(0, dtype=np.int64)
        self.floor = NO_TIME
        self.at_end = False
        self.empty_since: int | None = None

    def __len__(self) -> int:
        return len(self.order)

    def add(self, raw: Raw, now: int) -> None:
        """Appends rows that were fetched at ``now``."""
        known = np.where(raw.times == NO_TIME, now, np.minimum(raw.times, now))
        order = np.maximum.accumulate(np.maximum(known, self.floor))
        self._parts.append(raw)
        self.order = np.concatenate([self.order, order])
        self.floor = int(order[-1])
        self.empty_since = None

    def pop(self, count: int, read_at: int) -> Raw:
        """Takes the first ``count`` rows (at least one), which the shard reads at ``read_at``."""
        assert 0 < count <= len(self), (self.log, count, len(self))
        self.order = self.order[count:]
        taken: list[Raw] = []
        while count:
            part, start = self._parts[0], self._taken
            self._taken = min(start + count, len(part))
            taken.append(cut(part, start, self._taken))
            count -= self._taken - start
            if self._taken == len(part):
                self._parts.popleft()
                self._taken = 0
        return stamped(Raw.joined(taken), read_at)

    def offsets(self) -> Int64:
        """Of the rows in hand, int64[n]."""
        parts = [part.offsets for part in self._parts]
        return np.concatenate(parts)[self._taken :] if parts else np.empty(0, dtype=np.int64)

    def first_offset(self) -> int | None:
        """Of the rows in hand; None when there is none."""
        return int(self._parts[0].offsets[self._taken]) if self._parts else None

    def last_offset(self) -> int:
        """Of the rows in hand; -1 when there is none."""
        return int(self._parts[-1].offsets[-1]) if self._parts else -1


class Hands:
    """The rows in hand of all logs of a shard, and the order in which the shard takes them.

    Among logs with rows in hand it takes the smaller order time (prefix maximum per log), then log name, then
    offset. A log known to be at its end is never waited for. One that has more rows but none in hand (a fetch in
    flight) is, for ``patience_us``, else catching up would tear the logs apart.
    """

    def __init__(self, logs: Sequence[Log], patience_us: int = PATIENCE_US) -> None:
        self._hands = {log: Hand(log) for log in sorted(logs)}
        self._patience_us = patience_us

    def __getitem__(self, log: Log) -> Hand:
        return self._hands[log]

    def __len__(self) -> int:
        return sum(map(len, self._hands.values()))

    def add(self, raw: Raw, now: int) -> None:
        """Rows of one log, the next after those that it gave before, fetched at ``now`` (microseconds)."""
        if len(raw):
            self._hands[raw.log].add(raw, now)

    def ended(self, log: Log, at_end: bool) -> None:
        """Tells whether the log is known to hold nothing beyond what was added."""
        self._hands[log].at_end = at_end

    def take(self, limit: int, now: int) -> Merged:
        """The next rows, at most ``limit``, read at ``now``; nothing while it waits for a log.

        Neighbouring runs differ in their log.
        """
        hands = list(self._hands.values())
        bound = min((b for b in (self._bound(rank, hand, now) for rank, hand in enumerate(hands)) if b), default=None)
        counts = [_count(hand, rank, bound, limit) for rank, hand in enumerate(hands)]
        ready = [rank for rank, count in enumerate(counts) if count]
        which = np.repeat(np.array(ready, dtype=np.int64), [counts[rank] for rank in ready])
        if len(ready) > 1:
            times = np.concatenate([hands[rank].order[: counts[rank]] for rank in ready])
            which = which[np.argsort(times, kind="stable")][:limit]  # stable: by log, then offset, where times tie
        edges = np.flatnonzero(np.diff(which, prepend=-1))
        return self._dealt([hand.log for hand in hands], which[edges], np.diff(edges, append=len(which)), now)

    def follow(self, record: Record) -> Merged | None:
        """Exactly the rows of ``record``, one run per extent; None while some of them are not in hand yet.

        Raises:
            JournalError: a log does not hold a row that the record names.
        """
        last = {extent.log: extent.last for extent in record.reads}
        for log, offset in last.items():
            hand = self._hands.get(log)
            if hand is None:
                raise JournalError(f"{record.id} read {log.topic}[{log.partition}], which is no log of this shard")
            if hand.last_offset() < offset:
                if hand.at_end:
                    raise _lost(record, log, offset)
                return None
        logs = list(last)
        number = {log: i for i, log in enumerate(logs)}
        which = np.array([number[extent.log] for extent in record.reads], dtype=np.int64)
        ends = np.array([extent[1:] for extent in record.reads], dtype=np.int64).reshape(-1, 2)
        counts = np.empty(len(which), dtype=np.int64)
        for i, log in enumerate(logs):
            counts[which == i] = self._counts(record, log, ends[which == i])
        return self._dealt(logs, which, counts, record.read_at)

    def _counts(self, record: Record, log: Log, ends: Int64) -> Int64:
        """How many rows in hand each extent of this log has; all are in hand up to the last offset.

        ``ends`` int64[extents, 2]: the first and the last offset of each.
        """
        offsets = self._hands[log].offsets()
        stops = np.searchsorted(offsets, ends[:, 1], side="right")
        starts = np.concatenate([[0], stops[:-1]])
        here = np.column_stack([offsets[starts], offsets[stops - 1]])
        if (lost := ends[here != ends]).size:
            raise _lost(record, log, int(lost[0]))
        return stops - starts

    def _dealt(self, logs: Sequence[Log], which: Int64, counts: Int64, read_at: int) -> Merged:
        """Runs of the next rows of these logs; each log is popped once."""
        totals = np.zeros(len(logs), dtype=np.int64)
        np.add.at(totals, which, counts)
        present = np.flatnonzero(totals)
        parts = [self._hands[logs[i]].pop(int(totals[i]), read_at) for i in present.tolist()]
        return Merged(parts, np.searchsorted(present, which), counts)

    def _bound(self, rank: int, hand: Hand, now: int) -> tuple[int, int] | None:
        """Up to which (order time, rank) the shard may take rows, as far as this log is concerned."""
        if hand.at_end:
            return None
        if len(hand):
            return hand.floor, rank
        if hand.empty_since is None:
            hand.empty_since = now
        return (hand.floor, rank) if now - hand.empty_since < self._patience_us else None


def _count(hand: Hand, rank: int, bound: tuple[int, int] | None, limit: int) -> int:
    """How many rows in hand stand at or before ``bound``."""
    if bound is None:
        return min(len(hand), limit)
    side = "right" if rank <= bound[1] else "left"
    return min(int(np.searchsorted(hand.order, bound[0], side=side)), limit)  # type: ignore[call-overload]


def _lost(record: Record, log: Log, offset: int) -> JournalError:
    return JournalError(
        f"{record.id} read offset {offset} of {log.topic}[{log.partition}], which the log no longer holds: it was "
        "deleted, compacted, or the topic was created anew. Keep inputs as long as the journal (retention.ms=-1, "
        "cleanup.policy=delete), or begin anew with a new pipeline name"
    )
