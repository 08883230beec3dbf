"""Hypothesis strategies: random pipelines, and random disordered logs for them.

A :class:`Case` is a definition and, for each shard, the messages of its logs in the order in which the shard
reads them: ties, nulls, late, future and repeated rows, rows that do not decode, labels on a topic of their
own or as rows of the stream, early, repeated, corrected and unknown ones.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hypothesis import strategies as st
from river import compose, drift, linear_model, preprocessing

from thalweg import FeatureSet, Label, Stream, agg, baseline, col, cyc, enc, lifetime, on_error, rows
from thalweg.engine.batch import NO_TIME, Log
from thalweg.engine.definition import Definition, define

START = 1_600_000_000_000_000
SECOND = 1_000_000
EVENTS, LABELS = "events", "labels"
SCHEMA = {
    "k": "str",
    "kind": "str",
    "id": "str?",
    "at": "timestamp[us, UTC]",
    "cat": "str?",
    "x": "f64?",
    "n": "i64?",
    "flag": "bool?",
    "due": "timestamp[us, UTC]?",
}
LABEL_SCHEMA = {"id": "str?", "at": "timestamp[us, UTC]", "cat": "str?", "x": "f64?"}
WINDOWS: list[Any] = ["1s", "3s", "10s", "60s", rows(1), rows(2), rows(4), lifetime(ttl="5s"), lifetime(ttl="30s")]

# Aggregates that a double holds exactly, so expressions over them can be compared exactly.
EXACT = ("rows", "count", "min", "max", "first", "last", "since_last")
OPS = (*EXACT, "sum", "mean", "var", "std", "decayed_sum")


class Message(NamedTuple):
    """One message as a shard reads it; ``bad``: it does not fit the schema."""

    log: Log
    offset: int
    append: int
    row: dict[str, Any]
    bad: bool


@dataclass(frozen=True)
class Case:
    """``shards[s]``: what shard s reads, in order. ``build`` makes a fresh copy of the definition."""

    definition: Definition
    shards: tuple[tuple[Message, ...], ...]
    build: Any = None

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

    def __repr__(self) -> str:
        spec, label = self.definition.features, self.definition.label
        lines = [spec.source.canonical, f"late {spec.source.late}", "" if label is None else label.canonical]
        lines += [f"{f.name} = {f.expr.canonical}" for f in spec.features]
        lines += [f"shard {s}: {m}" for s, shard in enumerate(self.shards) for m in shard]
        return "\n".join(lines)


def definition_class(base: type, name: str, attributes: dict[str, Any], **options: Any) -> Any:
    """``class name(base, **options)`` with these attributes, checked as if it had been written."""
    return types.new_class(name, (base,), options, lambda namespace: namespace.update(attributes))


# Definitions


@st.composite
def streams(draw: st.DrawFn) -> Any:
    """A Stream over ``SCHEMA``."""
    attributes: dict[str, Any] = {"topic": EVENTS, "key": "k", "time": col.at, "schema": SCHEMA}
    attributes |= {
        "disorder": draw(st.sampled_from(["0s", "4s", "20s"])),
        "future": draw(st.sampled_from(["0s", "5s"])),
    }
    attributes |= {"late": draw(st.sampled_from(["dlq", "score"]))}
    attributes |= {"score": [None, col.kind == "ask", col.x > -2.0][draw(st.integers(0, 2))]}
    attributes |= {"dedupe": draw(st.sampled_from([None, None, ("id", "8s")]))}
    return definition_class(Stream, "Events", attributes)


@st.composite
def labels(draw: st.DrawFn, stream: Any, kind: str | None = None) -> Any:
    """A Label of ``stream``; ``kind`` of its value is bool, f64 or str."""
    kind = kind or draw(st.sampled_from(["bool", "f64", "str"]))
    attributes: dict[str, Any] = {"of": stream, "on": "id", "horizon": draw(st.sampled_from(["2s", "6s", "20s"]))}
    attributes |= {"value": {"bool": col.x > 0.0, "f64": col.x, "str": col.cat}[kind]}
    attributes |= {"correct": draw(st.sampled_from(["metrics", "learn"]))}
    attributes |= {"pending": draw(st.sampled_from([1, 2, 1000]))}
    own_class = {"bool": draw(st.booleans()), "f64": 0.5, "str": "none"}[kind]
    attributes |= {"timeout": draw(st.sampled_from(["drop", "censored", own_class]))}
    if draw(st.booleans()):
        attributes |= {"topic": LABELS, "schema": LABEL_SCHEMA, "available": col.at}
    else:
        attributes |= {"where": col.kind == "tell"}
    return definition_class(Label, "Outcome", attributes)


def _pick(draw: st.DrawFn, choices: Sequence[Any]) -> Any:
    """One of ``choices``, by index: expressions have no truth value to compare them with."""
    return choices[draw(st.integers(0, len(choices) - 1))]


@st.composite
def entities(draw: st.DrawFn, one_shard: bool, capacity: bool = True) -> Any:
    """``agg.by(...)``; by anything where one shard reads all partitions."""
    cross = enc.cross(col.k, col.cat)
    keys = _pick(draw, [("k",), ("k",), ("k", "cat"), ("k", col.flag), (cross,)] + one_shard * [(), ("cat",), ("n",)])
    where = _pick(draw, [None, None, col.kind == "move", col.x > 0.0, (col.flag | (col.n < 2)) & ~col.x.is_null()])
    current: Any = draw(st.sampled_from(["include", "exclude"]))
    limit: dict[str, Any] = (
        {"capacity": draw(st.sampled_from([1, 2]))} if capacity and draw(st.integers(0, 3)) == 3 else {}
    )
    return agg.by(*keys, where=where, current=current, **limit)


@st.composite
def aggregates(draw: st.DrawFn, one_shard: bool, capacity: bool = True, ops: Sequence[str] = OPS) -> Any:
    """One aggregate over multiples of 1/16, whose sums a double holds."""
    entity, op = draw(entities(one_shard, capacity)), draw(st.sampled_from(ops))
    window = _pick(draw, WINDOWS)
    value = _pick(draw, [col.x, col.x, col.n, col.flag, col.x * col.n, col.x - 2 * col.n, col.x > col.n])
    if op == "rows":
        return entity.count(window)
    if op == "count":
        return entity.count(window, value)
    if op == "since_last":
        return entity.since_last(window)
    if op == "decayed_sum":
        return entity.decayed_sum(value, _pick(draw, ["1s", "7s"]), _pick(draw, [window, None]))
    return getattr(entity, op)(value, window)


@st.composite
def numbers(draw: st.DrawFn, one_shard: bool, capacity: bool = True, depth: int = 2) -> Any:
    """A number made of the row's fields and of exact aggregates."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        leaf = _pick(draw, [col.x, col.n, col.flag, 3, 0.1, None])
        return draw(aggregates(one_shard, capacity, EXACT)) if leaf is None else leaf

    def part() -> Any:
        return draw(numbers(one_shard, capacity, depth - 1))

    def first() -> Any:
        one = part()
        return col.x if isinstance(one, int | float) else one

    make: list[Callable[[], Any]] = [
        lambda: first() + part(),
        lambda: first() - part(),
        lambda: first() * part(),
        lambda: first() / part(),
        lambda: -first(),
        lambda: abs(first()),
        lambda: first().log(),
        lambda: first().clip(-1, 2.5),
        lambda: first().fill(0.0),
        lambda: first().is_null(),
        lambda: first() >= part(),
        lambda: first() != part(),
        lambda: (first() < part()) | col.flag,
        lambda: ~(first() <= part()) & (first() > 0),
        lambda: enc.bucket(first(), [-1.0, 0.0, 2.0]),
        lambda: col.at - col.due,
        lambda: (col.due > "2020-09-13T12:26:50Z").fill(True),
        lambda: col.n.fill(2) + (col.cat == "ab"),
    ]
    return _pick(draw, make)()


def _row_features(hashed: bool) -> list[Any]:
    cross = enc.cross(col.k, col.cat, col.flag)
    hashes = [enc.hash(cross, 7), enc.one_hot(enc.hash(col.n, 3, seed=5)), enc.hash(col.cat, 1000, seed=2)]
    return [
        enc.one_hot(col.cat, ["", "ab", "ü"]),
        cross,
        col.cat.fill("?"),
        cyc.hour(col.at, tz="America/New_York"),
        cyc.weekday(col.due, tz="Australia/Lord_Howe"),
        cyc.day_of_year(col.at),
        cyc.minute(col.at),
        *(hashes if hashed else []),
    ]


@st.composite
def definitions(
    draw: st.DrawFn, *, hashed: bool = True, capacity: bool = True, learns: bool = False, label: str | None = None
) -> Callable[[], Definition]:
    """A pipeline; calling the result defines it. ``learns``: a River model serves, with a drift detector.
    ``label`` asks for a label with values of that type."""
    stream = draw(streams())
    outcome = draw(labels(stream, label)) if label is not None or draw(st.integers(0, 3)) else None
    one = draw(st.booleans())
    features: list[Any] = [draw(aggregates(one, capacity)) for _ in range(draw(st.integers(1, 4)))]
    features += [col.x * 0 + draw(numbers(one, capacity)) for _ in range(draw(st.integers(0, 2)))]
    features += [_pick(draw, _row_features(hashed)) for _ in range(draw(st.integers(0, 1)))]
    numeric = outcome is not None and outcome.spec().value_type != "str"
    for _ in range(draw(st.integers(0, 2)) if numeric else 0):
        assert outcome is not None
        limit: dict[str, Any] = {"capacity": 2} if capacity and draw(st.integers(0, 3)) == 3 else {}
        category = _pick(draw, [col.k, enc.cross(col.k, col.cat), *[col.cat] * one])
        features.append(enc.target(category, outcome, draw(st.sampled_from(["3s", "10s", "60s"])), prior=2, **limit))
    chosen = definition_class(
        FeatureSet, "Set", {f"f{i}": feature for i, feature in enumerate(features)}, source=stream
    )
    models, detectors = _models(outcome, learns)

    def build() -> Definition:
        return define(
            chosen,
            label=outcome,
            models=models,
            drift=detectors,
            shards="one" if one else "partition",
            vector=True,
            metrics_every=3,
            carry=["cat", "due"],
        )

    return build


def _models(outcome: Any, learns: bool) -> tuple[list[Any], list[Any]]:
    if outcome is None:
        return [], []
    kind = outcome.spec().value_type
    baselines: list[Any] = [baseline.NoChange(), baseline.Prior()]
    if not learns:
        return baselines, []
    river: list[Any] = []
    if kind == "bool":
        river = [_numbers_only() | linear_model.LogisticRegression()]
    elif kind == "f64":
        river = [_numbers_only() | preprocessing.StandardScaler() | linear_model.LinearRegression()]
    return river + baselines, [on_error(drift.PageHinkley(min_instances=2, delta=0.0, threshold=0.2))]


def _numbers_only() -> Any:
    return compose.SelectType(float)


# Logs

_VALUES = st.integers(-70, 64).map(lambda i: i / 16 if i >= -64 else None)
_EVENT = st.tuples(
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["ask", "move", "tell"]),
    st.sampled_from([None, *range(7)]),
    st.sampled_from([None, "", "ab", "ü", "1:x"]),
    _VALUES,
    st.one_of(st.none(), st.integers(-3, 4)),
    st.sampled_from([None, True, False]),
    st.one_of(st.none(), st.integers(-20, 20)),
)
_STEP = st.sampled_from([0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 5, 10, 31, 0.5, 2.000001, -0.000001, -1, -2, -4, -7, -19])
_APPEND = st.sampled_from([*[None] * 6, 0, 0, 2, -5, -100])
_MESSAGE = st.tuples(st.integers(0, 11), st.integers(0, 1), _STEP, _APPEND, st.sampled_from([1, 1, 3]), _EVENT)


@st.composite
def messages(
    draw: st.DrawFn, definition: Definition, size: int = 40, after: tuple[Message, ...] = ()
) -> tuple[Message, ...]:
    """One disordered sequence over two partitions of every topic: ``after``, and up to ``size`` more."""
    own = definition.label is not None and definition.label.own_topic
    result = list(after)
    offsets = {m.log: m.offset for m in after}
    newest = max((m.row["at"] or START for m in after), default=START)
    for which, partition, step, append, gap, event in draw(_lists(size)):
        log = Log(LABELS if own and which in (1, 2, 3, 4) else EVENTS, partition)
        time = max(newest + round(step * SECOND), 0)
        appended = NO_TIME if append is None else time + append * SECOND
        if log.topic == EVENTS and (append is None or append >= 0):
            newest = max(newest, time)
        offsets[log] = offsets.get(log, -1) + gap
        bad = which in (0, 1) and gap == 3
        result.append(Message(log, offsets[log], appended, _row(log, time, event, bad), bad))
    return tuple(result)


def _lists(size: int) -> Any:
    """Long ones as often as short ones."""
    return st.integers(1, size).flatmap(lambda n: st.lists(_MESSAGE, min_size=n, max_size=n))


def _row(log: Log, time: int, event: tuple[Any, ...], bad: bool) -> dict[str, Any]:
    key, kind, number, cat, x, n, flag, due = event
    name = None if number is None else f"id{number}"
    if log.topic == LABELS:
        return {"id": name, "at": None if bad else time, "cat": cat, "x": x}
    past = None if due is None else time + due * SECOND
    own_key = None if bad else f"{key}{log.partition}"
    return {"k": own_key, "kind": kind, "id": name, "at": time, "cat": cat, "x": x, "n": n, "flag": flag, "due": past}


@st.composite
def cases(draw: st.DrawFn, /, size: int = 40, **options: Any) -> Case:
    """A pipeline and what its shards read; ``options`` as for :func:`definitions`."""
    build = draw(definitions(**options))
    definition = build()
    return Case(definition, split(draw(messages(definition, size)), definition), build)


def split(together: Sequence[Message], definition: Definition) -> tuple[tuple[Message, ...], ...]:
    """The messages by shard: one shard, or one a partition."""
    if definition.shards == "one":
        return (tuple(together),)
    return tuple(tuple(m for m in together if m.log.partition == p) for p in (0, 1))
