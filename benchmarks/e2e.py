"""How near to the speed of the log? JSON on Kafka, 15 windowed features, a model that learns, a prediction an event.

Ours is `thalweg run MODULE --until-end` as it comes: Bytewax's runner, default delivery, saved state. Beside it, in
turns on the same broker and events: `passthrough` (the same bytes copied by the same client), `handwritten` (stock
Bytewax operators, deques, running sums, River) and `plain_loop` (our chain without Bytewax, journal and saved state).
A rate is that of predictions arriving at the broker, from the end of the first tenth to the last one: start-up and
compilation are outside for all of them. Who takes too long is stopped, and rated by what there is. `handwritten` and
ours are compared with saved state every second (`ratio_handwritten`): with our default, every 30 s, a short run saves
none.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from bytewax.recovery import init_db_dir

from benchmarks import events, handwritten, harness, payments
from benchmarks.chain import Chain, raw_of, send
from benchmarks.events import Payments
from benchmarks.harness import POLL_S, Here, Process, digits, python, ratio, say
from benchmarks.kafka import BATCH, FETCHING, Meter, Topics, clients, topics
from benchmarks.opponents import number_of
from thalweg.connectors.kafka_read import Reader
from thalweg.connectors.kafka_sink import Writer
from thalweg.dataflows.settings import RunSettings
from thalweg.engine.batch import Log

PAYMENTS, PAYMENTS_FULL = 200_000, 2_000_000
LATER, LATER_FULL = 50_000, 500_000
WARM = 60_000  # payments that the handwritten flow knows before it starts
RUN_S, RUN_FULL_S = 2.0, 20.0  # contestants that are not through are stopped so long after their first prediction
SAVING_S, SAVING_FULL_S = 4.5, 30.0  # the same where state is saved every second
ROUNDS, ROUNDS_FULL = 2, 5
QUICK_S = 32.0  # of what comes before the latencies; a quick run begins no round that would end later
SAMPLE = 2_000
SNAPSHOT_S = 1.0  # of the rows that compare saved state, too
TOLERANCE = 1e-9
DELIVERY = "at-least-once"


@dataclass
class Measured:
    """What the runs of one contestant gave; CPU time is that of the whole process, start-up included."""

    rates: list[float] = field(default_factory=list)
    timed: list[int] = field(default_factory=list)
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
            "events_timed": int(np.median(self.timed)),
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

    def ours(self, work: Work, limit_s: float, flow: str = "flow", row: str = "ours", **options: str) -> None:
        """``thalweg run``."""
        name = self.kafka.name(row)
        target = self.kafka.create(f"{name}.predictions")
        process = thalweg_run(self.kafka, self.state / name, name, work.topic, flow, "--until-end", **options)
        self._run(row, process, target, work.events, limit_s)

    def passthrough(self, work: Work) -> None:
        """The same bytes."""
        target = self.kafka.create(self.kafka.name("passthrough"))
        arguments = ("passthrough", work.topic, target, str(work.events))
        process = python("benchmarks.opponents", *arguments, environment=clients(self.kafka.brokers))
        self._run("passthrough", process, target, work.events)

    def plain_loop(self, work: Work, limit_s: float) -> None:
        """Read, decode, chain, produce, one after the other, in this process."""
        target = self.kafka.create(self.kafka.name("plain_loop"))
        here = Here(lambda over: plain_loop(self.kafka, work, target, over))
        self._run("plain_loop", here, target, work.events, limit_s)

    def handwritten(self, work: Work, limit_s: float, snapshot_s: float, row: str = "handwritten") -> None:
        """Bytewax's runner with recovery on; the flow knows the first payments when it starts."""
        target = self.kafka.create(self.kafka.name("handwritten"))
        store = self.state / target
        store.mkdir()
        init_db_dir(store, 1)
        environment = {"BROKERS": self.kafka.brokers, "SOURCE": work.topic, "TARGET": target, "WARM": str(WARM)}
        options = ("-r", str(store), "-s", f"{snapshot_s:.0f}", "-b", "0")
        process = python("bytewax.run", "benchmarks.handwritten:flow", *options, environment=environment)
        self._run(row, process, target, work.events - WARM, limit_s)

    def rates(self, row: str) -> list[float]:
        """Events per second in each run so far."""
        return self.measured[row].rates

    def _run(self, row: str, process: Process | Here, target: str, count: int, limit_s: float = np.inf) -> None:
        """Runs it to its end, at most so long behind its first record, and takes down how fast it was."""
        used = harness.cpu_seconds_of(self.kafka.broker_pid)
        with Meter(self.kafka, target) as meter:
            process.start(lambda: meter.over(limit_s))
            while process.running(POLL_S):
                if meter.over(limit_s):
                    process.stop()
                    break
            process.wait()
        used = harness.cpu_seconds_of(self.kafka.broker_pid) - used
        assert meter.count == count or (process.stopped and meter.count), f"{row}: {meter.count} of {count} records"
        rate, timed = meter.rate()
        measured = self.measured.setdefault(row, Measured())
        measured.target = target
        measured.timed.append(timed)
        measured.rates.append(rate)
        measured.cpu_us.append(1e6 * process.cpu_seconds / meter.count)
        measured.broker_cpu_us.append(1e6 * used / meter.count)
        measured.rss_mb = max(measured.rss_mb, process.rss_mb)
        say(f"{row}: {rate:,.0f} events/s, {timed:,} events timed")


def run(quick: bool) -> dict[str, Any]:
    """See the module; ``quick`` times fewer events, fewer times."""
    with topics() as kafka, tempfile.TemporaryDirectory(prefix="thalweg-bench-") as folder:
        return _run(Arena(kafka, Path(folder)), quick)


def _run(arena: Arena, quick: bool) -> dict[str, Any]:
    started, took = time.monotonic(), 0.0
    difference = agreement()
    rows = events.payments(PAYMENTS if quick else PAYMENTS_FULL, end_us=time.time_ns() // 1000 - events.DELAY_US)
    every_round, once = _contestants(arena, rows, quick)
    say("topics are filled")
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
    return told(arena, rows, difference) | _latencies(arena, quick)


Contestants = list[Callable[[], None]]


def _contestants(arena: Arena, rows: Payments, quick: bool) -> tuple[Contestants, Contestants]:
    """Those of every round, and those that run once, with their topics filled."""
    limit_s, saving_s = (RUN_S, SAVING_S) if quick else (RUN_FULL_S, SAVING_FULL_S)
    work, later = arena.fill(rows), arena.fill(rows.first(LATER if quick else LATER_FULL), later=True)
    main: Contestants = [
        lambda: arena.passthrough(work),
        lambda: arena.ours(work, limit_s),
        lambda: arena.plain_loop(work, limit_s),
    ]
    more: Contestants = [
        lambda: arena.handwritten(work, saving_s, SNAPSHOT_S, "handwritten_saving"),
        lambda: arena.ours(work, limit_s, row="ours_saving", epoch=str(SNAPSHOT_S)),
        lambda: arena.ours(later, limit_s, "later", "labels_later"),
    ]
    if quick:
        return main, more
    return [*main, *more, lambda: arena.handwritten(work, saving_s, RunSettings().epoch_seconds)], []


def thalweg_run(kafka: Topics, state: Path, name: str, topic: str, flow: str, *flags: str, **options: str) -> Process:
    """``thalweg run`` of :mod:`benchmarks.payments`; the pipeline is called ``name`` and reads ``topic``."""
    given = [f"--{option}={value}" for option, value in options.items()]
    where = ("--brokers", kafka.brokers, "--state", str(state))
    environment = {"PAYMENTS_NAME": name, "PAYMENTS_TOPIC": topic}
    return python("thalweg", "run", f"benchmarks.payments:{flow}", *where, *flags, *given, environment=environment)


def plain_loop(kafka: Topics, work: Work, target: str, over: Callable[[], bool]) -> None:
    """What is left of ours without Bytewax, journal and saved state; until ``over`` or the end."""
    stream = payments.flow.definition.stream.topic
    writer, chain, left = Writer(kafka.settings), Chain(payments.flow), work.events
    with Reader(FETCHING | kafka.settings, "benchmarks") as reader:
        reader.assign({Log(work.topic, 0): 0})
        while left and not over():
            for raw in reader.poll(BATCH, 0.1):
                send(writer, target, chain.push(replace(raw, log=Log(stream, 0))))
                left -= len(raw)
            writer.check()
    writer.flush()


def agreement(count: int = SAMPLE) -> float:
    """Checks that ours and handwritten compute the same, on a sample in which windows fill and empty.

    Returns:
        the largest difference between features and scores, relative where they are above 1.

    Raises:
        AssertionError: they do not compute the same.
    """
    rows = events.payments(count, cards=50, spacing_us=60_000_000, end_us=time.time_ns() // 1000)
    parsed = [handwritten.parse(value) for value in rows.values()]
    answers = payments.explained.replay([payment for _, payment in parsed]).predictions
    cards: dict[str, handwritten.Card] = {}
    learner, largest = handwritten.model(), 0.0
    for answer, (card, payment) in zip(answers, parsed, strict=True):
        cards[card], (_, features) = handwritten.featurise(cards.get(card), payment)
        expected = features | {"score": handwritten.predict_and_learn(learner, payment, features)["score"]}
        given = answer["vector"] | {"score": answer["score"]}
        assert given.keys() == expected.keys(), (given.keys(), expected.keys())
        largest = max(largest, *(abs(given[name] - of) / max(1.0, abs(of)) for name, of in expected.items()))
    assert largest <= TOLERANCE, f"ours and handwritten do not compute the same: they differ by {largest}"
    return largest


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
        "rule": "predictions arriving at the broker, from the end of the first tenth to the last",
        "events_timed": {name: sum(one.timed) for name, one in arena.measured.items()},
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

    Bytes are those of a snapshot while ``count`` predictions wait, less those of the same payments without labels.
    """
    rows = events.payments(count, end_us=time.time_ns() // 1000)
    raw = raw_of(payments.TOPIC, rows.keys(), list(rows.values(told=False)), rows.times_us)
    waiting, unlabelled = Chain(payments.later), Chain(payments.unlabelled)
    sizes = []
    for chain in (waiting, unlabelled):
        chain.push(raw)
        sizes.append(len(chain.snapshot()))
    assert waiting.counters()["predictions_pending"] == count
    each, usual = (sizes[0] - sizes[1]) / count, events.DELAY_US / events.SPACING_US
    return {"pending": int(usual), "bytes_per_pending": digits(each), "pending_bytes": int(each * usual)}


def _latencies(arena: Arena, quick: bool) -> dict[str, Any]:
    from benchmarks import latency

    rate = latency.LOAD * float(np.median(arena.rates("ours")))
    how = (latency.SECONDS, latency.EPOCH_S) if quick else (latency.SECONDS_FULL, latency.EPOCH_FULL_S)
    return latency.told(latency.measure(arena.kafka, arena.state, rate, *how))
