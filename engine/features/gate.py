"""The gate: what becomes of each row of a stream, decided in log order before any state sees it.

Rules 2, 3 and 5 of the contract: the watermark is the maximum event time of the accepted rows before,
less the disorder; each row is quarantined, late, duplicate, folded or scored (rejected rows never get here).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from thalweg.engine.batch import NO_TIME, Column
from thalweg.engine.features.evaluate import Evaluator, fields
from thalweg.engine.features.stream import StreamSpec
from thalweg.engine.kernels.arrays import Bool, Int8, Int64
from thalweg.engine.kernels.gate import DUPLICATE, FOLDED, LATE, QUARANTINED, SCORED, Arrivals, Rules, gate
from thalweg.engine.slots import NONE, Slots
from thalweg.engine.snapshot import pack_json, unpack_json

__all__ = ["DUPLICATE", "FOLDED", "LATE", "OUTCOMES", "QUARANTINED", "SCORED", "Gate", "Passed"]

OUTCOMES = ("quarantined", "late", "duplicate", "folded", "scored")
_FEW_IDS = 1024


class Passed(NamedTuple):
    """``outcomes`` int8[n], ``watermarks`` int64[n] that each row met, ``asks`` bool[n] for a prediction."""

    outcomes: Int8
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
        self._rules = Rules(stream.disorder_us, stream.future_us, stream.dedupe_us)
        self._newest = NO_TIME
        self._ids = Slots()
        self._until = np.empty(0, dtype=np.int64)
        self._sweep_at = _FEW_IDS

    @property
    def watermark(self) -> int:
        """Microseconds; ``NO_TIME`` before the first accepted row."""
        return NO_TIME if self._newest == NO_TIME else self._newest - self._stream.disorder_us

    def pass_(self, columns: Mapping[str, Column], append: Int64) -> Passed:
        """Decides n rows one after the other; ``append`` int64[n] are their append times, or ``NO_TIME``."""
        n = len(append)
        known = fields(columns)
        rows = Arrivals(columns[self._stream.time].values, append, self._asks(known, n), self._place(known, n))
        passed = Passed(np.empty(n, dtype=np.int8), np.empty(n, dtype=np.int64), rows.asks)
        self._newest = gate(self._newest, rows, self._rules, self._until, passed.outcomes, passed.watermarks)
        return passed

    def _asks(self, known: dict[str, Any], n: int) -> Bool:
        if self._stream.score is None:
            return np.ones(n, dtype=np.bool_)
        score = self._evaluate(self._stream.score, known, n)
        return score.values & score.valid

    def _place(self, known: dict[str, Any], n: int) -> Int64:
        """The slot of every row's id; ids that no row can repeat any more are forgotten when there are many."""
        if self._stream.dedupe is None:
            return np.full(n, NONE, dtype=np.int64)
        if self._ids.taken > self._sweep_at:
            past = self._until[: len(self._ids)] <= self.watermark
            self._until[: len(past)][past] = NO_TIME
            self._ids.release(np.flatnonzero(past))
            self._sweep_at = max(_FEW_IDS, 2 * self._ids.taken)
        ids = self._ids.place(self._evaluate(self._stream.dedupe, known, n).tolist())
        new = len(self._ids) - len(self._until)
        if new > 0:
            grown = np.full(max(new, len(self._until)), NO_TIME, dtype=np.int64)
            self._until = np.concatenate([self._until, grown])
        return ids

    def state(self) -> dict[str, Any]:
        """Arrays by name; :meth:`restore` takes them back."""
        newest = None if self._newest == NO_TIME else self._newest
        return {
            "newest": pack_json([newest, self._sweep_at]),
            "ids": pack_json(self._ids.to_json()),
            "until": self._until,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        newest, self._sweep_at = unpack_json(bytes(state["newest"]))
        self._newest = NO_TIME if newest is None else newest
        self._ids.from_json(unpack_json(bytes(state["ids"])))
        self._until = np.array(state["until"])
