"""The nouns that everything else uses: logs, raw messages, decoded batches, rejects, output rows.

Time is int64 microseconds since 1970 in UTC, everywhere. ``NO_TIME`` stands for "no time".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from thalweg.engine.kernels.arrays import Bool, Int64

Headers = list[tuple[str, bytes]]

NO_TIME: int = int(np.iinfo(np.int64).min)


class Log(NamedTuple):
    """One partition of one topic: the unit that has an order."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Column:
    """One field of many rows.

    ``values`` is float64, int64, bool or object (``str``); ``valid`` is False where the row is null.
    A null float is NaN in ``values``, a null of another type has an unspecified value there.
    """

    values: npt.NDArray[Any]
    valid: Bool

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: npt.NDArray[Any]) -> Column:
        """The given rows (an index array or a mask), in that order."""
        return Column(self.values[rows], self.valid[rows])

    def part(self, rows: npt.NDArray[Any]) -> Column:
        """The given rows (rising indices or a mask); no copy where that is all of them."""
        whole = rows.all() if rows.dtype == np.bool_ else len(rows) == len(self)
        return self if whole else self.take(rows)

    def tolist(self) -> list[Any]:
        """Python objects, ``None`` where null.

        >>> Column(np.array([1.0, np.nan]), np.array([True, False])).tolist()
        [1.0, None]
        """
        values = self.values.tolist()
        if self.valid.all():
            return values  # type: ignore[no-any-return]
        return [v if ok else None for v, ok in zip(values, self.valid.tolist(), strict=True)]


@dataclass(frozen=True, slots=True)
class Raw:
    """Undecoded messages of one log in offset order: what a source hands to a shard.

    ``times`` are the records' own timestamps; ``append`` is the time that the future bound compares
    with (rule 3 of the contract): the broker's where the topic has it, else the time of first
    reading. Both are microseconds, ``NO_TIME`` where unknown.
    """

    log: Log
    offsets: Int64
    times: Int64
    append: Int64
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers | None] | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def joined(cls, raws: Sequence[Raw]) -> Raw:
        """At least one raw of one log, one after the other, as one."""
        if len(raws) == 1:
            return raws[0]
        headers = None
        if any(raw.headers is not None for raw in raws):
            headers = [one for raw in raws for one in (raw.headers or [None] * len(raw))]
        return cls(
            raws[0].log,
            np.concatenate([raw.offsets for raw in raws]),
            np.concatenate([raw.times for raw in raws]),
            np.concatenate([raw.append for raw in raws]),
            [key for raw in raws for key in raw.keys],
            [value for raw in raws for value in raw.values],
            headers,
        )


@dataclass(frozen=True, slots=True)
class Reject:
    """A message that does not parse or does not fit its schema, with the reason and its bytes; ``row`` within it,
    where a message holds several rows and the others may fit."""

    log: Log
    offset: int
    reason: str
    detail: str
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers | None = None
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Decoded rows of one log in offset order; messages that were refused are only in ``rejects``.

    ``indices`` int64[n] tells the rows of one message apart, where a message holds several.
    """

    log: Log
    offsets: Int64
    append: Int64
    columns: dict[str, Column]
    keys: Sequence[bytes | None] | None = None
    values: Sequence[bytes | None] | None = None
    headers: Sequence[Headers | None] | None = None
    rejects: list[Reject] = field(default_factory=list)
    indices: Int64 | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def refuse(self, row: int, reason: str, detail: str) -> Reject:
        """A decoded row that is turned away after all."""
        return Reject(
            self.log,
            int(self.offsets[row]),
            reason,
            detail,
            None if self.keys is None else self.keys[row],
            None if self.values is None else self.values[row],
            None if self.headers is None else self.headers[row],
            None if self.indices is None else int(self.indices[row]),
        )

    def take(self, rows: Int64, rejects: list[Reject]) -> Batch:
        """The rows at these positions, with these rejects."""
        at = rows.tolist()
        return Batch(
            self.log,
            self.offsets[rows],
            self.append[rows],
            {name: column.take(rows) for name, column in self.columns.items()},
            None if self.keys is None else [self.keys[i] for i in at],
            None if self.values is None else [self.values[i] for i in at],
            None if self.headers is None else [self.headers[i] for i in at],
            rejects,
            None if self.indices is None else self.indices[rows],
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One row that leaves a shard: ``kind`` names the topic, key and partition are the source's."""

    kind: str
    partition: int
    key: bytes | None
    value: Mapping[str, Any] | bytes | None
    headers: Headers = field(default_factory=list)
