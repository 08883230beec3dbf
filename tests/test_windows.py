"""Windows at the level of one group's state, against the naive twin: values, ties, disorder and removals of all kinds.

The laws of the whole chain (``tests/test_laws.py``) draw values whose sums a double holds. Here they are any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.naive_windows import Windows
from thalweg import agg, col
from thalweg.engine.batch import NO_TIME
from thalweg.engine.features import groups
from thalweg.engine.features.expressions import Agg
from thalweg.engine.features.groups import Coded, Group, GroupState
from thalweg.engine.features.windows import lifetime, rows
from thalweg.engine.kernels.rings import ENTER, LEAVE, LOOK, REMOVE

SECOND = 1_000_000
OPS = ("count", "sum", "mean", "var", "std", "min", "max", "first", "last")
WINDOWS = ("3s", "1s", "20s", rows(1), rows(3), lifetime(ttl="4s"), lifetime(ttl="30s"))


@dataclass(frozen=True)
class Event:
    """What one row does: its key (None for null), time, watermark, value (None for null), act and number.

    A REMOVE has the time and number of the row that it takes back.
    """

    key: str | None
    time: int
    watermark: int
    x: float | None
    act: int
    number: int


@dataclass(frozen=True)
class Case:
    """Aggregates of one group and what it is given."""

    aggregates: tuple[Agg, ...]
    events: tuple[Event, ...]


HUGE = [1e100, -1e100, 1e-100, 1e16, -1e16, 1e12, 0.1, 1.0, -1.0, 1 + 2.0**-52, 5e-324, 3e-300, 0.0]
FLOATS = st.one_of(
    st.sampled_from(HUGE),
    st.floats(-1e6, 1e6),
    st.integers(-4, 4).map(float),
    st.floats(-1, 1).map(lambda x: 1e15 + x),
    st.just(17.23),
)
STEPS = st.sampled_from([0, 0, 0, 1, 1, 1, 2, 3, 0.5, -0.5, -1, -2, 5, 25])


@st.composite
def cases(draw: st.DrawFn, size: int = 40, labels: bool | None = None, ops: Sequence[str] = OPS) -> Case:
    """Rows in log order for a group; ``labels``: one that labels feed, from which they can be taken back."""
    fed = draw(st.booleans()) if labels is None else labels
    capacity = draw(st.sampled_from([1, 2, 100, 100]))
    by = agg.by("k", capacity=capacity, current=draw(st.sampled_from(["include", "exclude"])))
    chosen = draw(st.lists(st.tuples(st.sampled_from(ops), st.sampled_from(WINDOWS)), min_size=1, max_size=6))
    drawn: list[Any] = [
        getattr(by, op)(*([window, col.x] if op == "count" else [col.x, window])) for op, window in chosen
    ]
    drawn += draw(st.lists(st.sampled_from(WINDOWS).map(by.count), max_size=2))
    drawn += draw(st.lists(st.sampled_from(WINDOWS).map(by.since_last), max_size=1))
    drawn += draw(
        st.lists(st.sampled_from(WINDOWS).map(lambda window: by.decayed_sum(col.x, "2s", window)), max_size=1)
    )
    if fed:
        drawn = [changed(a, fed_by="Label", include_current=True) for a in drawn if a.window.kind == "sliding"]
        drawn = drawn or [changed(by.sum(col.x, "3s"), fed_by="Label", include_current=True)]
    n = draw(st.integers(1, size))
    disorder = draw(st.sampled_from([0, 2, 10])) * SECOND
    draws = st.tuples(st.sampled_from(["a", "a", "a", "b", "c", None]), STEPS, FLOATS, st.integers(0, 11))
    return Case(tuple(dict.fromkeys(drawn)), _events(draw(st.lists(draws, min_size=n, max_size=n)), disorder, fed))


def _events(drawn: Sequence[tuple[str | None, float, float, int]], disorder: int, fed: bool) -> tuple[Event, ...]:
    events: list[Event] = []
    newest, now = NO_TIME, 100 * SECOND
    for number, (key, step, x, what) in enumerate(drawn):
        now += round(step * SECOND)
        watermark = NO_TIME if newest == NO_TIME else newest - disorder
        value = None if what == 1 else x
        entered = [e for e in events if e.act == ENTER and e.key == key]
        if now < watermark:
            now = watermark
            events.append(Event(key, now, watermark, value, LOOK, number))
            continue
        if what in (2, 3) and fed and entered:
            events.append(changed(entered[x > 0 and -1], watermark=watermark, act=REMOVE))
            continue
        events.append(Event(key, now, watermark, value, LEAVE if what in (4, 5) else ENTER, number))
        newest = max(newest, now)
    return tuple(events)


def expected(case: Case) -> list[list[float | None]]:
    """What the naive twin reads after (or with) every row but those that take back."""
    twins = [Windows(a) for a in Group.of(case.aggregates).aggregates]
    found = []
    for event in case.events:
        for twin in twins:
            if event.act == ENTER:
                twin.enter(event.key, event.time, event.number, event.x)
            elif event.act == REMOVE:
                twin.leave(event.key, event.number)
            elif event.act == LEAVE and event.key is not None:
                twin.touch(event.key, False)
        if event.act != REMOVE:
            own = event.number if event.act == ENTER else None
            found.append([twin.read(event.key, event.time, own) for twin in twins])
    return found


def advance(state: GroupState, events: Sequence[Event], coded: bool = False) -> list[list[float | None]]:
    """What the engine reads, null where no feature could hold it."""
    keys: Any = [e.key for e in events]
    if coded:
        names = sorted({key for key in keys if key is not None})
        keys = Coded(np.array([-1 if key is None else names.index(key) for key in keys], dtype=np.int64), names)
    reads = np.array([e.act != REMOVE for e in events], dtype=np.bool_)
    columns = len(state.group.values)
    x = np.array([math.nan if e.x is None else e.x for e in events]).reshape(-1, 1).repeat(columns, axis=1)
    out = state.advance(
        keys,
        np.array([e.time for e in events], dtype=np.int64),
        np.array([e.watermark for e in events], dtype=np.int64),
        np.array([e.number for e in events], dtype=np.int64),
        x,
        np.array([e.act for e in events], dtype=np.int8),
        np.where(reads, np.cumsum(reads) - 1, -1),
        int(reads.sum()),
    )
    return [[value if abs(value) <= 1e100 else None for value in row] for row in out.tolist()]


def equals_the_twin(case: Case) -> None:
    """Sums and means bit for bit, var and std within 1e-12, decayed sums as far as their terms cancel."""
    state = GroupState(Group.of(case.aggregates))
    sizes = max((abs(e.x) for e in case.events if e.x is not None), default=0.0)
    for event, found, wanted in zip(
        (e for e in case.events if e.act != REMOVE), advance(state, case.events), expected(case), strict=True
    ):
        for node, one, other in zip(state.group.aggregates, found, wanted, strict=True):
            said = f"{node.canonical} of {event}: {one!r}, the twin has {other!r}"
            if node.op in ("var", "std") and one is not None and other is not None:
                assert math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-290), said
            elif node.op == "decayed_sum" and one is not None and other is not None:
                assert math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-12 * sizes), said
            else:
                assert one == other, said


@given(cases())
def test_windows_equal_the_twin(case: Case) -> None:
    equals_the_twin(case)


@given(cases(labels=True))
def test_windows_of_labels_equal_the_twin(case: Case) -> None:
    equals_the_twin(case)


@pytest.mark.slow
@given(cases(size=200))
def test_windows_equal_the_twin_on_long_logs(case: Case) -> None:
    equals_the_twin(case)


@given(cases(), st.lists(st.integers(0, 40), max_size=6), st.booleans())
def test_cuts_restarts_codes_and_order_cannot_matter(case: Case, cuts: list[int], coded: bool) -> None:
    """The same bits in pieces, from restored state, by codes, and with the rows of a batch taken key by key."""
    group = Group.of(case.aggregates)
    whole = advance(GroupState(group), case.events)
    for sort in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(groups, "_GROUPED_ROWS", 1 if sort else 10**9)
            patch.setattr(groups, "_FIRST_WORDS", 1)
            bounds = [0, *sorted(min(c, len(case.events)) for c in cuts), len(case.events)]
            pieces = []
            state = GroupState(group)
            for low, high in pairwise(bounds):
                pieces += advance(state, case.events[low:high], coded)
                state, before = GroupState(group), state
                state.restore(before.state())
            assert pieces == whole
