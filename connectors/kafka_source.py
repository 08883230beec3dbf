"""The Kafka source: one part per shard, which follows its journal to its end and then reads freely.

One consumer per log, so that a log that runs ahead holds up no other: what is not asked for stays in the
client's own queue, which is bounded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from thalweg.connectors.journal import Hands, JournalError, Record, decode, extents, in_order
from thalweg.connectors.kafka_read import Reader, Start, read_topic
from thalweg.connectors.merged import Merged
from thalweg.engine.batch import Log

BATCH_ROWS = 4096
COMMIT_S = 1.0
IDLE = timedelta(milliseconds=2)
QUEUE_KILOBYTES = 8_192  # per shard, divided among its logs: what is fetched ahead
LOOK_ROWS = 16  # how many messages of a fetch are asked for their size
BATCH_BYTES = 2_097_152  # a shard takes fewer messages where they are large, such as Arrow's of thousands of rows

BOUNDED_ROWS, BOUNDED_BYTES = 65_536, 33_554_432  # per log, with ``until_end``

State = dict[str, Any]


class ShardLogs(NamedTuple):
    """A shard's number and the logs that it reads."""

    number: int
    logs: tuple[Log, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """What a shard read in one go; ``followed`` when its record already stands on the journal topic."""

    shard: int
    record: Record
    raws: Merged
    followed: bool


def shard_key(number: int) -> str:
    """The shard's name in Bytewax, which sorts as the numbers do.

    >>> shard_key(7)
    'shard-0007'
    """
    return f"shard-{number:04d}"


class KafkaSource(FixedPartitionedSource[Item, State]):
    """Reads the logs of every shard; see :class:`ShardPart`.

    ``start`` counts on the first start only ("earliest", "latest", or a time in microseconds): later, the saved
    state says where reading goes on, and without one the journal does, from its beginning. ``until_end`` ends a
    shard behind what its logs hold when it starts and what has come up to then; ``stop`` ends it at once. Rows that
    were fetched and not handed on are fetched again by the next start.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        pipeline: str,
        shards: Sequence[ShardLogs],
        journal: str,
        *,
        start: Start = "earliest",
        until_end: bool = False,
        batch_rows: int = BATCH_ROWS,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.settings = dict(settings)
        self.group = f"thalweg.{pipeline}"
        self.shards = {shard_key(shard.number): shard for shard in shards}
        self.journal = journal
        self.start = start
        self.until_end = until_end
        self.batch_rows = batch_rows
        self.stop = stop

    def list_parts(self) -> list[str]:
        return list(self.shards)

    def build_part(self, step_id: str, for_part: str, resume_state: State | None) -> ShardPart:
        return ShardPart(self, self.shards[for_part], resume_state)


class ShardPart(StatefulSourcePartition[Item, State]):
    """One shard's place in its logs and in its journal.

    Raises on building and on reading: JournalError, LogError (an offset is lost, a log cannot be read),
    ConnectionFailed. A broker that goes away later is waited for.
    """

    def __init__(self, source: KafkaSource, shard: ShardLogs, state: State | None) -> None:
        self._source = source
        self._shard = shard
        self._hands = Hands(shard.logs)
        self._current: Record | None = None
        self._idle = False
        self._opened = False
        self._committed = 0.0
        self._bytes = 1  # of a large message in the last fetch
        self._readers: dict[Log, Reader] = {}
        self._number: int = state["number"] if state else 0
        self._read_at: int = state["read_at"] if state else 0
        self._journal = self._records()
        try:
            self._open(self._positions(state))
        except BaseException:
            self.close()
            raise

    def next_batch(self) -> list[Item]:
        if self._source.stop():
            raise StopIteration
        if self._number == 0 and self._current is None:
            return [self._start()]
        self._commit()
        self._fetch()
        item = self._follow() if self._current else self._read()
        self._idle = item is None
        if item is None and self._finished():
            raise StopIteration
        return [item] if item else []

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC) + IDLE if self._idle else None

    def snapshot(self) -> State:
        positions = [[*log, offset] for log, offset in self._handed_on().items()]
        return {"number": self._number, "read_at": self._read_at, "positions": positions}

    def close(self) -> None:
        if self._opened:
            self._commit(at_once=True)
        for reader in self._readers.values():
            reader.close()

    def _open(self, positions: Mapping[Log, int]) -> None:
        share = max(QUEUE_KILOBYTES // len(self._shard.logs), 1024)
        settings = {"queued.max.messages.kbytes": str(share), "fetch.queue.backoff.ms": "10"} | self._source.settings
        for log in self._shard.logs:
            reader = self._readers[log] = Reader(settings, self._source.group)
            reader.assign({log: positions[log]})
        self._opened = True

    def _positions(self, state: State | None) -> dict[Log, int]:
        """Where reading begins: saved state, else the journal's first record, else a first start."""
        if state is not None:
            positions = {Log(topic, partition): offset for topic, partition, offset in state["positions"]}
        elif self._current is not None:
            if self._current.number != 0 or self._current.start is None:
                raise JournalError(
                    f"there is no saved state, and the journal of shard {self._shard.number} begins with "
                    f"{self._current.id}: without its beginning, state cannot be rebuilt. Restore the state folder or "
                    "the journal, or begin anew with a new pipeline name"
                )
            positions = dict(self._current.start)
        else:
            return self._first_start()
        if set(positions) != set(self._shard.logs):
            raise JournalError(
                f"shard {self._shard.number} was started with the logs {_names(positions)}, now it reads "
                f"{_names(self._shard.logs)}: topics or partition counts have changed. State belongs to its logs; "
                "begin anew with a new pipeline name"
            )
        return positions

    def _first_start(self) -> dict[Log, int]:
        with Reader(self._source.settings, self._source.group) as reader:
            return reader.offsets(self._shard.logs, self._source.start)

    def _records(self) -> Iterator[Record]:
        """The journal from this shard's number on; the first such record becomes the current one."""
        number, since = self._number, self._read_at

        def read(start: Start) -> Iterator[Record]:
            raws = read_topic(self._source.settings, self._source.journal, [self._shard.number], start)
            return in_order(decode(value) for raw in raws for value in raw.values)

        found = read("earliest" if number == 0 else since // 1000 * 1000)
        first = next(found, None)
        if number > 0 and (first is None or first.number >= number):
            found = read("earliest")  # by its time, the last record was not found: clocks differ
            first = next(found, None)
        records = _from_number(chain([first] if first else [], found), number, self._source.journal)
        self._current = next(records, None)
        return records

    def _fetch(self) -> None:
        needed = {extent.log: extent.last for extent in self._current.reads} if self._current else {}
        for log, reader in self._readers.items():
            hand = self._hands[log]
            missing = hand.last_offset() < needed.get(log, -1)
            if not self._sealed(log) and (missing or len(hand) < self._ahead()):
                for raw in reader.poll(self._batch_rows()):
                    self._bytes = max(1, *(len(value or b"") for value in raw.values[:LOOK_ROWS]))
                    self._hands.add(raw, _now())
            sealed = self._sealed(log)
            if sealed:
                reader.rest(log)
            self._hands.ended(log, sealed or reader.at_end(log))

    def _batch_rows(self) -> int:
        return max(1, min(self._source.batch_rows, BATCH_BYTES // self._bytes))

    def _ahead(self) -> int:
        """How many messages of a log are held. Towards a known end it pays to get there: a log at its end is not asked
        for more."""
        bounded = min(BOUNDED_ROWS, BOUNDED_BYTES // self._bytes) if self._source.until_end else 0
        return max(self._batch_rows(), bounded)

    def _follow(self) -> Item | None:
        record = self._current
        assert record is not None
        raws = self._hands.follow(record)
        if raws is None:
            return None
        self._current = next(self._journal, None)
        return self._item(record, raws, followed=True)

    def _start(self) -> Item:
        record = Record(self._source.journal, self._shard.number, 0, _now(), start=self._handed_on())
        return self._item(record, Merged.of([]), followed=False)

    def _read(self) -> Item | None:
        now = _now()
        raws = self._hands.take(self._batch_rows(), now)
        if not raws:
            return None
        record = Record(self._source.journal, self._shard.number, self._number, now, extents(raws))
        return self._item(record, raws, followed=False)

    def _item(self, record: Record, raws: Merged, *, followed: bool) -> Item:
        self._number, self._read_at = record.number + 1, record.read_at
        return Item(self._shard.number, record, raws, followed)

    def _sealed(self, log: Log) -> bool:
        """True when nothing more is to be fetched: with ``until_end``, from the log's first end on."""
        reader = self._readers[log]
        return self._source.until_end and reader.position(log) >= reader.end(log) and reader.at_end(log)

    def _finished(self) -> bool:
        return self._current is None and not len(self._hands) and all(map(self._sealed, self._readers))

    def _handed_on(self) -> dict[Log, int]:
        """Per log the offset behind everything that was handed on."""
        positions = {}
        for log, reader in self._readers.items():
            first = self._hands[log].first_offset()
            positions[log] = reader.position(log) if first is None else first
        return positions

    def _commit(self, *, at_once: bool = False) -> None:
        """At most once a second; what the last call handed on has gone through the whole flow by now."""
        now = time.monotonic()
        if at_once or now - self._committed >= COMMIT_S:
            self._committed = now
            for log, offset in self._handed_on().items():
                self._readers[log].commit({log: offset})


def _from_number(records: Iterator[Record], number: int, topic: str) -> Iterator[Record]:
    """Those from ``number`` on; the one before must be there, or be the last that retention took."""
    last = None
    for record in records:
        if last is None and record.number > number > 0:
            raise JournalError(f"the saved state goes on at record {number}, {record.id} is the first that is left")
        last = record.number
        if last >= number:
            yield record
    if number > 0 and (last is None or last < number - 1):
        raise JournalError(
            f"the saved state goes on at record {number}, the journal {topic!r} ends with {last}: the topic was "
            "created anew, or the state folder belongs to another broker. Restore it, or begin anew with a new "
            "pipeline name or state folder"
        )


def _names(logs: Any) -> str:
    return ", ".join(f"{log.topic}[{log.partition}]" for log in sorted(logs))


def _now() -> int:
    return time.time_ns() // 1000
