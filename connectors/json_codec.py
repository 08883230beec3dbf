"""JSON messages to columns, message by message, so row i is message i whatever the bytes of its neighbours.

Two lanes with one meaning. A message that fits goes through msgspec, into a struct made from the schema. Every
message that msgspec refuses, or might take more leniently than rule 8 of the contract, goes through orjson and
:meth:`Schema.decode`, which decide, and say why they refuse. 0.8 us a message of 176 bytes and five fields in the
first lane, 3 in the second (Python 3.11, one core, 2026-11).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson

from thalweg.engine.batch import Column
from thalweg.engine.kernels import text
from thalweg.engine.kernels.arrays import Bool, Int64
from thalweg.engine.schema import LIMIT, MAX_TIME, UNIT_US, Field, Schema, column_of

Refused = tuple[int, str, str]  # message, reason, detail
Decoded = tuple[dict[str, Column], Int64, list[Refused]]


def decode_json(values: Sequence[bytes | None], schema: Schema, max_bytes: int) -> Decoded:
    """Columns of the messages that fit, which they are, and the others with reason and detail."""
    lane = _lane(schema)
    columns, at = lane.decode(values, max_bytes) if lane else (None, np.empty(0, dtype=np.int64))
    if columns is not None and len(at) == len(values):
        return columns, at, []
    left = np.delete(np.arange(len(values)), at)
    others, kept, refused = decode_slowly([values[i] for i in left.tolist()], schema, max_bytes)
    refused = [(int(left[i]), reason, detail) for i, reason, detail in refused]
    return *_merged(columns or others, at, others, left[kept]), refused


def decode_slowly(values: Sequence[bytes | None], schema: Schema, max_bytes: int) -> Decoded:
    """As :func:`decode_json`, by orjson and :meth:`Schema.decode` alone."""
    objects: list[Any] = []
    places: list[int] = []
    refused: list[Refused] = []
    for i, value in enumerate(values):
        reason = unreadable(value, max_bytes)
        if reason is None:
            assert value is not None
            try:
                objects.append(orjson.loads(value))
                places.append(i)
                continue
            except orjson.JSONDecodeError as error:
                reason = _not_json(value, error)
        refused.append((i, *reason))
    columns, kept, misfits = schema.decode(objects)
    refused += [(places[at], reason, detail) for at, reason, detail in misfits]
    return columns, np.array(places, dtype=np.int64)[kept], refused


def unreadable(value: bytes | None, max_bytes: int) -> tuple[str, str] | None:
    """Reason and detail, where there is nothing to decode."""
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


def _merged(
    columns: dict[str, Column], at: Int64, others: dict[str, Column], others_at: Int64
) -> tuple[dict[str, Column], Int64]:
    if len(others_at) == 0:
        return columns, at
    if len(at) == 0:
        return others, others_at
    together = np.concatenate([at, others_at])
    order = np.argsort(together)
    return {name: joined([column, others[name]]).take(order) for name, column in columns.items()}, together[order]


def joined(columns: Sequence[Column]) -> Column:
    """The rows of one column after those of the other."""
    return Column(np.concatenate([c.values for c in columns]), np.concatenate([c.valid for c in columns]))


@dataclass(frozen=True, slots=True)
class _Lane:
    """The first lane of a schema: a decoder into structs, whose attribute ``f3`` is field number 3."""

    schema: Schema
    decoder: msgspec.json.Decoder[Any]

    def decode(self, values: Sequence[bytes | None], max_bytes: int) -> tuple[dict[str, Column], Int64]:
        """Columns of the messages that are beyond doubt, and which they are."""
        structs, at = self._structs(values)
        taken: Any = values if len(at) == len(values) else [values[i] for i in at.tolist()]
        sizes = np.fromiter(map(len, taken), dtype=np.int64, count=len(taken))
        doubtful = (sizes > max_bytes) | _not_strict(taken, sizes)
        columns = {}
        for i, field in enumerate(self.schema.fields):
            column, unfit = _COLUMNS[field.type](list(map(attrgetter(f"f{i}"), structs)), field)
            columns[field.name] = column
            if unfit is not None:
                doubtful |= unfit
        if doubtful.any():
            sure = np.flatnonzero(~doubtful)
            return {name: column.take(sure) for name, column in columns.items()}, at[sure]
        return columns, at

    def _structs(self, values: Sequence[bytes | None]) -> tuple[list[Any], Int64]:
        """What decodes, and which messages these are."""
        structs: list[Any] = []
        refused: list[int] = []
        decoded = map(self.decoder.decode, values)  # type: ignore[arg-type]
        while len(structs) + len(refused) < len(values):
            try:
                structs.extend(decoded)  # what came before an error stays, and the rest goes on behind it
            except (msgspec.DecodeError, UnicodeDecodeError, TypeError, RecursionError):
                refused.append(len(structs) + len(refused))  # the other lane says why
        at = np.arange(len(values))
        return structs, np.delete(at, refused) if refused else at


@lru_cache(maxsize=64)
def _lane(schema: Schema) -> _Lane | None:
    """None where a field has a name that stands in JSON with an escape only."""
    if any(orjson.dumps(field.name) != f'"{field.name}"'.encode() for field in schema.fields):
        return None
    fields: list[Any] = [
        (f"f{i}", field_type(field) | None, None) if field.nullable else (f"f{i}", field_type(field))
        for i, field in enumerate(schema.fields)
    ]
    rename = {f"f{i}": field.name for i, field in enumerate(schema.fields)}
    struct = msgspec.defstruct("Message", fields, gc=False, kw_only=True, rename=rename)
    return _Lane(schema, msgspec.json.Decoder(struct))


def field_type(field: Field) -> Any:
    """What of a field's values the first lane takes as they are: no whole number that a float may not hold."""
    if field.type == "timestamp":
        highest = MAX_TIME // UNIT_US[field.unit] if field.unit in UNIT_US else 2**63 - 1
        return Annotated[int, msgspec.Meta(ge=0, le=highest)] | str
    return _TYPES[field.type]


_TYPES: dict[str, Any] = {
    "f64": Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)] | float,
    "i64": Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    "bool": bool,
    "str": str,
}


def _not_strict(values: Sequence[bytes], sizes: Int64) -> Bool:
    """Where msgspec passes over what no JSON is, in fields that the schema does not name."""
    together = b"\n".join([*values, b""])
    doubtful = np.empty(len(values), dtype=np.bool_)
    text.find_doubtful(np.frombuffer(together, dtype=np.uint8), np.cumsum(sizes + 1), doubtful)
    if not _is_text(together):
        doubtful |= np.array([not _is_text(value) for value in values], dtype=np.bool_)
    return doubtful


def _is_text(data: bytes) -> bool:
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False


def _plain(values: list[Any], field: Field) -> tuple[Column, Bool | None]:
    return column_of(field.type, values), None


def _floats(values: list[Any], field: Field) -> tuple[Column, Bool | None]:
    numbers = np.array(values, dtype=np.float64) + 0.0  # -0.0 becomes 0.0, None NaN
    large = np.abs(numbers) > LIMIT
    valid = ~np.isnan(numbers) if field.nullable else np.ones(len(numbers), dtype=np.bool_)
    return Column(numbers, valid), large if large.any() else None


def _times(values: list[Any], field: Field) -> tuple[Column, Bool | None]:
    """Numbers of the field's unit, and texts."""
    if str not in set(map(type, values)):
        column = column_of("timestamp", values)
        return Column(_micros(column.values, field.unit), column.valid), None
    column = column_of("timestamp", [0 if type(value) is str else value for value in values])
    is_text = np.fromiter((type(value) is str for value in values), dtype=np.bool_, count=len(values))
    times = _micros(column.values, field.unit)
    times[is_text] = _read([value for value in values if type(value) is str])
    unfit = is_text & ((times < 0) | (times > MAX_TIME))
    return Column(times, column.valid), unfit if unfit.any() else None


def _micros(counts: Int64, unit: str) -> Int64:
    return counts // 1000 if unit == "ns" else counts * UNIT_US[unit]


def _read(texts: list[str]) -> Int64:
    """Microseconds, NO_TIME (which is negative) where the other lane must look."""
    data = "".join(texts).encode()
    pieces: list[Any] = texts if len(data) == sum(map(len, texts)) else [one.encode() for one in texts]
    times = np.empty(len(texts), dtype=np.int64)
    text.read_times(np.frombuffer(data, dtype=np.uint8), np.cumsum(list(map(len, pieces))), times)
    return times


_COLUMNS = {"f64": _floats, "i64": _plain, "bool": _plain, "str": _plain, "timestamp": _times}
