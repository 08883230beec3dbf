"""The chain in this process: raw messages in, predictions out. The one place here that knows its interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from thalweg.connectors.codecs import encode
from thalweg.connectors.kafka_sink import Writer
from thalweg.connectors.merged import Merged
from thalweg.dataflows.pipeline import Pipeline
from thalweg.dataflows.serve import LiveChain
from thalweg.engine.batch import Log, Raw
from thalweg.engine.records import Left


class Chain:
    """One shard of a pipeline, as `thalweg run` opens it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._chain = LiveChain(pipeline)

    def push(self, *raws: Raw) -> Left:
        """What these messages, in this order, make leave; :func:`send` takes it."""
        return self._chain.push(Merged.of(raws))

    def counters(self) -> dict[str, int]:
        """Counts since the first row."""
        return dict(self._chain.counters())

    def snapshot(self) -> bytes:
        """All state."""
        return self._chain.snapshot()


def send(writer: Writer, topic: str, left: Left) -> None:
    """Queues the predictions among what left a chain."""
    for block in left.predictions:
        writer.send_block(topic, 0, *encode(block, "json"))


def raw_of(topic: str, keys: Sequence[bytes | None], values: Sequence[bytes | None], times_us: Any) -> Raw:
    """Messages as one run of a log."""
    times = np.asarray(times_us, dtype=np.int64)
    return Raw(Log(topic, 0), np.arange(len(times)), times, times, list(keys), list(values))


def cut(raw: Raw, start: int, stop: int) -> Raw:
    """Messages ``start`` to ``stop``, without headers."""
    part = slice(start, stop)
    return Raw(raw.log, raw.offsets[part], raw.times[part], raw.append[part], raw.keys[part], raw.values[part])
