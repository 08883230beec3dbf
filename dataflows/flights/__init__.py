"""Will this flight land more than 15 minutes late? The first pipeline, on every flight out of New York in 2013.

Asked at the scheduled departure, answered from what has pushed back and landed by then at that
airport, carrier, route and aircraft (its previous departure from New York; inbound legs are not in the data).
"""

from __future__ import annotations

from river.compose import Pipeline, Select
from river.drift import ADWIN
from river.linear_model import LogisticRegression
from river.optim import SGD
from river.preprocessing import StandardScaler

from thalweg import FeatureSet, Label, Stream, agg, baseline, col, cyc, enc, on_error, pipeline

DISORDER = "10m"
CARRIERS = ["9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"]
OWN = ("distance", "hour_", "weekday_", "airport_", "carrier_")


class Flight(Stream):
    "What happens to flights out of New York, in the order it became known, keyed by origin airport."

    topic, key, time = "flights", "origin", col.happened_at
    schema = {
        "kind": "str",
        "flight_id": "str",
        "origin": "str",
        "dest": "str",
        "carrier": "str",
        "tail": "str?",
        "happened_at": "timestamp[us, UTC]",
        "dep_delay": "f64?",
        "distance": "f64",
    }
    score = col.kind == "scheduled"  # asks for a prediction; a push-back moves state only
    disorder, future, late = DISORDER, "5m", "dlq"
    dedupe = (enc.cross(col.kind, col.flight_id), "6h")


class LandsLate(Label):
    "Whether the flight landed more than 15 minutes late; a cancelled or diverted flight never tells."

    of, on, topic = Flight, "flight_id", "flights.landings"
    schema = {"flight_id": "str", "landed_at": "timestamp[us, UTC]", "arr_delay": "f64?"}
    value, available, horizon, timeout = col.arr_delay > 15, col.landed_at, "36h", "drop"


class DelayRisk(FeatureSet, source=Flight, version=1):
    "What the airport, the carrier, the route and the aircraft have been doing just before this departure."

    _left = col.kind == "pushed_back"
    _held_up = (col.dep_delay > 15).fill(False)
    _airport = agg.by("origin", where=_left)
    _airline = agg.by("origin", "carrier", where=_left)
    _aircraft = agg.by("tail", where=_left)

    # the row's own columns
    distance = (col.distance + 1.0).log()
    hour = cyc.hour(col.happened_at, tz="America/New_York")
    weekday = cyc.weekday(col.happened_at, tz="America/New_York")
    airport = enc.one_hot(col.origin, ["EWR", "JFK", "LGA"])
    carrier = enc.one_hot(col.carrier, CARRIERS)

    # what has happened by now
    gone_1h = _airport.count("1h")
    queue = _airport.grid(["mean", "max", "std"], col.dep_delay, ["30m", "1h", "3h"])
    held_up_1h = _airport.mean(_held_up, "1h").fill(0.0)
    airline_delay = _airline.mean(col.dep_delay, "3h")
    airline_last = _airline.mean(col.dep_delay, "24h")
    previous_leg = _aircraft.last(col.dep_delay, "24h")
    previous_leg_known = ~_aircraft.last(col.dep_delay, "24h").is_null()
    route_late = enc.target(enc.cross(col.origin, col.dest), LandsLate, "14d", prior=50)
    dest_late_6h = enc.target(col.dest, LandsLate, "6h", prior=10)
    airline_late_6h = enc.target(enc.cross(col.origin, col.carrier), LandsLate, "6h", prior=10)


def _logistic() -> Pipeline:
    return StandardScaler() | LogisticRegression(SGD(0.003))


_own = [name for name in DelayRisk.spec().names if name.startswith(OWN)]

flow = pipeline(
    DelayRisk,
    name="flight_delays",
    label=LandsLate,
    models={
        "windows": _logistic(),
        "own columns": Select(*_own) | _logistic(),
        "prior": baseline.Prior(),
        "majority": baseline.Majority(),
        "no change": baseline.NoChange(),
    },
    carry=["flight_id", "carrier"],
    cost=(1, 4),
    drift=[on_error(ADWIN())],
    shards="one",
)
