"""Rows in memory as a log: what ``flow.run([...])`` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from thalweg.connectors.arrow import columns_of
from thalweg.engine.batch import NO_TIME, Batch, Log, Reject
from thalweg.engine.errors import DefinitionError
from thalweg.engine.schema import Schema

RowsLike: TypeAlias = Sequence[Mapping[str, Any]] | pa.Table | pa.RecordBatch


def batch_of(rows: RowsLike, schema: Schema, log: Log) -> Batch:
    """The rows as a batch whose offsets are their positions; rows that do not fit are rejects.

    Without a broker there is no append time, so no future bound.
    """
    if isinstance(rows, str | bytes | Mapping):
        raise DefinitionError(f"rows is a {type(rows).__name__}; write a list of dicts, or an Arrow table")
    if isinstance(rows, pa.RecordBatch):
        rows = pa.Table.from_batches([rows])
    if isinstance(rows, pa.Table):
        columns, kept, refused = columns_of(rows, schema)
    else:
        columns, kept, refused = schema.decode([dict(row) if isinstance(row, Mapping) else row for row in rows])
    rejects = [Reject(log, at, reason, detail) for at, reason, detail in refused]
    return Batch(log, kept, np.full(len(kept), NO_TIME), columns, rejects=rejects)
