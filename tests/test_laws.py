"""The laws of CONTRACT.md at the level of the chain, over random definitions and random disordered logs.

Two logs (events and labels) and two shards, or one shard that reads all partitions. What the strategies draw is
described in ``tests/strategies.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.naive import Prediction, Twin
from tests.readings import caused_by, from_arrow, from_json, part, push, reading, run
from tests.strategies import EVENTS, Case, Message, cases, definitions, messages, split
from thalweg import agg, col
from thalweg.engine.batch import Row
from thalweg.engine.definition import Definition
from thalweg.engine.features import groups
from thalweg.engine.features.expressions import Agg
from thalweg.engine.features.gate import OUTCOMES
from thalweg.engine.features.groups import Group, GroupState
from thalweg.engine.features.sql import sql
from thalweg.engine.kernels import windows
from thalweg.engine.learning.labels import OUTCOMES as LABEL_OUTCOMES
from thalweg.engine.shard import Shard

CUTS = st.lists(st.integers(1, 40), max_size=8)


# Law 5: the twin


@given(cases())
def test_the_engine_equals_the_naive_twin(case: Case) -> None:
    equals_the_twin(case)


@pytest.mark.slow
@given(cases(size=150))
def test_the_engine_equals_the_naive_twin_on_long_logs(case: Case) -> None:
    equals_the_twin(case)


def equals_the_twin(case: Case) -> None:
    """Law 5: outcomes, vectors, learning and counts of every shard."""
    for messages_, (rows, counters) in zip(case.shards, run(case), strict=True):
        twin = Twin(case.definition).read(messages_)
        expected = twin.counters()
        assert {name: counters[name] for name in expected} == expected
        assert counters["evicted_keys"] == twin.evicted_keys
        letters = [(*caused_by(row), dict(row.headers)["thalweg.reason"].decode()) for row in rows["dlq"]]
        assert letters == [(*log, offset, reason) for log, offset, reason in twin.dead_letters]
        assert len(rows["predictions"]) == len(twin.predictions)
        for row, prediction in zip(rows["predictions"], twin.predictions, strict=True):
            same_prediction(case.definition, row, prediction)
        reports = [row.value["counters"] for row in rows["metrics"]]
        per_report = max(1, len(case.definition.models))
        for i, report in enumerate(reports):
            assert {k: v for k, v in report.items() if k != "alarms"} == twin.reports[i // per_report]


def same_prediction(definition: Definition, row: Row, prediction: Prediction) -> None:
    """A prediction record and the twin's."""
    value: Any = row.value
    message = prediction.message
    assert caused_by(row) == (*message.log, message.offset)
    assert value["key"] == message.row["k"]
    assert value["cold"] == prediction.cold
    assert value.get("late", False) == prediction.late
    assert value["carry"]["cat"] == message.row["cat"]
    if definition.models:
        assert value["learned"] == prediction.learned
        no_change, prior = prediction.scores
        assert value["score"] == no_change
        assert value["others"]["Prior"] == (pytest.approx(prior, rel=1e-12) if isinstance(prior, float) else prior)
    for feature, expected in zip(definition.features.features, prediction.vector, strict=True):
        found = value["vector"][feature.name]
        assert agrees(feature.expr, found, expected), f"{feature.expr.canonical}: {found!r}, the twin has {expected!r}"


def agrees(expr: Any, found: Any, expected: Any) -> bool:
    """Var, std and decayed sums within 1e-12, the rest exactly: sums and means, too."""
    if isinstance(expr, Agg) and expr.op in ("var", "std", "decayed_sum") and found is not None is not expected:
        return math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-300)
    return type(found) is type(expected) and found == expected


@given(cases(size=60))
def test_the_engine_equals_the_naive_twin_while_its_arena_grows(case: Case) -> None:
    """The arena starts with room for next to nothing, so it is moved and compacted all the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "_FIRST_WORDS", 1)
        equals_the_twin(case)


@given(st.sampled_from([0.0, 1e9, -1e15]), st.lists(st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)))
def test_sums_of_any_numbers(centre: float, distances: list[float]) -> None:
    """Rule 9, against exact fractions: also for values that are close to each other and far from zero."""
    xs = [centre + distance for distance in distances] or [centre]
    state = GroupState(Group.of(AGGREGATES))
    n = len(xs)
    numbers = np.arange(n)
    acts = np.full(n, windows.ENTER, dtype=np.int8)
    found = state.advance(["a"] * n, numbers, numbers, numbers, np.array(xs)[:, None], acts, numbers, n)[-1]
    fractions = [Fraction(x) for x in xs]
    mean = sum(fractions) / n
    squares = sum((x - mean) ** 2 for x in fractions)
    expected = {
        "sum": float(sum(fractions)),
        "mean": float(sum(fractions)) / n,
        "var": float(squares / (n - 1)) if n > 1 else math.nan,
    }
    for node, value in zip(state.group.aggregates, found.tolist(), strict=True):
        assert agrees(node, value, expected[node.op]) or (math.isnan(value) and math.isnan(expected[node.op]))


AGGREGATES: list[Any] = [getattr(agg.by("k"), op)(col.x, "1h") for op in ("sum", "mean", "var")]


# Law 1: cuts, and restarts between them


@given(cases(learns=True), CUTS, CUTS)
def test_cuts_cannot_matter(case: Case, cuts: list[int], batches: list[int]) -> None:
    """Other pieces, other batches, single messages: the same rows in the same order, and the same counts."""
    cuts_agree(case, cuts, batches)


@pytest.mark.slow
@given(cases(size=150, learns=True), CUTS, CUTS)
def test_cuts_cannot_matter_on_long_logs(case: Case, cuts: list[int], batches: list[int]) -> None:
    cuts_agree(case, cuts, batches)


def cuts_agree(case: Case, cuts: list[int], batches: list[int]) -> None:
    """Law 1."""
    whole = run(case)
    assert run(case, cuts=cuts, batches=batches) == whole
    assert run(case, cuts=range(200)) == whole
    for messages_, (rows, _) in zip(case.shards, whole, strict=True):
        pieces = reading(messages_, case.definition).pieces(3)
        assert push(Shard(case.definition), pieces) == rows


@given(cases(learns=True), st.integers(0, 40), CUTS)
def test_a_restored_shard_continues_bit_for_bit(case: Case, cut: int, cuts: list[int]) -> None:
    """Law 4, second half: a seed state plus the rest equals the whole, and so does the state behind it."""
    for messages_, (rows, counters) in zip(case.shards, run(case), strict=True):
        definition = case.build()
        whole = reading(messages_, definition)
        first, second = Shard(definition), Shard(case.build())
        before = push(first, [part(whole, 0, cut)])
        second.restore(first.snapshot())
        bounds = sorted({cut, len(messages_), *(c for c in cuts if cut < c < len(messages_))})
        after = push(second, [part(whole, low, high) for low, high in pairwise(bounds)])
        assert {kind: before[kind] + after[kind] for kind in rows} == rows
        assert second.counters() == counters


# Law 4: parity of the ways in


@given(cases(learns=True), CUTS, st.sampled_from([from_arrow, from_json]))
def test_batch_stream_parity(case: Case, batches: list[int], decode_as: Any) -> None:
    """Dicts, Arrow tables and JSON bytes give the same bits, however the logs are divided into batches."""
    expected = [(normal(rows), counters) for rows, counters in run(case)]
    assert [(normal(rows), counters) for rows, counters in run(case, decode_as, batches=batches)] == expected


def normal(rows: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Without the wording of what is wrong with a row, which names the codec's own types."""
    return {**rows, "dlq": [without_detail(row) for row in rows["dlq"]]}


def without_detail(row: Row) -> Row:
    """A dead letter without its ``thalweg.detail``."""
    return Row(row.kind, row.partition, row.key, row.value, [h for h in row.headers if h[0] != "thalweg.detail"])


# Law 6: no future


@given(st.data())
def test_asof_no_future(data: st.DataObject) -> None:
    """Whatever comes after a message, nothing that left up to it changes: no vector, score, alarm or count."""
    build = data.draw(definitions(learns=True))
    past = data.draw(messages(build(), 25))
    together = data.draw(messages(build(), 25, after=past))
    no_future(build(), past, together)


def no_future(definition: Definition, past: Sequence[Message], together: Sequence[Message]) -> None:
    """Law 6: what ``past`` makes leave is how what ``together``, which begins with it, makes leave begins."""
    assert together[: len(past)] == past
    for known, more in zip(split(past, definition), split(together, definition), strict=True):
        rows = push(Shard(definition), [reading(known, definition)])
        longer = push(Shard(definition), [reading(more, definition)])
        for kind, found in rows.items():
            assert longer[kind][: len(found)] == found


# Identities


@given(cases(learns=True))
def test_every_row_has_one_outcome_and_every_prediction_one_fate(case: Case) -> None:
    """Rules 5 and 7: the counts add up, also in every metrics record, and agree with what left."""
    label = case.definition.label
    for messages_, (rows, counters) in zip(case.shards, run(case), strict=True):
        for counts in [counters, *(row.value["counters"] for row in rows["metrics"])]:
            counts_add_up(counts, label is not None)
        events = [m for m in messages_ if m.log.topic == EVENTS]
        answers = [row.value for row in rows["predictions"]]
        assert counters["read"] == len(events)
        assert counters["scored"] == sum("late" not in answer for answer in answers)
        assert counters["alarms"] == len(rows["alarms"])
        turned_away = (
            counters["rejected"]
            + counters["quarantined"]
            + (counters["late"] if case.definition.stream.late == "dlq" else 0)
        )
        of_events = [row for row in rows["dlq"] if caused_by(row)[0] == EVENTS]
        assert len(of_events) == turned_away
        if label is not None and label.own_topic:
            assert counters["labels_read"] == len(messages_) - len(events)
            assert counters["labels_rejected"] == len(rows["dlq"]) - len(of_events)
        ids = [row_id(row) for kind in rows.values() for row in kind]
        assert len(set(ids)) == len(ids)


def counts_add_up(counts: dict[str, int], labelled: bool) -> None:
    """``read`` is the sum of the outcomes; predictions and labels likewise."""
    assert counts["read"] == sum(counts[name] for name in ("rejected", *OUTCOMES))
    if labelled:
        fates = ("joined", "timed_out", "evicted", "pending")
        assert counts["scored"] == sum(counts[f"predictions_{fate}"] for fate in fates)
        assert counts["labels_read"] == sum(counts[f"labels_{name}"] for name in LABEL_OUTCOMES)
    assert all(n >= 0 for n in counts.values())


def row_id(row: Row) -> Any:
    """The id of an output row."""
    if row.kind == "dlq":
        return dict(row.headers)["thalweg.id"]
    assert row.value is not None and not isinstance(row.value, bytes)
    return row.value["id"]


# Law 5: the second oracle


@given(cases(hashed=False, capacity=False))
def test_the_engine_equals_duckdb(case: Case) -> None:
    """SQL generated from the definition, a join on (time, log order), gives the same vectors."""
    equals_duckdb(case)


@pytest.mark.slow
@given(cases(size=120, hashed=False, capacity=False))
def test_the_engine_equals_duckdb_on_long_logs(case: Case) -> None:
    equals_duckdb(case)


def equals_duckdb(case: Case) -> None:
    """Law 5, second half; which rows are accepted and which labels count comes from the twin."""
    spec = case.definition.features
    for messages_, (rows, _) in zip(case.shards, run(case), strict=True):
        found = vectors_of_duckdb(sql(spec), Twin(case.definition).read(messages_))
        vectors: Any = [row.value["vector"] for row in rows["predictions"]]
        assert len(found) == len(vectors)
        for vector, (_, *expected) in zip(vectors, found, strict=True):
            for feature, value in zip(spec.features, expected, strict=True):
                close = agrees_loosely(vector[feature.name], value)
                assert close, f"{feature.expr.canonical}: {vector[feature.name]!r}, DuckDB has {value!r}"


def agrees_loosely(found: Any, expected: Any) -> bool:
    """Exactly for text and null; DuckDB's own rounding allows 1e-12 for numbers."""
    if isinstance(found, float) and isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-12)
    return type(found) is type(expected) and found == expected


def vectors_of_duckdb(query: str, twin: Twin) -> list[tuple[Any, ...]]:
    """``query`` over the rows that ``twin`` has read."""
    types = {"str": "VARCHAR", "f64": "DOUBLE", "i64": "BIGINT", "bool": "BOOLEAN", "timestamp": "BIGINT"}
    fields = twin.stream.schema.fields
    columns = ", ".join(f'"{f.name}" {types[f.type]}' for f in fields)
    answered = {id(p.message) for p in twin.predictions}
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.execute(f"CREATE TABLE events (seq BIGINT, wm BIGINT, accepted BOOLEAN, scored BOOLEAN, {columns})")
        connection.execute(
            "CREATE TABLE labels (event_seq BIGINT, seq_before BIGINT, seq_until BIGINT, available BIGINT, "
            "value DOUBLE)"
        )
        for seq, answer in enumerate(twin.answers):
            accepted = answer.outcome in ("folded", "scored")
            values = [answer.message.row[f.name] for f in fields]
            row = [seq, answer.watermark, accepted, id(answer.message) in answered, *values]
            connection.execute(f"INSERT INTO events VALUES ({', '.join('?' * len(row))})", row)
        if any(node.fed_by for node in twin.definition.features.aggregates):
            for fed in twin.fed:
                connection.execute("INSERT INTO labels VALUES (?, ?, ?, ?, ?)", [*fed[:4], float(fed.value)])
        return connection.execute(query).fetchall()
