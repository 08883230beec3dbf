"""The Kafka sink, at-least-once: a fixed number of parts, the journal acknowledged before the outputs it covers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import orjson
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from thalweg.connectors.codecs import encode
from thalweg.connectors.journal import Record
from thalweg.connectors.kafka_config import logger, producer_config
from thalweg.connectors.kafka_source import shard_key
from thalweg.engine.batch import Row
from thalweg.engine.errors import ThalwegError
from thalweg.engine.records import Block, Left

POLL_S = 0.05
FLUSH_S = 1.0
CLOSE_S = 10.0
CONNECT_S = 5.0
# Unless the settings say otherwise. A record of 340 bytes, one of 4096, takes 1.5 us of CPU here and 0.6 to 1.1 at the
# embedded broker with lz4, 1.8 and 1.5 without. librdkafka's own 5 ms of waiting for more save nothing with batches
# such as ours; a few records alone are taken after 1.8 ms instead of 5.8. (Median of 5 runs, 2 cores, 2026-11.)
SETTINGS = {"compression.type": "lz4", "linger.ms": "1"}
KINDS = ("predictions", "alarms", "metrics", "dlq", "journal")


class DeliveryError(ThalwegError):
    """The broker did not take a record; the message says which topic, which partition and why."""


@dataclass(frozen=True, slots=True)
class Output:
    """What one journal record made leave a shard; ``followed`` when the record is on its topic already."""

    record: Record
    left: Left
    followed: bool


class KafkaSink(FixedPartitionedSink[Output, None]):
    """Writes each row to the topic of its kind, with the key and the partition of its source.

    ``topics`` maps every kind (``KINDS``) to a topic; ``codec`` is that of predictions. There is one part per shard,
    whatever the number of workers.
    After a crash the outputs since the last epoch are written again, with the same ids and values. Parts raise
    :class:`DeliveryError`; :meth:`check` raises one that came too late for its part.
    """

    def __init__(
        self, settings: Mapping[str, str], topics: Mapping[str, str], shards: Sequence[int], codec: str = "json"
    ) -> None:
        self._topics = dict(topics)
        self._codec = codec
        self._shards = sorted(shards)
        # All shards of a process share these two; the journal's sends at once.
        self._outputs, self._journal = Writer(settings), Writer({**settings, "linger.ms": "0"})

    def list_parts(self) -> list[str]:
        return [shard_key(number) for number in self._shards]

    def part_fn(self, item_key: str) -> int:
        return self._shards.index(int(item_key.removeprefix("shard-").partition("~")[0]))

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> ShardWriter:
        return ShardWriter(self._outputs, self._journal, self._topics, self._codec)

    def check(self) -> None:
        """Raises what went wrong while the parts were being closed, where they may not raise."""
        self._outputs.check()


class ShardWriter(StatefulSinkPartition[Output, None]):
    """One shard's part. The journal has a producer of its own, so that waiting for it waits for nothing else."""

    def __init__(self, outputs: Writer, journal: Writer, topics: Mapping[str, str], codec: str) -> None:
        self._codec = codec
        self._outputs = outputs
        self._journal = journal
        self._topics = topics

    def write_batch(self, values: list[Output]) -> None:
        records = [value.record for value in values if not value.followed]
        for record in records:
            self._journal.send(
                self._topics["journal"],
                record.shard,
                shard_key(record.shard).encode(),
                record.encode(),
                timestamp=record.read_at // 1000,
            )
        if records:
            self._journal.flush()  # 0.3 ms (median), 0.07 us a row of an item of 4096: too little to overlap
        for value in values:
            for block in value.left.predictions:
                self._send(block)
            for (kind, partition), rows in groupby(_grouped(value.left.rows), _place):
                self._outputs.send_rows(self._topics[kind], partition, list(rows))
        self._outputs.check()

    def _send(self, block: Block) -> None:
        topic, (keys, values) = self._topics[block.kind], encode(block, self._codec)
        if block.headers is None:
            self._outputs.send_block(topic, block.partition, keys, values)
            return
        for key, value, headers in zip(keys, values, block.headers, strict=True):
            self._outputs.send(topic, block.partition, key, value, headers)

    def snapshot(self) -> None:
        self._outputs.flush()

    def close(self) -> None:
        """Never raises, because Bytewax aborts the process then; :meth:`KafkaSink.check` raises instead."""
        self._outputs.flush_for(CLOSE_S)


class Writer:
    """An idempotent producer that stops at the first record that was not delivered."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._failure: str | None = None
        self._producer = Producer(producer_config({**SETTINGS, **settings}) | {"on_delivery": self._on_delivery})
        # Connects now: unconnected, an idempotent producer looks for a broker every half second only.
        with contextlib.suppress(KafkaException):
            self._producer.list_topics(timeout=CONNECT_S)

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]] | None = None,
        timestamp: int = 0,
    ) -> None:
        """Queues a record; waits while the queue is full."""
        more: dict[str, Any] = {"headers": headers} if headers else {}
        while True:
            try:
                self._producer.produce(topic, value, key, partition, timestamp=timestamp, **more)
                return
            except BufferError:
                self._wait()
            except KafkaException as error:
                raise DeliveryError(_undelivered(topic, partition, error.args[0])) from None

    def send_rows(self, topic: str, partition: int, rows: Sequence[Row]) -> None:
        """Queues the rows, in order."""
        for row in rows:
            self.send(topic, partition, row.key, _encoded(row), row.headers)

    def send_block(
        self, topic: str, partition: int, keys: Sequence[bytes | None], values: Sequence[bytes | None]
    ) -> None:
        """Queues records without headers, in order; waits while the queue is full.

        0.5 us of this thread a record; ``produce_batch`` takes 0.9, because it wants a dict of each.
        """
        produce = self._producer.produce
        for key, value in zip(keys, values, strict=True):
            try:
                produce(topic, value, key, partition)
            except (BufferError, KafkaException):
                self.send(topic, partition, key, value)

    def check(self) -> None:
        """Serves delivery reports; raises if one was an error."""
        self._producer.poll(0)
        if self._failure is not None:
            raise DeliveryError(self._failure)

    def flush(self) -> None:
        """Returns when the broker has taken everything; ends with an error after ``message.timeout.ms``."""
        while self._producer.flush(FLUSH_S):
            self.check()
        self.check()

    def flush_for(self, seconds: float) -> None:
        """As :meth:`flush`, but never raises and gives up after a while; :meth:`check` raises then."""
        left = self._producer.flush(seconds)
        if left and self._failure is None:
            self._failure = f"{left} records were not taken by the broker within {seconds:g} s of closing"
        if self._failure is not None:
            logger.error("%s", self._failure)

    def _wait(self) -> None:
        self._producer.poll(POLL_S)
        self.check()

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failure is None:
            self._failure = _undelivered(str(message.topic()), message.partition(), error)


def _grouped(rows: Sequence[Row]) -> Sequence[Row]:
    """By topic and partition, each in the order in which it came."""
    places = set(map(_place, rows))
    return rows if len(places) < 2 else sorted(rows, key=_place)


def _place(row: Row) -> tuple[str, int]:
    return row.kind, row.partition


def _encoded(row: Row) -> bytes | None:
    value = row.value
    return (
        value if value is None or isinstance(value, bytes) else orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    )


def _undelivered(topic: str, partition: int | None, error: KafkaError) -> str:
    hint = ""
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        hint = "; raise max.message.bytes of the topic, and message.max.bytes of the client"
    return f"{topic}[{partition}] did not take a record: {error.str()} ({error.name()}){hint}"
