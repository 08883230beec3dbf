"""Parquet in and out: archives keep every message and its place, plain tables are sorted once, datasets are folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg import DefinitionError, FeatureSet, Label, Stream, agg, baseline, col, pipeline
from thalweg.connectors.arrow import ArrowError
from thalweg.connectors.codecs import Form, decode
from thalweg.connectors.journal import Record, extents
from thalweg.connectors.parquet import ArchiveError, read_archive, write_archive
from thalweg.dataflows.backfill import backfill
from thalweg.dataflows.serve import LiveChain
from thalweg.engine.batch import NO_TIME, Log, Raw
from thalweg.engine.errors import OrderError
from thalweg.engine.reading import Reading as Reading_
from thalweg.engine.shard import Shard

DAY_US = 86_400_000_000


class Reading(Stream):
    "Readings of machines."

    topic, key, time = "readings", "machine", col.at
    schema = {"id": "str", "machine": "str", "at": "timestamp[us, UTC]", "value": "f64?", "ok": "bool?", "n": "i64?"}
    disorder = "1m"


class Broke(Label):
    of, on, topic = Reading, "id", "breakdowns"
    schema = {"id": "str", "at": "timestamp[us, UTC]", "broke": "bool"}
    value, available, horizon = col.broke, col.at, "1h"


class Recent(FeatureSet, source=Reading):
    machine = agg.by("machine")
    mean = machine.mean(col.value, "10m")
    count = machine.count("1h")


flow = pipeline(Recent, label=Broke, models=[baseline.Prior(), baseline.NoChange()])
FORM = Form.of(flow.definition, "readings")
LABELS = Form.of(flow.definition, "breakdowns")


def raw(topic: str, rows: list[Any], keys: list[bytes | None], partition: int = 0) -> Raw:
    times = np.arange(len(rows)) * 1_000_000 + DAY_US
    values = [row if isinstance(row, bytes) or row is None else orjson.dumps(row) for row in rows]
    return Raw(Log(topic, partition), np.arange(len(rows)) * 2, times, np.full(len(rows), NO_TIME), keys, values)


def readings(n: int) -> Raw:
    rows: list[Any] = []
    for i in range(n):
        row = {"id": f"r{i}", "machine": f"m{i % 3}", "at": DAY_US + i * 10_000_000, "value": i / 7 if i % 5 else None}
        rows.append(row | {"ok": i % 2 == 0, "n": i})
    rows[3], rows[6], rows[8] = b"{", None, orjson.dumps({"id": "x", "machine": 1})
    return raw("readings", rows, [f"m{i % 3}".encode() for i in range(n)])


def breakdowns(n: int) -> Raw:
    rows = [{"id": f"r{i}", "at": DAY_US + i * 10_000_000 + 30_000_000, "broke": i % 4 == 0} for i in range(n)]
    return raw("breakdowns", rows, [None] * n)


def test_an_archive_keeps_every_message_and_its_place(tmp_path: Path) -> None:
    whole = readings(20)
    assert write_archive(tmp_path / "a.parquet", [whole], FORM) == 20
    (batch,) = read_archive([tmp_path / "a.parquet"], "readings", FORM, "at")
    direct = decode(whole, FORM)
    assert batch.offsets.tolist() == direct.offsets.tolist()
    assert [(r.offset, r.reason) for r in batch.rejects if r.reason != "tombstone"] == [
        (r.offset, r.reason) for r in direct.rejects if r.reason != "tombstone"
    ]
    assert len(batch.rejects) == len(direct.rejects)
    assert batch.keys == direct.keys
    for name, column in direct.columns.items():
        assert batch.columns[name].tolist() == column.tolist(), name


def test_backfill_of_an_archive_equals_the_live_chain_that_wrote_the_journal(tmp_path: Path) -> None:
    events, labels = readings(40), breakdowns(40)
    order = [(events, 0, 10), (labels, 0, 7), (events, 10, 33), (labels, 7, 40), (events, 33, 40)]
    raws = [_part(source, low, high) for source, low, high in order]
    read_at = DAY_US + 10**9
    stamped = [Raw(r.log, r.offsets, r.times, np.full(len(r), read_at), r.keys, r.values) for r in raws]
    live = [row.value for row in LiveChain(flow).push(stamped) if row.kind == "predictions"]
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(Record("j", 0, 0, read_at, extents(raws)).encode() + b"\n")
    write_archive(tmp_path / "events.parquet", [events], FORM)
    write_archive(tmp_path / "labels.parquet", [labels], LABELS)
    paths = ([tmp_path / "events.parquet"], [tmp_path / "labels.parquet"], tmp_path / "out.parquet")
    result = backfill(flow, *paths, journal=journal, batch_rows=5)
    table = pq.read_table(tmp_path / "out.parquet")
    assert result["rows"] == len(live) == len(table)
    assert table.column("id").to_pylist() == [record["id"] for record in live]  # type: ignore[index,call-overload]
    assert table.column("score").to_pylist() == [record["score"] for record in live]  # type: ignore[index,call-overload]
    assert table.column_names == [
        *("id", "event_id", "key", "time", "mean", "count", "score", "label", "label_known_at", "fingerprint")
    ]
    known = [at.timestamp() for at in table.column("label_known_at").to_pylist() if at is not None]
    assert len(known) == result["labelled"] > 30


def _part(whole: Raw, low: int, high: int) -> Raw:
    cut = slice(low, high)
    return Raw(whole.log, whole.offsets[cut], whole.times[cut], whole.append[cut], whole.keys[cut], whole.values[cut])


def test_parquet_dataset_in_a_folder_is_read_whole(tmp_path: Path) -> None:
    """A partitioned folder as any tool writes it, without offsets: sorted once by time."""
    rows = [{"id": f"r{i}", "machine": "m", "at": DAY_US + i * 1_000_000, "value": float(i)} for i in range(50)]
    table = pa.Table.from_pylist(rows[::-1])
    stamps = table.column("at").cast(pa.timestamp("us", tz="UTC"))
    table = table.set_column(table.column_names.index("at"), "at", stamps)
    ds.write_dataset(table, tmp_path / "lake", format="parquet", max_rows_per_file=20, max_rows_per_group=20)
    label = {"id": ["r0"], "at": [DAY_US], "broke": [True]}
    pq.write_table(pa.table(label), tmp_path / "labels.parquet")
    backfill(flow, [tmp_path / "lake"], [tmp_path / "labels.parquet"], tmp_path / "out.parquet")
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.column("event_id").to_pylist() == [row["id"] for row in rows]
    memory = pipeline(Recent, label=Broke, models=[baseline.Prior()], vector=True).run(rows)
    assert out.column("mean").to_pylist() == [record["vector"]["mean"] for record in memory]


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no such file"):
        read_archive([tmp_path / "missing.parquet"], "readings", FORM, "at")
    (tmp_path / "text.parquet").write_text("id,at")
    (tmp_path / "empty").mkdir()
    for name, says in {"text.parquet": "cannot be read as Parquet", "empty": "holds no Parquet file"}.items():
        with pytest.raises(ArchiveError, match=says):
            read_archive([tmp_path / name], "readings", FORM, "at")
    pq.write_table(pa.table({"id": [1], "machine": ["m"], "at": [DAY_US]}), tmp_path / "wrong.parquet")
    with pytest.raises(ArrowError, match="'id' is int64, the schema declares str"):
        read_archive([tmp_path / "wrong.parquet"], "readings", FORM, "at")


VALUES = {
    "id": st.text(max_size=5),
    "machine": st.text(max_size=3),
    "at": st.integers(0, 10**15),
    "value": st.none() | st.floats(-1e100, 1e100),
    "ok": st.none() | st.booleans(),
    "n": st.none() | st.integers(-(2**63), 2**63 - 1),
}


@given(st.lists(st.fixed_dictionaries(VALUES), max_size=20))
def test_json_round_trip(rows: list[dict[str, Any]]) -> None:
    """What orjson writes, the codec reads back, value for value; -0.0 becomes 0.0."""
    batch = decode(raw("readings", rows, [row["machine"].encode() for row in rows]), FORM)
    assert not batch.rejects
    for name, column in batch.columns.items():
        assert column.tolist() == [row[name] for row in rows]


@given(st.lists(st.fixed_dictionaries(VALUES), max_size=20))
def test_arrow_messages_are_rows_in_order(rows: list[dict[str, Any]]) -> None:
    """The second codec: several rows a message, with the columns of the first."""
    form = Form(FORM.schema, "arrow")
    types = {"id": pa.string(), "machine": pa.string(), "at": pa.int64(), "value": pa.float64()}
    schema = pa.schema([*types.items(), ("ok", pa.bool_()), ("n", pa.int64())])
    messages: list[Any] = []
    for start in range(0, len(rows), 3):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(pa.Table.from_pylist(rows[start : start + 3], schema=schema))
        messages.append(sink.getvalue().to_pybytes())
    messages.append(b"no arrow")
    batch = decode(raw("readings", messages, [None] * len(messages)), form)
    assert [reject.reason for reject in batch.rejects] == ["malformed_arrow"]
    shard = Shard(flow.definition)
    cut = [row for piece in Reading_.of(batch).pieces(2) for row in shard.push(piece)]
    once = Shard(flow.definition).push(Reading_.of(batch))
    assert sorted(cut, key=lambda row: row.kind) == sorted(once, key=lambda row: row.kind)
    ids = [row.value["id"] for row in once if isinstance(row.value, dict)]
    assert len(set(ids)) == len(ids)
    assert batch.offsets.tolist() == [2 * (i // 3) for i in range(len(rows))]
    for name, column in batch.columns.items():
        assert column.tolist() == [row[name] for row in rows]


def test_bad_rows_of_one_arrow_message_have_ids_of_their_own() -> None:
    form = Form(FORM.schema, "arrow")
    sink = pa.BufferOutputStream()
    rows = {"id": ["a", "b", "c"], "machine": ["m", None, "m"], "at": [1, 2, -3]}
    table = pa.table(rows, schema=pa.schema([("id", pa.string()), ("machine", pa.string()), ("at", pa.int64())]))
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    batch = decode(raw("readings", [sink.getvalue().to_pybytes()], [b"m"]), form)
    assert batch.columns["id"].tolist() == ["a"]
    letters = Shard(flow.definition).push(Reading_.of(batch))
    ids = [dict(row.headers)["thalweg.id"] for row in letters if row.kind == "dlq"]
    assert ids == [b"dlq/readings/0/0.1", b"dlq/readings/0/0.2"]


def test_a_log_is_read_once() -> None:
    shard, batch = Shard(flow.definition), decode(readings(9), FORM)
    shard.push(Reading_.of(batch))
    with pytest.raises(OrderError, match="in offset order"):
        shard.push(Reading_.of(batch.take(np.empty(0, dtype=np.int64), batch.rejects[-1:])))


def test_a_backfill_that_would_mislead_is_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / "events.parquet", [readings(9)], FORM)
    write_archive(tmp_path / "labels.parquet", [breakdowns(9)], LABELS)
    events, labels = [tmp_path / "events.parquet"], [tmp_path / "labels.parquet"]
    with pytest.raises(DefinitionError, match="give them as labels"):
        backfill(flow, events, [], tmp_path / "out.parquet")
    with pytest.raises(ArchiveError, match="write the training table to another file"):
        backfill(flow, events, labels, events[0])
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(Record("j", 0, 0, DAY_US, ()).encode() + b"\n")
    pq.write_table(pa.table({"id": ["a"], "machine": ["m"], "at": [DAY_US]}), tmp_path / "plain.parquet")
    with pytest.raises(ArchiveError, match="these files hold none"):
        backfill(flow, [tmp_path / "plain.parquet"], labels, journal=journal)
    with pytest.raises(ArchiveError, match="no column 'at'"):
        read_archive([_without_time(tmp_path)], "readings", FORM, "at")


def _without_time(folder: Path) -> Path:
    pq.write_table(pa.table({"id": ["a"], "machine": ["m"]}), folder / "timeless.parquet")
    return folder / "timeless.parquet"


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 5))
def test_any_mix_of_good_and_bad_messages_reaches_the_chain(good: list[bool], run: int) -> None:
    """Through the codec as live, where rows and rejects of one log share their order."""
    row = {"id": "a", "machine": "m", "at": DAY_US}
    whole = raw("readings", [row if fits else b"{" for fits in good], [b"m"] * len(good))
    raws = [_part(whole, low, low + run) for low in range(0, len(good), run)]
    rows = LiveChain(flow).push(raws)
    kinds = [row.kind for row in rows]
    assert kinds.count("dlq") == good.count(False) and kinds.count("predictions") == good.count(True)
