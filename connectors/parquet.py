"""Archives of logs as Parquet: the fields of a topic, and where each message stood.

Columns that begin with ``_`` are the log's: ``_partition``, ``_offset``, ``_broker_time`` (the record's
timestamp), ``_append_time`` (the broker's, where the topic has it), ``_key`` and, for messages that did
not decode, their bytes in ``_value``. A file without ``_offset`` is no archive but a table: its rows are
sorted once by time and numbered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from thalweg.connectors.arrow import TIME, TYPES, columns_of
from thalweg.connectors.codecs import Form, decode
from thalweg.engine.batch import NO_TIME, Batch, Column, Log, Raw, Reject
from thalweg.engine.errors import ThalwegError
from thalweg.engine.kernels.arrays import Int64
from thalweg.engine.schema import Schema

_LOG = [
    ("_partition", pa.int32()),
    ("_offset", pa.int64()),
    ("_broker_time", TIME),
    ("_append_time", TIME),
    ("_key", pa.binary()),
    ("_value", pa.binary()),
]


class ArchiveError(ThalwegError):
    """Files that are not there, or are no archive of this topic."""


def write_archive(path: Path, raws: Iterable[Raw], form: Form) -> int:
    """Writes one topic's messages to a Parquet file; returns how many."""
    fields = [(field.name, TYPES[field.type]) for field in form.schema.fields]
    schema = pa.schema([*_LOG, *fields])
    written = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for raw in raws:
            writer.write_table(_table(raw, form, schema))
            written += len(raw)
    return written


def _table(raw: Raw, form: Form, schema: pa.Schema) -> pa.Table:
    batch = decode(raw, form)
    at = {offset: i for i, offset in enumerate(raw.offsets.tolist())}
    kept = np.array([at[offset] for offset in batch.offsets.tolist()], dtype=np.int64)
    refused = sorted({at[reject.offset] for reject in batch.rejects})
    rows = np.concatenate([kept, np.array(refused, dtype=np.int64)])
    order = np.argsort(rows, kind="stable")
    keys, values = [raw.keys[i] for i in rows.tolist()], [raw.values[i] for i in refused]
    columns: list[Any] = [
        pa.array(np.full(len(rows), raw.log.partition, dtype=np.int32)),
        pa.array(raw.offsets[rows]),
        _times(raw.times[rows]),
        _times(raw.append[rows]),
        pa.array(keys, type=pa.binary()),
        pa.array([None] * len(kept) + [b"" if value is None else value for value in values], type=pa.binary()),
    ]
    for field in form.schema.fields:
        column = batch.columns[field.name]
        nulls = pa.nulls(len(refused), TYPES[field.type])
        columns.append(pa.concat_arrays([_array(column, field.type), nulls]))
    return pa.Table.from_arrays(columns, schema=schema).take(pa.array(order))


def _array(column: Column, kind: str) -> Any:
    return pa.array(column.values, mask=~column.valid, type=pa.int64() if kind == "timestamp" else None).cast(
        TYPES[kind]
    )


def _times(times: Int64) -> Any:
    return pa.array(times, mask=times == NO_TIME).cast(TIME)


def read_archive(
    paths: Sequence[str | Path], topic: str, form: Form, time: str, *, journaled: bool = False
) -> list[Batch]:
    """The logs of one topic, one batch a partition.

    Args:
        paths: files or folders.
        time: the field by which a table without offsets is sorted (rule 1 of the contract).
        journaled: whether a journal will be followed, which names offsets.

    Raises:
        ArchiveError: a file is missing, or has no offsets and a journal is to be followed.
        ArrowError: a column cannot be what the schema declares.
    """
    table = _dataset(paths)
    if "_offset" not in table.column_names and journaled:
        raise ArchiveError(
            f"{', '.join(map(str, paths))}: a journal says which offsets were read, and these files hold none; write "
            "an archive of the topics with thalweg archive, or leave the journal out"
        )
    if "_offset" not in table.column_names:
        if time not in table.column_names:
            raise ArchiveError(f"{', '.join(map(str, paths))}: there is no column {time!r}, the time of {topic!r}")
        return [_numbered(table, Log(topic, 0), form.schema, time)]
    partitions = pc.unique(table.column("_partition")).to_pylist()
    return [
        _log(table.filter(pc.equal(table.column("_partition"), p)), Log(topic, p), form) for p in sorted(partitions)
    ]


def _dataset(paths: Sequence[str | Path]) -> pa.Table:
    missing = [str(path) for path in paths if not Path(path).exists()]
    if missing or not paths:
        raise ArchiveError(
            f"no such file or folder: {', '.join(missing) or '(none given)'}; write Parquet files or folders"
        )
    return pa.concat_tables([_one(path) for path in paths], promote_options="default")


def _one(path: str | Path) -> pa.Table:
    try:
        dataset = ds.dataset(str(path), format="parquet")
        if not dataset.files:
            raise ArchiveError(f"{path} holds no Parquet file")
        return dataset.to_table()
    except pa.ArrowException as error:
        raise ArchiveError(f"{path} cannot be read as Parquet: {error}") from None


def _log(table: pa.Table, log: Log, form: Form) -> Batch:
    table = table.sort_by("_offset")
    bad = pc.is_valid(table.column("_value"))
    good, refused = table.filter(pc.invert(bad)), table.filter(bad)
    columns, kept, misfits = columns_of(good, form.schema)
    offsets = good.column("_offset").to_numpy()
    rejects = [Reject(log, int(offsets[i]), reason, detail) for i, reason, detail in misfits]
    batch = Batch(log, offsets[kept], _integers(good, "_append_time")[kept], columns, _taken(good, "_key", kept))
    batch.rejects.extend([*rejects, *_refused_again(refused, log, form)])
    return batch


def _refused_again(table: pa.Table, log: Log, form: Form) -> list[Reject]:
    """Messages that did not decode when they were archived do not decode now either."""
    if table.num_rows == 0:
        return []
    raw = Raw(
        log,
        table.column("_offset").to_numpy(),
        _integers(table, "_broker_time"),
        _integers(table, "_append_time"),
        table.column("_key").to_pylist(),
        [value or None for value in table.column("_value").to_pylist()],
    )
    return decode(raw, form).rejects


def _taken(table: pa.Table, name: str, rows: Int64) -> list[bytes | None]:
    values = table.column(name).to_pylist()
    return [values[i] for i in rows.tolist()]


def _integers(table: pa.Table, name: str) -> Int64:
    return table.column(name).cast(pa.int64()).fill_null(NO_TIME).to_numpy()


def _numbered(table: pa.Table, log: Log, schema: Schema, time: str) -> Batch:
    """A plain table as a log: sorted by time, then by all other fields, and numbered."""
    keys = [(time, "ascending"), *((name, "ascending") for name in table.column_names if name != time)]
    columns, kept, misfits = columns_of(table.sort_by(keys), schema)
    rejects = [Reject(log, at, reason, detail) for at, reason, detail in misfits]
    return Batch(log, kept, np.full(len(kept), NO_TIME), columns, rejects=rejects)
