"""The gate: what becomes of each row of a stream, decided in log order before any state sees it.

Rules 2, 3 and 5 of the contract: the watermark is the maximum event time of the accepted rows before,
less the disorder; each row is quarantined, late, duplicate, folded or scored (rejected rows never get here).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from thalweg.engine.batch import NO_TIME, Column
from thalweg.engine.features.evaluate import Evaluator, fields
from thalweg.engine.features.stream import StreamSpec
from thalweg.engine.kernels.arrays import Bool, Int64
from thalweg.engine.snapshot import pack_json, unpack_json

QUARANTINED, LATE, DUPLICATE, FOLDED, SCORED = range(5)
OUTCOMES = ("quarantined", "late", "duplicate", "folded", "scored")


class Passed(NamedTuple):
    """``outcomes`` int8[n], ``watermarks`` int64[n] that each row met, ``asks`` bool[n] for a prediction."""

    outcomes: npt.NDArray[np.int8]
    watermarks: Int64
    asks: Bool

    @property
    def accepted(self) -> Bool:
        return self.outcomes >= FOLDED


class Gate:
    """Watermark and remembered ids of one shard."""

    def __init__(self, stream: StreamSpec) -> None:
        self._stream = stream
        self._evaluate = Evaluator(stream.schema)
        self._newest: int | None = None
        self._seen: dict[Any, int] = {}
        self._forget: list[tuple[int, Any]] = []

    @property
    def watermark(self) -> int:
        """Microseconds; ``NO_TIME`` before the first accepted row."""
        return NO_TIME if self._newest is None else self._newest - self._stream.disorder_us

    def pass_(self, columns: Mapping[str, Column], append: Int64) -> Passed:
        """Decides n rows one after the other; ``append`` int64[n] are their append times, or ``NO_TIME``."""
        n = len(append)
        known = fields(columns)
        times = columns[self._stream.time].values.tolist()
        asks = self._asks(known, n)
        ids = self._ids(known, n)
        outcomes = np.empty(n, dtype=np.int8)
        watermarks = np.empty(n, dtype=np.int64)
        for i, (time, appended) in enumerate(zip(times, append.tolist(), strict=True)):
            watermark = watermarks[i] = self.watermark
            outcome = self._decide(time, appended, watermark, ids[i])
            outcomes[i] = outcome if outcome < FOLDED or not asks[i] else SCORED
        return Passed(outcomes, watermarks, np.array(asks, dtype=np.bool_))

    def _decide(self, time: int, append: int, watermark: int, row_id: Any) -> int:
        if append != NO_TIME and time > append + self._stream.future_us:
            return QUARANTINED
        if time < watermark:
            return LATE
        if row_id is not None and self._repeats(time, watermark, row_id):
            return DUPLICATE
        if self._newest is None or time > self._newest:
            self._newest = time
        return FOLDED

    def _repeats(self, time: int, watermark: int, row_id: Any) -> bool:
        """Whether the id was accepted less than the horizon ago; if not, it is remembered."""
        horizon = self._stream.dedupe_us
        while self._forget and self._forget[0][0] <= watermark:
            until, forgotten = heapq.heappop(self._forget)
            if self._seen.get(forgotten) == until:
                del self._seen[forgotten]
        if time < self._seen.get(row_id, NO_TIME):
            return True
        self._seen[row_id] = time + horizon
        heapq.heappush(self._forget, (time + horizon, row_id))
        return False

    def _asks(self, known: dict[str, Any], n: int) -> Sequence[bool]:
        if self._stream.score is None:
            return [True] * n
        score = self._evaluate(self._stream.score, known, n)
        return (score.values & score.valid).tolist()  # type: ignore[no-any-return]

    def _ids(self, known: dict[str, Any], n: int) -> Sequence[Any]:
        return [None] * n if self._stream.dedupe is None else self._evaluate(self._stream.dedupe, known, n).tolist()

    def state(self) -> dict[str, bytes]:
        """Arrays by name; :meth:`restore` takes them back."""
        return {"newest": pack_json(self._newest), "seen": pack_json(list(self._seen.items()))}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._newest = unpack_json(bytes(state["newest"]))
        self._seen = dict(unpack_json(bytes(state["seen"])))
        self._forget = sorted((until, row_id) for row_id, until in self._seen.items())
