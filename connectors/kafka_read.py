"""Reading Kafka without a group's rebalancing: whole topics for archives and checks, records for subscribers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import TracebackType
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from thalweg.connectors.arrow import dicts_of
from thalweg.connectors.kafka_config import Cluster, LogError, consumer_config, logger, offset_at, watermarks
from thalweg.engine.batch import NO_TIME, Log, Raw

Start = str | int | Mapping[int, int] | None
POLL_S = 0.1
ARROW = b"\xff\xff\xff\xff"  # how an Arrow IPC stream begins
NO_TIMESTAMP, BROKER_TIMESTAMP = 0, 2  # librdkafka's kinds of timestamps; 1 is the producer's
# What librdkafka mends by itself, beside the errors that it calls retriable.
PASSING = frozenset(
    {
        *(KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE, KafkaError._TIMED_OUT),
        *(KafkaError._WAIT_COORD, KafkaError.REQUEST_TIMED_OUT, KafkaError.LEADER_NOT_AVAILABLE),
        *(KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.BROKER_NOT_AVAILABLE, KafkaError.NETWORK_EXCEPTION),
    }
)


class Reader:
    """Committed rows of the assigned logs. A log that cannot be read on is an error, a broker that is down is not."""

    def __init__(self, settings: Mapping[str, str], group: str) -> None:
        self._consumer = Consumer(consumer_config(settings, group))
        self._next: dict[Log, int] = {}
        self._end: dict[Log, int] = {}
        self._seen_end: dict[Log, int] = {}
        self._resting: set[Log] = set()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def offsets(self, logs: Iterable[Log], start: Start) -> dict[Log, int]:
        """Where reading starts: "earliest" (also None), "latest", a time (microseconds) or offsets by partition.

        A time means the first record that is not older, the end where there is none. A partition for which
        offsets say nothing starts at its beginning.
        """
        return {log: self._offset(log, start) for log in logs}

    def assign(self, positions: Mapping[Log, int]) -> None:
        """Starts reading these logs at these offsets; their ends are asked for, once.

        Raises:
            LogError: a log does not hold its offset (any more).
        """
        self._next = dict(positions)
        for log, offset in positions.items():
            low, self._end[log] = watermarks(self._consumer, log)
            if not low <= offset <= self._end[log]:
                raise LogError(_out_of_range(log, offset, low, self._end[log]))
        self._consumer.assign([TopicPartition(*log, offset) for log, offset in positions.items()])

    def end(self, log: Log) -> int:
        """The log's end when it was assigned."""
        return self._end[log]

    def position(self, log: Log) -> int:
        """The offset behind everything that :meth:`poll` gave, markers and aborted rows at the end included."""
        return self._next[log]

    def at_end(self, log: Log) -> bool:
        """True when the log is known to hold nothing behind :meth:`position`, as of the last fetch."""
        position = self._next[log]
        if self._seen_end.get(log) == position:
            return True
        _, high = self._consumer.get_watermark_offsets(TopicPartition(*log), cached=True)
        return position >= (high if high >= 0 else self._end[log])

    def poll(self, rows: int, timeout_s: float = 0.0) -> list[Raw]:
        """At most ``rows`` new rows, one raw per log; waits up to ``timeout_s`` for the first of them.

        Raises:
            LogError: a log cannot be read any further; the message says where and why.
        """
        messages = self._consumer.consume(rows, 0)
        if not messages and timeout_s:
            messages = [m for m in [self._consumer.poll(timeout_s)] if m is not None]
        rows_read = messages
        if any(map(Message.error, messages)):
            for message in messages:
                self._on_event(message)
            rows_read = [message for message in messages if message.error() is None]
        raws = [raw_of(log, found) for log, found in self._by_log(rows_read).items()]
        for raw in raws:
            self._next[raw.log] = max(self._next[raw.log], int(raw.offsets[-1]) + 1)
        return raws

    def rest(self, log: Log) -> None:
        """Asks the broker for no more of this log: there are brokers that do not wait with an empty answer."""
        if log not in self._resting:
            self._resting.add(log)
            self._consumer.pause([TopicPartition(*log)])

    def commit(self, positions: Mapping[Log, int]) -> None:
        """Tells the group's offsets, for lag monitoring only: nothing waits for it and nothing is read back."""
        offsets = [TopicPartition(*log, offset) for log, offset in positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            logger.warning("offsets for lag monitoring were not committed: %s", error)

    def close(self) -> None:
        """Never raises."""
        with contextlib.suppress(KafkaException, RuntimeError):
            self._consumer.close()

    def _offset(self, log: Log, start: Start) -> int:
        low, high = watermarks(self._consumer, log)
        if start == "latest":
            return high
        if isinstance(start, int):
            at = offset_at(self._consumer, log, start)
            return high if at is None else at
        if isinstance(start, Mapping):
            return start.get(log.partition, low)
        if start not in (None, "earliest"):
            raise ValueError(f'reading starts at "earliest", "latest" or a time in microseconds, not {start!r}')
        return low

    def _by_log(self, messages: list[Message]) -> dict[Log, list[Message]]:
        if len(self._next) == 1:
            return dict.fromkeys(self._next, messages) if messages else {}
        found: dict[Log, list[Message]] = {}
        for message in messages:
            found.setdefault(Log(str(message.topic()), message.partition() or 0), []).append(message)
        return found

    def _on_event(self, message: Message) -> None:
        error = message.error()
        if error is None:
            return
        topic, partition = message.topic(), message.partition()
        log = None if topic is None or partition is None else Log(topic, partition)
        if error.code() == KafkaError._PARTITION_EOF:
            assert log is not None
            self._next[log] = self._seen_end[log] = max(self._next[log], message.offset() or 0)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET and log is not None:
            raise LogError(_out_of_range(log, self._next[log], *watermarks(self._consumer, log)))
        elif error.retriable() or error.code() in PASSING:
            logger.warning("reading goes on after: %s", error.str())
        else:
            where = f"{log.topic}[{log.partition}] cannot be read" if log else "reading failed"
            raise LogError(f"{where}: {error.str()} ({error.name()})")


def _out_of_range(log: Log, offset: int, low: int, end: int) -> str:
    gone = "rows were deleted before they were read (retention)"
    why = gone if offset < low else "the topic was created anew, or lost its end"
    return (
        f"offset {offset} of {log.topic}[{log.partition}] is not there: the log holds {low} to {end - 1}; {why}. "
        "Restore the log, or begin anew with a new pipeline name, which reads from where --from says"
    )


def raw_of(log: Log, messages: list[Message]) -> Raw:
    """The messages of one log (at least one) as arrays; ``append`` is NO_TIME where the broker gave no time.

    Mapping the unbound methods takes a quarter of what a comprehension that calls them takes: 0.02 us each.
    """
    count = len(messages)
    stamps = np.fromiter(chain.from_iterable(map(Message.timestamp, messages)), dtype=np.int64, count=2 * count)
    kinds, micros = stamps[::2], stamps[1::2] * 1000
    headers: Any = list(map(Message.headers, messages)) if any(map(Message.headers, messages)) else None
    return Raw(
        log,
        np.fromiter(map(Message.offset, messages), dtype=np.int64, count=count),
        np.where(kinds == NO_TIMESTAMP, NO_TIME, micros),
        np.where(kinds == BROKER_TIMESTAMP, micros, NO_TIME),
        list(map(Message.key, messages)),
        list(map(Message.value, messages)),
        headers,
    )


def read_topic(
    settings: Mapping[str, str],
    topic: str,
    partitions: Iterable[int] | None = None,
    start: Start = None,
    until_end: bool = True,
    *,
    batch_rows: int = 10_000,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Raw]:
    """The committed rows of a topic: raws of at most ``batch_rows`` rows, each of one log, in offset order.

    ``until_end`` ends behind the rows that are there when reading starts; otherwise reading goes on until ``stop``.

    Raises:
        TopicError, ConnectionFailed, LogError: the topic is not there, no broker answers, a log cannot be read.
    """
    if partitions is None:
        partitions = range(Cluster(settings).partition_counts([topic])[topic])
    logs = [Log(topic, partition) for partition in partitions]
    with Reader(settings, "thalweg.reader") as reader:
        reader.assign(reader.offsets(logs, start))
        while not stop():
            done = until_end and all(reader.position(log) >= reader.end(log) for log in logs)
            if done:
                return
            yield from reader.poll(batch_rows, POLL_S)


def subscribe(
    brokers: str,
    topic: str,
    *,
    start: Start = "latest",
    until_end: bool = False,
    settings: Mapping[str, str] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, Any]]:
    """The records of a topic as dicts, as they come, for ever.

    ``for prediction in subscribe("localhost:9092", "flights.predictions"): print(prediction["score"])``

    A message of many rows (``codec="arrow"``) gives one dict a row, as JSON would. A dead letter, and a message that is
    neither, comes as topic, partition, offset, key, value and headers, as text.
    """
    config = {"bootstrap.servers": brokers} | dict(settings or {})
    for raw in read_topic(config, topic, None, start, until_end, stop=stop):
        for row in range(len(raw)):
            yield from records_of(raw, row)


def records_of(raw: Raw, row: int) -> Sequence[dict[str, Any]]:
    """What one message says, a JSON object or an Arrow IPC stream of rows; see :func:`subscribe` for the rest."""
    value = raw.values[row]
    headers = raw.headers[row] if raw.headers else None
    refused = any(name == "thalweg.reason" for name, _ in headers or [])  # a dead letter: the reason matters most
    if value and not refused:
        with contextlib.suppress(ValueError, OSError, pa.ArrowException):
            if value.startswith(ARROW):
                return dicts_of(pa.ipc.open_stream(value).read_all())
            parsed = orjson.loads(value)
            if isinstance(parsed, dict):
                return [parsed]
    return [
        {
            "topic": raw.log.topic,
            "partition": raw.log.partition,
            "offset": int(raw.offsets[row]),
            "key": _text(raw.keys[row]),
            "value": _text(value),
            "headers": {name: _text(data) for name, data in headers or []},
        }
    ]


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")
