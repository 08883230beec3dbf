"""Message bytes to rows, one codec a topic: ``json`` (an object a message) and ``arrow`` (an IPC stream a message).

JSON is decoded message by message, so row i is message i whatever the bytes of its neighbours. A
message that does not parse or fit becomes a :class:`Reject`, never an exception.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from thalweg.connectors.arrow import arrow_rows, columns_of, stream_of
from thalweg.connectors.json_codec import decode_json, joined, unreadable
from thalweg.connectors.merged import Merged
from thalweg.engine.batch import Batch, Column, Raw, Reject
from thalweg.engine.definition import Definition
from thalweg.engine.kernels.arrays import Int64
from thalweg.engine.reading import Reading, in_offset_order, offsets_of
from thalweg.engine.records import Block
from thalweg.engine.schema import Schema, column_of
from thalweg.engine.table import json_rows

ARROW_BYTES = 786_432  # producers and brokers take messages of a million bytes unless told otherwise
Refused = tuple[int, str, str, int | None]  # message, reason, detail, row within the message


@dataclass(frozen=True, slots=True)
class Form:
    """How the messages of one topic are read; ``key`` is the field that the record key must equal."""

    schema: Schema
    codec: str = "json"
    key: str | None = None
    max_bytes: int = 1_048_576

    @classmethod
    def of(cls, definition: Definition, topic: str) -> Form:
        """The form of the stream's or the label's topic."""
        stream = definition.stream
        if topic == stream.topic:
            key = stream.key if stream.key_check else None
            return cls(stream.schema, stream.codec, key, stream.max_bytes)
        assert definition.label is not None and topic == definition.label.topic, topic
        return cls(definition.label.schema, definition.label.codec, None, definition.label.max_bytes)


def decode(raw: Raw, form: Form) -> Batch:
    """The rows of the messages that fit; the others are in ``rejects``, in offset order.

    Reasons: tombstone, empty, too_large, avro, malformed_json, malformed_arrow, not_an_object, missing,
    null, type, range, key.
    """
    batch = _decode_arrow(raw, form) if form.codec == "arrow" else _decode_json(raw, form)
    return batch if form.key is None else _check_keys(batch, form.key)


def encode(block: Block, codec: str) -> tuple[Sequence[bytes | None], Sequence[bytes]]:
    """Keys and values of the messages that hold a block: a JSON object a row, or Arrow IPC streams of many rows, as few
    as fit into messages of about ``ARROW_BYTES``."""
    if codec != "arrow":
        return block.keys, json_rows(block.table)
    rows = arrow_rows(block.table)
    size = max(1, ARROW_BYTES * len(block) // max(1, rows.nbytes))
    values = [stream_of(rows.slice(at, size)) for at in range(0, len(block), size)]
    return [None] * len(values), values


def reading_of(raws: Iterable[Raw], forms: Mapping[str, Form]) -> Reading:
    """Raw messages in reading order as one reading: each log is decoded once, the order is kept."""
    merged = Merged.of(raws)
    batches = [decode(part, forms[part.log.topic]) for part in merged.parts]
    stops = merged.stops()
    codes = [in_offset_order(batch) for batch in batches]
    counts = np.empty(len(stops), dtype=np.int64)
    for i, (part, batch) in enumerate(zip(merged.parts, batches, strict=True)):
        own = merged.which == i
        last = part.offsets[stops[own] - 1]  # a message may have several rows, or none
        counts[own] = np.diff(np.searchsorted(offsets_of(batch, codes[i]), last, side="right"), prepend=0)
    which = np.repeat(merged.which, counts)
    rows = np.empty(len(which), dtype=np.int64)
    for i, own_codes in enumerate(codes):
        rows[which == i] = own_codes
    return Reading(batches, which, rows)


def _decode_json(raw: Raw, form: Form) -> Batch:
    columns, at, refused = decode_json(raw.values, form.schema, form.max_bytes)
    return _batch(raw, columns, at, [(*one, None) for one in refused])


def _decode_arrow(raw: Raw, form: Form) -> Batch:
    tables: list[pa.Table] = []
    places: list[Int64] = []
    refused: list[Refused] = []
    for i, value in enumerate(raw.values):
        reason = unreadable(value, form.max_bytes)
        if reason is None:
            try:
                table = pa.ipc.open_stream(value).read_all()
                columns, kept, misfits = columns_of(table, form.schema)
                tables.append((columns, kept))
                places.append(np.full(len(kept), i))
                refused += [(i, why, f"row {row}: {detail}", row) for row, why, detail in misfits]
                continue
            except (pa.ArrowException, OSError, ValueError) as error:
                reason = ("malformed_arrow", f"expected an Arrow IPC stream, got {error}")
        refused.append((i, *reason, None))
    merged = {
        field.name: joined([columns[field.name] for columns, _ in tables] or [column_of(field.type, [])])
        for field in form.schema.fields
    }
    indices = np.concatenate([kept for _, kept in tables]) if tables else np.empty(0, dtype=np.int64)
    at = np.concatenate(places) if places else np.empty(0, dtype=np.int64)
    return _batch(raw, merged, at, refused, indices)


def _batch(
    raw: Raw,
    columns: dict[str, Column],
    at: Int64,
    refused: list[Refused],
    indices: Int64 | None = None,
) -> Batch:
    rejects = [_reject(raw, *one) for one in sorted(refused, key=lambda one: (one[0], one[3] or 0))]
    if len(at) == len(raw) and indices is None:
        return Batch(raw.log, raw.offsets, raw.append, columns, raw.keys, raw.values, raw.headers, rejects)
    where = at.tolist()
    return Batch(
        raw.log,
        raw.offsets[at],
        raw.append[at],
        columns,
        [raw.keys[i] for i in where],
        [raw.values[i] for i in where],
        None if raw.headers is None else [raw.headers[i] for i in where],
        rejects,
        indices,
    )


def _reject(raw: Raw, i: int, reason: str, detail: str, row: int | None) -> Reject:
    headers = None if raw.headers is None else raw.headers[i]
    return Reject(raw.log, int(raw.offsets[i]), reason, detail, raw.keys[i], raw.values[i], headers, row)


def _check_keys(batch: Batch, field: str) -> Batch:
    """Rule 1 of the contract: the record's key must be the key field, else an entity is split silently."""
    assert batch.keys is not None and batch.values is not None
    if _are_keys(batch.columns[field], batch.keys):
        return batch
    expected = [str(value).encode() for value in batch.columns[field].tolist()]
    wrong = [i for i, (key, want) in enumerate(zip(batch.keys, expected, strict=True)) if key != want]
    if not wrong:
        return batch
    rejects = []
    for i in wrong:
        came = f"expected the record key {expected[i]!r} (field {field!r}), got {batch.keys[i]!r}"
        rejects.append(batch.refuse(i, "key", f"{came}; see Stream.key_check"))
    mask = np.ones(len(batch), dtype=np.bool_)
    mask[wrong] = False
    return batch.take(np.flatnonzero(mask), sorted([*batch.rejects, *rejects], key=lambda reject: reject.offset))


def _are_keys(column: Column, keys: Sequence[bytes | None]) -> bool:
    """Whether a column of text is the keys, all of them, without null or newline; 0.05 us a row."""
    if column.values.dtype != object or not column.valid.all():
        return False
    texts = "\n".join(column.values.tolist()).encode().split(b"\n")  # as many as there are values, or one has a newline
    return texts == list(keys) if len(keys) else True
