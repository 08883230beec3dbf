"""In which order a shard reads several logs that have no journal (rule 11 of the contract)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thalweg.engine.batch import NO_TIME, Batch
from thalweg.engine.kernels.arrays import Int64
from thalweg.engine.reading import Reading, in_offset_order


def merged(batches: Sequence[Batch], times: Sequence[Int64]) -> Reading:
    """Several logs merged by each log's prefix maximum of ``times``, then log name, then offset.

    No log is reordered; ``times[i]`` is int64[n] of the rows of ``batches[i]``. A reject stands right
    behind the row before it.
    """
    order = sorted(range(len(batches)), key=lambda i: batches[i].log)
    rows = [in_offset_order(batches[i]) for i in order]
    keys = [_prefix_maximum(times[i], part) for i, part in zip(order, rows, strict=True)]
    which = [np.full(len(part), i) for i, part in zip(order, rows, strict=True)]
    sequence = np.argsort(np.concatenate(keys), kind="stable")
    return Reading(batches, np.concatenate(which)[sequence], np.concatenate(rows)[sequence])


def _prefix_maximum(times: Int64, rows: Int64) -> Int64:
    of_messages = np.full(len(rows), NO_TIME, dtype=np.int64)
    of_messages[rows >= 0] = times[rows[rows >= 0]]
    return np.maximum.accumulate(of_messages) if len(of_messages) else of_messages
