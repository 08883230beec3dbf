"""The AsyncAPI document: real records of every kind fit the schemas, and broken ones do not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from river.drift import ADWIN
from river.linear_model import LinearRegression, LogisticRegression

from thalweg import FeatureSet, Label, Pipeline, Stream, agg, baseline, col, on_error, pipeline
from thalweg.connectors.journal import Extent, Record
from thalweg.dataflows.asyncapi import document, text
from thalweg.engine.batch import Log


class Order(Stream):
    "Orders of a shop; late ones are answered, too."

    topic, key, time = "orders", "shop", col.at
    schema = {"order": "i64", "shop": "str", "at": "timestamp[s, UTC]", "total": "f64?", "gift": "bool", "by": "str?"}
    disorder, late = "10s", "score"


class Returned(Label):
    "Whether it came back."

    of, on, topic = Order, "order", "returns"
    schema = {"order": "i64", "came_back": "bool", "known": "timestamp[s, UTC]"}
    value, available, horizon = col.came_back, col.known, "1h"


class Amount(Label):
    "What was paid back."

    of, on, topic = Order, "order", "returns"
    schema = {"order": "i64", "paid_back": "f64", "known": "timestamp[s, UTC]"}
    value, available, horizon = col.paid_back, col.known, "1h"


class Why(Label):
    "Why it came back."

    of, on, topic = Order, "order", "returns"
    schema = {"order": "i64", "why": "str", "known": "timestamp[s, UTC]"}
    value, available, horizon = col.why, col.known, "1h"


class Habits(FeatureSet, source=Order):
    "What a shop sells."

    total = col.total
    usual = agg.by("shop").mean(col.total, "1h")
    gift = col.gift


BINARY = pipeline(
    Habits,
    name="orders_back",
    label=Returned,
    models={"log": LogisticRegression(), "prior": baseline.Prior()},
    drift=[on_error(ADWIN(grace_period=1, clock=1, min_window_length=1, delta=0.9))],
    carry=["by", "at", "gift", "total"],
    cost=(1, 3),
    vector=True,
    metrics_every=10,
)
REGRESSION = pipeline(Habits, label=Amount, models=[LinearRegression(), baseline.Prior()], metrics_every=10)
CLASSES = pipeline(Habits, label=Why, models=[baseline.Prior(), baseline.Majority()], metrics_every=10)
FEATURES = pipeline(Habits)
ALL = [BINARY, REGRESSION, CLASSES, FEATURES]


def rows(number: int = 80) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Orders, some late, some without a total; and what is told of them."""
    orders, told = [], []
    for i in range(number):
        at = 1_000 + i if i % 10 else 500 + i
        total = None if i % 7 == 0 else float(i % 13)
        orders.append(
            {
                "order": i,
                "shop": "ab"[i % 2],
                "at": at,
                "total": total,
                "gift": i % 3 == 0,
                "by": None if i % 5 else "me",
            }
        )
        back = i % 4 == 0 if i < 40 else i % 4 != 0
        told.append({"order": i, "came_back": back, "paid_back": float(i % 5), "why": "xyz"[i % 3], "known": 1_005 + i})
    return orders, told


def told_of(flow: Pipeline, told: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    return None if flow.definition.label is None else told


def payload(flow: Pipeline, kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = document(flow)["components"]["messages"][kind]["payload"]
    return schema


@pytest.mark.parametrize("flow", ALL, ids=lambda flow: flow.name)
def test_every_record_of_a_run_fits_its_schema(flow: Pipeline) -> None:
    orders, told = rows()
    results = flow.replay(orders, told_of(flow, told))
    assert len(results.predictions) > 50
    for kind in ("predictions", "metrics", "alarms"):
        for record in getattr(results, kind):
            assert list(complaints(orjson.loads(orjson.dumps(record)), payload(flow, kind))) == []
    for order in orders:
        assert list(complaints(order, payload(flow, "events"))) == []


def test_the_sample_holds_every_kind_and_every_optional_field() -> None:
    orders, told = rows()
    results = BINARY.replay([*orders, {"order": "x"}], told)
    assert results.metrics
    assert results.alarms
    assert results.dead_letters
    assert {name for record in results.predictions for name in record} == {
        *payload(BINARY, "predictions")["properties"]
    } - {"degraded"}
    assert any(record.get("late") for record in results.predictions)
    for record in told:
        assert list(complaints(record, payload(BINARY, "labels"))) == []


def test_the_headers_of_a_dead_letter_fit() -> None:
    letters = BINARY.replay([{"order": "x"}]).dead_letters
    headers = document(BINARY)["components"]["messages"]["dlq"]["headers"]
    assert len(letters) == 1
    assert list(complaints({f"thalweg.{name}": value for name, value in letters[0].items()}, headers)) == []


def test_a_journal_record_fits() -> None:
    log = Log("orders", 0)
    for record in (
        Record("orders_back.journal", 0, 0, 5, start={log: 3}),
        Record("orders_back.journal", 0, 1, 6, (Extent(log, 3, 9),), counters={"read": 7}),
    ):
        assert list(complaints(json.loads(record.encode()), payload(BINARY, "journal"))) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("score", 1.5), ("score", "high"), ("decision", "yes"), ("vector_hash", "abc"), ("carry", {}), ("surprise", 1)],
)
def test_a_prediction_that_is_wrong_does_not_fit(name: str, value: Any) -> None:
    orders, told = rows()
    record = BINARY.replay(orders, told).predictions[0]
    assert list(complaints(orjson.loads(orjson.dumps(record | {name: value})), payload(BINARY, "predictions")))


def test_events_that_the_engine_refuses_do_not_fit() -> None:
    good = {"order": 1, "shop": "a", "at": "2026-01-01T00:00:00Z", "total": None, "gift": True, "more": []}
    assert BINARY.replay([good]).dead_letters == []
    assert list(complaints(good, payload(BINARY, "events"))) == []
    for wrong in ({"order": "1"}, {"gift": 1}, {"at": None}, {"total": 1e101}, {"shop": 3}, {"at": -1}):
        assert BINARY.replay([good | wrong]).dead_letters, wrong
        assert list(complaints(good | wrong, payload(BINARY, "events"))), wrong


@pytest.mark.parametrize("flow", ALL, ids=lambda flow: flow.name)
def test_the_document_hangs_together(flow: Pipeline) -> None:
    whole = json.loads(text(flow))
    assert whole["asyncapi"] == "3.0.0"
    for reference in references(whole):
        place = whole
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
    addresses = {channel["address"] for channel in whole["channels"].values()}
    assert set(flow.definition.topics) | {flow.topics[k] for k in ("predictions", "dlq", "journal")} <= addresses
    directions = {name: one["action"] for name, one in whole["operations"].items()}
    assert directions["read_events"] == "receive"
    assert directions["write_predictions"] == "send"
    assert ("write_alarms" in directions) == bool(flow.definition.drift)
    assert ("write_metrics" in directions) == bool(flow.definition.models)


def references(node: Any) -> Iterator[str]:
    """Every $ref."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


TYPES: dict[str, Any] = {"string": str, "object": dict, "array": list, "boolean": bool, "null": type(None)}
KNOWN = {
    *("type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems", "minimum"),
    *("maximum", "pattern", "format", "enum", "const", "anyOf", "description"),
}


def complaints(value: Any, schema: dict[str, Any], where: str = "record") -> Iterator[str]:
    """Where ``value`` does not fit: the part of JSON Schema that we use; an unknown keyword is an error."""
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    if "anyOf" in schema:
        if all(list(complaints(value, one, where)) for one in schema["anyOf"]):
            yield f"{where}: {value!r} fits none of {schema['anyOf']}"
        return
    if "const" in schema and value != schema["const"]:
        yield f"{where}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    if "type" in schema and not of_type(value, schema["type"]):
        yield f"{where}: {value!r} is no {schema['type']}"
        return
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{where}: {value!r} does not match {schema['pattern']}"
    if schema.get("format") == "date-time" and not re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)", value):
        yield f"{where}: {value!r} is no time"
    if isinstance(value, int | float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{where}: {value!r} is out of range"
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{where}: {len(value)} items"
        for i, item in enumerate(value):
            yield from complaints(item, schema.get("items", {}), f"{where}[{i}]")
    if isinstance(value, dict):
        yield from of_object(value, schema, where)


def of_type(value: Any, name: str) -> bool:
    if name == "integer":
        return type(value) is int
    if name == "number":
        return type(value) in (int, float)
    return isinstance(value, TYPES[name])


def of_object(value: dict[str, Any], schema: dict[str, Any], where: str) -> Iterator[str]:
    properties, more = schema.get("properties", {}), schema.get("additionalProperties", {})
    yield from (f"{where}: {name} is missing" for name in schema.get("required", []) if name not in value)
    for name, item in value.items():
        if name in properties:
            yield from complaints(item, properties[name], f"{where}.{name}")
        elif more is False:
            yield f"{where}: {name} is not described"
        else:
            yield from complaints(item, more, f"{where}.{name}")
