"""``pipeline(...)``: the object that users define once and run live, over files, and in a test."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from thalweg.connectors.arrow import table_of
from thalweg.connectors.memory import RowsLike, batch_of
from thalweg.dataflows.merge import merged
from thalweg.engine.batch import Log, Row
from thalweg.engine.definition import METRICS_EVERY, Definition, define
from thalweg.engine.drift.detectors import ErrorDetector
from thalweg.engine.errors import DefinitionError
from thalweg.engine.explain import explain
from thalweg.engine.features.evaluate import Evaluator, fields
from thalweg.engine.features.expressions import Expr
from thalweg.engine.features.featureset import FeatureSet
from thalweg.engine.features.stream import Label
from thalweg.engine.reading import Reading
from thalweg.engine.shard import Shard

KINDS = ("predictions", "alarms", "metrics", "dlq", "journal")


@dataclass
class Results:
    """Everything that left a run: rows by kind as dicts, and the counts."""

    predictions: list[dict[str, Any]] = field(default_factory=list)
    alarms: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    dead_letters: list[dict[str, str]] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)

    def add(self, rows: Iterable[Row]) -> None:
        """Sorts rows by kind."""
        for row in rows:
            if row.kind == "dlq":
                named = {name.removeprefix("thalweg."): value.decode() for name, value in row.headers}
                self.dead_letters.append(named)
            else:
                assert isinstance(row.value, Mapping), row
                getattr(self, row.kind).append(dict(row.value))


class Pipeline:
    """A pipeline. Make one with :func:`pipeline`."""

    def __init__(self, definition: Definition, topics: Mapping[str, str]) -> None:
        self.definition = definition
        self.topics = dict(topics)

    @property
    def name(self) -> str:
        return self.definition.name

    def open(self, *, trace: bool = False) -> Shard:
        """A shard with empty state; ``trace`` as of :class:`Shard`."""
        return Shard(self.definition, trace=trace)

    def run(self, rows: RowsLike, labels: RowsLike | None = None) -> list[dict[str, Any]] | pa.Table:
        """The predictions for ``rows``, in order: dicts for dicts, a table for a table.

        ``labels`` are rows of the label's own topic. Rows stand in the order in which they became
        known; labels are read between them by their ``available`` time. :meth:`replay` gives the rest
        (alarms, metrics, dead letters, counts). Rows that do not fit are
        told in a warning.
        """
        results = self.replay(rows, labels)
        predictions, refused = results.predictions, results.counters["rejected"]
        if refused:
            first = results.dead_letters[0]
            warnings.warn(
                f"{refused} of {results.counters['read']} rows do not fit {self.definition.stream.name}; row "
                f"{first['offset']}: {first['reason']}, {first['detail']} (replay(...).dead_letters has them all)",
                stacklevel=2,
            )
        return table_of(predictions) if isinstance(rows, pa.Table | pa.RecordBatch) else predictions

    def replay(self, rows: RowsLike, labels: RowsLike | None = None, *, batch_rows: int | None = None) -> Results:
        """Everything that leaves, for rows in memory; ``batch_rows`` cuts them (which cannot matter)."""
        shard, results = self.open(), Results()
        reading = self.reading(rows, labels)
        for piece in [reading] if batch_rows is None else reading.pieces(batch_rows):
            results.add(shard.push(piece))
        results.counters.update(shard.counters())
        return results

    def explain(self) -> str:
        """What is computed: features, nodes, state layout, bytes per key, models."""
        return explain(self.definition)

    def reading(self, rows: RowsLike, labels: RowsLike | None = None) -> Reading:
        """Rows in memory as a shard reads them."""
        definition = self.definition
        events = batch_of(rows, definition.stream.schema, Log(definition.stream.topic, 0))
        if labels is None:
            return Reading.of(events)
        if definition.label is None or not definition.label.own_topic:
            raise DefinitionError("run(rows, labels=...): the pipeline has no label with a topic of its own")
        told = batch_of(labels, definition.label.schema, Log(definition.label.topic, 0))
        known = fields(told.columns)
        available = Evaluator(definition.label.schema)(definition.label.available, known, len(told)).values
        return merged([events, told], [events.columns[definition.stream.time].values, available])


def pipeline(
    features: type[FeatureSet],
    *,
    label: type[Label] | None = None,
    models: Sequence[object] | Mapping[str, object] = (),
    name: str | None = None,
    carry: Sequence[str] = (),
    cost: tuple[float, float] | None = None,
    weight: Expr | Mapping[Any, float] | None = None,
    drift: Sequence[ErrorDetector] = (),
    shards: Literal["partition", "one"] = "partition",
    vector: bool = False,
    metrics_every: int = METRICS_EVERY,
    headers: Sequence[str] = (),
    codec: Literal["json", "arrow"] = "json",
    topics: Mapping[str, str] | None = None,
) -> Pipeline:
    """Features, label and models together.

    Args:
        features: the FeatureSet class.
        label: the Label class; without it models that need no label (anomaly detectors) can run.
        models: River classifiers, regressors, pipelines or anomaly detectors, and ``baseline.*``; the first
            serves, the others score and learn beside it. A dict gives them names. None: vectors are written.
        name: of the pipeline and its topics ``<name>.predictions|alarms|metrics|dlq|journal``.
        carry: fields that a prediction record repeats.
        cost: (of a false alarm, of a miss): a score above ``false alarm / (false alarm + miss)`` is decided true.
        weight: ``{class: weight}`` or an expression over the row's fields, for learning and metrics.
        drift: detectors such as ``on_error(ADWIN())``.
        shards: ``"partition"``: a shard a partition; ``"one"``: one shard reads all partitions.
        vector: whether a prediction record holds the feature vector.
        metrics_every: a metrics record a model every so many predictions of a shard.
        headers: names of record headers that a prediction passes on, such as ``["traceparent"]`` (they cost the
            batched producer).
        codec: of the predictions topic: ``"json"``, an object a message, or ``"arrow"``, an IPC stream of many.
        topics: other names, ``{"predictions": "my.topic"}``.

    Raises:
        DefinitionError: with one message that says what to write instead.

    >>> from thalweg import FeatureSet, Stream, agg, col, pipeline
    >>> class Payment(Stream):
    ...     "Card payments."
    ...     topic, key, time = "payments", "card", col.at
    ...     schema = dict(card="str", at="timestamp[s, UTC]", amount="f64")
    >>> class Habits(FeatureSet, source=Payment):
    ...     "What this card has been doing."
    ...     spent_1h = agg.by("card").sum(col.amount, "1h")
    >>> flow = pipeline(Habits)
    >>> rows = flow.run([dict(card="a", at=0, amount=5), dict(card="a", at=60, amount=7)])
    >>> [row["vector"] for row in rows]
    [{'spent_1h': 5.0}, {'spent_1h': 12.0}]
    """
    definition = define(
        features,
        label=label,
        models=models,
        name=name,
        carry=carry,
        cost=cost,
        weight=weight,
        drift=drift,
        shards=shards,
        vector=vector,
        metrics_every=metrics_every,
        headers=headers,
        codec=codec,
    )
    for kind in topics or {}:
        if kind not in KINDS:
            raise DefinitionError(f"topics={{{kind!r}: ...}}: the kinds are {', '.join(KINDS)}")
    return Pipeline(definition, {kind: f"{definition.name}.{kind}" for kind in KINDS} | dict(topics or {}))
