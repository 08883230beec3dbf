"""A wrong definition fails when it is defined, with a message that names the place and says what to write."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.strategies import definition_class
from tests.test_features import features, label, stream
from thalweg import DefinitionError, FeatureSet, Label, Stream, agg, baseline, col, cyc, enc, pipeline, rows
from thalweg.engine.features.sql import sql


def untyped(wrong: Any) -> Any:
    """Hidden from the type checker, which would find the mistake first."""
    return wrong


def wrong_label(**more: Any) -> Callable[[], Any]:
    return lambda: label(stream(), **more)


def wrong_stream(**more: Any) -> Callable[[], Any]:
    return lambda: stream(**more)


def wrong_feature(make: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: features(stream(), f=make())


def wrong_pipeline(**more: Any) -> Callable[[], Any]:
    return lambda: pipeline(features(stream(), f=col.x), **more)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (wrong_stream(time=col.att), "Events.time.*'att'.*did you mean col.at"),
    (wrong_stream(time=col.x), "Events.time.*timestamp"),
    (wrong_stream(key="x"), "Events.key.*str or i64"),
    (wrong_stream(key="cat"), "Events.key.*not nullable"),
    (wrong_stream(schema={}), "Events has no field; write"),
    (wrong_stream(schema={"k": "text"}), "Events.*'k'.*known are str"),
    (wrong_stream(disorder="soon"), "Events.disorder.*write a number and a unit"),
    (wrong_stream(future=timedelta(seconds=-1)), "Events.future.*not negative"),
    (wrong_stream(late="drop"), "Events.late.*'dlq' or 'score'"),
    (wrong_stream(score=col.x), "Events.score: write a condition"),
    (wrong_stream(score=agg.by("k").count("1h") > 1), "Events.score: aggregates do not fit here"),
    (wrong_stream(dedupe="id"), "Events.dedupe.*'24h'"),
    (wrong_stream(dedupe=("x", "1h")), "Events.dedupe.*text or a whole number"),
    (wrong_stream(codec="avro"), "Events.codec.*'json' or 'arrow'"),
    (wrong_stream(disorderr="1s"), "Events.disorderr: unknown setting; known are"),
    (wrong_label(on="x"), "Outcome.on.*str or i64"),
    (wrong_label(topic="outcomes"), r"Outcome: write either topic and schema .* or where"),
    (wrong_label(topic="events", where=None), "Outcome.topic is the stream's own; write where"),
    (wrong_label(horizon="later"), "Outcome.horizon.*write a number and a unit"),
    (wrong_label(timeout="never"), "Outcome.timeout.*'drop', 'censored' or a bool value"),
    (wrong_label(correct="always"), "Outcome.correct.*'metrics' or 'learn'"),
    (wrong_label(available=col.x), "Outcome.available: write the time"),
    (wrong_label(value=agg.by("k").count("1h")), "Outcome.value: aggregates do not fit here"),
    (wrong_label(pending=0), "Outcome.pending.*at least 1"),
    (wrong_feature(lambda: col.amount), "Set.f: there is no field 'amount'; the fields are"),
    (wrong_feature(lambda: col.cat + 1), r"Set.f: add\(col\(cat\),1\): add takes numbers, got str and i64"),
    (wrong_feature(lambda: col.at), "Set.f is a time; write a difference"),
    (wrong_feature(lambda: 3), "Set.f = 3 is no feature; write an expression"),
    (wrong_feature(lambda: col.x == "1"), "eq takes two values of one type, got f64 and str"),
    (wrong_feature(lambda: col.x > math.inf), "inf is no constant"),
    (wrong_feature(lambda: col.at > "2020-01-01"), "Set.f.*Z or an offset"),
    (wrong_feature(lambda: col.x and col.cat), r"Write & \| ~ instead of and, or, not"),
    (wrong_feature(lambda: agg.by("x").count("1h")), r"Set.f: by\(col\(x\)\) is f64; group by text"),
    (wrong_feature(lambda: agg.by("k").sum(col.cat, "1h")), r"Set.f: sum\(col\(cat\)\) needs numbers"),
    (wrong_feature(lambda: agg.by("k").sum(untyped("x"), "1h")), r"sum\('x', ...\): write an expression"),
    (wrong_feature(lambda: agg.by("k").count(untyped(5))), r"the window is 5; write '1h', rows\(20\) or lifetime"),
    (wrong_feature(lambda: agg.by("k").count("0s")), "write a length above zero"),
    (wrong_feature(lambda: agg.by("k").count(rows(0))), r"rows\(0\): write how many rows"),
    (wrong_feature(lambda: agg.by("k", where=untyped("x > 1")).count("1h")), "where='x > 1': write a condition"),
    (wrong_feature(lambda: agg.by("k", where=col.x).count("1h")), "Set.f: where=.* is no condition"),
    (wrong_feature(lambda: agg.by("k", current=untyped("skip")).count("1h")), "current='skip': write 'include' or"),
    (wrong_feature(lambda: agg.by("k", capacity=0).count("1h")), "capacity=0: write how many keys"),
    (wrong_feature(lambda: agg.by("cat", lag="1m").count("1h")), r"lag=...\) is not there yet.*shards='one'"),
    (wrong_feature(lambda: agg.by("k").sum(agg.by("k").count("1h"), "1h")), "Set.f: an aggregate of an aggregate"),
    (wrong_feature(lambda: agg.by("k").grid(["median"], col.x, ["1h"])), "grid: unknown op 'median'; known are"),
    (wrong_feature(lambda: enc.one_hot(col.cat)), r"one_hot\(col\(cat\)\): write values="),
    (wrong_feature(lambda: enc.bucket(col.x, [2, 1])), "write rising numbers"),
    (wrong_feature(lambda: enc.hash(col.cat, 1)), "write at least 2"),
    (wrong_feature(lambda: enc.hash(col.x, 8)), "hash takes str or i64 or bool, got f64"),
    (wrong_feature(lambda: enc.cross(col.cat)), "write at least two categories"),
    (wrong_feature(lambda: enc.target(col.k, Stream, "1h")), "write the Label class"),  # type: ignore[arg-type]
    (wrong_feature(lambda: cyc.hour(col.at, tz="Mars/Olympus")), "'Mars/Olympus' is no time zone; write one such as"),
    (wrong_feature(lambda: cyc.hour(col.x)), "cyclic takes timestamp, got f64"),
    (lambda: pipeline(features(stream(), f=agg.by("cat").count("1h"))), "Set.f aggregates by col.cat.*shards='one'"),
    (lambda: features(stream(), _helper=col.x), "Set has no feature; write name = expression"),
    (lambda: definition_class(FeatureSet, "Set", {"f": col.x}), r"write class Set\(FeatureSet, source=YourStream\)"),
    (wrong_pipeline(label=stream()), "write the Label class"),
    (wrong_pipeline(label=label(stream(topic="others"))), "Outcome labels Events, but Set is about Events"),
    (wrong_pipeline(carry="x"), r"write a list of fields, such as carry=\['x'\]"),
    (wrong_pipeline(carry=["y"]), "carry: there is no field 'y'"),
    (wrong_pipeline(cost=(1, 0)), "both above 0"),
    (wrong_pipeline(shards="all"), "write 'partition'"),
    (wrong_pipeline(models=[baseline.Prior()]), "pipeline has none"),
    (wrong_pipeline(topics={"scores": "x"}), "the kinds are"),
    (wrong_pipeline(metrics_every=0), "metrics_every=0.*at least 1"),
    (wrong_pipeline(weight=col.cat), "weight=.*must be a number"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_definition_says_what_to_write(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        make()


def test_a_target_encoding_needs_its_own_label() -> None:
    of = stream()
    one, other = label(of), definition_class(Label, "Other", {**vars_of(label(of))})
    with pytest.raises(DefinitionError, match=r"Set: .* fed by Outcome, but the pipeline has label=Other"):
        pipeline(features(of, f=enc.target(col.k, one, "1h")), label=other)


def test_a_stream_that_is_defined_again_is_the_same_stream() -> None:
    """As when a cell of a notebook runs twice."""
    of = label(stream(score=col.x > 0))
    assert pipeline(features(stream(score=col.x > 0), f=col.x), label=of).definition.label == of.spec()


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (enc.hash(col.cat, 8), r"sql\(Set\): DuckDB has nothing like hash"),
        (agg.by("k", capacity=9).count("1h"), r"sql\(Set\): rows keeps 9 keys, but SQL forgets none; leave capacity"),
    ],
)
def test_sql_refuses_what_it_cannot_say(expression: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        sql(features(stream(), f=expression).spec())


def test_sql_keeps_its_own_names() -> None:
    with pytest.raises(DefinitionError, match="'seq' is the query's own name; rename"):
        sql(features(stream(), seq=col.x).spec())


def vars_of(one: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(one).items() if not name.startswith("_")}
