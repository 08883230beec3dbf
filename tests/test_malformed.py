"""Malformed input between good rows: a dead letter each, and no neighbour notices.

A table of messages that producers really send. Each is fed inside blocks of good rows, through the codec and the
chain; the predictions must be those of the good rows alone, at the same offsets, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from river import linear_model, preprocessing

from tests.readings import by_kind
from tests.strategies import definition_class
from thalweg import FeatureSet, Label, Stream, agg, baseline, col, enc, lifetime
from thalweg.connectors.codecs import Form, decode
from thalweg.engine.batch import Log, Raw, Row
from thalweg.engine.definition import Definition, define
from thalweg.engine.reading import Reading
from thalweg.engine.shard import Shard

SECOND = 1_000_000
START = 1_600_000_000
GOOD = {"k": "a", "at": START, "x": 1.5, "n": 2, "flag": True, "id": "e0"}
KEY = b"a"
AVRO = b"\x00\x00\x00\x00\x07\x02a"


def changed(**more: Any) -> bytes:
    return orjson.dumps(GOOD | more)


def text_of(old: str, new: str) -> bytes:
    """The good row with a piece of its bytes replaced."""
    text = orjson.dumps(GOOD).decode()
    assert old in text
    return text.replace(old, new).encode()


MALFORMED: dict[str, tuple[bytes | None, str]] = {
    "tombstone": (None, "tombstone"),
    "empty": (b"", "empty"),
    "blank": (b"  \n", "malformed_json"),
    "truncated": (orjson.dumps(GOOD)[:-9], "malformed_json"),
    "first half of an object": (b'{"k": "a", "at":', "malformed_json"),
    "second half of an object": (b'1600000000, "x": 1}', "malformed_json"),
    "two objects": (orjson.dumps(GOOD) * 2, "malformed_json"),
    "two lines": (orjson.dumps(GOOD) + b"\n" + orjson.dumps(GOOD), "malformed_json"),
    "invalid UTF-8": (text_of('"a"', '"~"').replace(b"~", b"\xff\xfe"), "malformed_json"),
    "lone surrogate": (text_of('"e0"', '"\\ud800"'), "malformed_json"),
    "byte order mark": (b"\xef\xbb\xbf" + orjson.dumps(GOOD), "malformed_json"),
    "NaN": (text_of("1.5", "NaN"), "malformed_json"),
    "Infinity": (text_of("1.5", "-Infinity"), "malformed_json"),
    "1e999": (text_of("1.5", "1e999"), "malformed_json"),
    "deep nesting": (b"[" * 100_000 + b"]" * 100_000, "malformed_json"),
    "deep nesting in a field": (text_of("1.5", "[" * 500 + "]" * 500), "type"),
    "5 MB of text": (changed(id="x" * 5_000_000), "too_large"),
    "5 MB of blanks": (b" " * 5_000_000 + orjson.dumps(GOOD), "too_large"),
    "list": (b"[" + orjson.dumps(GOOD) + b"]", "not_an_object"),
    "text": (b'"' + b"a" * 100 + b'"', "not_an_object"),
    "number": (b"7", "not_an_object"),
    "null": (b"null", "not_an_object"),
    "Avro": (AVRO, "avro"),
    "missing key": (orjson.dumps({name: v for name, v in GOOD.items() if name != "k"}), "missing"),
    "missing time": (orjson.dumps({name: v for name, v in GOOD.items() if name != "at"}), "missing"),
    "null key": (changed(k=None), "null"),
    "null time": (changed(at=None), "null"),
    "key of another type": (changed(k=7), "type"),
    "number as text": (changed(x="1.5"), "type"),
    "truth as number": (changed(x=True), "type"),
    "number as truth": (changed(flag=1), "type"),
    "fraction as whole number": (changed(n=1.5), "type"),
    "object as number": (changed(x={"value": 1.5}), "type"),
    "too large": (changed(x=1e101), "range"),
    "inexact": (changed(x=2**53 + 1), "range"),
    "number of 70 bits": (text_of(":2,", f":{2**70},"), "type"),
    "number of 300 digits": (text_of("1.5", "9" * 300), "range"),
    "negative time": (changed(at=-1), "range"),
    "time after 9999": (changed(at=10**12), "range"),
    "time of 10^18": (changed(at=10**18), "range"),
    "time as text without a zone": (changed(at="2020-09-13T12:26:40"), "type"),
    "time as words": (changed(at="yesterday"), "type"),
    "fraction of a second as a number": (changed(at=START + 0.5), "type"),
    "time in milliseconds": (changed(at=START * 1000), "range"),
    "far future": (changed(at=START + 10**8), "future"),
    "late": (changed(at=START - 10**6), "late"),
    "another key": (changed(k="b"), "key"),
}


def definition(codec: str = "json") -> Definition:
    schema = {
        "k": "str",
        "at": "timestamp[s, UTC]",
        "x": "f64?",
        "n": "i64?",
        "flag": "bool?",
        "id": "str?",
        "y": "f64?",
    }
    attributes = {"topic": "events", "key": "k", "time": col.at, "schema": schema, "disorder": "5s", "codec": codec}
    stream = definition_class(Stream, "Events", attributes)
    outcome = {
        "of": stream,
        "on": "id",
        "topic": "outcomes",
        "schema": {"id": "str", "at": "timestamp[s, UTC]", "y": "f64"},
    }
    label = definition_class(Label, "Outcome", {**outcome, "value": col.y, "available": col.at, "horizon": "1h"})
    of = agg.by("k")
    expressions = {
        "total": of.sum(col.x, "10s"), "spread": of.std(col.x, "1h"), "seen": of.count(lifetime(ttl="1d")),
        "decayed": of.decayed_sum(col.x, "10s"), "gap": of.since_last("1h"), "usual": enc.target(col.k, label, "1h"),
    }  # fmt: skip
    chosen = definition_class(FeatureSet, "Set", expressions, source=stream)
    model = preprocessing.StandardScaler() | linear_model.LinearRegression()
    return define(chosen, label=label, models=[model, baseline.Prior()], vector=True, metrics_every=4)


def good(i: int) -> bytes:
    return changed(at=START + i, x=i * 0.7, id=f"e{i}")


def batch(messages: Sequence[tuple[int, bytes | None]], of: Definition, topic: str = "events") -> Any:
    """Messages (offset, value) of one log, decoded; each was appended at the time of its block."""
    offsets = np.array([offset for offset, _ in messages], dtype=np.int64)
    append = (START + offsets) * SECOND
    keys: list[bytes | None] = [KEY] * len(messages)
    return decode(Raw(Log(topic, 0), offsets, append, append, keys, [v for _, v in messages]), Form.of(of, topic))


def answers(messages: Sequence[tuple[int, bytes | None]], pieces: int = 1000) -> tuple[dict[str, list[Row]], Shard]:
    """What leaves a shard that reads these messages, with labels of the first rows read at offset 20."""
    of = definition()
    shard = Shard(of)
    rows: list[Row] = []
    told = [(i, orjson.dumps({"id": f"e{i}", "at": START + i, "y": i / 3})) for i in range(0, 20, 2)]
    first, rest = [m for m in messages if m[0] < 20], [m for m in messages if m[0] >= 20]
    for part, topic in ((first, "events"), (told, "outcomes"), (rest, "events")):
        for piece in Reading.of(batch(part, of, topic)).pieces(pieces):
            rows += shard.push(piece)
    return by_kind(rows), shard


def around(bad: Sequence[bytes | None]) -> list[tuple[int, bytes | None]]:
    """The bad messages between good ones, at odd offsets from 5 on; good ones at all others up to 40 and more."""
    odd = {5 + 2 * i: value for i, value in enumerate(bad)}
    return [(i, odd[i] if i in odd else good(i)) for i in range(max(40, 10 + 2 * len(bad)))]


def check(bad: Sequence[tuple[bytes | None, str]], pieces: int) -> None:
    """Each bad message is a dead letter with its reason and bytes; everything else is as without them."""
    messages = around([value for value, _ in bad])
    offsets = [5 + 2 * i for i in range(len(bad))]
    without, _ = answers([m for m in messages if m[0] not in offsets])
    rows, shard = answers(messages, pieces)
    assert rows["predictions"] == without["predictions"]
    assert [row.value["id"] for row in rows["metrics"]] == [row.value["id"] for row in without["metrics"]]  # type: ignore[index,call-overload]
    letters = [dict(row.headers) for row in rows["dlq"]]
    assert [int(letter["thalweg.offset"]) for letter in letters] == offsets
    assert [letter["thalweg.reason"].decode() for letter in letters] == [reason for _, reason in bad]
    assert [row.value for row in rows["dlq"]] == [value for value, _ in bad]
    assert all(row.key == KEY and 0 < len(dict(row.headers)["thalweg.detail"]) < 300 for row in rows["dlq"])
    stays_finite(rows, shard)
    counters = shard.counters()
    outcomes = ("rejected", "quarantined", "late", "duplicate", "folded", "scored")
    assert counters["read"] == len(messages) == sum(counters[name] for name in outcomes)


def stays_finite(rows: dict[str, list[Row]], shard: Shard) -> None:
    """No vector, score or state is infinite or NaN."""
    for row in rows["predictions"]:
        value: Any = row.value
        assert all(v is None or math.isfinite(v) for v in [value["score"], *value["vector"].values()])
    for name, item in shard.features.state().items():
        if isinstance(item, np.ndarray) and item.dtype.kind == "f" and not name.endswith("ring.values"):
            assert np.isfinite(item).all(), name
    Shard(definition()).restore(shard.snapshot())  # which refuses what is not finite


@pytest.mark.parametrize("name", MALFORMED)
def test_dlq_poison_events(name: str) -> None:
    check([MALFORMED[name]], pieces=1000)


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_dlq_poison_events_all_at_once(pieces: int) -> None:
    check(list(MALFORMED.values()), pieces)


def test_dlq_poison_events_that_would_shift_joined_text() -> None:
    """Joined with newlines these would parse as one row a message, each the next one's."""
    check([MALFORMED["empty"], MALFORMED["two lines"], MALFORMED["empty"], MALFORMED["two objects"]], pieces=1000)
    halves = [MALFORMED["first half of an object"], MALFORMED["second half of an object"]]
    check([*halves, *reversed(halves)], pieces=1000)


def test_dlq_poison_events_alone() -> None:
    """A log of nothing else: nothing is predicted, nothing stops."""
    of = definition()
    values = [value for value, reason in MALFORMED.values() if reason not in ("late", "future")]
    shard = Shard(of)
    rows = shard.push(Reading.of(batch(list(enumerate(values)), of)))
    assert [row.kind for row in rows] == ["dlq"] * len(values)
    assert shard.counters()["rejected"] == len(values)


LABELS: dict[str, tuple[bytes | None, str]] = {
    "tombstone": (None, "tombstone"),
    "truncated": (b'{"id": "e1"', "malformed_json"),
    "null value": (b'{"id": "e1", "at": 1600000001, "y": null}', "null"),
    "no id": (b'{"at": 1600000001, "y": 1}', "missing"),
    "NaN": (b'{"id": "e1", "at": 1600000001, "y": NaN}', "malformed_json"),
    "far future": (b'{"id": "e1", "at": 1700000001, "y": 1}', "future"),
}


def test_dlq_poison_events_among_labels() -> None:
    """A label that is refused is counted, and joins nothing."""
    of = definition()
    shard = Shard(of)
    shard.push(Reading.of(batch([(0, good(0)), (1, good(1))], of)))
    rows = shard.push(Reading.of(batch(list(enumerate(value for value, _ in LABELS.values())), of, "outcomes")))
    assert [dict(row.headers)["thalweg.reason"].decode() for row in rows] == [reason for _, reason in LABELS.values()]
    counters = shard.counters()
    assert counters["labels_read"] == counters["labels_rejected"] == len(LABELS)
    assert counters["predictions_pending"] == 2


def arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def rows_of_arrow(**more: Any) -> pa.Table:
    columns = {"k": ["a"] * 3, "at": [START, START + 1, START + 2], "x": [1.0, 2.0, 3.0], "n": [1, 2, 3]}
    return pa.table({**columns, **more})


ARROW: dict[str, tuple[bytes | None, list[str]]] = {
    "good": (arrow(rows_of_arrow()), []),
    "tombstone": (None, ["tombstone"]),
    "empty": (b"", ["empty"]),
    "JSON": (orjson.dumps(GOOD), ["malformed_arrow"]),
    "truncated": (arrow(rows_of_arrow())[:-40], ["malformed_arrow"]),
    "cut in the schema": (arrow(rows_of_arrow())[:60], ["malformed_arrow"]),
    "text for numbers": (arrow(rows_of_arrow(x=["1", "2", "3"])), ["malformed_arrow"]),
    "time without a zone": (arrow(rows_of_arrow(at=pa.array([0, 1, 2], pa.timestamp("us")))), ["malformed_arrow"]),
    "an infinity": (arrow(rows_of_arrow(x=[1.0, math.inf, math.nan])), ["range"]),
    "a null key": (arrow(rows_of_arrow(k=["a", None, "a"])), ["null"]),
    "a negative time": (arrow(rows_of_arrow(at=[START, -5, START])), ["range"]),
    "no key": (arrow(rows_of_arrow().drop_columns(["k"])), ["null"] * 3),
    "a fraction": (arrow(rows_of_arrow(n=[1.0, 2.5, None])), ["range"]),
}


@pytest.mark.parametrize("name", ARROW)
def test_dlq_poison_events_of_arrow(name: str) -> None:
    """A bad message is refused as a whole, a bad row of a good message alone; neighbours keep their offsets."""
    of = definition("arrow")
    value, reasons = ARROW[name]
    whole = arrow(rows_of_arrow())
    found = batch([(0, whole), (1, value), (2, whole)], of)
    assert [reject.reason for reject in found.rejects] == reasons
    assert {reject.offset for reject in found.rejects} <= {1}
    kept = 0 if len(reasons) == 3 or reasons in (["tombstone"], ["empty"], ["malformed_arrow"]) else 3 - len(reasons)
    assert found.offsets.tolist() == [0] * 3 + [1] * kept + [2] * 3
    assert found.columns["x"].tolist()[:3] == found.columns["x"].tolist()[-3:] == [1.0, 2.0, 3.0]
