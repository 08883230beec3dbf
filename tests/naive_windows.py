"""Windows by their meaning (rule 4 of the contract): what a row sees, folded in (time, log order).

Part of the naive twin, see ``tests/naive.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from tests.naive_expressions import number, value_of
from thalweg.engine.features.expressions import Agg


@dataclass
class Seen:
    """A row, or a label, in the windows of one aggregate."""

    key: Any
    time: int
    order: int
    x: float | None


@dataclass
class Windows:
    """One aggregate: every row that ever entered it, except those of keys that capacity threw out."""

    node: Agg
    seen: list[Seen] = field(default_factory=list)
    touched: list[Any] = field(default_factory=list)  # held keys, the one touched longest ago first
    evicted: int = 0

    def touch(self, key: Any, enters: bool) -> None:
        """Rule 4: the key touched longest ago in log order goes when a new one finds the shard full."""
        if key in self.touched:
            self.touched.remove(key)
            self.touched.append(key)
        elif enters:
            if len(self.touched) == self.node.capacity:
                gone = self.touched.pop(0)
                self.seen = [one for one in self.seen if one.key != gone]
                self.evicted += 1
            self.touched.append(key)

    def enter(self, key: Any, time: int, order: int, x: float | None) -> None:
        """A row enters; nothing for a null key."""
        if key is not None:
            self.touch(key, True)
            self.seen.append(Seen(key, time, order, x))

    def leave(self, key: Any, order: int) -> None:
        """A corrected label leaves."""
        if key is not None:
            self.touch(key, False)
            self.seen = [one for one in self.seen if one.key != key or one.order != order]

    def read(self, key: Any, now: int, own: int | None) -> float | None:
        """The value as of ``now`` for a row whose own order is ``own``."""
        node, window = self.node, self.node.window
        visible = sorted((s for s in self.seen if s.key == key and s.time <= now), key=lambda s: (s.time, s.order))
        if key is None:
            visible = []
        if not node.include_current and node.fed_by is None:
            visible = [s for s in visible if s.order != own]
        if window.kind == "sliding":
            visible = [s for s in visible if s.time > now - window.length]
        elif window.kind == "rows":
            visible = visible[-window.length :]
        else:
            visible = _since_idle(visible, now, window.ttl_us)
        return _aggregate(node, visible, now)


def _since_idle(visible: list[Seen], now: int, ttl: int) -> list[Seen]:
    """What is left of a lifetime that starts anew after ``ttl`` without a row."""
    if not visible or now - visible[-1].time >= ttl:
        return []
    for i in range(len(visible) - 1, 0, -1):
        if visible[i].time - visible[i - 1].time >= ttl:
            return visible[i:]
    return visible


def _aggregate(node: Agg, visible: list[Seen], now: int) -> float | None:
    xs = [s.x for s in visible if s.x is not None]
    if node.op == "rows":
        return float(len(visible))
    if node.op == "count":
        return float(len(xs))
    if node.op == "since_last":
        return (now - visible[-1].time) / 1e6 if visible else None
    if not xs or (node.op in ("var", "std") and len(xs) < 2):
        return None
    if node.op == "decayed_sum":
        return number(math.fsum(s.x * 2.0 ** (-(now - s.time) / node.half_life_us) for s in visible if s.x is not None))
    mean = math.fsum(xs) / len(xs)
    var = _variance(xs) if len(xs) > 1 else 0.0
    values = {"sum": math.fsum(xs), "mean": mean, "var": var, "std": math.sqrt(var), "min": min(xs), "max": max(xs)}
    return number(values[node.op] if node.op in values else xs[0 if node.op == "first" else -1])


def _variance(xs: list[float]) -> float:
    """From exact fractions, rounded once."""
    fractions = [Fraction(x) for x in xs]
    mean = sum(fractions) / len(xs)
    return float(sum((x - mean) ** 2 for x in fractions) / (len(xs) - 1))


def key_of(node: Agg, row: dict[str, Any]) -> Any:
    """The key as a tuple, None where a part is null."""
    parts = tuple(value_of(part, row) for part in node.by)
    return None if None in parts else parts
