"""How much do a second core and more partitions give? Threads, processes, Bytewax workers, one to many shards.

`chain`: two shards over messages in memory, one after the other, in two threads (kernels release the GIL, the rest does
not) and in two processes. On Kafka: one and two Bytewax workers on two partitions, and one on more of them; the broker
runs on the same cores, its share is stated.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bytewax.recovery import init_db_dir

from benchmarks import events, harness, payments
from benchmarks.chain import Chain, cut, raw_of
from benchmarks.e2e import thalweg_run
from benchmarks.harness import POLL_S, Process, digits, in_turns, python, say
from benchmarks.kafka import Meter, Topics, topics
from thalweg.engine.batch import Raw

EVENTS, EVENTS_FULL = 12_000, 200_000
STREAM, STREAM_FULL = 100_000, 500_000
PARTITIONS, PARTITIONS_FULL = (4,), (1, 4, 16)
RUN_S, RUN_FULL_S = 2.0, 15.0
RUNS, RUNS_FULL = 1, 5
BATCH = 4096
SHARDS = 2


def run(quick: bool) -> dict[str, Any]:
    """Ratios are rates of two at once over one after the other."""
    count, runs = (EVENTS, RUNS) if quick else (EVENTS_FULL, RUNS_FULL)
    result: dict[str, Any] = {"events_timed": {"chain": SHARDS * count * runs}}
    result["chain"] = in_memory(count, runs)
    with topics() as kafka, tempfile.TemporaryDirectory(prefix="thalweg-bench-") as folder:
        result |= on_kafka(kafka, Path(folder), quick)
    return result


def in_memory(count: int, runs: int) -> dict[str, Any]:
    """Two shards of so many events: one after the other, in threads, in processes."""
    raws = [_raw(count, seed) for seed in range(SHARDS)]
    contestants: dict[str, Callable[[], object]] = {
        "one": lambda: list(map(_push, raws)),
        "threads": lambda: _together([lambda raw=raw: _push(raw) for raw in raws]),  # type: ignore[misc]
    }
    timed = in_turns(contestants, SHARDS * count, runs=runs)
    one, two = _processes(count, runs)
    say(f"scaling: threads {timed['one'].median_s / timed['threads'].median_s:.2f}, processes {SHARDS * one / two:.2f}")
    return {
        "events_per_second": digits(timed["one"].events_per_second),
        "spread": digits(max(timed["one"].spread, timed["threads"].spread), 2),
        "ratio_threads": digits(timed["one"].median_s / timed["threads"].median_s),
        "ratio_processes": digits(SHARDS * one / two),
    }


def on_kafka(kafka: Topics, state: Path, quick: bool) -> dict[str, Any]:
    """Rates by workers and by partitions, as the broker saw them, and what the broker took of the cores."""
    rows = events.payments(STREAM if quick else STREAM_FULL, end_us=time.time_ns() // 1000)
    limit_s, found = RUN_S if quick else RUN_FULL_S, {}
    wanted = [(1, SHARDS), (SHARDS, SHARDS), *((1, n) for n in (PARTITIONS if quick else PARTITIONS_FULL))]
    rates: dict[tuple[int, int], list[dict[str, float]]] = {which: [] for which in wanted}
    streams = {n: fill(kafka, rows, n) for _, n in wanted}
    for _ in range(RUNS if quick else RUNS_FULL):
        for workers, partitions in wanted:
            measured = rate(kafka, state, streams[partitions], len(rows), workers, partitions, limit_s)
            rates[workers, partitions].append(measured)
            say(f"scaling: {workers} workers, {partitions} partitions: {measured['events_per_second']:,.0f} events/s")
    for (workers, partitions), runs in rates.items():
        name = f"{workers} of {partitions}"
        found[name] = {key: digits(median(each[key] for each in runs)) for key in runs[0]}
    one, two = (found[f"{workers} of {SHARDS}"]["events_per_second"] for workers in (1, SHARDS))
    return {"ratio_workers": digits(two / one), "workers_of_partitions": found}


def fill(kafka: Topics, rows: events.Payments, partitions: int) -> str:
    """A topic with each card in one of so many partitions."""
    topic = kafka.create(kafka.name("scaled"), partitions)
    keys, values, part = rows.keys(), list(rows.values()), rows.cards % partitions
    for p in range(partitions):
        own = np.flatnonzero(part == p).tolist()
        kafka.fill(topic, [keys[i] for i in own], [values[i] for i in own], part=p)
    return topic


def rate(
    kafka: Topics, state: Path, topic: str, count: int, workers: int, partitions: int, limit_s: float
) -> dict[str, float]:
    """Runs `thalweg run`, or Bytewax's runner where there are several workers, for a while."""
    name = kafka.name("scaling")
    target = kafka.create(f"{name}.predictions", partitions)
    process = _live(kafka, state / name, name, topic, workers)
    before, begun = 0.0, 0.0
    with Meter(kafka, target, partitions) as meter:
        process.start()
        while process.running(POLL_S) and meter.count < count and not meter.over(limit_s):
            if meter.count and not begun:
                begun, before = time.monotonic(), harness.cpu_seconds_of(kafka.broker_pid)
        taken = harness.cpu_seconds_of(kafka.broker_pid) - before
        seconds = time.monotonic() - begun
        process.stop()
        process.wait()
    per_second, timed = meter.rate()
    share = taken / seconds / (os.cpu_count() or 1)
    return {"events_per_second": per_second, "broker_share_of_cores": share, "events_timed": timed}


def _live(kafka: Topics, state: Path, name: str, topic: str, workers: int) -> Process:
    if workers == 1:
        return thalweg_run(kafka, state, name, topic, "flow")
    store = state / "recovery"
    store.mkdir(parents=True)
    init_db_dir(store, 1)
    flow = f"thalweg.dataflows.serve:dataflow('benchmarks.payments', '{kafka.brokers}')"
    options = ("-w", str(workers), "-r", str(store), "-s", "30", "-b", "0")
    return python("bytewax.run", flow, *options, environment={"PAYMENTS_NAME": name, "PAYMENTS_TOPIC": topic})


def _raw(count: int, seed: int) -> Raw:
    rows = events.payments(count, end_us=time.time_ns() // 1000, seed=seed)
    return raw_of(payments.TOPIC, rows.keys(), list(rows.values()), rows.times_us)


def _push(raw: Raw) -> None:
    chain = Chain(payments.flow)
    for at in range(0, len(raw), BATCH):
        chain.push(cut(raw, at, at + BATCH))


def _together(work: Sequence[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _processes(count: int, runs: int) -> tuple[float, float]:
    """Seconds of one process alone and of all of them at once, each with its shard: medians of the slowest."""
    workers = [python("benchmarks.scaling", str(count), str(seed)).start() for seed in range(SHARDS)]
    for worker in workers:
        worker.line()
    alone, together = ([_slowest(some) for _ in range(runs)] for some in (workers[:1], workers))
    for worker in workers:
        worker.say("")
        worker.wait()
    return median(alone), median(together)


def _slowest(workers: Sequence[Process]) -> float:
    begin = str(time.time() + 0.1)
    for worker in workers:
        worker.say(begin)
    return max(float(worker.line()) for worker in workers)


def _worker(count: int, seed: int) -> None:
    """One process: it is ready, is told when to begin, and says how long it took, until it is told nothing."""
    raw = _raw(count, seed)
    _push(raw)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        if not line.strip():
            break
        time.sleep(max(float(line) - time.time(), 0.0))
        start = time.perf_counter()
        _push(raw)
        sys.stdout.write(f"{time.perf_counter() - start}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _worker(*map(int, sys.argv[1:]))
