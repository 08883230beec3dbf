"""Rows of the stream on their way through the chain, and where a row stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from thalweg.engine.batch import Batch, Bool, Column, Int64, Log


class Place(NamedTuple):
    """The row that causes something to leave: its log, offset and record key; ``row`` within its message,
    where a message holds several rows."""

    log: Log
    offset: int
    key: bytes | None
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Events:
    """n rows of one batch that reach the features: the accepted ones, and late ones that want an answer.

    ``rows`` int64[n] are their positions in the batch, ``times`` int64[n] the times as of which they are
    answered (a late row: the watermark), ``ids`` int64[n] rise with every accepted row of the shard;
    ``accepted``, ``scored`` (asks for a prediction) and ``labels`` (is a label itself) are bool[n].
    """

    batch: Batch
    rows: Int64
    columns: dict[str, Column]
    times: Int64
    watermarks: Int64
    ids: Int64
    accepted: Bool
    scored: Bool
    labels: Bool

    def __len__(self) -> int:
        return len(self.rows)

    def slice(self, start: int, stop: int) -> Events:
        """Rows ``start`` to ``stop``."""
        if start == 0 and stop == len(self):
            return self
        cut = slice(start, stop)
        return Events(
            self.batch,
            self.rows[cut],
            {name: Column(c.values[cut], c.valid[cut]) for name, c in self.columns.items()},
            self.times[cut],
            self.watermarks[cut],
            self.ids[cut],
            self.accepted[cut],
            self.scored[cut],
            self.labels[cut],
        )


def places_of(batch: Batch, rows: Int64) -> list[Place]:
    """Where the given rows of a batch stand."""
    offsets = batch.offsets[rows].tolist()
    indices = [None] * len(rows) if batch.indices is None else batch.indices[rows].tolist()
    keys = batch.keys or [None] * len(batch)
    return [
        Place(batch.log, offset, keys[row], index)
        for row, offset, index in zip(rows.tolist(), offsets, indices, strict=True)
    ]
