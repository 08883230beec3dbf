"""A broker for benchmarks: topics filled before the clock runs, and rates as the broker saw them.

A rate is that of records arriving on a topic, whoever writes them, and needs nothing inside the contestants.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, count, pairwise
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks.opponents import send
from thalweg.connectors.broker import EmbeddedBroker
from thalweg.connectors.kafka_config import Cluster, consumer_config, logger, producer_config
from thalweg.connectors.kafka_sink import SETTINGS
from thalweg.connectors.kafka_source import QUEUE_KILOBYTES

# What a pipeline's own source gives the consumer of a log (kafka_source.py), on top of the connectors' defaults.
FETCHING = {"queued.max.messages.kbytes": str(QUEUE_KILOBYTES), "fetch.queue.backoff.ms": "10"}
WARM_UP = 0.1  # the share of a run's records that come before the clock starts
BATCH = 4096
EARLY = 0.45  # the clock starts within so much of the rest
LOOK_S, WAIT_S = 0.02, 0.1  # between two looks, and before anything has come: each look is two small requests
PAUSE_S = 0.1
PATIENCE = 4  # how many times longer than asked for a second burst is waited for
TIMEOUT_S = 30.0
THREAD_S = 5.0

_numbers = count()


class Topics:
    """What a benchmark does with the broker."""

    def __init__(self, brokers: str, pid: int | None = None) -> None:
        self.brokers = brokers
        self.broker_pid = pid
        self.settings = {"bootstrap.servers": brokers}
        self._cluster = Cluster(self.settings)
        self._admin = AdminClient({**self.settings, "logger": logger})  # type: ignore[dict-item]
        self._asking = Consumer(consumer_config(self.settings, "benchmarks"))

    def fill(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Iterable[bytes],
        times_us: Sequence[int] = (),
        part: int = 0,
    ) -> None:
        """Writes one record a value, as of now or with the times of the events as timestamps."""
        producer = Producer(producer_config(self.settings))
        if len(times_us):
            for key, value, time in zip(keys, values, times_us, strict=True):
                while True:
                    try:
                        producer.produce(topic, value, key, part, timestamp=time // 1000)
                        break
                    except BufferError:
                        producer.poll(0.05)
        else:
            messages = [{"key": key, "value": value} for key, value in zip(keys, values, strict=True)]
            for at in range(0, len(messages), 10_000):
                send(producer, topic, messages[at : at + 10_000], part)
        assert producer.flush(TIMEOUT_S) == 0

    def create(self, topic: str, partitions: int = 1, *, appended: bool = False) -> str:
        """Makes a topic; ``appended`` gives its records the broker's time."""
        self._cluster.create_topics(
            {topic: partitions}, {"message.timestamp.type": "LogAppendTime"} if appended else {}
        )
        return topic

    def delete(self, topics: Iterable[str]) -> None:
        """Takes away what is not needed any more: the embedded broker keeps everything in memory, and saves it."""
        there = self.names()
        for future in self._admin.delete_topics([topic for topic in topics if topic in there]).values():
            future.result(TIMEOUT_S)

    def name(self, what: str) -> str:
        """A name that nothing else has."""
        return f"{what}_{next(_numbers)}"

    def names(self) -> set[str]:
        """The topics that there are."""
        return set(self._cluster.topics())

    def count(self, topic: str, part: int = 0) -> int:
        """How many records stand there."""
        low, high = self._asking.get_watermark_offsets(TopicPartition(topic, part), timeout=TIMEOUT_S)
        return int(high - low)

    def values(self, topic: str, limit: int, part: int = 0) -> list[bytes]:
        """The first ``limit`` values."""
        return [value for message in self.messages(topic, part, 0, limit) if (value := message.value()) is not None]

    def messages(self, topic: str, part: int, offset: int, limit: int) -> Iterator[Message]:
        """Those from ``offset`` on, at most ``limit`` offsets further."""
        end = min(offset + limit, self.count(topic, part))
        with self._reader() as reader:
            reader.assign([TopicPartition(topic, part, offset)])
            while offset < end:
                for message in reader.consume(min(end - offset, 10_000), 1.0):
                    if message.error() is None:
                        offset = int(message.offset() or 0) + 1
                        yield message

    @contextmanager
    def _reader(self) -> Iterator[Consumer]:
        reader = Consumer(consumer_config(self.settings, "benchmarks"))
        try:
            yield reader
        finally:
            reader.close()


class Meter:
    """Looks every few milliseconds at how many records stand on a topic, in a thread, and tells their rate.

    Where records come in bursts, a rate is that from the end of one burst to the end of another; see :func:`rate_of`.
    """

    def __init__(self, kafka: Topics, topic: str, partitions: int = 1) -> None:
        self._count = lambda: sum(kafka.count(topic, part) for part in range(partitions))
        self.looks: list[tuple[float, int]] = []
        self._stalled = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()
        if self._stalled:  # what was waited for in vain counts
            self.looks.append((time.monotonic(), self.count))

    @property
    def count(self) -> int:
        """As of the last look."""
        return self.looks[-1][1] if self.looks else 0

    def over(self, limit_s: float) -> bool:
        """Whether the first records came so long ago, and enough since to tell a rate."""
        looks = self.looks
        if not looks:
            return False
        elapsed, seen = time.monotonic() - looks[0][0], looks[-1][0] - looks[0][0]
        self._stalled = elapsed > PATIENCE * limit_s and seen <= limit_s / 2
        return self._stalled or (elapsed > limit_s and seen > limit_s / 2)

    def rate(self, warm: int = 0, rows: Sequence[int] | None = None) -> tuple[float, int]:
        """Rows per second, and how many were timed; ``warm`` rows are not. ``rows`` of each record, where not one."""
        if rows is None:
            return rate_of(self.looks, warm)
        until = [0, *accumulate(rows)]
        return rate_of([(at, until[count]) for at, count in self.looks], warm)

    def _watch(self) -> None:
        while not self._done.wait(LOOK_S if self.looks else WAIT_S):
            self._look()

    def _look(self) -> None:
        if (count := self._count()) > self.count:
            self.looks.append((time.monotonic(), count))


def rate_of(looks: Sequence[tuple[float, int]], warm: int = 0) -> tuple[float, int]:
    """Records per second out of (seconds, how many by then), and how many were timed.

    Between two bursts nothing comes for a while: the clock starts at the longest pause of the first half of what comes
    behind a tenth of all records and the first ``warm`` ones, or right there where they flow.

    >>> rate_of([(0.0, 5), (0.25, 10), (0.26, 60), (0.75, 100)])
    (180.0, 90)
    >>> rate_of([(0.0, 50), (0.01, 100), (1.0, 150), (1.01, 200)])
    (100.0, 100)
    >>> rate_of([(0.0, 40), (0.25, 50), (0.5, 75), (0.75, 100)], warm=50)
    (100.0, 50)

    Raises:
        ValueError: fewer than two looks are left.
    """
    if len(looks) < 2:
        raise ValueError(f"all {looks[-1][1] if looks else 0} records came at once: no rate can be told")
    end, total = looks[-1]
    low = max(WARM_UP * total, warm)
    pauses = [(after[0] - look[0], look) for look, after in pairwise(looks)]
    early = [one for one in pauses if low <= one[1][1] <= low + EARLY * (total - low)]
    longest, (start, before) = max(early or pauses, key=lambda one: one[0])
    if early and longest < PAUSE_S:
        start, before = early[0][1]
    return (total - before) / (end - start), total - before


@contextmanager
def topics() -> Iterator[Topics]:
    """An embedded broker of the benchmark's own."""
    with EmbeddedBroker() as broker:
        _saves_when_idle(broker.pid)
        yield Topics(broker.bootstrap, broker.pid)


def _saves_when_idle(pid: int | None) -> None:
    """The embedded broker writes all that it holds to disk again every second, half a core for 100 MB, which is no
    part of Kafka and hits who takes longest: that thread of it runs when nothing else wants to.

    Raises:
        RuntimeError: there is no such thread, so that figures would be of what it does.
    """
    deadline = time.monotonic() + THREAD_S
    while Path(f"/proc/{pid}/task").is_dir():
        found = [task for task in _threads(pid) if _comm(task) == "autosave"]
        for task in found:
            os.sched_setscheduler(int(task.name), os.SCHED_IDLE, os.sched_param(0))
        if found:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"the embedded broker has no thread that saves: {sorted(map(_comm, _threads(pid)))}")
        time.sleep(LOOK_S)


def _threads(pid: int | None) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").glob("*"))


def _comm(task: Path) -> str:
    """The name of a thread, empty where it has ended."""
    try:
        return (task / "comm").read_text().strip()
    except OSError:
        return ""


def clients(brokers: str) -> dict[str, str]:
    """What :mod:`benchmarks.opponents` takes from its environment: the settings of a pipeline's own clients."""
    servers = {"bootstrap.servers": brokers}
    return {
        "CONSUMER": _json(consumer_config(FETCHING | servers, "benchmarks")),
        "PRODUCER": _json(producer_config(SETTINGS | servers)),
    }


def _json(config: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in config.items() if name != "logger"})
