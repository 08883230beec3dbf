"""``thalweg backfill``: a training table from files, by the same chain that serves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thalweg.connectors.arrow import TIME, TYPES
from thalweg.connectors.codecs import Form
from thalweg.connectors.journal import Record, decode, ordered
from thalweg.connectors.parquet import ArchiveError, read_archive
from thalweg.dataflows.pipeline import Pipeline
from thalweg.dataflows.replay import Progress, followed, replayed, shard_logs, without_journal
from thalweg.engine.batch import NO_TIME, Batch, Row
from thalweg.engine.definition import Definition
from thalweg.engine.errors import DefinitionError
from thalweg.engine.reading import Reading
from thalweg.engine.schema import to_time

BATCH_ROWS = 8192


def backfill(
    pipeline: Pipeline,
    events: Sequence[str | Path],
    labels: Sequence[str | Path] = (),
    out: str | Path | None = None,
    *,
    journal: str | Path | None = None,
    batch_rows: int = BATCH_ROWS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Runs the definition over Parquet and writes a training table.

    Columns: id, event_id, key, time, one per feature, score, label, label_known_at (null where a missing label
    stands for a class), fingerprint. The features of a row are those that were, or would have been, served:
    labels and later events are not in them.

    Args:
        events, labels: Parquet files or folders of the stream's and of the label's topic.
        out: the table to write; None: only count.
        journal: JSON lines of the live run's journal; then the result is the live run's, bit for bit.
        batch_rows: how many messages are computed at once; cannot change a value.

    Returns:
        How many rows, labels and features, and whether there was a future bound: without a journal, files that do
        not say when a row was appended have none (rule 3 of the contract).

    Raises:
        ArchiveError, ArrowError, JournalError: the files do not fit.
    """
    if out is not None and any(Path(out).resolve() == Path(path).resolve() for path in [*events, *labels]):
        raise ArchiveError(f"{out} is read: write the training table to another file")
    with_vectors = Pipeline(replace(pipeline.definition, vector=True), pipeline.topics)
    readings = archive_readings(pipeline.definition, events, labels, read_journal(journal))
    rows = replayed(with_vectors, readings, batch_rows=batch_rows, progress=progress, trace=True)
    table = training_table(pipeline.definition, rows)
    if out is not None:
        pq.write_table(table, out, compression="zstd")
    labelled = len(table) - table.column("label").null_count
    return {
        "rows": len(table),
        "labelled": labelled,
        "features": len(pipeline.definition.features.names),
        "out": None if out is None else str(out),
        "future_bound": any((batch.append != NO_TIME).any() for reading in readings for batch in reading.batches),
    }


def archive_readings(
    definition: Definition,
    events: Sequence[str | Path],
    labels: Sequence[str | Path],
    journal: Sequence[Record] | None,
) -> list[Reading]:
    """What each shard reads of an archive."""
    stream, label, journaled = definition.stream, definition.label, journal is not None
    batches = read_archive(events, stream.topic, Form.of(definition, stream.topic), stream.time, journaled=journaled)
    if label is not None and label.own_topic and labels:
        time = next((f.name for f in label.schema.fields if f.type == "timestamp"), label.schema.fields[0].name)
        batches += read_archive(labels, label.topic, Form.of(definition, label.topic), time, journaled=journaled)
    elif label is not None and label.own_topic:
        raise DefinitionError(
            f"the label {label.name} has a topic of its own, {label.topic!r}: without its files every label would be "
            "missing; give them as labels (--labels)"
        )
    elif labels:
        raise DefinitionError("labels were given, but the label has no topic of its own")
    return readings_of(definition, batches, journal)


def readings_of(definition: Definition, batches: Sequence[Batch], journal: Sequence[Record] | None) -> list[Reading]:
    """What each shard reads of these logs: as its journal says, or merged."""
    of_log = {batch.log: batch for batch in batches}
    partitions = 1 + max((log.partition for log in of_log), default=-1)
    readings = []
    for shard, logs in enumerate(shard_logs(definition, partitions)):
        own = [of_log[log] for log in logs if log in of_log]
        if journal is None:
            readings.append(without_journal(definition, own) if own else Reading.of())
        else:
            readings.append(followed([record for record in journal if record.shard == shard], own))
    return readings


def read_journal(path: str | Path | None) -> list[Record] | None:
    """The records of a journal kept as JSON lines."""
    if path is None:
        return None
    records = [decode(line) for line in Path(path).read_bytes().splitlines() if line]
    return ordered(records)


def training_table(definition: Definition, rows: Iterable[Row]) -> pa.Table:
    """Predictions with their vectors, and the labels that came; late answers are left out."""
    predictions: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.kind == "predictions" and isinstance(row.value, dict) and not row.value.get("late"):
            predictions[row.value["id"]] = row.value
        elif row.kind == "labels" and isinstance(row.value, dict):
            told = row.value
            predictions[told["prediction"]] |= {"label": told["label"], "label_known_at": told["known_at"]}
    return _table(definition, list(predictions.values()))


def _table(definition: Definition, records: list[dict[str, Any]]) -> pa.Table:
    def of(name: str, kind: pa.DataType | None = None) -> Any:
        return pa.array([record.get(name) for record in records], type=kind)

    columns = {"id": of("id", pa.string()), "event_id": of("event_id"), "key": of("key")}
    columns["time"] = pa.array([to_time(record["time"]) for record in records], type=pa.int64()).cast(TIME)
    for feature in definition.features.features:
        kind = pa.string() if feature.is_text else pa.float64()
        columns[feature.name] = pa.array([record["vector"][feature.name] for record in records], type=kind)
    columns["score"] = of("score")
    columns["label"] = of("label", None if definition.label is None else TYPES[definition.label.value_type])
    columns["label_known_at"] = of("label_known_at", pa.int64()).cast(TIME)
    columns["fingerprint"] = of("features", pa.string())
    return pa.table(columns)
