"""A pipeline live on Kafka: wiring on Bytewax, and running it in this process, with saved state.

Bytewax drives; what a shard reads, in which order, and what that gives is ours (rules 1 and 11 of the contract).
"""

from __future__ import annotations

import fcntl
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

import bytewax.operators as op
from bytewax._bytewax import cli_main
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.recovery import RecoveryConfig, init_db_dir

from thalweg.connectors.kafka_config import Cluster, TopicError
from thalweg.connectors.kafka_read import Start
from thalweg.connectors.kafka_sink import KINDS, KafkaSink, Output
from thalweg.connectors.kafka_source import BATCH_ROWS, Item, KafkaSource, ShardLogs
from thalweg.connectors.merged import Merged
from thalweg.dataflows.placement import chain_key
from thalweg.engine.batch import Log
from thalweg.engine.errors import ThalwegError
from thalweg.engine.records import Left

PROGRESS_S = 0.2
# A dead letter holds the bytes of a message that the input topic took, however large that was; a journal record
# names every change of the log within a batch.
LARGE, LARGE_CONFIG = ("dlq", "journal"), {"max.message.bytes": "16000000"}


class Chain(Protocol):
    """What a shard does: rows in the order in which it reads them, rows that leave, state as bytes.

    A chain may also have ``counters() -> Mapping[str, int]``, which is journaled with each step.
    """

    def push(self, raws: Merged) -> Left: ...

    def snapshot(self) -> bytes: ...

    def restore(self, data: bytes) -> None: ...


MakeChain = Callable[[int], Chain]


class LiveError(ThalwegError):
    """The pipeline was not started, or stopped on an error; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Job:
    """What runs: the pipeline's name, its input topics, the topics of its outputs by kind, and how it reads.

    Partition p of every input is shard p, or one shard reads everything (``shards="one"``). ``start`` counts on the
    first start only; times are microseconds.
    """

    name: str
    stream: str
    labels: tuple[str, ...] = ()
    topics: Mapping[str, str] = field(default_factory=dict)
    shards: Literal["each", "one"] = "each"
    start: Start = "earliest"
    until_end: bool = False
    batch_rows: int = BATCH_ROWS
    epoch_s: float = 10.0
    codec: Literal["json", "arrow"] = "json"

    def topic(self, kind: str) -> str:
        """The topic of a kind of output: ``<pipeline>.<kind>``, unless renamed."""
        return self.topics.get(kind, f"{self.name}.{kind}")


@dataclass(slots=True)
class Counts:
    """What a run has done so far: rows read by topic, rows written by kind, rows that followed the journal."""

    read: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    followed: int = 0


def run_live(
    job: Job,
    make_chain: MakeChain,
    settings: Mapping[str, str],
    state: Path,
    *,
    stop: threading.Event | None = None,
    progress: Callable[[Counts], None] | None = None,
) -> Counts:
    """Runs until the end (``job.until_end``), ``stop`` or a signal; saves state under ``state``.

    SIGINT and SIGTERM end it with a last epoch, so that nothing is written twice later; a second one interrupts.
    ``progress`` is called a few times per second while rows come, and at the end.

    Raises:
        ThalwegError: what a connector or the engine complains of.
        LiveError: the state folder is in use, or a chain or Bytewax failed; the cause is attached.
    """
    stop = stop or threading.Event()
    counts = Counts()
    with _locked(state), _stops_on_signals(stop):
        shards = plan_shards(job, settings)
        sink = _sink(job, settings, shards)
        flow = _flow(job, make_chain, settings, shards, sink, stop.is_set, _Tally(counts, progress))
        try:
            cli_main(flow, epoch_interval=timedelta(seconds=job.epoch_s), recovery_config=_recovery(state / "recovery"))
        except Exception as error:
            ours = _ours(error)
            if ours is not None:
                raise ours from None
            raise LiveError(f"the pipeline stopped on {_innermost(error)!r}") from error
        sink.check()
    if progress is not None:
        progress(counts)
    return counts


def dataflow(
    job: Job, make_chain: MakeChain, settings: Mapping[str, str], stop: Callable[[], bool] = lambda: False
) -> Dataflow:
    """The same flow for ``python -m bytewax.run``, which keeps state where its ``-r`` says."""
    shards = plan_shards(job, settings)
    return _flow(job, make_chain, settings, shards, _sink(job, settings, shards), stop, _Tally(Counts(), None))


def plan_shards(job: Job, settings: Mapping[str, str]) -> list[ShardLogs]:
    """The shards and their logs; creates the output topics that are missing.

    Raises:
        TopicError: an input is missing, inputs differ in their number of partitions, or an output does not fit.
        ConnectionFailed: no broker answers.
    """
    cluster = Cluster(settings)
    inputs = cluster.partition_counts(dict.fromkeys([job.stream, *job.labels]))
    count = inputs[job.stream]
    logs = [Log(topic, partition) for topic in inputs for partition in range(inputs[topic])]
    if job.shards == "one":
        shards = [ShardLogs(0, tuple(sorted(logs)))]
    else:
        for topic, other in inputs.items():
            if other != count:
                raise TopicError(
                    f"topic {topic!r} has {other} partitions, {job.stream!r} has {count}: a row and its label meet in "
                    'one shard only if both topics have the same count and the same key. Or write shards="one"'
                )
        shards = [ShardLogs(p, tuple(sorted(log for log in logs if log.partition == p))) for p in range(count)]
    outputs = {job.topic(kind): max(inputs.values()) for kind in KINDS}
    outputs[job.topic("journal")] = len(shards)
    _create(cluster, outputs, job)
    return shards


def repair(store: Path) -> int:
    """Deletes snapshots of epochs that never committed; gives their number.

    Bytewax 0.21.1 leaves them behind when it dies while an epoch closes, and loads one of them after the next crash:
    state that already holds what the source replays. An epoch counts when every worker of the newest execution
    passed it, in all parts of the store.
    """
    executions: list[tuple[int, int, int]] = []
    frontiers: list[tuple[int, int, int]] = []
    parts = sorted(store.glob("part-*.sqlite3"))
    for part in parts:
        with closing(sqlite3.connect(part)) as database:
            executions += database.execute("SELECT ex_num, worker_count, resume_epoch FROM exs")
            frontiers += database.execute("SELECT ex_num, worker_index, worker_frontier FROM fronts")
    if not executions:
        return 0
    newest, workers, resumed = max(executions)
    passed = dict.fromkeys(range(workers), resumed)
    for execution, worker, frontier in frontiers:
        if execution == newest:
            passed[worker] = max(passed.get(worker, resumed), frontier)
    deleted = 0
    for part in parts:
        with closing(sqlite3.connect(part)) as database, database:
            deleted += database.execute("DELETE FROM snaps WHERE snap_epoch >= ?", (min(passed.values()),)).rowcount
    return deleted


class _Tally:
    """Counts what passes, and tells ``progress`` a few times per second."""

    def __init__(self, counts: Counts, progress: Callable[[Counts], None] | None) -> None:
        self._counts = counts
        self._progress = progress
        self._told = time.monotonic()

    def add(self, item: Item, left: Left) -> None:
        for raw in item.raws.parts:
            self._counts.read[raw.log.topic] += len(raw)
            self._counts.followed += len(raw) if item.followed else 0
        self._counts.written.update(row.kind for row in left.rows)
        for block in left.predictions:
            self._counts.written[block.kind] += len(block)
        if self._progress is not None and time.monotonic() - self._told >= PROGRESS_S:
            self._told = time.monotonic()
            self._progress(self._counts)


class _ShardLogic(StatefulBatchLogic[Item, Output, bytes]):
    """One shard's chain. It is built by the first item, which says which shard it is; nothing happens at the end."""

    def __init__(self, make_chain: MakeChain, tally: _Tally, state: bytes | None) -> None:
        self._make_chain = make_chain
        self._tally = tally
        self._state = state
        self._chain: Chain | None = None

    def on_batch(self, values: list[Item]) -> tuple[list[Output], bool]:
        return [self._push(item) for item in values], self.RETAIN

    def snapshot(self) -> bytes:
        if self._chain is not None:
            return self._chain.snapshot()
        assert self._state is not None, "a shard is only awake after its first item"
        return self._state

    def _push(self, item: Item) -> Output:
        if self._chain is None:
            self._chain = self._make_chain(item.shard)
            if self._state is not None:
                self._chain.restore(self._state)
            elif item.record.number:
                raise LiveError(
                    f"there is no saved state of shard {item.shard}, but its source goes on at {item.record.id}: the "
                    "state folder was written by another version. Begin anew with a new state folder, which rebuilds "
                    "state from the journal"
                )
        left = self._chain.push(item.raws) if item.raws else Left([], [])
        self._tally.add(item, left)
        counters = getattr(self._chain, "counters", None)
        record = item.record if counters is None else replace(item.record, counters=dict(counters()))
        return Output(record, left, item.followed)


def _flow(
    job: Job,
    make_chain: MakeChain,
    settings: Mapping[str, str],
    shards: Sequence[ShardLogs],
    sink: KafkaSink,
    stop: Callable[[], bool],
    tally: _Tally,
) -> Dataflow:
    source = KafkaSource(
        settings,
        job.name,
        shards,
        job.topic("journal"),
        start=job.start,
        until_end=job.until_end,
        batch_rows=job.batch_rows,
        stop=stop,
    )
    flow = Dataflow("thalweg")
    items = op.input("read", flow, source)
    keyed = op.key_on("shard", items, lambda item: chain_key(item.shard))
    outputs = op.stateful_batch("chain", keyed, lambda state: _ShardLogic(make_chain, tally, state))
    op.output("write", outputs, sink)
    return flow


def _sink(job: Job, settings: Mapping[str, str], shards: Sequence[ShardLogs]) -> KafkaSink:
    topics = {kind: job.topic(kind) for kind in KINDS}
    return KafkaSink(settings, topics, [shard.number for shard in shards], job.codec)


def _create(cluster: Cluster, outputs: Mapping[str, int], job: Job) -> None:
    large = {job.topic(kind): outputs[job.topic(kind)] for kind in LARGE}
    try:
        cluster.create_topics({name: count for name, count in outputs.items() if name not in large})
        cluster.create_topics(large, LARGE_CONFIG)
    except TopicError as error:
        raise TopicError(
            f"{error}. Outputs have as many partitions as the inputs; where these have grown, state and outputs "
            "belong to the old count: begin anew with a new pipeline name"
        ) from None


def _recovery(store: Path) -> RecoveryConfig:
    """The store of saved state, made when it is missing, mended when a crash left something half done."""
    if not any(store.glob("part-*.sqlite3")):
        store.mkdir(parents=True, exist_ok=True)
        init_db_dir(store, 1)
    repair(store)
    return RecoveryConfig(str(store), timedelta(0))


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    """Holds the state folder against a second process: Bytewax would let both run, and write everything twice."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LiveError(
                f"the state folder {state} is in use by another process; stop it, or name another"
            ) from None
        yield


@contextmanager
def _stops_on_signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set ``stop``; a second one interrupts. Only the main thread can do this."""

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ours(error: BaseException) -> ThalwegError | None:
    """Our own error out of the layers that Bytewax put around it."""
    return next((cause for cause in _causes(error) if isinstance(cause, ThalwegError)), None)


def _innermost(error: BaseException) -> BaseException:
    return list(_causes(error))[-1]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
