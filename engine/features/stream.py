"""What users write about their topics: :class:`Stream` and :class:`Label`.

Both are classes that are never instantiated; everything is checked when the class is defined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from thalweg.engine.durations import Duration, duration_us, format_us
from thalweg.engine.errors import DefinitionError
from thalweg.engine.features.evaluate import type_of
from thalweg.engine.features.expressions import Agg, Col, Expr
from thalweg.engine.schema import Schema

PENDING = 1_000_000
MAX_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream as it was checked; lengths in microseconds."""

    name: str
    topic: str
    key: str
    time: str
    schema: Schema
    score: Expr | None
    disorder_us: int
    future_us: int
    late: str
    dedupe: Expr | None
    dedupe_us: int
    key_check: bool
    max_bytes: int
    codec: str

    @property
    def canonical(self) -> str:
        """What decides values: part of the fingerprint of every feature."""
        fields = ",".join(f"{f.name}:{f.text}" for f in self.schema.fields)
        score = "" if self.score is None else self.score.canonical
        dedupe = "" if self.dedupe is None else f"{self.dedupe.canonical} {format_us(self.dedupe_us)}"
        return (
            f"stream {self.topic}({fields}) key {self.key} time {self.time} score {score} "
            f"disorder {format_us(self.disorder_us)} future {format_us(self.future_us)} dedupe {dedupe}"
        )


class Stream:
    """A topic of events: its fields, its key, its time, and the rules for what is late or too early.

    Attributes:
        topic: the Kafka topic.
        key: the field that is the record's key; one partition holds all rows of a key.
        time: the event time, ``col.field`` of type timestamp.
        schema: ``dict(field="f64?", ...)``; types are str, f64, i64, bool, timestamp[us, UTC] (or ns, ms, s).
        score: which rows ask for a prediction; the others move state only. Default: all.
        disorder: how far a row may be behind the newest one before it counts as late.
        future: how far a row may be ahead of the time it was appended before it is quarantined.
        late: ``"dlq"`` sends late rows to the dead-letter topic, ``"score"`` also answers them as of the watermark.
        dedupe: ``("event_id", "24h")``: a row whose id was accepted less than the horizon ago is dropped, counted.
        key_check: ``"reject"`` refuses rows whose record key is not the ``key`` field; or ``"ignore"``.
        max_bytes: larger messages are refused.
        codec: ``"json"``, an object a message, or ``"arrow"``, an Arrow IPC stream of rows a message.

    >>> from thalweg.engine.features.expressions import col
    >>> class Payment(Stream):
    ...     "Card payments."
    ...     topic, key, time = "payments", "card", col.at
    ...     schema = dict(card="str", at="timestamp[us, UTC]", amount="f64")
    ...     disorder = "30s"
    >>> Payment.spec().disorder_us
    30000000
    """

    topic: ClassVar[str]
    key: ClassVar[str]
    time: ClassVar[Expr]
    schema: ClassVar[Mapping[str, str]]
    score: ClassVar[Expr | None] = None
    disorder: ClassVar[Duration] = "0s"
    future: ClassVar[Duration] = "5m"
    late: ClassVar[Literal["dlq", "score"]] = "dlq"
    dedupe: ClassVar[tuple[str | Expr, Duration] | None] = None
    key_check: ClassVar[Literal["reject", "ignore"]] = "reject"
    max_bytes: ClassVar[int] = MAX_BYTES
    codec: ClassVar[Literal["json", "arrow"]] = "json"
    _spec: ClassVar[StreamSpec]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _known_attributes(cls, Stream)
        cls._spec = _stream_spec(cls)

    @classmethod
    def spec(cls) -> StreamSpec:
        """The stream as it was checked."""
        return cls._spec


@dataclass(frozen=True, slots=True)
class LabelSpec:
    """A label as it was checked; lengths in microseconds. ``schema`` and ``topic`` are the stream's own
    where the label is made of its rows (``where``)."""

    name: str
    stream: StreamSpec
    on: str
    topic: str
    schema: Schema
    where: Expr | None
    value: Expr
    value_type: str
    available: Expr
    horizon_us: int
    timeout: str
    timeout_class: bool | float | str | None
    correct: str
    pending: int
    max_bytes: int
    codec: str

    @property
    def own_topic(self) -> bool:
        """Whether the label is a log of its own."""
        return self.topic != self.stream.topic

    @property
    def canonical(self) -> str:
        where = "" if self.where is None else f" where {self.where.canonical}"
        return (
            f"label {self.topic} on {self.on}{where} value {self.value.canonical} "
            f"available {self.available.canonical} horizon {format_us(self.horizon_us)} "
            f"timeout {self.timeout} {self.timeout_class!r} correct {self.correct}"
        )


class Label:
    """The true outcome of an event, which arrives later, on a topic of its own or as rows of the stream.

    Attributes:
        of: the stream whose events it labels.
        on: the field that holds the event's own id, in the stream and in the label.
        topic, schema: the label's own topic and fields; or
        where: which rows of the stream are labels.
        value: the label: a condition (binary), text or a whole number (classes), or a number (regression).
        available: when the label became known, a time; default for rows of the stream: the row's time.
        horizon: how long after the event a label is waited for, in event time.
        timeout: what a missing label means: ``"drop"``, ``"censored"`` (as drop, and counted apart), or the class.
        correct: ``"metrics"`` lets a corrected label revise metrics and features, ``"learn"`` also the model.
        pending: how many predictions may wait for labels in a shard; beyond it the oldest is evicted, counted.
        codec: as :class:`Stream`'s.
    """

    of: ClassVar[type[Stream]]
    on: ClassVar[str]
    topic: ClassVar[str | None] = None
    schema: ClassVar[Mapping[str, str] | None] = None
    where: ClassVar[Expr | None] = None
    value: ClassVar[Expr]
    available: ClassVar[Expr | None] = None
    horizon: ClassVar[Duration]
    timeout: ClassVar[bool | float | str] = "drop"
    correct: ClassVar[Literal["metrics", "learn"]] = "metrics"
    pending: ClassVar[int] = PENDING
    codec: ClassVar[Literal["json", "arrow"]] = "json"
    _spec: ClassVar[LabelSpec]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _known_attributes(cls, Label)
        cls._spec = _label_spec(cls)

    @classmethod
    def spec(cls) -> LabelSpec:
        """The label as it was checked."""
        return cls._spec


def _known_attributes(cls: type, base: type) -> None:
    known = set(base.__annotations__)
    for name in vars(cls):
        if not name.startswith("_") and name not in known:
            raise DefinitionError(
                f"{cls.__name__}.{name}: unknown setting; known are {', '.join(n for n in known if n[0] != '_')}"
            )


def _require(cls: type, *names: str) -> None:
    for name in names:
        if getattr(cls, name, None) is None:
            raise DefinitionError(f"{cls.__name__}: {name} is missing; see the example in the class's documentation")


def _stream_spec(cls: type[Stream]) -> StreamSpec:
    _require(cls, "topic", "key", "time", "schema")
    where = cls.__name__
    schema = Schema.parse(cls.schema, where=where)
    time = _column(cls.time, schema, f"{where}.time")
    if schema[time].type != "timestamp" or schema[time].nullable:
        raise DefinitionError(f"{where}.time: {time!r} is {schema[time].text}; declare it as 'timestamp[us, UTC]'")
    key = _column(cls.key, schema, f"{where}.key")
    if schema[key].type not in ("str", "i64") or schema[key].nullable:
        raise DefinitionError(f"{where}.key: {key!r} is {schema[key].text}; a key is str or i64 and not nullable")
    if cls.late not in ("dlq", "score"):
        raise DefinitionError(f"{where}.late = {cls.late!r}: write 'dlq' or 'score'")
    if cls.key_check not in ("reject", "ignore"):
        raise DefinitionError(f"{where}.key_check = {cls.key_check!r}: write 'reject' or 'ignore'")
    if cls.score is not None:
        _condition(cls.score, schema, f"{where}.score")
    dedupe, dedupe_us = _dedupe(cls, schema)
    return StreamSpec(
        name=where,
        topic=cls.topic,
        key=key,
        time=time,
        schema=schema,
        score=cls.score,
        disorder_us=duration_us(cls.disorder, what=f"{where}.disorder"),
        future_us=duration_us(cls.future, what=f"{where}.future"),
        late=cls.late,
        dedupe=dedupe,
        dedupe_us=dedupe_us,
        key_check=cls.key_check == "reject",
        max_bytes=cls.max_bytes,
        codec=_codec(cls),
    )


def _codec(cls: type[Stream] | type[Label]) -> str:
    if cls.codec not in ("json", "arrow"):
        raise DefinitionError(f"{cls.__name__}.codec = {cls.codec!r}: write 'json' or 'arrow'")
    return cls.codec


def _dedupe(cls: type[Stream], schema: Schema) -> tuple[Expr | None, int]:
    if cls.dedupe is None:
        return None, 0
    where = f"{cls.__name__}.dedupe"
    if not isinstance(cls.dedupe, tuple) or len(cls.dedupe) != 2:
        raise DefinitionError(
            f"{where} = {cls.dedupe!r}: write the id and how long it is remembered: ('event_id', '24h')"
        )
    on, horizon = cls.dedupe
    expr = Col(on) if isinstance(on, str) else on
    if type_of(expr, schema, where) not in ("str", "i64"):
        raise DefinitionError(f"{where}: {expr.canonical} must be text or a whole number")
    return expr, duration_us(horizon, what=where)


def _label_spec(cls: type[Label]) -> LabelSpec:
    where = cls.__name__
    _require(cls, "of", "on", "value", "horizon")
    if not (isinstance(cls.of, type) and issubclass(cls.of, Stream)):
        raise DefinitionError(f"{where}.of = {cls.of!r}: write the Stream class")
    stream = cls.of.spec()
    if (cls.topic is None) == (cls.where is None):
        raise DefinitionError(
            f"{where}: write either topic and schema (a log of its own) or where (rows of the stream)"
        )
    if cls.topic == stream.topic:
        raise DefinitionError(f"{where}.topic is the stream's own; write where=... to say which of its rows are labels")
    own = cls.topic is not None
    schema = Schema.parse(cls.schema or {}, where=where) if own else stream.schema
    for side, name in ((schema, where), (stream.schema, stream.name)):
        if cls.on not in side or side[cls.on].type not in ("str", "i64"):
            raise DefinitionError(f"{where}.on = {cls.on!r}: {name} needs a field of that name, str or i64")
    if cls.where is not None:
        _condition(cls.where, schema, f"{where}.where")
    available = cls.available if cls.available is not None or own else Col(stream.time)
    if available is None or type_of(available, schema, f"{where}.available") != "timestamp":
        raise DefinitionError(
            f"{where}.available: write the time at which the label became known, such as col.landed_at"
        )
    value_type = type_of(_plain(cls.value, f"{where}.value"), schema, f"{where}.value")
    timeout, timeout_class = _timeout(cls.timeout, value_type, where)
    if cls.correct not in ("metrics", "learn"):
        raise DefinitionError(f"{where}.correct = {cls.correct!r}: write 'metrics' or 'learn'")
    if not isinstance(cls.pending, int) or cls.pending < 1:
        raise DefinitionError(f"{where}.pending = {cls.pending!r}: write how many predictions may wait, at least 1")
    return LabelSpec(
        name=where,
        stream=stream,
        on=cls.on,
        topic=cls.topic or stream.topic,
        schema=schema,
        where=cls.where,
        value=cls.value,
        value_type=value_type,
        available=available,
        horizon_us=duration_us(cls.horizon, what=f"{where}.horizon"),
        timeout=timeout,
        timeout_class=timeout_class,
        correct=cls.correct,
        pending=cls.pending,
        max_bytes=stream.max_bytes,
        codec=_codec(cls),
    )


def _timeout(value: bool | float | str, value_type: str, where: str) -> tuple[str, bool | float | str | None]:
    if value in ("drop", "censored"):
        return str(value), None
    fits = {"bool": bool, "str": str, "i64": int, "f64": (int, float)}.get(value_type, ())
    if not isinstance(value, fits) or (isinstance(value, bool) and value_type != "bool"):  # type: ignore[arg-type]
        raise DefinitionError(f"{where}.timeout = {value!r}: write 'drop', 'censored' or a {value_type} value")
    return "class", value


def _column(value: Any, schema: Schema, where: str) -> str:
    name = value.name if isinstance(value, Col) else value
    if not isinstance(name, str):
        raise DefinitionError(f"{where} = {value!r}: write a field, such as col.happened_at")
    type_of(Col(name), schema, where)
    return name


def _condition(expr: Any, schema: Schema, where: str) -> None:
    if not isinstance(expr, Expr) or type_of(_plain(expr, where), schema, where) != "bool":
        raise DefinitionError(f"{where}: write a condition over the row's own fields, such as col.kind == 'scheduled'")


def _plain(expr: Any, where: str) -> Expr:
    if not isinstance(expr, Expr):
        raise DefinitionError(f"{where} = {expr!r}: write an expression such as col.amount")
    if any(isinstance(node, Agg) for node in expr.walk()):
        raise DefinitionError(f"{where}: aggregates do not fit here; write it over the row's own fields")
    return expr
