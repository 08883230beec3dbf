"""Arrow tables to columns by the rules of the schema, and rows of the engine to Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thalweg.engine.batch import Column
from thalweg.engine.errors import ThalwegError
from thalweg.engine.kernels.arrays import Bool, Int64
from thalweg.engine.schema import LIMIT, MAX_TIME, Field, Schema
from thalweg.engine.table import Constant, Flag, Hex, Numbered, Table, Times, Values, iso_times, texts

Rows: TypeAlias = pa.Table | pa.RecordBatch | pa.StructArray
TIME = pa.timestamp("us", tz="UTC")
TYPES = {"f64": pa.float64(), "i64": pa.int64(), "bool": pa.bool_(), "str": pa.string(), "timestamp": TIME}
# What a row of JSON does not have: a false flag, and a class that a score does not know yet (null in Arrow).
ABSENT, FALSE, NULL = b"thalweg.absent", b"false", b"null"
_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1}


class ArrowError(ThalwegError, ValueError):
    """A table whose columns cannot be what the schema declares."""


def columns_of(table: pa.Table, schema: Schema) -> tuple[dict[str, Column], Int64, list[tuple[int, str, str]]]:
    """As :meth:`Schema.decode`, for a table: columns, the rows that fit, and (row, reason, detail) of the others.

    Missing columns are null, NaN is null, whatever converts without loss converts.

    Raises:
        ArrowError: a column's type can never be the declared one (text for a number, a time without a zone).
    """
    columns: dict[str, Column] = {}
    refused: dict[int, tuple[str, str]] = {}
    for field in schema.fields:
        column, fits, reason = _column(table, field)
        missing = ~column.valid & fits
        if not field.nullable and missing.any():
            _refuse(refused, ~missing, "null", f"field {field.name!r} is null; declare it with ? if that is allowed")
        _refuse(refused, fits, "range", f"field {field.name!r}: {reason}")
        columns[field.name] = column
    kept = np.delete(np.arange(table.num_rows), list(refused))
    if refused:
        columns = {name: column.take(kept) for name, column in columns.items()}
    return columns, kept, [(i, *why) for i, why in sorted(refused.items())]


def _refuse(refused: dict[int, tuple[str, str]], fits: Bool, reason: str, detail: str) -> None:
    for i in np.flatnonzero(~fits).tolist():
        refused.setdefault(i, (reason, detail))


def _column(table: pa.Table, field: Field) -> tuple[Column, Bool, str]:
    """The column, which rows fit, and what the others broke."""
    n = table.num_rows
    if field.name not in table.column_names:
        values: Any = np.full(n, None, dtype=object) if field.type == "str" else np.zeros(n, dtype=np.int64)
        return Column(values, np.zeros(n, dtype=np.bool_)), np.ones(n, dtype=np.bool_), ""
    array = table.column(field.name)
    if pa.types.is_dictionary(array.type) and (field.type != "str" or _holds_null(array)):
        array = pc.cast(array, array.type.value_type)
    if pa.types.is_null(array.type):
        array = pc.cast(array, TYPES[field.type])
    valid = np.ones(n, dtype=np.bool_)
    if array.null_count:
        valid = np.asarray(pc.is_valid(array).to_numpy(), dtype=np.bool_)
    return _CONVERT[field.type](array, valid, field)


def _holds_null(array: Any) -> bool:
    """A null in the dictionary itself, which the array does not count among its own."""
    return any(chunk.dictionary.null_count for chunk in array.chunks)


def _to_float(array: Any, valid: Bool, field: Field) -> tuple[Column, Bool, str]:
    _require(array, field, pa.types.is_floating(array.type) or pa.types.is_integer(array.type))
    fits = np.ones(len(valid), dtype=np.bool_)
    if pa.types.is_integer(array.type):
        whole = _filled(array, 0)
        values = whole.astype(np.float64)
        with np.errstate(invalid="ignore"):
            fits = (np.abs(values) < 2.0**53) | (values.astype(np.longdouble) == whole.astype(np.longdouble))
    else:
        values = _filled(pc.cast(array, pa.float64()), np.nan)
        valid = valid & ~np.isnan(values)
        fits = ~(np.abs(values) > LIMIT)
    return Column(np.where(valid, values, np.nan) + 0.0, valid), fits | ~valid, "expected a number within +-1e100"


def _to_int(array: Any, valid: Bool, field: Field) -> tuple[Column, Bool, str]:
    _require(array, field, pa.types.is_floating(array.type) or pa.types.is_integer(array.type))
    if pa.types.is_integer(array.type):
        values = _filled(array, 0)
        fits = np.ones(len(valid), dtype=np.bool_) if values.dtype != np.uint64 else values < 2**63
        return Column(values.astype(np.int64), valid), fits | ~valid, "expected a 64-bit whole number"
    numbers = _filled(array, 0.0)
    valid = valid & ~np.isnan(numbers)
    fits = (np.abs(numbers) <= 2.0**53) & (numbers == np.floor(numbers))
    return Column(np.where(fits, numbers, 0).astype(np.int64), valid), fits | ~valid, "expected a whole number"


def _to_bool(array: Any, valid: Bool, field: Field) -> tuple[Column, Bool, str]:
    _require(array, field, pa.types.is_boolean(array.type))
    return Column(_filled(array, False).astype(np.bool_), valid), np.ones(len(valid), dtype=np.bool_), ""


def _to_str(array: Any, valid: Bool, field: Field) -> tuple[Column, Bool, str]:
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    _require(array, field, pa.types.is_string(kind) or pa.types.is_large_string(kind))
    pieces = [np.empty(0, dtype=object), *map(_texts, array.chunks)]
    return Column(np.concatenate(pieces), valid), np.ones(len(valid), dtype=np.bool_), ""


def _texts(array: Any) -> Any:
    """object[n] of str and None; a dictionary's texts are made once."""
    if not pa.types.is_dictionary(array.type):
        return array.to_numpy(zero_copy_only=False)
    known = np.append(array.dictionary.to_numpy(zero_copy_only=False), [None])
    return known[pc.fill_null(pc.cast(array.indices, pa.int64()), -1).to_numpy(zero_copy_only=False)]


def _to_time(array: Any, valid: Bool, field: Field) -> tuple[Column, Bool, str]:
    stamped = pa.types.is_timestamp(array.type)
    _require(array, field, (stamped and array.type.tz is not None) or pa.types.is_integer(array.type))
    unit = array.type.unit if stamped else field.unit
    counts = _filled(pc.cast(array, pa.int64()), 0)
    times = counts // 1000 if unit == "ns" else counts * _UNIT[unit]
    highest = MAX_TIME if unit == "ns" else MAX_TIME // _UNIT[unit]
    fits = (counts >= 0) & ((counts <= highest) if unit != "ns" else True)
    return Column(times, valid), fits | ~valid, "expected a time from 1970 to 9999"


def _require(array: Any, field: Field, fits: bool) -> None:
    if not fits:
        raise ArrowError(f"column {field.name!r} is {array.type}, the schema declares {field.text}")


def _filled(array: Any, value: Any) -> Any:
    return pc.fill_null(array, pa.scalar(value, type=array.type)).to_numpy()


_CONVERT = {"f64": _to_float, "i64": _to_int, "bool": _to_bool, "str": _to_str, "timestamp": _to_time}


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows that left the engine as a table; nested objects become structs."""
    return pa.Table.from_pylist(list(rows))


def arrow_rows(table: Table) -> pa.RecordBatch:
    """Rows that leave the engine, by column, as one batch.

    Tables within become structs, times timestamps, flags truths. NaN is null; a constant stands in every row.

    >>> arrow_rows(Table(1, {"id": Numbered("p/", np.array([7])), "late": Flag(np.array([False]))})).to_pylist()
    [{'id': 'p/7', 'late': False}]

    Raises:
        ArrowError: the values of a list have no common type.
    """
    arrays = [_array(values, table.length, name) for name, values in table.fields.items()]
    fields = [_field(*named, array.type) for named, array in zip(table.fields.items(), arrays, strict=True)]
    batch = pa.StructArray.from_arrays(arrays, fields=fields) if arrays else pa.array([{}] * len(table))
    return pa.RecordBatch.from_struct_array(batch)


def dicts_of(rows: Rows) -> list[dict[str, Any]]:
    """The other way: rows as they are read back from JSON, times as ISO 8601 text with six digits and Z.

    >>> table = Table(2, {"at": Times(np.array([0, 1])), "late": Flag(np.array([False, True]))})
    >>> for row in dicts_of(arrow_rows(table)):
    ...     print(row)
    {'at': '1970-01-01T00:00:00.000000Z'}
    {'at': '1970-01-01T00:00:00.000001Z', 'late': True}
    """
    if isinstance(rows, pa.Table):
        return [row for batch in rows.to_batches() for row in dicts_of(batch)]
    fields = list(rows.schema if isinstance(rows, pa.RecordBatch) else rows.type)
    columns = [_said(rows.column(i) if isinstance(rows, pa.RecordBatch) else rows.field(i)) for i in range(len(fields))]
    names = [field.name for field in fields]
    result = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    for field in fields:
        absent = (field.metadata or {}).get(ABSENT)
        if absent is not None:
            for row in result:
                if row[field.name] is (None if absent == NULL else False):
                    del row[field.name]
    return result


def _said(array: pa.Array) -> list[Any]:
    """What the rows of a column are in JSON."""
    if pa.types.is_timestamp(array.type):
        times = pc.cast(array, TIME) if array.type.unit != "ns" else pc.cast(array, TIME, safe=False)
        known = iso_times(pc.fill_null(pc.cast(times, pa.int64()), 0).to_numpy(zero_copy_only=False))
        return [text if ok else None for text, ok in zip(known, array.is_valid().to_pylist(), strict=True)]
    if pa.types.is_struct(array.type):
        return [row if ok else None for row, ok in zip(dicts_of(array), array.is_valid().to_pylist(), strict=True)]
    return list(array.to_pylist())


def _field(name: str, values: Values, kind: pa.DataType) -> pa.Field:
    if isinstance(values, list) and pa.types.is_struct(kind):
        kind = pa.struct([field.with_metadata({ABSENT: NULL}) for field in kind])
    return pa.field(name, kind, metadata={ABSENT: FALSE} if isinstance(values, Flag) else None)


def stream_of(batch: pa.RecordBatch) -> bytes:
    """An Arrow IPC stream of one batch: the value of one message."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _array(values: Values, length: int, name: str) -> pa.Array:
    if isinstance(values, Table):
        inner = arrow_rows(values)
        return inner.to_struct_array()
    if isinstance(values, Constant):
        return pa.nulls(length) if values.value is None else pa.repeat(pa.scalar(values.value), length)
    if isinstance(values, Times):
        return pa.array(values.values, type=TIME, mask=None if values.valid is None else ~values.valid)
    if isinstance(values, Flag):
        return pa.array(values.values)
    if isinstance(values, Hex | Numbered):
        data, ends = texts(values)
        offsets = np.concatenate([[0], ends]).astype(np.int32)
        return pa.StringArray.from_buffers(length, pa.py_buffer(offsets), pa.py_buffer(data))
    if isinstance(values, list):
        return _list(values, name)
    return pa.array(values, mask=~np.isfinite(values) if values.dtype.kind == "f" else None)


def _list(values: list[Any], name: str) -> pa.Array:
    try:
        return pa.array(values)
    except pa.ArrowException as error:
        raise ArrowError(f"field {name!r} has values without a common type in Arrow: {error}") from None
