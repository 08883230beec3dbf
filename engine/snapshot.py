"""State as bytes: arrays and byte strings by name, with magic, version, length and checksum. Never pickle.

Layout, all integers little-endian::

    magic 6 | version u16 | body length u64 | XXH64 u64 of (version, length, body) | body
    body = header length u32 | header (JSON: name, dtype, shape, size of every item) | the items' raw bytes,
    in order

A snapshot that is not ours, was cut, has bytes behind it, or differs in one byte raises
:class:`SnapshotError`.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from thalweg.engine.errors import SnapshotError

Item = NDArray[Any] | bytes

MAGIC = b"THALWG"
VERSION = 1
_PREFIX = struct.Struct("<6sHQQ")
_SIZES = struct.Struct("<HQ")
_HEADER_LENGTH = struct.Struct("<I")
_KINDS = "biufcmMSU"


def pack(state: Mapping[str, Item]) -> bytes:
    """The bytes of ``state``; :func:`unpack` gives it back, with dtypes, shapes and the order of names.

    Arrays are stored in C order, little-endian. An object or structured dtype raises SnapshotError: its bytes
    are pointers.

    >>> unpack(pack({"counts": np.array([1, 2]), "note": b"x"}))
    {'counts': array([1, 2]), 'note': b'x'}
    """
    items = [(name, *_raw(name, item)) for name, item in state.items()]
    header = orjson.dumps([[name, dtype, shape, len(raw)] for name, dtype, shape, raw in items])
    body = b"".join([_HEADER_LENGTH.pack(len(header)), header, *(raw for *_, raw in items)])
    return _PREFIX.pack(MAGIC, VERSION, len(body), _checksum(VERSION, body)) + body


def unpack(data: bytes) -> dict[str, Item]:
    """What :func:`pack` was given. Arrays are fresh and writable. Raises SnapshotError for anything but
    whole, unchanged bytes.
    """
    return dict(_items(_checked_body(data)))


def below(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The part of a state whose names begin with ``prefix``, without it.

    >>> below({"gate:newest": b"1", "panel:closed": b"2"}, "gate:")
    {'newest': b'1'}
    """
    return {name[len(prefix) :]: item for name, item in state.items() if name.startswith(prefix)}


def pack_json(value: Any) -> bytes:
    """``value`` (None, bool, int of 64 bits, finite float, str, list, tuple, dict with str keys) as JSON
    bytes.

    Floats come back with the same bits. NaN and infinities raise SnapshotError (JSON would turn them into
    null).
    """
    _refuse_non_finite(value)
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise SnapshotError(
            f"state that JSON cannot hold: {error}; convert it to lists, str-keyed dicts, numbers and text"
        ) from error


def unpack_json(data: bytes) -> Any:
    """What :func:`pack_json` was given, with lists for tuples. Raises SnapshotError when it is not JSON."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise SnapshotError(f"state is not the JSON that was written: {error}") from error


def _raw(name: str, item: Item) -> tuple[str | None, list[int], bytes]:
    if isinstance(item, bytes):
        return None, [], item
    if item.dtype.kind not in _KINDS:
        raise SnapshotError(
            f"snapshot item {name!r} has dtype {item.dtype}; numbers, bools, times and fixed-width text can be stored"
        )
    dtype = item.dtype.newbyteorder("<")
    return dtype.str, list(item.shape), item.astype(dtype, copy=False).tobytes(order="C")


def _checksum(version: int, body: bytes | memoryview) -> int:
    digest = xxhash.xxh64(_SIZES.pack(version, len(body)))
    digest.update(body)
    return digest.intdigest()


def _checked_body(data: bytes) -> memoryview:
    if len(data) < _PREFIX.size:
        raise SnapshotError(f"snapshot of {len(data)} bytes; at least {_PREFIX.size} expected, it was cut")
    magic, version, length, checksum = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise SnapshotError(f"not a snapshot: it starts with {magic!r}, {MAGIC!r} expected")
    if version != VERSION:
        raise SnapshotError(
            f"snapshot of format {version}; this version of Thalweg reads format {VERSION}: "
            "rebuild the state from the log"
        )
    body = memoryview(data)[_PREFIX.size :]
    if len(body) != length:
        raise SnapshotError(
            f"snapshot body of {len(body)} bytes, {length} expected: it was cut or something was written behind it"
        )
    if _checksum(version, body) != checksum:
        raise SnapshotError(
            "snapshot is damaged (checksum differs); use an older one or rebuild the state from the log"
        )
    return body


def _items(body: memoryview) -> Iterator[tuple[str, Item]]:
    try:
        (length,) = _HEADER_LENGTH.unpack_from(body)
        start = _HEADER_LENGTH.size + length
        for name, dtype, shape, size in orjson.loads(body[_HEADER_LENGTH.size : start]):
            raw, start = body[start : start + size], start + size
            yield name, bytes(raw) if dtype is None else np.frombuffer(raw, dtype=dtype).reshape(shape).copy()
    except (struct.error, ValueError, TypeError) as error:
        raise SnapshotError(f"snapshot with a header that does not describe its body: {error}") from error
    if start != len(body):
        raise SnapshotError(f"snapshot body of {len(body)} bytes, its items end at {start}")


def _refuse_non_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise SnapshotError(f"state holds {value}, which JSON cannot; store it in an array or as None")
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for item in value:
        _refuse_non_finite(item)
