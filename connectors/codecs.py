"""Message bytes to rows, one codec a topic: ``json`` (an object a message) and ``arrow`` (an IPC stream a message).

JSON is decoded message by message, so row i is message i whatever the bytes of its neighbours. A
message that does not parse or fit becomes a :class:`Reject`, never an exception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from thalweg.connectors.arrow import columns_of
from thalweg.engine.batch import Batch, Column, Headers, Log, Raw, Reject
from thalweg.engine.definition import Definition
from thalweg.engine.kernels.arrays import Int64
from thalweg.engine.reading import Reading
from thalweg.engine.schema import Schema, column_of

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


def reading_of(raws: Sequence[Raw], forms: Mapping[str, Form]) -> Reading:
    """Raw messages in reading order as one reading: each log is decoded once, the order is kept."""
    of_log: dict[Log, list[Raw]] = {}
    for raw in raws:
        of_log.setdefault(raw.log, []).append(raw)
    batches = [decode(Raw.joined(own), forms[log.topic]) for log, own in of_log.items()]
    which = {log: b for b, log in enumerate(of_log)}
    return Reading.of_runs(batches, [(which[raw.log], int(raw.offsets[0]), int(raw.offsets[-1])) for raw in raws])


def _decode_json(raw: Raw, form: Form) -> Batch:
    objects: list[Any] = []
    places: list[int] = []
    refused: list[Refused] = []
    for i, value in enumerate(raw.values):
        reason = _unreadable(value, form.max_bytes)
        if reason is None:
            assert value is not None
            try:
                objects.append(orjson.loads(value))
                places.append(i)
                continue
            except orjson.JSONDecodeError as error:
                reason = _not_json(value, error)
        refused.append((i, *reason, None))
    columns, kept, misfits = form.schema.decode(objects)
    refused += [(places[at], reason, detail, None) for at, reason, detail in misfits]
    return _batch(raw, columns, np.array(places, dtype=np.int64)[kept], refused)


def _unreadable(value: bytes | None, max_bytes: int) -> tuple[str, str] | None:
    if value is None:
        return "tombstone", "expected a value, got none"
    if len(value) == 0:
        return "empty", "expected a value, got 0 bytes"
    if len(value) > max_bytes:
        return "too_large", f"expected at most {max_bytes} bytes, got {len(value)}; see Stream.max_bytes"
    return None


def _not_json(value: bytes, error: Exception) -> tuple[str, str]:
    if len(value) > 5 and value[0] == 0:
        schema_id = int.from_bytes(value[1:5], "big")
        return "avro", (
            f"looks like Confluent Avro (schema id {schema_id}); Avro is not read yet, produce JSON or Arrow"
        )
    return "malformed_json", str(error)


def _decode_arrow(raw: Raw, form: Form) -> Batch:
    tables: list[pa.Table] = []
    places: list[Int64] = []
    refused: list[Refused] = []
    for i, value in enumerate(raw.values):
        reason = _unreadable(value, form.max_bytes)
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
        field.name: _concatenated([columns[field.name] for columns, _ in tables], field.type)
        for field in form.schema.fields
    }
    indices = np.concatenate([kept for _, kept in tables]) if tables else np.empty(0, dtype=np.int64)
    at = np.concatenate(places) if places else np.empty(0, dtype=np.int64)
    return _batch(raw, merged, at, refused, indices)


def _concatenated(columns: Sequence[Column], kind: str) -> Column:
    if not columns:
        return column_of(kind, [])
    return Column(np.concatenate([c.values for c in columns]), np.concatenate([c.valid for c in columns]))


def _batch(
    raw: Raw,
    columns: dict[str, Column],
    at: Int64,
    refused: list[Refused],
    indices: Int64 | None = None,
) -> Batch:
    where = at.tolist()
    offsets = raw.offsets.tolist()
    rejects = [
        Reject(raw.log, offsets[i], reason, detail, raw.keys[i], raw.values[i], _at(raw.headers, i), row)
        for i, reason, detail, row in sorted(refused, key=lambda one: (one[0], one[3] or 0))
    ]
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


def _at(headers: Sequence[Headers | None] | None, i: int) -> Headers | None:
    return None if headers is None else headers[i]


def _check_keys(batch: Batch, field: str) -> Batch:
    """Rule 1 of the contract: the record's key must be the key field, else an entity is split silently."""
    assert batch.keys is not None and batch.values is not None
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
