"""Features, labels and their definitions by example. That they hold for every log is the business of the laws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.strategies import definition_class
from thalweg import (
    FeatureSet,
    Label,
    Results,
    Stream,
    agg,
    baseline,
    col,
    cyc,
    enc,
    lifetime,
    on_error,
    pipeline,
    rows,
)

SCHEMA = {"k": "str", "at": "timestamp[s, UTC]", "x": "f64?", "cat": "str?", "id": "str?", "done": "bool?"}


def stream(**more: Any) -> Any:
    return definition_class(Stream, "Events", {"topic": "events", "key": "k", "time": col.at, "schema": SCHEMA, **more})


def label(of: Any, **more: Any) -> Any:
    own = {"of": of, "on": "id", "value": col.done, "horizon": "10s", "where": ~col.done.is_null()}
    return definition_class(Label, "Outcome", {**own, **more})


def features(of: Any, **expressions: Any) -> Any:
    return definition_class(FeatureSet, "Set", expressions, source=of)


def row(at: float, k: str = "a", **more: Any) -> dict[str, Any]:
    return {"k": k, "at": at, **more}


def vectors(of: Any, events: Sequence[dict[str, Any]], **expressions: Any) -> list[dict[str, Any]]:
    answers = pipeline(features(of, **expressions)).replay(events).predictions
    return [answer["vector"] for answer in answers]


def column(events: Sequence[dict[str, Any]], expression: Any) -> list[Any]:
    return [vector["f"] for vector in vectors(stream(disorder="1h"), events, f=expression)]


# Windows


def test_a_window_is_open_on_its_left_edge_and_closed_on_its_right() -> None:
    events = [row(0), row(10), row(10), row(9), row(20)]
    assert column(events, agg.by("k").count("10s")) == [1, 1, 2, 2, 1]
    assert column(events, agg.by("k", current="exclude").count("10s")) == [0, 0, 1, 1, 0]


def test_disordered_rows_see_what_came_before_them_in_both_orders() -> None:
    events = [row(10, x=1), row(5, x=2), row(10, x=4), row(7, x=8)]
    assert column(events, agg.by("k").sum(col.x, "1h")) == [1, 2, 7, 10]
    assert column(events, agg.by("k").last(col.x, "1h")) == [1, 2, 4, 8]
    assert column(events, agg.by("k").first(col.x, "1h")) == [1, 2, 2, 2]
    assert column(events, agg.by("k").last(col.x, rows(2))) == [1, 2, 4, 8]


def test_an_aggregate_of_nothing() -> None:
    """Rule 8: the count of nothing is 0, everything else is null until it is filled."""
    of = agg.by("k")
    nothing = {"rows": of.count("1s"), "count": of.count("1s", col.x)}
    ops = ("sum", "mean", "var", "std", "min", "max", "first", "last")
    others = {op: getattr(of, op)(col.x, "1s") for op in ops}
    others |= {
        "since": of.since_last("1s"),
        "decayed": of.decayed_sum(col.x, "1s"),
        "filled": of.max(col.x, "1s").fill(-1),
    }
    found = vectors(stream(), [row(0)], **nothing, **others)[0]
    assert found == {**dict.fromkeys(others), "rows": 1.0, "count": 0.0, "filled": -1.0}


def test_one_value_has_no_variance() -> None:
    assert column([row(0, x=3), row(1, x=5)], agg.by("k").var(col.x, "1h")) == [None, 2]


def test_sums_are_rounded_once() -> None:
    """1e16 + 1 - 1e16 is 1, whatever left the window meanwhile."""
    events = [row(0, x=1e16), row(1, x=1), row(2, x=-1e16), row(10.0, x=0.1), row(11, x=0.2)]
    assert column(events, agg.by("k").sum(col.x, "10s")) == [1e16, 1e16, 1.0, math.fsum([1, -1e16, 0.1]), -1e16]
    assert column(events, agg.by("k").sum(col.x, "5s"))[-1] == math.fsum([0.1, 0.2])


def test_a_lifetime_starts_anew_after_its_ttl() -> None:
    events = [row(0), row(9), row(19), row(20), row(40)]
    assert column(events, agg.by("k").count(lifetime(ttl="10s"))) == [1, 2, 1, 2, 1]


def test_a_decayed_sum_halves() -> None:
    assert column([row(0, x=8), row(2, x=None), row(4, x=1)], agg.by("k").decayed_sum(col.x, "2s")) == [8, 4, 3]


def test_since_last_excludes_the_row_itself() -> None:
    assert column([row(0), row(3), row(3), row(1)], agg.by("k").since_last("1h")) == [None, 3, 0, 1]


def test_capacity_forgets_the_key_touched_longest_ago_and_counts() -> None:
    flow = pipeline(features(stream(), f=agg.by("k", capacity=2).count("1h")))
    results = flow.replay([row(0, "a"), row(1, "b"), row(2, "a"), row(3, "c"), row(4, "b"), row(5, "a")])
    assert [p["vector"]["f"] for p in results.predictions] == [1, 1, 2, 1, 1, 1]
    assert results.counters["evicted_keys"] == 3


def test_null_keys_and_null_conditions_touch_nothing() -> None:
    by_cat = agg.by("k", "cat").count("1h")
    assert column([row(0), row(1), row(2, cat="u"), row(3, cat="u")], by_cat) == [0, 0, 1, 2]
    where = agg.by("k", where=col.x > 0).count("1h")
    assert column([row(0), row(1, x=1), row(2, x=-1), row(3)], where) == [0, 1, 1, 1]


# Rows: late, repeated, folded


def test_watermark_late_events() -> None:
    """Late is late by the prefix maximum, less the disorder; exactly at the watermark is not late."""
    flow = pipeline(features(stream(disorder="5s"), f=agg.by("k").count("1h")))
    results = flow.replay([row(10), row(5), row(4), row(20), row(15), row(14), row(20)])
    assert [p["vector"]["f"] for p in results.predictions] == [1, 1, 3, 3, 5]
    assert results.counters["late"] == 2
    assert [letter["detail"] for letter in results.dead_letters] == ["1.000000 seconds behind the watermark"] * 2
    assert [letter["offset"] for letter in results.dead_letters] == ["2", "5"]


def test_watermark_late_events_can_be_answered_as_of_the_watermark() -> None:
    flow = pipeline(features(stream(disorder="5s", late="score"), f=agg.by("k").count("1h"), x=col.x))
    results = flow.replay([row(4), row(10), row(3, x=7), row(10)])
    late = results.predictions[2]
    assert late["late"] is True and late["vector"] == {"f": 1.0, "x": 7.0}
    assert results.predictions[3]["vector"]["f"] == 3  # it touched no state
    assert (results.counters["late"], results.counters["scored"], results.dead_letters) == (1, 3, [])


def test_watermark_is_not_moved_by_late_and_repeated_rows() -> None:
    of = stream(dedupe=("id", "100s"))
    results = pipeline(features(of, f=agg.by("k").count("1h"))).replay(
        [row(10, id="a"), row(50, id="a"), row(11, id="b"), row(9, id="c"), row(110, id="a")]
    )
    assert [p["vector"]["f"] for p in results.predictions] == [1, 2, 3]
    assert (results.counters["duplicate"], results.counters["late"]) == (1, 1)


def test_rows_that_tell_move_state_only() -> None:
    of = stream(score=col.x > 0)
    results = pipeline(features(of, f=agg.by("k").count("1h"))).replay([row(0, x=-1), row(1, x=1), row(2)])
    assert [p["vector"]["f"] for p in results.predictions] == [2]
    assert (results.counters["folded"], results.counters["scored"]) == (2, 1)


# Expressions and encoders


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (col.x / 0, None),
        (col.x / (col.x - 4), None),
        ((col.x - 4).log(), None),
        (col.x.log(), math.log(4)),
        (col.x * 1e99 * 100, None),
        (-(col.x * 0), 0.0),
        (col.cat.is_null(), 1.0),
        (col.x.clip(0, 2.5), 2.5),
        ((col.cat == "u") & (col.x < 0), 0.0),
        ((col.cat == "u") | (col.x > 0), 1.0),
        ((col.cat == "u") & (col.x > 0), None),
        (abs(col.x - 5), 1.0),
        (col.x.is_in([1, 4]), 1.0),
        (col.at - "1970-01-01T00:00:01Z", -1.0),
        (2 - col.x, -2.0),
    ],
)
def test_expressions_of_a_row(expression: Any, expected: Any) -> None:
    """x is 4, cat is null, the time is 1970."""
    assert column([row(0, x=4)], expression) == [expected]


def test_one_hot_of_an_unseen_category_and_of_null_is_all_zero() -> None:
    found = vectors(stream(), [row(0, cat="b"), row(1, cat="new"), row(2)], c=enc.one_hot(col.cat, ["a", "b"]))
    assert found == [{"c_a": 0, "c_b": 1}, {"c_a": 0, "c_b": 0}, {"c_a": 0, "c_b": 0}]


def test_cross_of_different_parts_never_collides() -> None:
    parts = [("a", "1:b"), ("a1:", "b"), ("a1", ":b"), ("", "a1:b"), ("a1:b", "")]
    events = [row(i, k, cat=cat) for i, (k, cat) in enumerate(parts)]
    texts = column(events, enc.cross(col.k, col.cat))
    assert len(set(texts)) == len(parts)
    assert column([row(0)], enc.cross(col.k, col.cat)) == [None]


def test_hash_is_the_same_in_every_process() -> None:
    """Golden: XXH64 of the text with the seed, modulo the buckets."""
    assert column([row(0, cat="JFK"), row(1, cat="")], enc.hash(col.cat, 1000)) == [
        GOLDEN_JFK,
        17241709254077376921 % 1000,
    ]
    assert column([row(0, cat="JFK")], enc.hash(col.cat, 1000, seed=1)) != [GOLDEN_JFK]


GOLDEN_JFK = 556


def test_buckets_are_closed_on_the_left() -> None:
    events = [row(i, x=x) for i, x in enumerate([-1, 0, 0.5, 1, 9, None])]
    assert column(events, enc.bucket(col.x, [0, 1])) == [0, 1, 1, 2, 2, None]


def test_a_cycle_follows_the_local_clock_over_a_change_of_summer_time() -> None:
    """New York, 2013-03-10: 01:59:59 is followed by 03:00:00."""
    before = int(datetime(2013, 3, 10, 6, 59, 59, tzinfo=UTC).timestamp())
    found = vectors(stream(), [row(before), row(before + 1)], h=cyc.hour(col.at, tz="America/New_York"))
    angles = [2 * math.pi * hour / 24 for hour in (2 - 1 / 3600, 3)]
    assert [(v["h_sin"], v["h_cos"]) for v in found] == [(math.sin(a), math.cos(a)) for a in angles]


def test_a_weekday_is_monday_first_and_a_year_begins_in_january() -> None:
    monday = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
    found = vectors(stream(), [row(monday)], w=cyc.weekday(col.at), y=cyc.day_of_year(col.at), m=cyc.minute(col.at))
    assert found == [{"w_sin": 0, "w_cos": 1, "y_sin": 0, "y_cos": 1, "m_sin": 0, "m_cos": 1}]


# Labels


def told(of: Any, events: Sequence[dict[str, Any]], outcome: Any = None, **expressions: Any) -> Results:
    flow = pipeline(
        features(of, **(expressions or {"f": col.x.fill(0)})),
        label=outcome or label(of), models=[baseline.NoChange()], vector=True,
    )  # fmt: skip
    return flow.replay(events)


def asking(**more: Any) -> Any:
    return stream(score=col.done.is_null(), disorder="1h", **more)


def test_target_encoding_no_leak() -> None:
    """A label counts for rows read after it whose time is not before it became known: never for its own event."""
    of = asking()
    outcome = label(of, horizon="1d")
    te = enc.target(col.k, outcome, "1h", prior=1)
    events = [
        row(0, id="1"), row(1, id="2"),
        row(5, id="1", done=True), row(4, id="3"), row(5, id="4"),
        row(6, id="2", done=False), row(7, id="5"), row(7, "b", id="6"),
        row(3605, id="7"), row(3606, id="8"),
    ]  # fmt: skip
    found = [p["vector"]["te"] for p in told(of, events, outcome, te=te).predictions]
    mean = 0.5
    assert found == [None, None, None, 1.0, (1 + mean) / 3, mean, 0.0, None]


def test_target_encoding_no_leak_after_a_correction() -> None:
    of = asking()
    outcome = label(of, horizon="1d")
    te = enc.target(col.k, outcome, "1h", prior=1)
    events = [row(0, id="1"), row(1, id="1", done=True), row(2, id="2"), row(3, id="1", done=False), row(4, id="3")]
    assert [p["vector"]["te"] for p in told(of, events, outcome, te=te).predictions] == [None, 1.0, 0.0]


LABEL_JOINS: dict[str, tuple[list[dict[str, Any]], dict[str, int]]] = {
    "joined": ([row(0, id="1"), row(1, id="1", done=True)], {"labels_joined": 1, "predictions_joined": 1}),
    "duplicate": (
        [row(0, id="1"), row(1, id="1", done=True), row(2, id="1", done=True)],
        {"labels_joined": 1, "labels_duplicate": 1, "predictions_joined": 1},
    ),
    "corrected": (
        [row(0, id="1"), row(1, id="1", done=True), row(2, id="1", done=False)],
        {"labels_joined": 1, "labels_corrected": 1, "predictions_joined": 1},
    ),
    "after the timeout": (
        [row(0, id="1"), row(15), row(16, id="1", done=True)],
        {"labels_corrected": 1, "predictions_timed_out": 1, "predictions_evicted": 1},
    ),
    "early": (
        [row(0, id="1", done=True), row(1, id="1")],
        {"labels_joined": 1, "predictions_joined": 1, "labels_early": 0},
    ),
    "never asked for": ([row(0, id="1", done=True)], {"labels_early": 1}),
    "unmatched": ([row(0, id="1", done=True), row(30), row(31)], {"labels_unmatched": 1, "predictions_evicted": 2}),
    "without an id": ([row(0), row(1, done=True)], {"labels_rejected": 1, "predictions_evicted": 1}),
    "pending": ([row(0, id="1")], {"predictions_pending": 1}),
    "timed out": ([row(0, id="1"), row(9), row(10), row(11)], {"predictions_timed_out": 1, "predictions_evicted": 3}),
    "two predictions": (
        [row(0, id="1"), row(1, id="1"), row(2, id="1", done=True), row(3, id="1")],
        {"labels_joined": 1, "predictions_joined": 3},
    ),
    "an id long forgotten": (
        [row(0, id="1"), row(30), row(31, id="1", done=True)],
        {"labels_early": 1, "predictions_timed_out": 1, "predictions_evicted": 1},
    ),
}


@pytest.mark.parametrize("case", LABEL_JOINS)
def test_label_join(case: str) -> None:
    events, expected = LABEL_JOINS[case]
    counters = told(stream(score=col.done.is_null()), events).counters
    fates = {name: n for name, n in counters.items() if name.startswith(("labels_", "predictions_")) and n}
    assert {k: v for k, v in fates.items() if k != "labels_read"} == {k: v for k, v in expected.items() if v}
    assert counters["labels_read"] == sum(event.get("done") is not None for event in events)


def test_label_join_evicts_the_oldest_of_too_many_pending() -> None:
    of = stream(score=col.done.is_null())
    events = [row(0, id="1"), row(1, id="2"), row(2, id="1", done=True), row(3, id="2", done=True), row(4, id="2")]
    results = told(of, events, label(of, pending=1))
    assert [p["learned"] for p in results.predictions] == [0, 0, 1]
    assert (results.counters["predictions_evicted"], results.counters["predictions_joined"]) == (1, 2)


def test_label_join_of_a_known_label_makes_nobody_give_way() -> None:
    """The label of the second event came early: its prediction never waits, so the first one stays."""
    of = stream(score=col.done.is_null())
    results = told(of, [row(0, id="2", done=True), row(1, id="1"), row(2, id="2")], label(of, pending=1))
    assert (results.counters["predictions_pending"], results.counters["predictions_joined"]) == (1, 1)
    assert results.counters["predictions_evicted"] == 0


@pytest.mark.parametrize(("timeout", "learned"), [("drop", 0), ("censored", 0), (True, 1), (False, 1)])
def test_label_spec_says_what_a_missing_label_means(timeout: Any, learned: int) -> None:
    of = stream(score=col.done.is_null())
    results = told(of, [row(0, id="1"), row(10, id="2"), row(10, id="3")], label(of, timeout=timeout))
    last = results.predictions[-1]  # the first row whose watermark is 10: it is predicted after the timeout
    assert [p["learned"] for p in results.predictions] == [0, 0, learned]
    assert last["score"] == (float(timeout) if learned else None)


def test_label_spec_says_whether_a_correction_is_learned() -> None:
    events = [row(0, id="1"), row(1, id="1", done=True), row(2, id="1", done=False), row(3, id="2")]
    of = stream(score=col.done.is_null())
    scores = [told(of, events, label(of, correct=how)).predictions[-1]["score"] for how in ("metrics", "learn")]
    assert scores == [1.0, 0.0]


def test_alarms_of_one_row_have_ids_of_their_own() -> None:
    """One label that answers several predictions can make a detector alarm several times."""
    of = stream(score=col.done.is_null())
    flow = pipeline(
        features(of, f=col.x.fill(0)), label=label(of), models=[baseline.NoChange()],
        drift=[on_error(Always())],
    )  # fmt: skip
    events = [row(0, id="1"), row(0, id="1", done=True), row(2, id="3"), row(2, id="3"), row(3, id="3", done=False)]
    alarms = flow.replay(events).alarms
    assert {alarm["cause"]["offset"] for alarm in alarms} == {4}
    assert [alarm["id"].split("/")[4] for alarm in alarms] == ["Always", "Always 2"]


class Always:
    """A detector that alarms at every error."""

    drift_detected = True

    def update(self, error: float) -> None:
        """Takes it in."""
