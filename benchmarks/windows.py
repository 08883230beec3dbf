"""How fast are windowed features, in big batches and in small ones, beside Polars, DuckDB and a plain loop?

Three windows (1 h, 6 h, 24 h) times count, sum, mean, std, max over 10,000 keys, drawn evenly. Event times rise by
random steps, so that the longest window holds about sixteen rows of a key; all ours begins with ``GroupState.advance``:
keys as dictionary codes are given slots, rows are put in order, folded and read. Opponents compute the same fifteen
columns from the same arrays in the same run, checked to 1e-9 before anything is timed; what they need to get their
frames is not counted.

backfill
    sorted rows without ties, one big batch, empty state. Polars: ``rolling_*_by(...).over(key)`` in one lazy query,
    with its own threads. DuckDB: one query with three RANGE windows, materialised.
stream
    the same in batches of 4,096 rows in arrival order, state warm. ``reference`` is :func:`_reference`, a Numba loop
    over rings in arrays with running sums and no disorder, nulls, ties, late rows or eviction of keys.
disordered
    5 % of the rows come up to an hour behind (1.3 % behind a row of their own key), 5 % are null, half of the times
    are ties; a sample is checked against plain Python.
growth
    microseconds per event with 10^6 keys over those with 10^4, four a key in the longest
    window in both; more would not fit in the time of a quick run.
"""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import duckdb
import numba
import numpy as np
import numpy.typing as npt
import polars as pl

from thalweg import agg, col
from thalweg.engine.features.groups import Coded, Group, GroupState
from thalweg.engine.kernels.rings import ENTER

HOUR = 3_600_000_000
HOURS = (1, 6, 24)
OPS = ("count", "sum", "mean", "std", "max")
COLUMNS = [f"{op}_{hours}" for hours in HOURS for op in OPS]
ROWS_PER_KEY = 16  # in the longest window
BATCH = 4096
SEED = 11

Array = npt.NDArray[Any]


class Events(NamedTuple):
    """n rows in log order: key int64[n], time int64[n] (microseconds), value float64[n] (NaN = null)."""

    keys: Array
    times: Array
    values: Array

    def part(self, low: int, high: int) -> Events:
        """The rows [low, high)."""
        return Events(self.keys[low:high], self.times[low:high], self.values[low:high])


def run(quick: bool) -> dict[str, Any]:
    """Rates, ratios and spreads; the medians of several runs in turns, after one that does not count."""
    runs = 3 if quick else 9
    events = made(200_000 if quick else 1_000_000, 10_000)
    _check_opponents(events.part(0, 60_000))
    backfill = _in_turns(
        runs,
        ours=lambda: ours(events, len(events.keys)),
        polars=lambda: polars_rows(frame(events)),
        duckdb=lambda: duckdb_rows(events),
    )
    stream = _stream(events, runs)
    growth = _growth(runs, quick)
    n = len(events.keys)
    rates = {name: [n / seconds for seconds in all_] for name, all_ in backfill.items()}
    return {
        "ratio_polars": _ratio(rates["ours"], rates["polars"]),
        "ratio_duckdb": _ratio(rates["ours"], rates["duckdb"]),
        "ratio_reference": _ratio(stream["ours"], stream["reference"]),
        "ratio_disordered": _ratio(stream["disordered"], stream["reference"]),
        "backfill_events_per_second": round(statistics.median(rates["ours"])),
        "stream_events_per_second": round(statistics.median(stream["ours"])),
        "disordered_events_per_second": round(statistics.median(stream["disordered"])),
        "reference_events_per_second": round(statistics.median(stream["reference"])),
        "growth_keys": round(statistics.median(growth["million"]) / statistics.median(growth["ten_thousand"]), 3),
        "us_per_event_by_keys": {name: round(statistics.median(all_), 4) for name, all_ in growth.items()},
        "rows_per_key_longest": _rows_per_key(events),
        "events_timed": {"backfill": n, "stream": n // 2, "disordered": n // 2, "growth": _GROWTH_EVENTS[quick]},
        "spreads": {
            **{f"backfill_{name}": _spread(all_) for name, all_ in rates.items()},
            **{name: _spread(all_) for name, all_ in stream.items()},
            **{f"growth_{name}": _spread(all_) for name, all_ in growth.items()},
        },
        "versions": {name: metadata.version(name) for name in ("numpy", "numba", "polars", "duckdb")}
        | {"python": platform.python_version()},
        "polars_threads": pl.thread_pool_size(),
    }


def made(n: int, keys: int, *, disorder: bool = False, rows_per_key: int = ROWS_PER_KEY) -> Events:
    """Payments: cents, lognormal. With ``disorder`` 5 % come behind, 5 % are null, and half of the times are ties."""
    rng = np.random.default_rng(SEED)
    mean_step = 24 * HOUR / (keys * rows_per_key)
    times = np.cumsum(rng.integers(1, max(2, int(2 * mean_step)), n)) + 1_600_000_000_000_000
    values = np.round(rng.lognormal(3.0, 1.0, n), 2)
    if disorder:
        times -= times % int(2 * mean_step)
        behind = rng.random(n) < 0.05
        times[behind] -= rng.integers(0, HOUR, int(behind.sum()))
        values[rng.random(n) < 0.05] = np.nan
    return Events(rng.integers(0, keys, n), times, values)


# Ours


def group() -> Group:
    """The fifteen aggregates."""
    by = agg.by("key")
    return Group.of([_aggregate(by, op, hours) for hours in HOURS for op in OPS])


def _aggregate(by: Any, op: str, hours: int) -> Any:
    return by.count(f"{hours}h", col.x) if op == "count" else getattr(by, op)(col.x, f"{hours}h")


def names_of(keys: int) -> list[Any]:
    """The dictionary of the codes."""
    return [f"card{key}" for key in range(keys)]


_NAMES = names_of(10_000)


def ours(events: Events, batch: int, state: GroupState | None = None, names: list[Any] = _NAMES) -> Array:
    """float64[n, 15] in the order of ``COLUMNS``, from an empty state or from ``state``, in batches."""
    state = GroupState(group()) if state is None else state
    newest = np.maximum.accumulate(events.times) - HOUR
    watermarks = np.concatenate([[np.iinfo(np.int64).min], newest[:-1]])
    numbers, acts = np.arange(len(events.keys)), np.full(len(events.keys), ENTER, dtype=np.int8)
    found = []
    for low in range(0, len(events.keys), batch):
        part = slice(low, low + batch)
        m = len(events.keys[part])
        keys = Coded(events.keys[part], names)
        found.append(
            state.advance(
                keys,
                events.times[part],
                watermarks[part],
                numbers[part],
                events.values[part, None],
                acts[part],
                numbers[:m],
                m,
            )
        )
    return found[0] if len(found) == 1 else np.concatenate(found)


def in_columns(out: Array) -> Array:
    """Our result in the order of ``COLUMNS``."""
    told = [f"{a.op}_{a.window.length // HOUR}" for a in group().aggregates]
    return out[:, [told.index(column) for column in COLUMNS]]


# Opponents


def frame(events: Events) -> pl.DataFrame:
    """The rows as Polars has them."""
    times = pl.Series("t", events.times).cast(pl.Datetime("us"))
    return pl.DataFrame({"key": events.keys, "t": times, "x": events.values})


def polars_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Windows (t - W, t] of each key."""
    x, one = pl.col("x"), pl.lit(1.0).alias("one")
    columns = []
    for hours in HOURS:
        window: Any = {"by": "t", "window_size": f"{hours}h", "closed": "right"}
        folds = {
            "count": pl.col("one").rolling_sum_by(**window),
            "sum": x.rolling_sum_by(**window),
            "mean": x.rolling_mean_by(**window),
            "std": x.rolling_std_by(**window),
            "max": x.rolling_max_by(**window),
        }
        columns += [folds[op].over("key").alias(f"{op}_{hours}") for op in OPS]
    return rows.lazy().with_columns(one).select(columns).collect()


def duckdb_rows(events: Events) -> dict[str, Array]:
    """Windows (t - W, t] of each key; ``t`` is a whole number, so the edge is W - 1 before."""
    with duckdb.connect() as connection:
        rows = {"key": events.keys, "t": events.times, "x": events.values}
        connection.register("rows", pl.DataFrame(rows).to_arrow())
        folds = {"count": "count(x)", "sum": "sum(x)", "mean": "avg(x)", "std": "stddev_samp(x)", "max": "max(x)"}
        columns = ", ".join(f"{folds[op]} OVER w{hours} AS {op}_{hours}" for hours in HOURS for op in OPS)
        windows = ", ".join(
            f"w{hours} AS (PARTITION BY key ORDER BY t RANGE BETWEEN {hours * HOUR - 1} PRECEDING AND CURRENT ROW)"
            for hours in HOURS
        )
        found: dict[str, Array] = connection.execute(f"SELECT t, {columns} FROM rows WINDOW {windows}").fetchnumpy()
        return found


class Rings(NamedTuple):
    """The state of the reference loop: a ring of ``CAPACITY`` rows a key, and for each of its windows where it begins,
    how many rows, sum, sum of squares, and the maximum (NaN where it has to be looked for)."""

    times: Array
    values: Array
    ends: Array
    lefts: Array
    sums: Array
    squares: Array
    maxima: Array


_CAPACITY = 64  # at sixteen rows a key in 24 h, more than 64 do not happen


def rings(keys: int) -> Rings:
    """Empty rings."""
    shape = (keys, len(HOURS))
    return Rings(
        np.zeros((keys, _CAPACITY), dtype=np.int64),
        np.zeros((keys, _CAPACITY)),
        np.zeros(keys, dtype=np.int64),
        np.zeros(shape, dtype=np.int64),
        np.zeros(shape),
        np.zeros(shape),
        np.full(shape, -np.inf),
    )


@numba.njit(nogil=True)
def _reference(  # type: ignore[no-untyped-def] # pragma: no cover
    keys, times, inputs, lengths, ring_times, ring_values, ends, lefts, sums, squares, maxima, out
):
    mask = ring_times.shape[1] - 1
    for i in range(len(keys)):
        key, now, x = keys[i], times[i], inputs[i]
        end = ends[key]
        ring_times[key, end & mask] = now
        ring_values[key, end & mask] = x
        ends[key] = end + 1
        for w in range(len(lengths)):
            left, total, square, maximum = lefts[key, w], sums[key, w], squares[key, w], maxima[key, w]
            edge = now - lengths[w]
            lost = False
            while left < end and ring_times[key, left & mask] <= edge:
                y = ring_values[key, left & mask]
                total -= y
                square -= y * y
                lost = lost or y >= maximum
                left += 1
            if left == end:
                total, square = 0.0, 0.0
            total += x
            square += x * x
            if lost:
                maximum = x
                for k in range(left, end):
                    maximum = max(maximum, ring_values[key, k & mask])
            else:
                maximum = max(maximum, x)
            n = end + 1 - left
            lefts[key, w] = left
            sums[key, w] = total
            squares[key, w] = square
            maxima[key, w] = maximum
            m = 5 * w
            out[i, m] = n
            out[i, m + 1] = total
            out[i, m + 2] = total / n
            out[i, m + 3] = math.sqrt(max(0.0, (square - total * total / n) / (n - 1))) if n > 1 else math.nan
            out[i, m + 4] = maximum


def reference(events: Events, batch: int, state: Rings) -> Array:
    """The reference loop, float64[n, 15]."""
    lengths = np.array(HOURS) * HOUR
    found = []
    for low in range(0, len(events.keys), batch):
        part = slice(low, low + batch)
        out = np.empty((len(events.keys[part]), len(COLUMNS)))
        _reference(events.keys[part], events.times[part], events.values[part], lengths, *state, out)
        found.append(out)
    return np.concatenate(found)


def recomputed(events: Events, rows: Array) -> Array:
    """The result for these rows by plain Python: what stands before them in log order, in (time, log order)."""
    before = defaultdict(list)
    wanted, result = set(rows.tolist()), []
    for i, (key, now, x) in enumerate(zip(*(column.tolist() for column in events), strict=True)):
        before[key].append((now, x))
        if i in wanted:
            result.append([value for hours in HOURS for value in _recomputed(before[key], now, hours * HOUR)])
    return np.array(result)


def _recomputed(seen: list[tuple[int, float]], now: int, length: int) -> list[float]:
    xs = [x for time_, x in seen if now - length < time_ <= now and not math.isnan(x)]
    if not xs:
        return [0.0, math.nan, math.nan, math.nan, math.nan]
    return [len(xs), math.fsum(xs), math.fsum(xs) / len(xs), statistics.stdev(xs) if len(xs) > 1 else math.nan, max(xs)]


# Measuring


def _check_opponents(events: Events) -> None:
    """All give the same fifteen columns; and, with disorder, nulls and ties, what plain Python gives."""
    expected = in_columns(ours(events, len(events.keys)))
    _same(expected, reference(events, BATCH, rings(10_000)))
    _same(expected, polars_rows(frame(events)).select(COLUMNS).to_numpy())
    found = duckdb_rows(events)
    order = np.argsort(found["t"])
    _same(expected, np.column_stack([_plain(found[column])[order] for column in COLUMNS]))
    odd = made(60_000, 500, disorder=True)
    rows = np.arange(20_000, 60_000, 97)
    _same(in_columns(ours(odd, BATCH))[rows], recomputed(odd, rows))


def _plain(column: Array) -> Array:
    values = np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)
    return np.asarray(values)


def _same(expected: Array, found: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-6)


def _stream(events: Events, runs: int) -> dict[str, list[float]]:
    """Events a second in batches of 4,096: the first half warms state up, the second is timed."""
    half = len(events.keys) // 2
    first, second = events.part(0, half), events.part(half, 2 * half)
    odd = made(2 * half, 10_000, disorder=True)

    def timed(rows: Events, warm: Events) -> float:
        state = GroupState(group())
        ours(warm, BATCH, state)
        return half / _seconds(lambda: ours(rows, BATCH, state))

    def timed_reference() -> float:
        state = rings(10_000)
        reference(first, BATCH, state)
        return half / _seconds(lambda: reference(second, BATCH, state))

    found: dict[str, list[float]] = {"ours": [], "reference": [], "disordered": []}
    for _ in range(runs + 1):
        found["ours"].append(timed(second, first))
        found["reference"].append(timed_reference())
        found["disordered"].append(timed(odd.part(half, 2 * half), odd.part(0, half)))
    return {name: rates[1:] for name, rates in found.items()}


_GROWTH_EVENTS = {True: 100_000, False: 500_000}
_GROWTH_WARM = 4  # rows a key before anything is timed, and in the longest window from then on


def _growth(runs: int, quick: bool) -> dict[str, list[float]]:
    """Microseconds per event, batches of 4,096, each number of keys with its own warm state, timed in turns."""
    n = _GROWTH_EVENTS[quick]
    warm = {}
    for name, keys in (("ten_thousand", 10_000), ("million", 1_000_000)):
        names = names_of(keys)
        events = made(_GROWTH_WARM * keys + (runs + 1) * n, keys, rows_per_key=_GROWTH_WARM)
        state = GroupState(group())
        ours(events.part(0, _GROWTH_WARM * keys), 65_536, state, names)
        warm[name] = (events, state, names, _GROWTH_WARM * keys)
    found: dict[str, list[float]] = {name: [] for name in warm}
    for turn in range(runs + 1):
        for name, (events, state, names, at) in warm.items():
            part = events.part(at + turn * n, at + (turn + 1) * n)
            seconds = _seconds(lambda part=part, state=state, names=names: ours(part, BATCH, state, names))  # type: ignore[misc]
            found[name].append(1e6 * seconds / n)
    return {name: us[1:] for name, us in found.items()}


def _rows_per_key(events: Events) -> float:
    return round(float(in_columns(ours(events, len(events.keys)))[-50_000:, COLUMNS.index("count_24")].mean()), 2)


def _in_turns(runs: int, **contestants: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds of each, in turns, so that noise hits all; the first round does not count."""
    rounds = [{name: _seconds(one) for name, one in contestants.items()} for _ in range(runs + 1)][1:]
    return {name: [round_[name] for round_ in rounds] for name in contestants}


def _seconds(what: Callable[[], object]) -> float:
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def _ratio(ours_: list[float], theirs: list[float]) -> float:
    return round(statistics.median(ours_) / statistics.median(theirs), 3)


def _spread(values: list[float]) -> float:
    return round((max(values) - min(values)) / statistics.median(values), 3)
