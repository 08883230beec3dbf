"""How near to the speed of the log? JSON on Kafka, 15 windowed features, a model that learns, a prediction an event.

Ours is `thalweg run MODULE --until-end` as it comes: Bytewax's runner, default delivery, saved state. Beside it, in
turns on the same broker and events: `passthrough` (the same bytes copied by the same client), `handwritten` (stock
Bytewax operators, deques, running sums, River) and `plain_loop` (our chain without Bytewax, journal and saved state).
A rate is that of predictions arriving at the broker, by its clock, from the end of the first tenth to the last one:
start-up and compilation are outside for all of them. `handwritten` and ours are compared with saved state every second
(`ratio_handwritten`): with our default, every 30 s, a short run saves none.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks import events, handwritten, harness, payments
from benchmarks.events import Payments
from benchmarks.harness import Here, Process, digits, python, ratio, say
from benchmarks.kafka import BATCH, FETCHING, Topics, topics
from benchmarks.opponents import number_of
from thalweg.connectors.kafka_read import Reader
from thalweg.connectors.kafka_sink import Writer
from thalweg.dataflows.serve import LiveChain
from thalweg.dataflows.settings import RunSettings
from thalweg.engine.batch import Log, Raw

SIZES = (20_000, 50_000, 200_000)  # ours reads the largest topic that it can be expected to be through with in time
RUN_S, RUN_FULL_S = 3.0, 30.0
COPIED, COPIED_FULL = 200_000, 1_000_000
WARM, ANSWERED = 60_000, 4_000  # payments that the handwritten flow knows before it starts, and those it answers
WARM_FULL, ANSWERED_FULL = 100_000, 60_000
ROUNDS, ROUNDS_FULL = 2, 5
QUICK_S = 34.0  # of what comes before the latencies; a quick run begins no round that would end later
SAMPLE = 2_000
SNAPSHOT_S = 1.0  # of the rows that compare saved state, too
TOLERANCE = 1e-9
DELIVERY = "at-least-once"


@dataclass
class Measured:
    """What the runs of one contestant gave; CPU time is that of the whole process, start-up included."""

    rates: list[float] = field(default_factory=list)
    timed: int = 0
    target: str = ""
    cpu_us: list[float] = field(default_factory=list)
    broker_cpu_us: list[float] = field(default_factory=list)
    rss_mb: float = 0.0

    def told(self) -> dict[str, Any]:
        """For the result."""
        return {
            "events_per_second": digits(float(np.median(self.rates))),
            "us_per_event": digits(1e6 / float(np.median(self.rates))),
            "spread": digits(harness.spread(self.rates), 2),
            "runs": len(self.rates),
            "events_timed": self.timed,
            "process_cpu_us_per_event": digits(float(np.median(self.cpu_us))),
            "broker_cpu_us_per_event": digits(float(np.median(self.broker_cpu_us))),
            "rss_mb": self.rss_mb,
        }


@dataclass(frozen=True, slots=True)
class Work:
    """A topic that holds so many payments."""

    topic: str
    events: int


class Arena:
    """Runs contestants against one broker."""

    def __init__(self, kafka: Topics, state: Path) -> None:
        self.kafka = kafka
        self.state = state
        self.measured: dict[str, Measured] = {}

    def fill(self, rows: Payments, *, later: bool = False) -> Work:
        """A topic of these payments; with ``later`` labels stand on a topic of their own."""
        topic = self.kafka.create(self.kafka.name("payments"))
        if later:  # timestamps are event times: by them a pipeline reads labels between payments
            self.kafka.fill(topic, rows.keys(), rows.values(told=False), rows.times_us.tolist())
            outcomes = self.kafka.create(f"{topic}.outcomes")
            self.kafka.fill(outcomes, rows.keys(), rows.outcomes(), (rows.times_us + events.DELAY_US).tolist())
        else:
            self.kafka.fill(topic, rows.keys(), rows.values())
        return Work(topic, len(rows))

    def ours(self, work: Work, flow: str = "flow", row: str = "ours", **options: str) -> None:
        """``thalweg run``."""
        name = self.kafka.name(row)
        target = self.kafka.create(f"{name}.predictions", appended=True)
        process = thalweg_run(self.kafka, self.state / name, name, work.topic, flow, "--until-end", **options)
        self._measure(row, process, target, work.events)

    def passthrough(self, work: Work) -> None:
        """The same bytes."""
        target = self.kafka.create(self.kafka.name("passthrough"), appended=True)
        arguments = ("passthrough", self.kafka.brokers, work.topic, target, str(work.events))
        self._measure("passthrough", python("benchmarks.opponents", *arguments), target, work.events)

    def plain_loop(self, work: Work) -> None:
        """Read, decode, chain, produce, one after the other, in this process."""
        target = self.kafka.create(self.kafka.name("plain_loop"), appended=True)
        self._measure("plain_loop", Here(lambda: plain_loop(self.kafka, work, target)), target, work.events)

    def handwritten(self, work: Work, warm: int, snapshot_s: float, row: str = "handwritten") -> None:
        """Bytewax's runner with recovery on; the flow knows the first ``warm`` payments when it starts."""
        target = self.kafka.create(self.kafka.name("handwritten"), appended=True)
        store = self.state / target
        store.mkdir()
        python("bytewax.recovery", str(store), "1").start().wait()
        environment = {"BROKERS": self.kafka.brokers, "SOURCE": work.topic, "TARGET": target, "WARM": str(warm)}
        options = ("-r", str(store), "-s", f"{snapshot_s:.0f}", "-b", "0")
        process = python("bytewax.run", "benchmarks.handwritten:flow", *options, environment=environment)
        self._measure(row, process, target, work.events - warm)

    def rates(self, row: str) -> list[float]:
        """Events per second in each run so far."""
        return self.measured[row].rates

    def _measure(self, row: str, process: Process | Here, target: str, count: int) -> None:
        broker = harness.cpu_seconds_of(self.kafka.broker_pid)
        process.start().wait()
        broker = harness.cpu_seconds_of(self.kafka.broker_pid) - broker
        found = self.kafka.count(target)
        assert found == count, f"{row} wrote {found} records for {count} payments"
        measured = self.measured.setdefault(row, Measured())
        rate, measured.timed = self.kafka.rate(target)
        measured.target = target
        measured.rates.append(rate)
        measured.cpu_us.append(1e6 * process.cpu_seconds / count)
        measured.broker_cpu_us.append(1e6 * broker / count)
        measured.rss_mb = max(measured.rss_mb, process.rss_mb)
        say(f"{row}: {rate:,.0f} events/s, {measured.timed:,} events timed")


def run(quick: bool) -> dict[str, Any]:
    """See the module; ``quick`` times fewer events, fewer times."""
    with topics() as kafka, tempfile.TemporaryDirectory(prefix="thalweg-bench-") as folder:
        return _run(Arena(kafka, Path(folder)), quick)


def _run(arena: Arena, quick: bool) -> dict[str, Any]:
    started, took = time.monotonic(), 0.0
    difference, rate = agreement()
    rows = events.payments(COPIED if quick else COPIED_FULL, end_us=time.time_ns() // 1000 - events.DELAY_US)
    size = fitting(rate, RUN_S if quick else RUN_FULL_S, SIZES if quick else (*SIZES, COPIED_FULL))
    every_round, once = _contestants(arena, rows, size, quick)
    for contestant in once:
        contestant()
    for round_ in range(ROUNDS if quick else ROUNDS_FULL):
        begun = time.monotonic()
        if quick and round_ and begun - started + took > QUICK_S:
            say("no time for another round")
            break
        for contestant in every_round:
            contestant()
        took = time.monotonic() - begun
    return told(arena, rows.first(size), difference) | _latencies(arena, quick)


Contestants = list[Callable[[], None]]


def _contestants(arena: Arena, rows: Payments, size: int, quick: bool) -> tuple[Contestants, Contestants]:
    """Those of every round, and those that run once, with their topics filled."""
    warm, answered = (WARM, ANSWERED) if quick else (WARM_FULL, ANSWERED_FULL)
    large, work, known = (arena.fill(rows.first(n)) for n in (len(rows), size, warm + answered))
    later = arena.fill(rows.first(size), later=True)
    main: Contestants = [
        lambda: arena.passthrough(large),
        lambda: arena.ours(work),
        lambda: arena.plain_loop(work),
    ]
    more: Contestants = [
        lambda: arena.handwritten(known, warm, SNAPSHOT_S, "handwritten_saving"),
        lambda: arena.ours(work, row="ours_saving", epoch=str(SNAPSHOT_S)),
        lambda: arena.ours(later, "later", "labels_later"),
    ]
    if quick:
        return main, more
    return [*main, *more, lambda: arena.handwritten(known, warm, RunSettings().epoch_seconds)], []


def fitting(rate: float, seconds: float, sizes: Sequence[int]) -> int:
    """The largest size that takes at most ``seconds``, or the smallest.

    >>> fitting(10_000.0, 3.0, (20_000, 50_000))
    20000
    """
    return max((size for size in sizes if size <= rate * seconds), default=sizes[0])


def thalweg_run(kafka: Topics, state: Path, name: str, topic: str, flow: str, *flags: str, **options: str) -> Process:
    """``thalweg run`` of :mod:`benchmarks.payments`; the pipeline is called ``name`` and reads ``topic``."""
    given = [f"--{option}={value}" for option, value in options.items()]
    where = ("--brokers", kafka.brokers, "--state", str(state))
    environment = {"PAYMENTS_NAME": name, "PAYMENTS_TOPIC": topic}
    return python("thalweg", "run", f"benchmarks.payments:{flow}", *where, *flags, *given, environment=environment)


def plain_loop(kafka: Topics, work: Work, target: str) -> None:
    """What is left of ours without Bytewax, journal and saved state."""
    stream = payments.flow.definition.stream.topic
    writer, chain, left = Writer(kafka.settings), LiveChain(payments.flow), work.events
    with Reader(FETCHING | kafka.settings, "benchmarks") as reader:
        reader.assign({Log(work.topic, 0): 0})
        while left:
            for raw in reader.poll(BATCH, 0.1):
                rows = chain.push([replace(raw, log=Log(stream, 0))])
                writer.send_rows(target, 0, [row for row in rows if row.kind == "predictions"])
                left -= len(raw)
            writer.check()
    writer.flush()


def agreement(count: int = SAMPLE) -> tuple[float, float]:
    """Checks that ours and handwritten compute the same, on a sample in which windows fill and empty.

    Returns:
        the largest difference between features and scores (relative where they are above 1), and events per second of
        ours on the sample.

    Raises:
        AssertionError: they do not compute the same.
    """
    rows = events.payments(count, cards=50, spacing_us=60_000_000, end_us=time.time_ns() // 1000)
    parsed = [handwritten.parse(value) for value in rows.values()]
    payments.explained.replay([payment for _, payment in parsed[:100]])  # what is compiled, is by now
    start = time.perf_counter()
    answers = payments.explained.replay([payment for _, payment in parsed]).predictions
    rate = count / (time.perf_counter() - start)
    cards: dict[str, handwritten.Card] = {}
    learner, largest = handwritten.model(), 0.0
    for answer, (card, payment) in zip(answers, parsed, strict=True):
        cards[card], (_, features) = handwritten.featurise(cards.get(card), payment)
        expected = features | {"score": handwritten.predict_and_learn(learner, payment, features)["score"]}
        given = answer["vector"] | {"score": answer["score"]}
        assert given.keys() == expected.keys(), (given.keys(), expected.keys())
        largest = max(largest, *(abs(given[name] - of) / max(1.0, abs(of)) for name, of in expected.items()))
    assert largest <= TOLERANCE, f"ours and handwritten do not compute the same: they differ by {largest}"
    return largest, rate


def written_alike(arena: Arena) -> float:
    """The largest difference between the scores that ours, plain loop and handwritten wrote to Kafka.

    Raises:
        AssertionError: they are not the same.
    """
    ours, *others = (
        scores_of(arena.kafka, arena.measured[row].target) for row in ("ours", "plain_loop", "handwritten_saving")
    )
    differences = [abs(ours[number] - theirs[number]) for theirs in others for number in ours.keys() & theirs.keys()]
    assert max(differences) <= TOLERANCE, f"what was written to Kafka differs by {max(differences)}"
    return max(differences)


def scores_of(kafka: Topics, target: str) -> dict[int, float]:
    """Scores by the number of the payment."""
    values = kafka.values(target, kafka.count(target))
    return {number_of(value): orjson.loads(value)["score"] for value in values}


def told(arena: Arena, rows: Payments, difference: float) -> dict[str, Any]:
    """The result, but for latencies."""
    found = {name: one.told() for name, one in arena.measured.items()}
    ours = arena.rates("ours")
    values = list(rows.first(1000).values())
    result = {
        "events_per_second": found["ours"]["events_per_second"],
        "ratio_passthrough": ratio(ours, arena.rates("passthrough")),
        "ratio_handwritten": ratio(arena.rates("ours_saving"), arena.rates("handwritten_saving")),
        "ratio_plain_loop": ratio(ours, arena.rates("plain_loop")),
        "runner": "bytewax",
        "delivery": DELIVERY,
        "snapshot_seconds": RunSettings().epoch_seconds,
        "handwritten_snapshot_seconds": SNAPSHOT_S,
        "commit_ms": getattr(RunSettings(), "commit_ms", 0),
        "rule": "predictions arriving at the broker, by its clock, from the end of the first tenth to the last",
        "events_timed": {name: one.timed for name, one in arena.measured.items()},
        "bytes_per_event": digits(sum(map(len, values)) / len(values)),
        "rows_per_key_longest": digits(rows.rows_per_key_longest),
        "max_difference": max(difference, written_alike(arena)),
        "plain_loop": found["plain_loop"],
        "labels_later": found["labels_later"] | pending(),
        "rows": found,
    }
    if "handwritten" in found:
        result["ratio_handwritten_default_snapshots"] = ratio(ours, arena.rates("handwritten"))
    return result


def pending(count: int = 3_000) -> dict[str, Any]:
    """What predictions that wait for their label cost: bytes of state, and how many wait ten minutes of event time.

    Bytes are those of a snapshot while ``count`` predictions wait, less those once their labels have come.
    """
    rows = events.payments(count, end_us=time.time_ns() // 1000 - events.DELAY_US)
    chain = LiveChain(payments.later)
    chain.push([raw_of(payments.TOPIC, rows.keys(), list(rows.values(told=False)), rows.times_us)])
    assert chain.counters()["predictions_pending"] == count
    waiting = len(chain.snapshot())
    chain.push([raw_of(payments.TOLD_TOPIC, rows.keys(), list(rows.outcomes()), rows.times_us + events.DELAY_US)])
    assert chain.counters()["predictions_pending"] == 0
    each, usual = (waiting - len(chain.snapshot())) / count, events.DELAY_US / events.SPACING_US
    return {"pending": int(usual), "bytes_per_pending": digits(each), "pending_bytes": int(each * usual)}


def raw_of(topic: str, keys: Sequence[bytes | None], values: Sequence[bytes | None], times_us: Any) -> Raw:
    """Messages as one run of a log."""
    times = np.asarray(times_us, dtype=np.int64)
    return Raw(Log(topic, 0), np.arange(len(times)), times, times, list(keys), list(values))


def _latencies(arena: Arena, quick: bool) -> dict[str, Any]:
    from benchmarks import latency

    rate = latency.LOAD * float(np.median(arena.rates("ours")))
    how = (latency.SECONDS, latency.EPOCH_S) if quick else (latency.SECONDS_FULL, latency.EPOCH_FULL_S)
    return latency.told(latency.measure(arena.kafka, arena.state, rate, *how))
