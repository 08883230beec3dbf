"""Running a definition over what logs hold: following a journal, or merging without one.

The same chain as live; ``compare`` then says whether live and replay agree, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from thalweg.engine.reading import Reading

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
    which = {batch.log: b for b, batch in enumerate(batches)}
    missing = sorted({extent.log for record in records for extent in record.reads} - which.keys())
    if missing:
        raise JournalError(f"the journal read {missing[0].topic}[{missing[0].partition}], which is not in the archive")
    runs = [(which[extent.log], extent.first, extent.last) for record in records for extent in record.reads]
    return Reading.of_runs([_stamped(batch, records) for batch in batches], runs)


def _stamped(batch: Batch, records: Sequence[Record]) -> Batch:
    """With the time of first reading as the append time of rows that have none of the broker's."""
    reads = [(e.last, record.read_at) for record in records for e in record.reads if e.log == batch.log]
    if not reads:
        return batch
    lasts, read_at = np.array(reads, dtype=np.int64).T
    at = np.minimum(np.searchsorted(lasts, batch.offsets), len(lasts) - 1)
    return replace(batch, append=np.where(batch.append == NO_TIME, read_at[at], batch.append))


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
