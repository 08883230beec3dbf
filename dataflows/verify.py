"""``thalweg verify``: recompute what was served from the logs, and compare, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from thalweg.connectors.codecs import Form, decode
from thalweg.connectors.journal import JournalError, Record, ordered
from thalweg.connectors.journal import decode as decode_record
from thalweg.connectors.kafka_config import Cluster
from thalweg.connectors.kafka_read import read_topic, records_of
from thalweg.connectors.parquet import write_archive
from thalweg.dataflows.backfill import archive_readings, readings_of
from thalweg.dataflows.pipeline import Pipeline
from thalweg.dataflows.replay import Comparison, Progress, compare, replayed
from thalweg.engine.batch import Batch, Log, Raw
from thalweg.engine.definition import Definition
from thalweg.engine.reading import Reading

BATCH_ROWS = 5000
ARCHIVE_ROWS = 20_000


def verify(pipeline: Pipeline, settings: Mapping[str, str], progress: Progress | None = None) -> dict[str, Any]:
    """Reads the input topics, the journal and the predictions, follows the journal, and compares every field.

    Returns:
        compared, mismatches, missing, unexpected, and up to five examples.

    Raises:
        JournalError: the pipeline has not run, or its journal is damaged.
    """
    there = pipeline.topics["journal"] in Cluster(settings).topics()
    journal = read_journal_topic(pipeline, settings) if there else []
    if not journal:
        raise JournalError(
            f"there is no record on {pipeline.topics['journal']!r}: run the pipeline first (thalweg run), with the "
            "same name and brokers"
        )
    readings = readings_of(pipeline.definition, list(_logs(pipeline.definition, settings)), journal)
    return vars(compare_with(pipeline, settings, readings, progress))


def archive_topics(pipeline: Pipeline, settings: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Writes each input topic to ``<topic>.parquet`` and the journal, if there is one, to ``journal.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for topic in pipeline.definition.topics:
        files[topic] = folder / f"{topic}.parquet"
        raws = read_topic(settings, topic, batch_rows=ARCHIVE_ROWS)
        write_archive(files[topic], raws, Form.of(pipeline.definition, topic))
    if pipeline.topics["journal"] in Cluster(settings).topics():
        files["journal"] = folder / "journal.jsonl"
        lines = [record.encode() + b"\n" for record in read_journal_topic(pipeline, settings)]
        files["journal"].write_bytes(b"".join(lines))
    return files


def verify_archive(
    pipeline: Pipeline, settings: Mapping[str, str], files: Mapping[str, Path], progress: Progress | None = None
) -> Comparison:
    """As :func:`verify`, with the inputs from Parquet: live against backfill."""
    definition = pipeline.definition
    paths = [[files[topic]] for topic in definition.topics]
    journal = read_journal_topic(pipeline, settings)
    readings = archive_readings(definition, paths[0], paths[1] if len(paths) > 1 else [], journal)
    return compare_with(pipeline, settings, readings, progress)


def compare_with(
    pipeline: Pipeline, settings: Mapping[str, str], readings: list[Reading], progress: Progress | None
) -> Comparison:
    """Replays the readings and compares with the predictions topic."""
    rows = replayed(pipeline, readings, batch_rows=BATCH_ROWS, progress=progress)
    again = [row.value for row in rows if row.kind == "predictions" and isinstance(row.value, Mapping)]
    return compare(served(pipeline, settings), again)


def served(pipeline: Pipeline, settings: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The records on the predictions topic; what is none gets its place as its id."""
    for raw in read_topic(settings, pipeline.topics["predictions"]):
        for row, offset in enumerate(raw.offsets.tolist()):
            for record in records_of(raw, row):
                yield {"id": f"{raw.log.topic}[{raw.log.partition}] {offset}"} | record


def read_journal_topic(pipeline: Pipeline, settings: Mapping[str, str]) -> list[Record]:
    """The journal, each shard's records in order."""
    raws = read_topic(settings, pipeline.topics["journal"])
    return ordered(decode_record(value) for raw in raws for value in raw.values)


def _logs(definition: Definition, settings: Mapping[str, str]) -> Iterator[Batch]:
    for topic in definition.topics:
        form = Form.of(definition, topic)
        pieces: dict[Log, list[Raw]] = {}
        for raw in read_topic(settings, topic):
            pieces.setdefault(raw.log, []).append(raw)
        for raws in pieces.values():
            yield decode(Raw.joined(raws), form)
