"""How near to the speed of the log? JSON on Kafka, 15 windowed features, a model that learns, a prediction an event.

Ours is `thalweg run MODULE --until-end` as it comes: Bytewax's runner, default delivery, saved state. Beside it, in
turns on the same broker and events: `passthrough` (the same bytes copied by the same client), `handwritten` (stock
Bytewax operators, deques, running sums, River), `plain_loop` (our chain without Bytewax, journal and saved state) and
`ours_arrow` (the same payments as Arrow messages of 4096, predictions as Arrow). A rate is that of predictions arriving
at the broker behind the first 108,000, when the longest window is full: 11 rows a card. Start-up and compilation are
outside for all of them, and so is what handwritten reads to know the same 108,000. Who takes too long is stopped, and
rated by what there is. `handwritten` and ours are compared with saved state every second (`ratio_handwritten`); a full
run also compares them at their defaults, 10 s and 30 s.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from bytewax.recovery import init_db_dir

from benchmarks import events, handwritten, harness, payments
from benchmarks.chain import Chain, raw_of, send
from benchmarks.events import Payments
from benchmarks.harness import POLL_S, Here, Process, behind_gate, digits, python, ratio, say
from benchmarks.kafka import BATCH, FETCHING, Meter, Topics, clients, topics
from benchmarks.opponents import number_of
from thalweg.connectors.kafka_read import ARROW, Reader
from thalweg.connectors.kafka_sink import Writer
from thalweg.dataflows.settings import RunSettings
from thalweg.engine.batch import Log

PAYMENTS, PAYMENTS_FULL = 420_000, 2_000_000
ENOUGH = events.STEADY + 210_000  # of ours, in a quick run
LATER, LATER_FULL = 60_000, 500_000
ARROW_ROWS = 4096  # payments in a message
RUN_S, RUN_FULL_S = 5.0, 20.0  # contestants that are not through are stopped so long after their first prediction
SAVING_S, SAVING_FULL_S = 3.0, 30.0  # the same where state is saved every second
ROUNDS, ROUNDS_FULL = 2, 5
SAMPLE, COMPARED = 1_000, 500  # payments: of one check, and at least alike in what was written
SNAPSHOT_S, STOCK_SNAPSHOT_S = 1.0, 10.0  # of the rows that compare saved state, and Bytewax's default
TOLERANCE = 1e-9
DELIVERY = "at-least-once"
AHEAD = ("bytewax._bytewax", "thalweg.dataflows.cli", "thalweg.dataflows.run", "benchmarks.payments")


@dataclass
class Measured:
    """What the runs of one contestant gave; CPU time is that of the whole process, start-up included."""

    rates: list[float] = field(default_factory=list)
    timed: list[int] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)  # of the payments behind the first, by their number
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


@dataclass(slots=True)
class Run:
    """One run of one contestant: called, it runs to its end, at most ``limit_s`` behind its first record or until there
    are ``enough`` records, and its rate is taken down."""

    arena: Arena
    row: str
    process: Process | Here
    target: str
    count: int  # records that come if it is not stopped
    limit_s: float = np.inf
    enough: float = np.inf
    warm: int = events.STEADY
    arrow: bool = False

    def prepare(self) -> Run:
        """Starts it up to its gate."""
        self.process.prepare()
        return self

    def ready(self) -> None:
        """Waits until it has started up, where it has been prepared: nothing starts up while another one is timed."""
        if isinstance(self.process, Process) and self.process.pid is not None and self.process.gated:
            self.process.ready()

    def __call__(self) -> None:
        kafka, process = self.arena.kafka, self.process
        used = harness.cpu_seconds_of(kafka.broker_pid)
        with Meter(kafka, self.target) as meter:
            process.start(lambda: self._over(meter))
            while process.running(POLL_S):
                if self._over(meter):
                    process.stop()
                    break
            process.wait()
        used = harness.cpu_seconds_of(kafka.broker_pid) - used
        self._note(meter, used)
        kafka.delete([name for name in kafka.names() if name.startswith(self.target.partition(".")[0])])

    def _over(self, meter: Meter) -> bool:
        return meter.count >= self.enough or meter.over(self.limit_s)

    def _note(self, meter: Meter, broker_cpu_s: float) -> None:
        kafka, process, row = self.arena.kafka, self.process, self.row
        messages = kafka.values(self.target, meter.count) if self.arrow else []
        rows = [len(scores_of([value])) for value in messages] if self.arrow else None
        count = meter.count if rows is None else sum(rows)
        assert count == self.count or (process.stopped and count), f"{row}: {count} of {self.count} records"
        rate, timed = meter.rate(self.warm, rows)
        measured = self.arena.measured.setdefault(row, Measured())
        if row != "passthrough":
            measured.scores = scores_of(messages or self._sample())
        measured.timed.append(timed)
        measured.rates.append(rate)
        measured.cpu_us.append(1e6 * process.cpu_seconds / count)
        measured.broker_cpu_us.append(1e6 * broker_cpu_s / count)
        measured.rss_mb = max(measured.rss_mb, process.rss_mb)
        say(f"{row}: {rate:,.0f} events/s, {timed:,} events timed")

    def _sample(self) -> list[bytes]:
        """Some of the records behind those that are not timed."""
        found = self.arena.kafka.messages(self.target, 0, self.warm, 4 * SAMPLE)
        return [value for message in found if (value := message.value()) is not None]


class Arena:
    """Contestants against one broker."""

    def __init__(self, kafka: Topics, state: Path) -> None:
        self.kafka = kafka
        self.state = state
        self.measured: dict[str, Measured] = {}

    def fill(self, rows: Payments, *, later: bool = False, arrow: bool = False) -> Work:
        """A topic of these payments; with ``later`` labels stand on a topic of their own."""
        topic = self.kafka.create(self.kafka.name("payments"))
        if later:  # timestamps are event times: by them a pipeline reads labels between payments
            self.kafka.fill(topic, rows.keys(), rows.values(told=False), rows.times_us.tolist())
            outcomes = self.kafka.create(f"{topic}.outcomes")
            self.kafka.fill(outcomes, rows.keys(), rows.outcomes(), (rows.times_us + events.DELAY_US).tolist())
        elif arrow:
            messages = rows.messages(ARROW_ROWS)
            self.kafka.fill(topic, [None] * len(messages), messages)
        else:
            self.kafka.fill(topic, rows.keys(), rows.values())
        return Work(topic, len(rows))

    def ours(self, work: Work, limit_s: float = np.inf, row: str = "ours", **how: Any) -> Run:
        """``thalweg run`` with default settings."""
        return self._thalweg(work, row, {}, limit_s=limit_s, **how)

    def ours_saving(self, work: Work, limit_s: float = np.inf, **how: Any) -> Run:
        """With state saved as often as that of :meth:`handwritten`."""
        return self._thalweg(work, "ours_saving", {"epoch": str(SNAPSHOT_S)}, limit_s=limit_s, **how)

    def ours_arrow(self, work: Work, **how: Any) -> Run:
        """Arrow in, Arrow out."""
        return self._thalweg(work, "ours_arrow", {"codec": "arrow"}, arrow=True, **how)

    def labels_later(self, work: Work, limit_s: float = np.inf) -> Run:
        """The pipeline whose labels stand on another topic."""
        return self._thalweg(work, "labels_later", {"flow": "later"}, limit_s=limit_s, warm=0)

    def passthrough(self, work: Work) -> Run:
        """The same bytes."""
        target = self.kafka.create(self.kafka.name("passthrough"))
        arguments = ("passthrough", work.topic, target, str(work.events))
        process = python("benchmarks.opponents", *arguments, environment=clients(self.kafka.brokers))
        return Run(self, "passthrough", process, target, work.events)

    def plain_loop(self, work: Work, limit_s: float = np.inf, **how: Any) -> Run:
        """Read, decode, chain, produce, one after the other, in this process."""
        target = self.kafka.create(self.kafka.name("plain_loop"))
        here = Here(lambda over: plain_loop(self.kafka, work, target, over))
        return Run(self, "plain_loop", here, target, work.events, limit_s, **how)

    def handwritten(
        self, work: Work, limit_s: float, snapshot_s: float, row: str = "handwritten", warm: int = events.STEADY
    ) -> Run:
        """Bytewax's runner with recovery on; the flow knows the first payments when it starts."""
        target = self.kafka.create(self.kafka.name("handwritten"))
        store = self.state / target
        store.mkdir()
        init_db_dir(store, 1)
        environment = {"BROKERS": self.kafka.brokers, "SOURCE": work.topic, "TARGET": target, "WARM": str(warm)}
        options = ("-r", str(store), "-s", f"{snapshot_s:.0f}", "-b", "0")
        process = python("bytewax.run", "benchmarks.handwritten:flow", *options, environment=environment, gated=True)
        return Run(self, row, process, target, work.events - warm, limit_s, warm=0)

    def rates(self, row: str) -> list[float]:
        """Events per second in each run so far."""
        return self.measured[row].rates

    def _thalweg(self, work: Work, row: str, options: dict[str, str], **how: Any) -> Run:
        name = self.kafka.name(row)
        target = self.kafka.create(f"{name}.predictions")
        flow = options.pop("flow", "flow")
        process = thalweg_run(self.kafka, self.state / name, name, work.topic, flow, "--until-end", **options)
        return Run(self, row, process, target, work.events, **how)


def run(quick: bool) -> dict[str, Any]:
    """See the module; ``quick`` times fewer events, fewer times."""
    with topics() as kafka, tempfile.TemporaryDirectory(prefix="thalweg-bench-") as folder:
        return _run(Arena(kafka, Path(folder)), quick)


def _run(arena: Arena, quick: bool) -> dict[str, Any]:
    from benchmarks import latency

    rows = events.payments(PAYMENTS if quick else PAYMENTS_FULL, end_us=time.time_ns() // 1000 - events.DELAY_US)
    how = (latency.SECONDS, latency.EPOCH_S) if quick else (latency.SECONDS_FULL, latency.EPOCH_FULL_S)
    rounds = _quick(arena, rows) if quick else _full(arena, rows)
    say("topics are filled")
    difference = agreement()
    for contestants in rounds:
        for contestant in contestants:
            contestant.ready()
        for contestant in contestants:
            contestant()
    ends = latency.measure(arena.kafka, arena.state, latency.LOAD * float(np.median(arena.rates("ours"))), *how)
    return told(arena, rows, difference) | latency.told(ends)


Rounds = Iterator[list[Run]]


def _quick(arena: Arena, rows: Payments) -> Rounds:
    """All of them start while the topics are filled, the slowest first."""
    work = arena.fill(rows)
    slow = arena.handwritten(work, SAVING_S, SNAPSHOT_S, "handwritten_saving").prepare()
    main = [arena.ours(work, RUN_S, enough=ENOUGH).prepare() for _ in range(ROUNDS)]
    saving = arena.ours_saving(work, RUN_S, enough=ENOUGH).prepare()
    in_arrow = arena.ours_arrow(arena.fill(rows, arrow=True)).prepare()
    later = arena.labels_later(arena.fill(rows.first(LATER), later=True), RUN_S).prepare()
    plain = arena.plain_loop(work, RUN_S, enough=ENOUGH)
    first, *more = ([arena.passthrough(work), ours] for ours in main)
    return iter([[*first, in_arrow, plain, *itertools.chain.from_iterable(more), saving, slow, later]])


def _full(arena: Arena, rows: Payments) -> Rounds:
    work, in_arrow = arena.fill(rows), arena.fill(rows, arrow=True)
    later = arena.fill(rows.first(LATER_FULL), later=True)
    for _ in range(ROUNDS_FULL):
        yield [
            arena.passthrough(work),
            arena.ours(work, RUN_FULL_S),
            arena.ours_arrow(in_arrow),
            arena.plain_loop(work, RUN_FULL_S),
            arena.ours_saving(work, SAVING_FULL_S),
            arena.handwritten(work, SAVING_FULL_S, SNAPSHOT_S, "handwritten_saving"),
            arena.handwritten(work, SAVING_FULL_S, STOCK_SNAPSHOT_S),
            arena.labels_later(later, RUN_FULL_S),
        ]


def thalweg_run(
    kafka: Topics, state: Path, name: str, topic: str, flow: str, *flags: str, codec: str = "json", **options: str
) -> Process:
    """``thalweg run`` of :mod:`benchmarks.payments`; the pipeline is called ``name`` and reads ``topic``."""
    given = [f"--{option}={value}" for option, value in options.items()]
    where = ("--brokers", kafka.brokers, "--state", str(state))
    environment = {"PAYMENTS_NAME": name, "PAYMENTS_TOPIC": topic, "PAYMENTS_CODEC": codec}
    command = ("thalweg", "run", f"benchmarks.payments:{flow}", *where, *flags, *given)
    return behind_gate(AHEAD, *command, environment=environment)


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
    rows = events.payments(count, cards=50, spacing_us=20_000_000, end_us=time.time_ns() // 1000)
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
    """The largest difference between the scores that contestants wrote to Kafka for the same payments.

    Raises:
        AssertionError: they are not the same.
    """
    ours, largest = arena.measured["ours"].scores, 0.0
    for row in ("plain_loop", "ours_arrow", "handwritten_saving"):
        theirs = arena.measured[row].scores
        both = ours.keys() & theirs.keys()
        assert len(both) >= COMPARED, f"{row}: only {len(both)} payments were answered by both"
        largest = max(largest, *(abs(ours[number] - theirs[number]) for number in both))
    assert largest <= TOLERANCE, f"what was written to Kafka differs by {largest}"
    return largest


def scores_of(values: Sequence[bytes]) -> dict[int, float]:
    """Scores by the number of the payment, of predictions as JSON or as Arrow."""
    scores: dict[int, float] = {}
    for value in values:
        if value.startswith(ARROW):
            table = pa.ipc.open_stream(value).read_all()
            numbers = (int(one[1:]) for one in table["event_id"].to_pylist())
            scores.update(zip(numbers, table["score"].to_pylist(), strict=True))
        else:
            scores[number_of(value)] = orjson.loads(value)["score"]
    return scores


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
        "ratio_arrow": ratio(arena.rates("ours_arrow"), ours),
        "arrow_events_per_second": found["ours_arrow"]["events_per_second"],
        "runner": "bytewax",
        "delivery": DELIVERY,
        "snapshot_seconds": RunSettings().epoch_seconds,
        "handwritten_snapshot_seconds": SNAPSHOT_S,
        "commit_ms": getattr(RunSettings(), "commit_ms", 0),
        "rule": f"predictions arriving at the broker, behind the first {events.STEADY:,} to the last",
        "events_timed": {name: sum(one.timed) for name, one in arena.measured.items()},
        "bytes_per_event": digits(sum(map(len, values)) / len(values)),
        "rows_per_key_longest": digits(events.STEADY / events.CARDS),
        "arrow_rows_per_message": ARROW_ROWS,
        "max_difference": max(difference, written_alike(arena)),
        "plain_loop": found["plain_loop"],
        "labels_later": found["labels_later"] | pending(),
        "rows": found,
    }
    if "handwritten" in found:
        result["ratio_handwritten_defaults"] = ratio(ours, arena.rates("handwritten"))
        result["handwritten_default_snapshot_seconds"] = STOCK_SNAPSHOT_S
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
