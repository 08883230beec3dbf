"""Messages of the strategies as readings: decoded from dicts, from JSON bytes or from Arrow, cut anywhere.

``run`` drives the shards of a definition and gives what left each of them, by kind.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from tests.strategies import Case, Message
from thalweg.connectors.arrow import columns_of
from thalweg.connectors.codecs import Form, decode
from thalweg.engine.batch import Batch, Log, Raw, Reject, Row
from thalweg.engine.definition import Definition
from thalweg.engine.reading import Reading
from thalweg.engine.shard import Shard

Rows = dict[str, list[Row]]
Decode = Callable[[Log, Sequence[Message], Definition], Batch]


def from_dicts(log: Log, messages: Sequence[Message], definition: Definition) -> Batch:
    """As rows in memory, with offsets and append times of their own."""
    columns, kept, refused = definition.schema_of(log.topic).decode([m.row for m in messages])
    return _batch(log, messages, columns, kept, refused)


def from_arrow(log: Log, messages: Sequence[Message], definition: Definition) -> Batch:
    """As a table of one row group."""
    schema = definition.schema_of(log.topic)
    types = {"str": pa.string(), "f64": pa.float64(), "i64": pa.int64(), "bool": pa.bool_()}
    declared = [(f.name, types.get(f.type, pa.timestamp("us", tz="UTC"))) for f in schema.fields]
    table = pa.Table.from_pylist([m.row for m in messages], schema=pa.schema(declared))
    columns, kept, refused = columns_of(table, schema)
    return _batch(log, messages, columns, kept, refused)


def from_json(log: Log, messages: Sequence[Message], definition: Definition) -> Batch:
    """As bytes of a broker, through the codec."""
    return decode(raw(log, messages), Form.of(definition, log.topic))


def raw(log: Log, messages: Sequence[Message]) -> Raw:
    """The messages as a source hands them over."""
    offsets = np.array([m.offset for m in messages], dtype=np.int64)
    append = np.array([m.append for m in messages], dtype=np.int64)
    keys: list[bytes | None] = [_key(m) for m in messages]
    return Raw(log, offsets, append, append, keys, [orjson.dumps(m.row) for m in messages])


def _key(message: Message) -> bytes | None:
    key = message.row.get("k")
    return None if key is None else str(key).encode()


def _batch(log: Log, messages: Sequence[Message], columns: Any, kept: Any, refused: Any) -> Batch:
    """With the bytes that a broker would have had, so that every output can be compared."""
    whole = raw(log, messages)
    rejects = [
        Reject(log, messages[at].offset, reason, detail, whole.keys[at], whole.values[at])
        for at, reason, detail in refused
    ]
    keys, values = ([part[i] for i in kept.tolist()] for part in (whole.keys, whole.values))
    return Batch(log, whole.offsets[kept], whole.append[kept], columns, keys, values, None, rejects)


def reading(
    messages: Sequence[Message], definition: Definition, decode_as: Decode = from_dicts, cuts: Iterable[int] = ()
) -> Reading:
    """The messages in their order; ``cuts``: where a new batch of every log begins."""
    bounds = sorted({0, len(messages), *(c for c in cuts if 0 < c < len(messages))})
    batches: list[Batch] = []
    which = np.empty(len(messages), dtype=np.int64)
    rows = np.empty(len(messages), dtype=np.int64)
    for low, high in itertools.pairwise(bounds):
        positions: dict[Log, list[int]] = defaultdict(list)
        for i in range(low, high):
            positions[messages[i].log].append(i)
        for log, at in positions.items():
            batch = decode_as(log, [messages[i] for i in at], definition)
            codes = {int(o): k for k, o in enumerate(batch.offsets.tolist())}
            codes |= {reject.offset: -1 - k for k, reject in enumerate(batch.rejects)}
            which[at] = len(batches)
            rows[at] = [codes[messages[i].offset] for i in at]
            batches.append(batch)
    return Reading(batches, which, rows)


def part(whole: Reading, low: int, high: int) -> Reading:
    """Messages ``low`` to ``high`` of a reading."""
    return Reading(whole.batches, whole.which[low:high], whole.rows[low:high])


def by_kind(rows: Iterable[Row]) -> Rows:
    """What left, in order, per output topic."""
    result: Rows = {"predictions": [], "alarms": [], "metrics": [], "dlq": []}
    for row in rows:
        result[row.kind].append(row)
    return result


def push(shard: Shard, pieces: Iterable[Reading]) -> Rows:
    """Everything that ``pieces`` make leave."""
    return by_kind(row for piece in pieces for row in shard.push(piece))


def run(case: Case, decode_as: Decode = from_dicts, cuts: Iterable[int] = (), batches: Iterable[int] = ()) -> list[Any]:
    """Per shard: the rows by kind, and the counters. ``cuts`` divide the reading, ``batches`` the logs."""
    result = []
    cuts, batches = list(cuts), list(batches)
    for messages in case.shards:
        shard = Shard(case.definition)
        whole = reading(messages, case.definition, decode_as, batches)
        bounds = sorted({0, len(messages), *(c for c in cuts if 0 < c < len(messages))})
        pieces = [part(whole, low, high) for low, high in itertools.pairwise(bounds)]
        result.append((push(shard, pieces), shard.counters()))
    return result


def caused_by(row: Row) -> tuple[str, int, int]:
    """Topic, partition and offset of the message that made ``row`` leave."""
    if row.kind == "dlq":
        headers = dict(row.headers)
        return headers["thalweg.topic"].decode(), int(headers["thalweg.partition"]), int(headers["thalweg.offset"])
    assert row.value is not None and not isinstance(row.value, bytes)
    _, topic, partition, offset, *_ = row.value["id"].split("/")
    return topic, int(partition), int(offset)
