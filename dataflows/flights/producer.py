"""A seeded producer of the flight topics: real rows, some delayed or repeated, and planted bad ones.

``records`` is a pure function of its arguments: no broker, no clock, no global randomness. It merges the
topics ``flights`` and ``flights.landings`` into one publish order and disturbs the first as networks do:

- **delayed**: the row is published up to ``disorder`` after it happened, so rows are out of order, none late.
  A push-back never overtakes its own question: it waits behind a delayed one (counted as ``held``).
- **repeated**: the same key and bytes once more, still within ``disorder``, so a duplicate and not late.
- **late**: an event sent again 2 to 8 hours later under an id of its own. By then its own airport has gone on
  by more than ``disorder``, so it is late whatever the number of partitions.
- **future**: an event of a device whose clock stands in 2035, under an id of its own.
- **malformed**: an event under an id of its own, spoilt in one of the ways of ``FAULTS``.

Planted rows come on top of the real ones and replace none. A real row that is not delayed is published at the
moment it became known, so ``timestamp_us`` is never before ``happened_at``, except in future rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from thalweg.dataflows.flights import data
from thalweg.engine.durations import Duration, duration_us

EVENTS, LANDINGS = "flights", "flights.landings"
MARGIN_US = 30_000_000  # a repeat comes at least this long before it would be late
FUTURE = "2035-01-01T00:00:00Z"
_SECOND_US = 1_000_000
_HOUR_US = 3_600_000_000
_CHUNK = 8192  # records encoded at a time: memory does not grow with the number of days
_EVENT, _LANDING, _REPEAT, _LATE, _FUTURE, _MALFORMED = range(6)
_PLANTED = {_LATE: "late", _FUTURE: "future", _MALFORMED: "malformed"}
Ints = npt.NDArray[np.int64]


class Record(NamedTuple):
    """What a Kafka producer needs; ``timestamp_us`` is the simulated time of publishing, UTC."""

    topic: str
    key: bytes
    value: bytes
    timestamp_us: int


Fields = dict[str, Any]
FAULTS: dict[str, Callable[[bytes, Fields], tuple[bytes, bytes]]] = {
    "truncated": lambda key, row: (key, orjson.dumps(row)[:-25]),
    "wrong_type": lambda key, row: (key, orjson.dumps(row | {"distance": "far"})),
    "missing_key": lambda key, row: (
        key,
        orjson.dumps({name: row[name] for name in row if name != "origin"}),
    ),
    "nan": lambda key, row: (key, orjson.dumps(row | {"distance": None}).replace(b"null}", b"NaN}")),
    "empty": lambda key, row: (key, b""),
    "invalid_utf8": lambda key, row: (key, orjson.dumps(row | {"dest": "?"}).replace(b'"?"', b'"\xff\xfe"')),
    "key_mismatch": lambda key, row: (b"LGA" if key != b"LGA" else b"JFK", orjson.dumps(row)),
    "overflow": lambda key, row: (key, orjson.dumps(row | {"distance": None}).replace(b"null}", b"1e999}")),
}
"""Ways to spoil an event, each (key, fields) -> (key, value)."""


@dataclass(frozen=True, eq=False)
class Records:
    """Records in publish order over both topics; iterating again gives the same ones.

    ``summary`` counts them: ``events`` (all on ``flights``), which is ``scheduled`` + ``pushed_back``
    + ``repeated`` + ``late`` + ``future`` + ``malformed``; ``landings``; of the real events ``delayed`` and
    ``held``; among the malformed ones ``malformed_<fault>`` for each of ``FAULTS``.
    """

    summary: dict[str, int]
    _flights: pa.Table
    _events: tuple[Ints, npt.NDArray[np.bool_], Ints]  # see data.event_order
    _landings: tuple[Ints, Ints]  # see data.landing_order
    _log: Ints  # int64[n, 4]: what, position in _events or _landings, number of the plant, publish time

    def __len__(self) -> int:
        return len(self._log)

    def __iter__(self) -> Iterator[Record]:
        for begin in range(0, len(self), _CHUNK):
            yield from self._encode(self._log[begin : begin + _CHUNK])

    def _encode(self, log: Ints) -> Iterator[Record]:
        is_landing = log[:, 0] == _LANDING
        events = _event_rows(self._flights, *(array[log[~is_landing, 1]] for array in self._events))
        landings = _landing_rows(self._flights, *(array[log[is_landing, 1]] for array in self._landings))
        for what, _, number, time in log.tolist():
            if what == _LANDING:
                key, row = next(landings)
                yield Record(LANDINGS, key, orjson.dumps(row), time)
            else:
                key, value = _event_bytes(next(events), what, number)
                yield Record(EVENTS, key, value, time)


def records(
    days: int,
    seed: int,
    start: date | str = data.FIRST_DAY,
    disorder: Duration = "10m",
    *,
    delayed: float = 0.05,
    repeated: float = 0.01,
    late: int | None = None,
    future: int | None = None,
    malformed: int | None = None,
) -> Records:
    """The records of ``days`` New York days of flights from ``start`` on.

    ``delayed`` and ``repeated`` are shares of the real events. ``late``, ``future`` and ``malformed`` are
    numbers of planted rows; None is 20 per 31 days and at least 3. There are fewer late rows where the days
    have no room for them.

    >>> {kind: records(1, seed=7).summary[kind] for kind in ("scheduled", "pushed_back", "landings", "late")}
    {'scheduled': 842, 'pushed_back': 838, 'landings': 831, 'late': 3}

    Raises:
        ValueError: a part of the days lies outside 2013, or a share or number is out of its range.
    """
    counts = [_count(name, n, days) for name, n in (("late", late), ("future", future), ("malformed", malformed))]
    for name, share in (("delayed", delayed), ("repeated", repeated)):
        if not 0 <= share <= 1:
            raise ValueError(f"expected {name} as a share from 0 to 1, got {share}")
    flights = data.load(start, days)
    events, landings = data.event_order(flights), data.landing_order(flights)
    disorder_us = duration_us(disorder, what="disorder")
    draw = np.random.Generator(np.random.PCG64(seed))
    publish, slow, held = _delay(draw, events, disorder_us, delayed)
    every = np.arange(len(publish))
    stale, anchor = _stale(draw, flights, events, disorder_us, counts[0])
    early, spoilt = _choose(draw, every, counts[1]), _choose(draw, every, counts[2])
    parts = [  # where publish times are equal, the records stand in this order
        _part(_EVENT, every, publish),
        _part(_LANDING, np.arange(len(landings[1])), landings[1]),
        _part(_REPEAT, *_repeat(draw, publish, events[2] + disorder_us, repeated)),
        _part(_LATE, stale, publish[anchor]),
        _part(_FUTURE, early, publish[early]),
        _part(_MALFORMED, spoilt, publish[spoilt]),
    ]
    log = np.concatenate(parts)
    log = log[np.argsort(log[:, 3], kind="stable")]
    summary = _summary(log, events[1]) | {"delayed": slow, "held": held}
    return Records(summary, flights, events, landings, log)


def _count(name: str, number: int | None, days: int) -> int:
    if number is None:
        return max(3, round(20 * days / 31))
    if number < 0:
        raise ValueError(f"expected {name} as a number of rows, got {number}")
    return number


def _choose(draw: np.random.Generator, candidates: Ints, number: int) -> Ints:
    """``number`` of the candidates, or all if there are fewer; sorted."""
    return np.sort(candidates[np.argsort(draw.random(len(candidates)), kind="stable")[:number]])


def _part(what: int, which: Ints, publish: Ints) -> Ints:
    numbers = np.arange(len(which))
    return np.column_stack([np.full_like(numbers, what), which, numbers, publish])


def _delay(
    draw: np.random.Generator, events: tuple[Ints, Any, Ints], disorder_us: int, share: float
) -> tuple[Ints, int, int]:
    """Publish times int64[n], and how many events were delayed and push-backs held behind their question."""
    row, pushed, known = events
    chosen = _choose(draw, np.arange(len(known)), round(share * len(known)))
    publish = known.copy()
    publish[chosen] += ((0.1 + 0.9 * draw.random(len(chosen))) * disorder_us).astype(np.int64)
    asked = np.zeros(row.max() + 1, dtype=np.int64)
    asked[row[~pushed]] = publish[~pushed]
    held = pushed & (publish < asked[row])
    return np.where(held, asked[row], publish), len(chosen), int(held.sum())


def _repeat(draw: np.random.Generator, publish: Ints, late_us: Ints, share: float) -> tuple[Ints, Ints]:
    """Events to publish once more, and when: a second later at least, a margin before they would be late."""
    room = late_us - MARGIN_US - publish
    chosen = _choose(draw, np.flatnonzero(room > _SECOND_US), round(share * len(publish)))
    wait = _SECOND_US + draw.random(len(chosen)) * (room[chosen] - _SECOND_US)
    return chosen, publish[chosen] + wait.astype(np.int64)


def _stale(
    draw: np.random.Generator,
    flights: pa.Table,
    events: tuple[Ints, Any, Ints],
    disorder_us: int,
    number: int,
) -> tuple[Ints, Ints]:
    """Events to send again as late rows, and the later event of the same airport that each comes after."""
    row, _, known = events
    origin = np.array(flights["origin"].to_pylist())[row]
    moved_on = known + disorder_us + (_HOUR_US * (2 + 6 * draw.random(len(known)))).astype(np.int64)
    anchor = np.full(len(known), -1)
    for airport in np.unique(origin):
        here = np.flatnonzero(origin == airport)
        place = np.searchsorted(known[here], moved_on[here])
        anchor[here] = np.append(here, -1)[place]
    chosen = _choose(draw, np.flatnonzero(anchor >= 0), number)
    return chosen, anchor[chosen]


def _summary(log: Ints, pushed: npt.NDArray[np.bool_]) -> dict[str, int]:
    what, number = log[:, 0], log[:, 2]
    total = {name: int((what == code).sum()) for code, name in _PLANTED.items()}
    faults = Counter(list(FAULTS)[n % len(FAULTS)] for n in number[what == _MALFORMED].tolist())
    return {
        "events": int((what != _LANDING).sum()),
        "landings": int((what == _LANDING).sum()),
        "scheduled": int((~pushed).sum()),
        "pushed_back": int(pushed.sum()),
        "repeated": int((what == _REPEAT).sum()),
        **total,
        **{f"malformed_{fault}": faults[fault] for fault in FAULTS},
    }


def _event_rows(flights: pa.Table, row: Ints, pushed: Any, known: Ints) -> Iterator[Fields]:
    """Events as JSON objects, times as text."""
    table = data.event_table(flights, row, pushed, known)
    columns = {name: table[name].to_pylist() for name in table.column_names if name != "happened_at"}
    columns["happened_at"] = _texts(known)
    names = table.column_names
    return (dict(zip(names, values, strict=True)) for values in zip(*(columns[n] for n in names), strict=True))


def _landing_rows(flights: pa.Table, row: Ints, landed: Ints) -> Iterator[tuple[bytes, Fields]]:
    """(key, JSON object) of landings; the key is the airport of departure."""
    table = data.landing_table(flights, row, landed)
    keys = [origin.encode() for origin in flights["origin"].take(pa.array(row)).to_pylist()]
    values = zip(table["flight_id"].to_pylist(), _texts(landed), table["arr_delay"].to_pylist(), strict=True)
    return ((k, dict(zip(table.column_names, v, strict=True))) for k, v in zip(keys, values, strict=True))


def _event_bytes(row: Fields, what: int, number: int) -> tuple[bytes, bytes]:
    key = row["origin"].encode()
    if what in _PLANTED:
        row["flight_id"] += f"/{_PLANTED[what]}-{number}"
    if what == _FUTURE:
        row["happened_at"] = FUTURE
    if what == _MALFORMED:
        return list(FAULTS.values())[number % len(FAULTS)](key, row)
    return key, orjson.dumps(row)


def _texts(times: Ints) -> list[str]:
    """ISO 8601 with Z; every time in the data is a whole minute."""
    return [text + "Z" for text in np.datetime_as_string(times.astype("datetime64[us]"), unit="s").tolist()]
