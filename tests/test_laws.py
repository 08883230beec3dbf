"""The laws of CONTRACT.md at the level of the chain, over random definitions and random disordered logs.

Two logs (events and labels) and two shards, or one shard that reads all partitions. What the strategies draw is
described in ``tests/strategies.py``.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.naive import Prediction, Twin
from tests.readings import caused_by, from_arrow, from_dicts, from_json, part, push, reading, run
from tests.strategies import Case, Message, cases, messages, split
from thalweg.engine.batch import Row
from thalweg.engine.definition import Definition
from thalweg.engine.features.expressions import Agg
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
        reports = [row.value["counters"] for row in rows["metrics"]]  # type: ignore[index,call-overload]
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
    """Sums and means within one unit in the last place, var, std and decayed sums within 1e-12, the rest exactly."""
    if isinstance(expr, Agg) and isinstance(found, float) and isinstance(expected, float):
        if expr.op in ("sum", "mean"):
            return abs(found - expected) <= math.ulp(expected)
        if expr.op in ("var", "std", "decayed_sum"):
            return math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-300)
    return type(found) is type(expected) and found == expected
