"""The journal: what a merge did is repeated exactly by following what it wrote, whatever the fetches were."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.connectors.journal import (
    PATIENCE_US,
    Extent,
    Hands,
    JournalError,
    Record,
    decode,
    extents,
    in_order,
    stamped,
)
from thalweg.connectors.merged import Merged, cut
from thalweg.engine.batch import NO_TIME, Log, Raw

A, B, C = Log("a", 0), Log("a", 1), Log("b", 0)
NOW = 1_000


def raw(log: Log, offsets: list[int], times: list[int]) -> Raw:
    n = len(offsets)
    append = np.full(n, NO_TIME)
    values: list[bytes | None] = [b"%d" % offset for offset in offsets]
    return Raw(log, np.array(offsets, dtype=np.int64), np.array(times, dtype=np.int64), append, [None] * n, values)


def rows(raws: Iterable[Raw]) -> list[tuple[Log, int]]:
    return [(part.log, int(offset)) for part in raws for offset in part.offsets]


@st.composite
def logs(draw: st.DrawFn) -> dict[Log, Raw]:
    """Up to three logs whose offsets have gaps and whose timestamps are in disorder, tie, or are missing."""
    found = {}
    for log in draw(st.sampled_from([[A], [A, B], [A, B, C]])):
        steps = draw(st.lists(st.integers(1, 3), max_size=12))
        times = draw(st.lists(st.integers(0, 9) | st.just(NO_TIME), min_size=len(steps), max_size=len(steps)))
        found[log] = raw(log, np.cumsum(steps).tolist(), times)
    return found


def cuts(data: st.DataObject, whole: Raw) -> list[Raw]:
    edges = sorted(data.draw(st.sets(st.integers(0, len(whole)))) | {0, len(whole)})
    return [cut(whole, a, b) for a, b in itertools.pairwise(edges)]


def feed(hands: Hands, waiting: dict[Log, list[Raw]], log: Log) -> None:
    hands.add(waiting[log].pop(0), NOW)
    hands.ended(log, not waiting[log])


def merged(data: st.DataObject, whole: dict[Log, Raw]) -> list[Record]:
    """Reads everything in a drawn interleaving of fetches and takes; gives the journal."""
    hands = Hands(list(whole))
    records: list[Record] = []
    waiting = {log: cuts(data, part) for log, part in whole.items()}
    for log in whole:
        hands.ended(log, not waiting[log])
    while any(waiting.values()) or len(hands):
        fetchable = [log for log in whole if waiting[log]]
        fetch: bool = data.draw(st.booleans())
        if fetchable and fetch:
            drawn: Log = data.draw(st.sampled_from(fetchable))
            feed(hands, waiting, drawn)
        elif raws := hands.take(int(data.draw(st.integers(1, 8))), NOW):
            records.append(Record("journal", 0, len(records), NOW, extents(raws)))
        elif fetchable:
            feed(hands, waiting, fetchable[0])
    return records


@given(logs(), st.data())
def test_following_what_a_merge_wrote_gives_the_same_sequence_for_any_fetches(
    whole: dict[Log, Raw], data: st.DataObject
) -> None:
    records = [decode(record.encode()) for record in merged(data, whole)]
    hands = Hands(list(whole))
    sequence: list[tuple[Log, int]] = []
    waiting = {log: cuts(data, part) for log, part in whole.items()}
    for record in in_order(records):
        while (raws := hands.follow(record)) is None:
            feed(hands, waiting, data.draw(st.sampled_from([log for log in whole if waiting[log]])))
        assert extents(raws) == record.reads
        sequence += rows(raws)
    offsets = {log: part.offsets.tolist() for log, part in whole.items()}
    assert {log: [o for other, o in sequence if other == log] for log in whole} == offsets
    written = [(e.log, o) for r in records for e in r.reads for o in offsets[e.log] if e.first <= o <= e.last]
    assert sequence == written


@given(logs(), st.data())
def test_with_every_end_known_the_order_does_not_depend_on_fetches_or_limits(
    whole: dict[Log, Raw], data: st.DataObject
) -> None:
    """As an archive without a journal: by prefix maximum, log, offset."""
    sequence = [
        (e.log, o) for r in merged(data, whole) for e in r.reads for o in whole[e.log].offsets if e.first <= o <= e.last
    ]
    keyed = []
    for log, part in whole.items():
        known = np.where(part.times == NO_TIME, NOW, part.times)
        order = np.maximum.accumulate(known).tolist() if len(part) else []
        keyed += [(time, log, int(offset)) for time, offset in zip(order, part.offsets, strict=True)]
    assert sequence == [(log, offset) for _, log, offset in sorted(keyed)]


def test_a_log_with_a_fetch_in_flight_is_waited_for_but_not_for_ever() -> None:
    hands = Hands([A, B])
    hands.add(raw(A, [0, 1], [5, 9]), NOW)
    hands.ended(A, True)
    assert not hands.take(10, NOW)
    assert not hands.take(10, NOW + PATIENCE_US - 1)
    assert rows(hands.take(10, NOW + PATIENCE_US)) == [(A, 0), (A, 1)]


def test_a_log_in_flight_lets_pass_what_it_cannot_precede() -> None:
    hands = Hands([A, B])
    hands.add(raw(A, [0, 1, 2], [5, 7, 9]), NOW)
    hands.add(raw(B, [0], [7]), NOW)
    assert rows(hands.take(10, NOW)) == [(A, 0), (A, 1), (B, 0)]
    assert not hands.take(10, NOW)  # B may still have a row at 7 or 8
    hands.ended(B, True)
    assert rows(hands.take(10, NOW)) == [(A, 2)]


def test_a_log_at_its_end_is_not_waited_for() -> None:
    hands = Hands([A, B])
    hands.ended(B, True)
    hands.add(raw(A, [4], [5]), NOW)
    assert rows(hands.take(10, NOW)) == [(A, 4)]


def test_no_log_is_reordered_and_a_clock_that_runs_ahead_counts_as_the_time_of_reading() -> None:
    hands = Hands([A, B])
    for log in (A, B):
        hands.ended(log, True)
    hands.add(raw(A, [0, 1], [10**9, 3]), 50)
    hands.add(raw(B, [0, 1], [49, 51]), 60)
    assert rows(hands.take(10, 60)) == [(B, 0), (A, 0), (A, 1), (B, 1)]


def test_the_limit_cuts_a_take() -> None:
    hands = Hands([A])
    hands.add(raw(A, [1, 3, 5], [1, 2, 3]), NOW)
    assert rows(hands.take(2, NOW)) == [(A, 1), (A, 3)]
    assert rows(hands.take(2, NOW)) == [(A, 5)]


def test_append_time_is_the_brokers_else_that_of_first_reading() -> None:
    part = raw(A, [0, 1], [1, 2])
    part.append[0] = 7
    assert stamped(part, 99).append.tolist() == [7, 99]


def test_runs_are_the_raws_that_were_merged() -> None:
    runs = [raw(A, [0, 2], [0, 0]), raw(B, [1], [0]), raw(A, [5], [0]), raw(A, [6], [0])]
    merged = Merged.of(runs)
    assert len(merged) == 5 and [len(part) for part in merged.parts] == [4, 1]
    assert [(run.log, run.offsets.tolist(), run.values) for run in merged] == [
        (run.log, run.offsets.tolist(), run.values) for run in runs
    ]
    assert Merged.of(merged) is merged and not Merged.of([]) and list(Merged.of([])) == []


def test_neighbours_of_one_log_are_one_extent() -> None:
    runs = [raw(A, [0, 2], [0, 0]), raw(A, [5], [0]), raw(B, [1], [0]), raw(A, [6], [0])]
    assert extents(runs) == (Extent(A, 0, 5), Extent(B, 1, 1), Extent(A, 6, 6))


@pytest.mark.parametrize("held", [[0, 1, 3], [1, 2], [0, 2, 9], [0, 1]])
def test_a_row_that_is_gone_is_an_error(held: list[int]) -> None:
    """0 to 2 was read; the log lost its end, its beginning, or (the last case) everything behind 1."""
    hands = Hands([A])
    hands.add(raw(A, held, [0] * len(held)), NOW)
    hands.ended(A, True)
    record = Record("journal", 0, 4, NOW, (Extent(A, 0, 2),))
    if held == [0, 2, 9]:  # a gap inside an extent is no loss: offsets have gaps
        assert rows(hands.follow(record) or []) == [(A, 0), (A, 2)]
        return
    with pytest.raises(JournalError, match=r"journal/journal/0/4 read offset [02] of a\[0\], which the log no longer"):
        hands.follow(record)


def test_records_are_read_once_each_without_holes() -> None:
    one, two, four = (Record("j", 0, n, n) for n in (1, 2, 4))
    assert list(in_order([one, two, one, two])) == [one, two]
    with pytest.raises(JournalError, match="follows number 2"):
        list(in_order([one, two, four]))
    with pytest.raises(JournalError, match="two processes"):
        list(in_order([one, Record("j", 0, 1, 99)]))


@given(
    st.builds(
        Record,
        topic=st.sampled_from(["j", "a.b/c"]),
        shard=st.integers(0, 9),
        number=st.integers(0, 10**12),
        read_at=st.integers(0, 2**60),
        reads=st.lists(st.builds(Extent, st.sampled_from([A, B, C]), st.integers(0, 9), st.integers(9, 99))).map(tuple),
        start=st.none() | st.dictionaries(st.sampled_from([A, B, C]), st.integers(0, 9)),
        counters=st.none() | st.dictionaries(st.text(max_size=3), st.integers(0, 9)),
    )
)
def test_a_record_survives_the_topic(record: Record) -> None:
    assert decode(record.encode()) == record


@pytest.mark.parametrize("data", [None, b"", b"{}", b"[]", b'{"id": 1}', b'{"id": "x", "reads": [[1]]}'])
def test_what_is_no_record_is_named(data: bytes | None) -> None:
    with pytest.raises(JournalError, match="no journal record"):
        decode(data)
