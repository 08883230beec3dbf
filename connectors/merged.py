"""Undecoded messages of several logs, in the order in which a shard reads them.

Where a label follows each event, the order changes its log with every message. So the messages stand log by log,
and the order beside them: runs cost nothing each, but for who asks for them one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from thalweg.engine.batch import Log, Raw
from thalweg.engine.kernels.arrays import Int64


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """``parts`` are the messages, one raw a log; ``which`` int64[r] and ``counts`` int64[r] the order: runs, each of
    them the next so many messages of a part. Iterating gives the runs as raws, its length is that of all of them.

    >>> none = np.empty(0, dtype=np.int64)
    >>> raw = Raw(Log("a", 0), np.array([3, 4]), none, none, [None] * 2, [b"x", b"y"])
    >>> merged = Merged([raw], np.array([0, 0]), np.array([1, 1]))
    >>> len(merged), [run.values for run in merged]
    (2, [[b'x'], [b'y']])
    """

    parts: Sequence[Raw]
    which: Int64
    counts: Int64

    @classmethod
    def of(cls, raws: Iterable[Raw]) -> Merged:
        """Raws in reading order; each log is joined once."""
        if isinstance(raws, Merged):
            return raws
        by_log: dict[Log, list[Raw]] = {}
        runs: list[tuple[Log, int]] = []
        for raw in raws:
            by_log.setdefault(raw.log, []).append(raw)
            runs.append((raw.log, len(raw)))
        return cls.of_runs([Raw.joined(own) for own in by_log.values()], runs)

    @classmethod
    def of_runs(cls, parts: Sequence[Raw], runs: Sequence[tuple[Log, int]]) -> Merged:
        """Runs as (log, how many messages)."""
        number = {part.log: i for i, part in enumerate(parts)}
        which = np.array([number[log] for log, _ in runs], dtype=np.int64)
        return cls(parts, which, np.array([count for _, count in runs], dtype=np.int64))

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Raw]:
        stops = self.stops()
        for i, start, stop in zip(self.which.tolist(), (stops - self.counts).tolist(), stops.tolist(), strict=True):
            yield cut(self.parts[i], start, stop)

    def stops(self) -> Int64:
        """int64[r]: where each run ends in its part."""
        stops = np.empty(len(self.counts), dtype=np.int64)
        for i in range(len(self.parts)):
            own = self.which == i
            stops[own] = np.cumsum(self.counts[own])
        return stops


def cut(raw: Raw, start: int, stop: int) -> Raw:
    """Rows ``start`` to ``stop``."""
    if start == 0 and stop == len(raw):
        return raw
    part = slice(start, stop)
    headers = None if raw.headers is None else raw.headers[part]
    return Raw(raw.log, raw.offsets[part], raw.times[part], raw.append[part], raw.keys[part], raw.values[part], headers)
