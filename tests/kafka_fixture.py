"""A real broker for tests: one embedded broker per session, topics of a test's own, and a chain that counts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from thalweg.connectors.broker import EmbeddedBroker
from thalweg.connectors.journal import Record, decode
from thalweg.connectors.kafka_config import Cluster, logger
from thalweg.connectors.kafka_read import read_topic
from thalweg.dataflows.live import Counts, Job, run_live
from thalweg.engine.batch import Raw, Row
from thalweg.engine.records import Left

_numbers = count()


class CountingChain:
    """One prediction per row, with the row's number in its shard and a hash of everything read before it."""

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.rows = 0
        self.hash = 0

    def push(self, raws: Iterable[Raw]) -> Left:
        return Left([], [self._row(raw, i) for raw in raws for i in range(len(raw))])

    def counters(self) -> dict[str, int]:
        return {"read": self.rows}

    def snapshot(self) -> bytes:
        return orjson.dumps([self.rows, self.hash])

    def restore(self, data: bytes) -> None:
        self.rows, self.hash = orjson.loads(data)

    def _row(self, raw: Raw, i: int) -> Row:
        payload = raw.values[i] or b""
        self.rows += 1
        for part in (raw.log.topic[0].encode(), payload):
            self.hash = (self.hash * 31 + sum(part)) % 1_000_003  # depends on the order
        value = {"id": f"{raw.log.topic}/{raw.log.partition}/{raw.offsets[i]}", "row": self.rows, "hash": self.hash}
        return Row("predictions", raw.log.partition, raw.keys[i], value | {"append": int(raw.append[i])})


class Kafka:
    """What a test needs of a broker; ``topic`` gives names that no other test uses."""

    def __init__(self, bootstrap: str) -> None:
        self.settings = {"bootstrap.servers": bootstrap}
        self.cluster = Cluster(self.settings)
        self._writer = self.producer()

    def topic(self, partitions: int = 1, config: Mapping[str, str] | None = None, prefix: str = "t") -> str:
        name = f"{prefix}{next(_numbers)}"
        self.cluster.create_topics({name: partitions}, config)
        return name

    def job(self, stream: str, **options: Any) -> Job:
        options = {"until_end": True, "epoch_s": 0.2} | options
        return Job(options.pop("name", f"job{next(_numbers)}"), stream, **options)

    def producer(self, **options: Any) -> Producer:
        return Producer({**self.settings, "linger.ms": 0, "logger": logger, **options})

    def write(self, topic: str, values: Iterable[bytes | None], partition: int = 0, time_ms: int = 0) -> None:
        producer = self._writer
        for value in values:
            producer.produce(topic, value, b"k", partition, timestamp=time_ms)
        assert producer.flush(10) == 0

    def values(self, topic: str, partition: int | None = None) -> list[dict[str, Any]]:
        """What stands on a topic, partition by partition."""
        wanted = None if partition is None else [partition]
        raws = sorted(read_topic(self.settings, topic, wanted), key=lambda raw: (raw.log, int(raw.offsets[0])))
        return [orjson.loads(value or b"") for raw in raws for value in raw.values]

    def written(self, job: Job) -> int:
        """How many predictions there are; 0 also before their topic is there."""
        topic = job.topic("predictions")
        return len(self.values(topic)) if topic in self.cluster.topics() else 0

    def journal(self, job: Job, shard: int = 0) -> list[Record]:
        raws = read_topic(self.settings, job.topic("journal"), [shard])
        return [decode(value) for raw in raws for value in raw.values]

    def run(self, job: Job, state: Path, **options: Any) -> Counts:
        return run_live(job, CountingChain, self.settings, state, **options)


@pytest.fixture(scope="session", name="bootstrap")
def bootstrap_fixture() -> Iterator[str]:
    with EmbeddedBroker() as broker:
        yield broker.bootstrap


@pytest.fixture(scope="session", name="kafka")
def kafka_fixture(bootstrap: str) -> Kafka:
    return Kafka(bootstrap)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
