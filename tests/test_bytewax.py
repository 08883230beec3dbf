"""The laws through Bytewax itself: what a shard's logic makes of its items there, is what the plain loop makes of them.

Two logs and two shards (or one that reads all), random definitions and logs, items cut anywhere.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise, zip_longest

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.naive import Twin
from tests.readings import by_kind, from_json, raw, run
from tests.strategies import Case, Message, cases
from thalweg.connectors.journal import Record, extents
from thalweg.connectors.kafka_sink import Output
from thalweg.connectors.kafka_source import Item, shard_key
from thalweg.connectors.merged import Merged
from thalweg.dataflows.live import Counts, _ShardLogic, _Tally
from thalweg.dataflows.pipeline import KINDS, Pipeline
from thalweg.dataflows.placement import chain_key
from thalweg.dataflows.serve import LiveChain
from thalweg.engine.batch import Row

FEW = settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
CUTS = st.lists(st.integers(1, 40), max_size=5)


def items_of(shard: int, messages: Sequence[Message], cuts: Iterable[int]) -> list[Item]:
    """What a source would hand over, a new item at each cut."""
    bounds = sorted({0, len(messages), *(cut for cut in cuts if cut < len(messages))})
    items = []
    for number, (low, high) in enumerate(pairwise(bounds)):
        runs = groupby(messages[low:high], key=lambda message: message.log)
        raws = Merged.of(raw(log, list(run_)) for log, run_ in runs)
        items.append(Item(shard, Record("j", shard, number, 0, extents(raws)), raws, False))
    return items


def through_bytewax(case: Case, cuts: Iterable[int]) -> list[dict[str, list[Row]]]:
    """The rows of every shard, by kind; the items of the shards alternate."""
    pipeline = Pipeline(case.definition, {kind: kind for kind in KINDS})
    cuts = list(cuts)
    per_shard = [items_of(shard, messages, cuts) for shard, messages in enumerate(case.shards)]
    items = [item for together in zip_longest(*per_shard) for item in together if item is not None]
    out: list[tuple[str, Output]] = []
    flow = Dataflow("laws")
    read = op.input("read", flow, TestingSource(items, batch_size=3))
    keyed = op.key_on("shard", read, lambda item: shard_key(item.shard))
    tally = _Tally(Counts(), None)
    chained = op.stateful_batch("chain", keyed, lambda state: _ShardLogic(lambda _: LiveChain(pipeline), tally, state))
    op.output("write", chained, TestingSink(out))
    run_main(flow)
    shards = range(len(case.shards))
    return [by_kind(r for key, o in out if key == shard_key(shard) for r in o.left) for shard in shards]


@FEW
@given(cases(), CUTS, CUTS)
def test_cuts_and_parity_through_bytewax(case: Case, cuts: list[int], other_cuts: list[int]) -> None:
    """Laws 1 and 4: any cuts, and the plain loop, give the same rows, metrics and alarms included."""
    once = through_bytewax(case, cuts)
    assert once == through_bytewax(case, other_cuts)
    assert once == [rows for rows, _ in run(case, from_json)]


@FEW
@given(cases())
def test_the_twin_through_bytewax(case: Case) -> None:
    """Law 5, on what is exact: which rows are answered, and which are turned away and why."""
    for messages, rows in zip(case.shards, through_bytewax(case, [7]), strict=True):
        twin = Twin(case.definition).read(messages)
        reasons = [dict(row.headers)["thalweg.reason"].decode() for row in rows["dlq"]]
        assert reasons == [reason for *_, reason in twin.dead_letters]
        assert len(rows["predictions"]) == len(twin.predictions)


@FEW
@given(cases(), st.integers(0, 39))
def test_no_future_through_bytewax(case: Case, cut: int) -> None:
    """Law 6: what comes after a row, in the shard's order, does not change what was served before."""
    whole = through_bytewax(case, [cut])
    kept = Case(case.definition, tuple(messages[:cut] for messages in case.shards))
    for long, short in zip(whole, through_bytewax(kept, []), strict=True):
        assert long["predictions"][: len(short["predictions"])] == short["predictions"]


class _Part(StatefulSourcePartition[int, None]):
    """Gives its number, once."""

    def __init__(self, number: int, places: dict[int, int]) -> None:
        self._left = [number]
        self._places = places

    def next_batch(self) -> list[int]:
        if not self._left:
            raise StopIteration
        self._places[self._left[0]] = threading.get_ident()
        return [self._left.pop()]

    def snapshot(self) -> None: ...


class _Source(FixedPartitionedSource[int, None]):
    def __init__(self, count: int, places: dict[int, int]) -> None:
        self._parts = {shard_key(number): number for number in range(count)}
        self._places = places

    def list_parts(self) -> list[str]:
        return list(self._parts)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _Part:
        return _Part(self._parts[for_part], self._places)


class _Logic(StatefulBatchLogic[int, int, None]):
    def __init__(self, places: dict[int, int]) -> None:
        self._places = places

    def on_batch(self, values: list[int]) -> tuple[list[int], bool]:
        self._places.update(dict.fromkeys(values, threading.get_ident()))
        return values, True

    def snapshot(self) -> None: ...


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_the_chain_of_a_shard_is_where_its_logs_are_read(workers: int) -> None:
    read: dict[int, int] = {}
    chained: dict[int, int] = {}
    flow = Dataflow("places")
    keyed = op.key_on("shard", op.input("read", flow, _Source(26, read)), chain_key)
    op.output("write", op.stateful_batch("chain", keyed, lambda state: _Logic(chained)), TestingSink([]))
    cluster_main(flow, [], 0, worker_count_per_proc=workers)
    assert read == chained and len(set(read.values())) == workers
