"""What does the format on the wire cost? JSON against Arrow IPC: bytes, decoding and encoding, per event.

The same payments as one JSON object a message, with the time as text too, and as Arrow messages of many rows. Decoding
is that of the source, checks included, to columns; encoding is what a producer of the format does. In CPU time.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from benchmarks import events, payments
from benchmarks.harness import digits, in_turns
from thalweg.connectors.codecs import Form, decode
from thalweg.engine.batch import Log, Raw
from thalweg.engine.schema import Schema

EVENTS, EVENTS_FULL = 40_000, 200_000
ROWS = 4096  # a JSON batch, and one Arrow message
SMALL_ROWS = 64  # an Arrow message of a producer that cannot wait
RUNS, RUNS_FULL = 3, 9


def run(quick: bool) -> dict[str, Any]:
    """Per format: bytes an event, microseconds and events per second of decoding and encoding."""
    rows = [orjson.loads(value) for value in _payments(EVENTS if quick else EVENTS_FULL).values()]
    texts = [row | {"at": _text(row["at"])} for row in rows]
    table = pa.Table.from_pylist(rows)
    formats: dict[str, tuple[str, Callable[[], list[bytes]]]] = {
        "json": ("json", lambda: list(map(orjson.dumps, rows))),
        "json_text_time": ("json", lambda: list(map(orjson.dumps, texts))),
        f"arrow_{SMALL_ROWS}": ("arrow", lambda: arrow(table, SMALL_ROWS)),
        "arrow": ("arrow", lambda: arrow(table, ROWS)),
    }
    schema = payments.Payment.spec().schema
    raws = {name: raws_of(encode(), len(rows)) for name, (_, encode) in formats.items()}
    expected = columns(raws["json"], Form(schema))
    for name, (codec, _) in formats.items():
        assert columns(raws[name], Form(schema, codec)) == expected, f"{name} does not decode to the same columns"
    decoding = {name: _decoder(raws[name], schema, codec) for name, (codec, _) in formats.items()}
    runs = RUNS if quick else RUNS_FULL
    decoded = in_turns(decoding, len(rows), runs=runs, clock=time.process_time)
    encoded = in_turns(
        {name: encode for name, (_, encode) in formats.items()}, len(rows), runs=runs, clock=time.process_time
    )
    result: dict[str, Any] = {"events_timed": len(rows) * runs, "rows_per_message": {"arrow": ROWS}}
    for name in formats:
        size = sum(len(value or b"") for raw in raws[name] for value in raw.values)
        result[name] = {
            "bytes_per_event": digits(size / len(rows)),
            "decode_us": digits(decoded[name].us),
            "decode_events_per_second": digits(decoded[name].events_per_second),
            "decode_spread": digits(decoded[name].spread, 2),
            "encode_us": digits(encoded[name].us),
            "encode_events_per_second": digits(encoded[name].events_per_second),
            "encode_spread": digits(encoded[name].spread, 2),
        }
    json, arrow_ = result["json"], result["arrow"]
    result["ratio_decode"] = digits(json["decode_us"] / arrow_["decode_us"])
    result["ratio_encode"] = digits(json["encode_us"] / arrow_["encode_us"])
    result["ratio_bytes"] = digits(json["bytes_per_event"] / arrow_["bytes_per_event"])
    return result


def arrow(table: pa.Table, rows: int) -> list[bytes]:
    """The table as IPC streams of so many rows."""
    messages = []
    for batch in table.to_batches(max_chunksize=rows):
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        messages.append(sink.getvalue())
    return messages


def raws_of(values: Sequence[bytes], count: int) -> list[Raw]:
    """Messages as the source hands them on: about as many rows at once in every format."""
    each = max(ROWS * len(values) // count, 1)
    return [_raw(values[at : at + each], at) for at in range(0, len(values), each)]


def columns(raws: Sequence[Raw], form: Form) -> dict[str, list[Any]]:
    """All rows by field."""
    batches = [decode(raw, form) for raw in raws]
    assert not any(batch.rejects for batch in batches)
    names = [field.name for field in form.schema.fields]
    return {name: [value for batch in batches for value in batch.columns[name].tolist()] for name in names}


def _payments(count: int) -> events.Payments:
    return events.payments(count, end_us=time.time_ns() // 1000)


def _decoder(raws: Sequence[Raw], schema: Schema, codec: str) -> Callable[[], None]:
    form = Form(schema, codec)

    def decoder() -> None:
        for raw in raws:
            decode(raw, form)

    return decoder


def _raw(values: Sequence[bytes], first: int) -> Raw:
    offsets = np.arange(first, first + len(values))
    return Raw(Log(payments.TOPIC, 0), offsets, offsets, offsets, [None] * len(values), list(values))


def _text(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
