"""How much do a second core and more partitions give? Threads, processes, Bytewax workers, one to many shards.

`chain`: two shards over messages in memory, one after the other, in two threads (kernels release the GIL, the rest does
not) and in two processes. On Kafka: one and two Bytewax workers on two partitions, bound by computation, and one on
more of them; the broker runs on the same cores, its share is stated.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bytewax.recovery import init_db_dir

from benchmarks import events, harness, payments
from benchmarks.chain import Chain, cut, raw_of
from benchmarks.e2e import AHEAD, thalweg_run
from benchmarks.harness import POLL_S, Process, behind_gate, digits, in_turns, python, say
from benchmarks.kafka import Meter, Topics, topics
from thalweg.connectors.kafka_sink import KINDS
from thalweg.engine.batch import Raw

EVENTS, EVENTS_FULL = 12_000, 200_000
STREAM, STREAM_FULL = 200_000, 1_000_000
PARTITIONS, PARTITIONS_FULL = (1, 2, 4), (1, 2, 4, 16)
RUN_S, RUN_FULL_S = 2.0, 15.0
RUNS, RUNS_FULL = 1, 5
BATCH = 4096
SHARDS = 2


def run(quick: bool) -> dict[str, Any]:
    """Ratios are rates of two at once over one after the other."""
    count, runs = (EVENTS, RUNS) if quick else (EVENTS_FULL, RUNS_FULL)
    with topics() as kafka, tempfile.TemporaryDirectory(prefix="thalweg-bench-") as folder:
        result = on_kafka(kafka, Path(folder), quick)
    return result | {"events_timed": {"chain": SHARDS * count * runs}, "chain": in_memory(count, runs)}


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
    """Rates by workers and by partitions, as the broker saw them, and what the broker took of the cores.

    Two workers are two processes, against one on the same two partitions, with an ensemble that goes through River:
    bound by computation, in Python. Partitions are compared with the model of the end-to-end work, and one worker.
    """
    rows = events.payments(STREAM if quick else STREAM_FULL, end_us=time.time_ns() // 1000)
    limit_s, found = RUN_S if quick else RUN_FULL_S, {}
    wanted = [(1, SHARDS, "bagged"), (SHARDS, SHARDS, "bagged")]
    wanted += [(1, n, "flow") for n in (PARTITIONS if quick else PARTITIONS_FULL)]
    rates: dict[tuple[int, int, str], list[dict[str, float]]] = {which: [] for which in wanted}
    streams = {n: fill(kafka, rows, n) for n in dict.fromkeys(n for _, n, _ in wanted)}
    for _ in range(RUNS if quick else RUNS_FULL):
        started = [Started(kafka, state, streams[which[1]], *which) for which in wanted]
        for one in started:
            one.ready()
        for which, one in zip(wanted, started, strict=True):
            measured = one.rate(kafka, len(rows), limit_s)
            rates[which].append(measured)
            say(f"scaling: {_name(*which)}: {measured['events_per_second']:,.0f} events/s")
    for which, runs in rates.items():
        found[_name(*which)] = {key: digits(median(each[key] for each in runs)) for key in runs[0]}
    one, two = (found[_name(workers, SHARDS, "bagged")] for workers in (1, SHARDS))
    return {
        "ratio_workers": digits(two["events_per_second"] / one["events_per_second"]),
        "broker_share_of_cores": two["broker_share_of_cores"],
        "workers_of_partitions": found,
    }


def _name(workers: int, partitions: int, flow: str) -> str:
    return f"{workers} of {partitions}, {flow}"


def fill(kafka: Topics, rows: events.Payments, partitions: int) -> str:
    """A topic with each card in one of so many partitions."""
    topic = kafka.create(kafka.name("scaled"), partitions)
    keys, values, part = rows.keys(), list(rows.values()), rows.cards % partitions
    for p in range(partitions):
        own = np.flatnonzero(part == p).tolist()
        kafka.fill(topic, [keys[i] for i in own], [values[i] for i in own], part=p)
    return topic


class Started:
    """`thalweg run`, or Bytewax's runner in as many processes as there are workers, up to the gate."""

    def __init__(self, kafka: Topics, state: Path, topic: str, workers: int, partitions: int, flow: str) -> None:
        self._name = kafka.name("scaling")
        self._partitions = partitions
        self._target = kafka.create(f"{self._name}.predictions", partitions)
        processes = _live(kafka, state / self._name, self._name, topic, flow, workers)
        self._processes = [process.prepare() for process in processes]

    def ready(self) -> None:
        """Waits until they have started up: nothing starts up while another one is timed."""
        for process in self._processes:
            process.ready()

    def rate(self, kafka: Topics, count: int, limit_s: float) -> dict[str, float]:
        """Lets it run for a while, at most until there are ``count`` predictions."""
        before, begun = 0.0, 0.0
        with Meter(kafka, self._target, self._partitions) as meter:
            for process in self._processes:
                process.start()
            while self._processes[0].running(POLL_S) and meter.count < count and not meter.over(limit_s):
                if meter.count and not begun:
                    begun, before = time.monotonic(), harness.cpu_seconds_of(kafka.broker_pid)
            taken = harness.cpu_seconds_of(kafka.broker_pid) - before
            seconds = time.monotonic() - begun
            for process in self._processes:
                process.stop()
            for process in self._processes:
                process.wait()
        kafka.delete([one for one in kafka.names() if one.startswith(f"{self._name}.")])
        per_second, timed = meter.rate()
        share = taken / seconds / (os.cpu_count() or 1)
        return {"events_per_second": per_second, "broker_share_of_cores": share, "events_timed": timed}


def _live(kafka: Topics, state: Path, name: str, topic: str, flow: str, workers: int) -> list[Process]:
    if workers == 1:
        return [thalweg_run(kafka, state, name, topic, flow)]
    for kind in KINDS:
        kafka.create(f"{name}.{kind}", SHARDS)  # or two processes would, at the same time
    store = state / "recovery"
    store.mkdir(parents=True)
    init_db_dir(store, 1)
    flow = f"thalweg.dataflows.serve:dataflow('benchmarks.payments:{flow}', '{kafka.brokers}')"
    addresses = ";".join(f"127.0.0.1:{port}" for port in free_ports(workers))
    options = (flow, "-a", addresses, "-r", str(store), "-s", "30", "-b", "0")
    environment = {"PAYMENTS_NAME": name, "PAYMENTS_TOPIC": topic}
    return [behind_gate(AHEAD, "bytewax.run", *options, "-i", str(i), environment=environment) for i in range(workers)]


def free_ports(count: int) -> list[int]:
    """That nothing listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


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
