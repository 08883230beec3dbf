"""Running a definition over what logs hold: following a journal, or merging without one.

The same chain as live; ``compare`` then says whether live and replay agree, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from thalweg.connectors.journal import JournalError, Record
from thalweg.dataflows.merge import merged
from thalweg.dataflows.pipeline import Pipeline
from thalweg.engine.batch import NO_TIME, Batch, Log, Row
from thalweg.engine.definition import Definition
from thalweg.engine.features.evaluate import Evaluator, fields
from thalweg.engine.kernels.arrays import Int64
from thalweg.engine.reading import Reading, in_offset_order, offsets_of

Progress = Callable[[int, int], None]  # messages done, messages in all


def shard_logs(definition: Definition, partitions: int) -> list[list[Log]]:
    """The logs that each shard reads when the stream has so many partitions."""
    topics = definition.topics
    if definition.shards == "one":
        return [[Log(topic, p) for topic in topics for p in range(partitions)]]
    return [[Log(topic, p) for topic in topics] for p in range(partitions)]


def followed(records: Sequence[Record], batches: Sequence[Batch]) -> Reading:
    """What a shard read according to its journal.

    Raises:
        JournalError: a log that the journal names is not there.
    """
    of_log = {batch.log: i for i, batch in enumerate(batches)}
    reads = [(extent, record.read_at) for record in records for extent in record.reads]
    missing = sorted({extent.log for extent, _ in reads} - of_log.keys())
    if missing:
        raise JournalError(f"the journal read {missing[0].topic}[{missing[0].partition}], which is not in the archive")
    pieces: list[Int64] = [np.empty(0, dtype=np.int64)] * len(reads)
    which = np.empty(len(reads), dtype=np.int64)
    stamped = list(batches)
    for log, b in of_log.items():
        own = [i for i, (extent, _) in enumerate(reads) if extent.log == log]
        order = in_offset_order(batches[b])
        offsets = offsets_of(batches[b], order)
        starts = np.searchsorted(offsets, [reads[i][0].first for i in own], side="left")
        stops = np.searchsorted(offsets, [reads[i][0].last for i in own], side="right")
        which[own] = b
        append = batches[b].append.copy()
        for i, start, stop in zip(own, starts.tolist(), stops.tolist(), strict=True):
            pieces[i] = order[start:stop]
            rows = pieces[i][pieces[i] >= 0]
            append[rows] = np.where(append[rows] == NO_TIME, reads[i][1], append[rows])
        stamped[b] = _with_append(batches[b], append)
    rows = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)
    return Reading(stamped, np.repeat(which, [len(piece) for piece in pieces]), rows)


def _with_append(batch: Batch, append: Int64) -> Batch:
    return Batch(
        batch.log,
        batch.offsets,
        append,
        batch.columns,
        batch.keys,
        batch.values,
        batch.headers,
        batch.rejects,
        batch.indices,
    )


def without_journal(definition: Definition, batches: Sequence[Batch]) -> Reading:
    """The logs of a shard merged by append time where there is one, else by event time and ``available``."""
    return merged(batches, [_order_times(definition, batch) for batch in batches])


def _order_times(definition: Definition, batch: Batch) -> Int64:
    if len(batch) and (batch.append != NO_TIME).all():
        return batch.append
    if batch.log.topic == definition.stream.topic:
        return batch.columns[definition.stream.time].values
    assert definition.label is not None
    return Evaluator(definition.label.schema)(definition.label.available, fields(batch.columns), len(batch)).values


def replayed(
    pipeline: Pipeline,
    readings: Sequence[Reading],
    *,
    batch_rows: int,
    progress: Progress | None = None,
    trace: bool = False,
) -> Iterator[Row]:
    """What every shard makes of its reading, one shard after the other."""
    total, done = sum(map(len, readings)), 0
    for reading in readings:
        shard = pipeline.open(trace=trace)
        for piece in reading.pieces(batch_rows):
            yield from shard.push(piece)
            done += len(piece)
            if progress is not None:
                progress(done, total)


@dataclass
class Comparison:
    """Live records against replayed ones, by id: every field of every record."""

    compared: int = 0
    mismatches: int = 0
    missing: int = 0
    unexpected: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """How many records differ, are missing, or should not be there."""
        return self.mismatches + self.missing + self.unexpected


def compare(live: Iterable[Mapping[str, Any]], replay: Iterable[Mapping[str, Any]], examples: int = 5) -> Comparison:
    """Compares records; the live side may hold a record twice (at-least-once), if both are the same."""
    expected = {record["id"]: orjson.loads(orjson.dumps(record)) for record in replay}
    result, seen = Comparison(), set[str]()
    for record in live:
        identity = record["id"]
        if identity not in expected:
            result.unexpected += 1
            _example(result, examples, f"{identity}: was served, but the replay does not make it")
            continue
        result.compared += identity not in seen
        seen.add(identity)
        if record != expected[identity]:
            result.mismatches += 1
            names = [name for name in expected[identity] if record.get(name) != expected[identity][name]]
            _example(result, examples, f"{identity}: {', '.join(names)} differ")
    result.missing = len(expected) - len(seen)
    if result.missing:
        lost = next(iter(expected.keys() - seen))
        _example(result, examples, f"{lost}: the replay makes it, but it was not served")
    return result


def _example(result: Comparison, limit: int, text: str) -> None:
    if len(result.examples) < limit:
        result.examples.append(text)
