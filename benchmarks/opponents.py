"""Small programs that run in processes of their own: ``python -m benchmarks.opponents NAME SOURCE TARGET ...``.

passthrough: what the log itself can do here, consume a batch and produce the same bytes. pacer and watcher: the two
ends of a latency measurement. The settings of their clients come from the environment, as JSON: nothing of the engine
is imported here.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.events import STEADY, payments
from benchmarks.harness import await_word

SLICE_S = 0.001  # how often the pacer sends
BATCH = 4096
TIMEOUT_S = 30.0


def passthrough(source: str, target: str, records: str) -> None:
    """Copies ``records`` records, the same bytes and keys."""
    reader, writer, left = open_reader(source), open_writer(), int(records)
    while left:
        batch = [message for message in reader.consume(BATCH, 0.01) if message.error() is None]
        send(writer, target, [{"key": message.key(), "value": message.value()} for message in batch])
        writer.poll(0)
        left -= len(batch)
    writer.flush()
    reader.close()


def pacer(source: str, out: str, per_second: str, seconds: str, end_us: str) -> None:
    """Sends payments evenly at a rate; writes when each was given to the client (int64 ns) to ``out``.

    They go on where the first ``STEADY`` of the same, which the topic holds, ended; event times do not keep pace with
    the clock, but are as dense as everywhere else, so that windows are as full.
    """
    rate, count = float(per_second), int(float(per_second) * float(seconds))
    rows = payments(STEADY + count, end_us=int(end_us)).last(count)
    messages = [{"key": key, "value": value} for key, value in zip(rows.keys(), rows.values(first=STEADY), strict=True)]
    writer, sent, at = open_writer(**{"linger.ms": "0"}), np.zeros(count, dtype=np.int64), 0
    await_word()
    start = time.monotonic()
    while at < count:
        due = min(int((time.monotonic() - start) * rate), count)
        if due > at:
            sent[at:due] = time.time_ns()
            send(writer, source, messages[at:due])
            at = due
        writer.poll(0)
        time.sleep(SLICE_S)
    writer.flush()
    np.save(out, sent)


def watcher(source: str, out: str, records: str) -> None:
    """Reads predictions as they come; writes when each was in hand (int64 ns), by its payment's number behind the
    first ``STEADY``, to ``out``."""
    count = int(records)
    read, left = np.zeros(count, dtype=np.int64), count
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    await_word()
    reader = open_reader(source, at_end=True)
    sys.stdout.write("reads\n")
    sys.stdout.flush()
    while left and not stopped:
        first = reader.poll(0.1)
        batch = [] if first is None else [first, *reader.consume(100_000, 0)]
        now = time.time_ns()
        for message in batch:
            value = message.value() if message.error() is None else None
            if value is not None:
                read[number_of(value) - STEADY] = now
                left -= 1
    np.save(out, read)
    reader.close()


def open_reader(topic: str, *, at_end: bool = False) -> Consumer:
    """A consumer of partition 0, from its beginning or its end."""
    consumer, log = Consumer(json.loads(os.environ["CONSUMER"])), TopicPartition(topic, 0)
    low, high = consumer.get_watermark_offsets(log, timeout=TIMEOUT_S)
    consumer.assign([TopicPartition(topic, 0, high if at_end else low)])
    return consumer


def open_writer(**settings: str) -> Producer:
    """A producer, connected."""
    producer = Producer(json.loads(os.environ["PRODUCER"]) | settings)
    producer.list_topics(timeout=TIMEOUT_S)
    return producer


def send(producer: Producer, topic: str, messages: list[dict[str, Any]], part: int = 0) -> None:
    """Queues all of them, in order; waits while the queue is full."""
    while producer.produce_batch(topic, messages, partition=part) < len(messages):
        messages = [message for message in messages if message.pop("_error", None) is not None]
        producer.poll(0.05)


def number_of(prediction: bytes) -> int:
    """The number of the payment that a prediction answers, out of its ``event_id``.

    >>> number_of(b'{"id":"x","event_id":"p00000000042","score":0.5}')
    42
    """
    at = prediction.index(b'"event_id":"p') + 13
    return int(prediction[at : at + 11])


PROGRAMS: dict[str, Callable[..., None]] = {
    "passthrough": passthrough,
    "pacer": pacer,
    "watcher": watcher,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
    sys.stdout.flush()
    os._exit(0)  # librdkafka's own threads need not be waited for
