"""Where does a prediction's time go, from produce to readable, at half of what the pipeline can do?

A pacer sends payments evenly at half of the rate that the same machine just reached, `thalweg run` answers with saved
state on, a watcher reads the predictions: three processes. The pipeline has read 108,000 payments before, so that its
windows are full. Percentiles are over all events behind the first fifth; state is saved in between.
Stages come from what stands on the topics: the broker's append times (whole milliseconds), the journal's read times,
and decoding and chain on the same batches, timed again in this process.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import events, harness, payments
from benchmarks.chain import cut
from benchmarks.e2e import DELIVERY, ENOUGH, PAYMENTS, PAYMENTS_FULL, RUN_FULL_S, RUN_S, Arena, thalweg_run
from benchmarks.harness import digits, python, say
from benchmarks.kafka import Topics, clients, topics
from thalweg.connectors.codecs import Form, reading_of
from thalweg.connectors.journal import Record, decode
from thalweg.connectors.kafka_read import read_topic
from thalweg.dataflows.settings import RunSettings
from thalweg.engine.batch import Log, Raw
from thalweg.engine.shard import Shard

SETTLED = 0.2  # the share of a run that does not count
LOAD = 0.5
SECONDS, SECONDS_FULL = 4.0, 45.0
EPOCH_S, EPOCH_FULL_S = 2.0, RunSettings().epoch_seconds  # a full run: our default
DRAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Ends:
    """Of each payment behind the first fifth, in the order in which they were sent: times in ns, int64[n]."""

    source: str
    name: str
    first: int  # the number, which is also the offset, of the first one
    sent: npt.NDArray[np.int64]
    read: npt.NDArray[np.int64]
    per_second: float
    epoch_s: float
    cpu_share: float

    @property
    def snapshots(self) -> int:
        """How often state was saved in between, at least."""
        return int((self.sent[-1] - self.sent[0]) / 1e9 / self.epoch_s)

    def milliseconds(self) -> npt.NDArray[np.float64]:
        """From produce to read."""
        return (self.read - self.sent) / 1e6


def run(quick: bool) -> dict[str, Any]:
    """See the module; ``quick`` measures for a few seconds."""
    with topics() as kafka, tempfile.TemporaryDirectory(prefix="thalweg-bench-") as folder:
        arena = Arena(kafka, Path(folder))
        end_us = time.time_ns() // 1000 - events.DELAY_US
        work = arena.fill(events.payments(PAYMENTS if quick else PAYMENTS_FULL, end_us=end_us))
        arena.ours(work, RUN_S if quick else RUN_FULL_S, enough=ENOUGH)()
        rate = LOAD * arena.rates("ours")[0]
        ends = measure(kafka, arena.state, rate, *((SECONDS, EPOCH_S) if quick else (SECONDS_FULL, EPOCH_FULL_S)))
        return {"delivery": DELIVERY} | told(ends) | {"stages": stages(kafka, ends)}


def measure(kafka: Topics, state: Path, per_second: float, seconds: float, epoch_s: float) -> Ends:
    """Runs the three processes; raises :class:`harness.Failed` where predictions are missing at the end."""
    source, name = kafka.create(kafka.name("paced"), appended=True), kafka.name("latency")
    target = kafka.create(f"{name}.predictions", appended=True)
    count, ends, end_us = int(per_second * seconds), clients(kafka.brokers), time.time_ns() // 1000
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / file) for file in ("sent.npy", "read.npy")]
        live = thalweg_run(kafka, state / name, name, source, "flow", epoch=str(epoch_s))
        watcher = python("benchmarks.opponents", "watcher", target, files[1], str(count), environment=ends, gated=True)
        pacing = (source, files[0], str(per_second), str(seconds), str(end_us))
        pacer = python("benchmarks.opponents", "pacer", *pacing, environment=ends, gated=True)
        processes = [live.prepare(), watcher.prepare(), pacer.prepare()]
        try:
            before = events.payments(events.STEADY + count, end_us=end_us).first(events.STEADY)
            kafka.fill(source, before.keys(), before.values())
            pacer.ready()
            live.start()
            _await_count(kafka, target, events.STEADY)
            watcher.start()
            while watcher.line() != "reads":
                pass
            started, used = time.monotonic(), harness.cpu_seconds_of(live.pid)
            pacer.start().wait()
            share = (harness.cpu_seconds_of(live.pid) - used) / (time.monotonic() - started)
            _await_count(kafka, target, events.STEADY + count)
            watcher.wait()
        finally:
            for process in processes:
                process.stop()
        live.wait()
        sent, read = (np.load(file) for file in files)
    missing = int(np.count_nonzero(read == 0))
    if missing:
        raise harness.Failed(f"{missing} of {count} predictions were not read")
    settled = int(SETTLED * count)
    reached = (count - 1) / max((sent[-1] - sent[0]) / 1e9, 1e-9)
    return Ends(source, name, events.STEADY + settled, sent[settled:], read[settled:], reached, epoch_s, share)


def told(ends: Ends, prefix: str = "latency") -> dict[str, Any]:
    """Percentiles in milliseconds, and under which load."""
    p50, p90, p99, largest = np.percentile(ends.milliseconds(), [50, 90, 99, 100])
    say(f"at {ends.per_second:,.0f} events/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    return {
        f"{prefix}_p50_ms": digits(p50),
        f"{prefix}_p90_ms": digits(p90),
        f"{prefix}_p99_ms": digits(p99),
        f"{prefix}_max_ms": digits(largest),
        f"{prefix}_events_per_second": digits(ends.per_second),
        f"{prefix}_events_timed": len(ends.sent),
        f"{prefix}_snapshot_seconds": ends.epoch_s,
        f"{prefix}_snapshots": ends.snapshots,
        f"{prefix}_cpu_share": digits(ends.cpu_share, 2),
    }


def stages(kafka: Topics, ends: Ends) -> dict[str, Any]:
    """Mean milliseconds of an event in each stage, and the stage's share of the whole.

    client_send: from produce to the broker's log. source_wait: until the shard takes it. decode, chain: the whole
    batch that it came in. produce: the journal's acknowledgement, encoding and the way to the broker's log.
    read: until the watcher has it.
    """
    asked = list(read_topic(kafka.settings, ends.source))
    appended, answered = (_append_ns(raws)[ends.first :] for raws in (asked, _predictions(kafka, ends.name)))
    taken, decode_ns, chain_ns = (times[ends.first :] for times in _batches(kafka, ends, Raw.joined(asked)))
    steps = {
        "client_send": appended - ends.sent,
        "source_wait": taken - appended,
        "decode": decode_ns,
        "chain": chain_ns,
        "produce": answered - taken - decode_ns - chain_ns,
        "read": ends.read - answered,
    }
    whole = float(np.mean(ends.read - ends.sent))
    return {
        name: {"mean_ms": digits(np.mean(step) / 1e6), "share": digits(np.mean(step) / whole)}
        for name, step in steps.items()
    }


def _predictions(kafka: Topics, name: str) -> list[Raw]:
    return list(read_topic(kafka.settings, f"{name}.predictions"))


def _append_ns(raws: list[Raw]) -> npt.NDArray[np.int64]:
    """In the middle of the broker's millisecond."""
    return np.concatenate([raw.times for raw in raws]) * 1000 + 500_000


def _batches(kafka: Topics, ends: Ends, asked: Raw) -> tuple[npt.NDArray[np.int64], ...]:
    """Per event, int64 ns: when its batch was taken, how long the batch took to decode and in the chain."""
    definition = payments.flow.definition
    forms, shard = {definition.stream.topic: Form.of(definition, definition.stream.topic)}, Shard(definition)
    taken, decoding, chain = (np.zeros(len(asked), dtype=np.int64) for _ in range(3))
    for record in _journal(kafka, ends.name):
        for extent in record.reads:
            raw = cut(asked, extent.first, extent.last + 1)
            raw = Raw(Log(definition.stream.topic, 0), *(getattr(raw, name) for name in _PARTS))
            start = time.perf_counter_ns()
            reading = reading_of([raw], forms)
            middle = time.perf_counter_ns()
            shard.push(reading)
            rows = slice(extent.first, extent.last + 1)
            decoding[rows], chain[rows] = middle - start, time.perf_counter_ns() - middle
            taken[rows] = record.read_at * 1000
    return taken, decoding, chain


_PARTS = ("offsets", "times", "append", "keys", "values")


def _journal(kafka: Topics, name: str) -> list[Record]:
    raws = read_topic(kafka.settings, f"{name}.journal")
    return [decode(value) for raw in raws for value in raw.values]


def _await_count(kafka: Topics, topic: str, count: int) -> None:
    """Until so many records stand there."""
    deadline = time.monotonic() + DRAIN_S
    while (found := kafka.count(topic)) < count:
        if time.monotonic() > deadline:
            raise harness.Failed(f"{found} of {count} predictions came within {DRAIN_S:g} s behind the last payment")
        time.sleep(0.05)
