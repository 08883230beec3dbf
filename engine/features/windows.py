"""Aggregates over event time: ``agg.by("card", where=...).mean(col.amount, "1h")``.

What a row sees is rule 4 of the contract: the rows of the same key with ``e.time - W < time <= e.time``
that came before it in log order, and itself unless ``current="exclude"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from thalweg.engine.durations import Duration, duration_us
from thalweg.engine.errors import DefinitionError
from thalweg.engine.features.expressions import Agg, Col, Expr, Many, Window

CAPACITY = 1_000_000
GRID_OPS = ("count", "sum", "mean", "var", "std", "min", "max", "first", "last")


WindowLike = Duration | Window


def rows(n: int) -> Window:
    """The last ``n`` rows of the key (the current row included, unless excluded).

    >>> rows(20).text
    'rows(20)'
    """
    if not isinstance(n, int) or n < 1:
        raise DefinitionError(f"rows({n!r}): write how many rows, at least 1")
    return Window("rows", length=n)


def lifetime(*, ttl: Duration) -> Window:
    """Everything since the key appeared; a key that is idle for ``ttl`` (event time) starts anew.

    >>> lifetime(ttl="90d").text
    'lifetime(90d)'
    """
    return Window("lifetime", ttl_us=_positive(ttl, "lifetime(ttl=...)"))


def as_window(window: WindowLike) -> Window:
    """A window from its text (``"1h"``) or from :func:`rows` and :func:`lifetime`.

    Raises:
        DefinitionError: it is none of these.
    """
    if isinstance(window, Window):
        return window
    if isinstance(window, str | timedelta):
        return Window("sliding", length=_positive(window, "the window"))
    raise DefinitionError(f"the window is {window!r}; write '1h', rows(20) or lifetime(ttl='90d')")


def _positive(length: Duration, what: str) -> int:
    result = duration_us(length, what=what)
    if result == 0:
        raise DefinitionError(f"{what} is {length!r}; write a length above zero")
    return result


@dataclass(frozen=True, slots=True)
class Entity:
    """What :func:`agg.by` returns: aggregates of one entity."""

    keys: tuple[Expr, ...]
    where: Expr | None
    include_current: bool
    capacity: int

    def count(self, window: WindowLike, value: Expr | None = None) -> Expr:
        """How many rows (or non-null ``value``); 0 when there is none."""
        return self._agg("rows" if value is None else "count", value, window)

    def sum(self, value: Expr, window: WindowLike) -> Expr:
        """Sum, rounded once; null when there is no value."""
        return self._agg("sum", value, window)

    def mean(self, value: Expr, window: WindowLike) -> Expr:
        """Mean; null when there is no value."""
        return self._agg("mean", value, window)

    def var(self, value: Expr, window: WindowLike) -> Expr:
        """Sample variance (n - 1); null below two values."""
        return self._agg("var", value, window)

    def std(self, value: Expr, window: WindowLike) -> Expr:
        """Sample standard deviation (n - 1); null below two values."""
        return self._agg("std", value, window)

    def min(self, value: Expr, window: WindowLike) -> Expr:
        """Smallest value."""
        return self._agg("min", value, window)

    def max(self, value: Expr, window: WindowLike) -> Expr:
        """Largest value."""
        return self._agg("max", value, window)

    def first(self, value: Expr, window: WindowLike) -> Expr:
        """The earliest value that is not null."""
        return self._agg("first", value, window)

    def last(self, value: Expr, window: WindowLike) -> Expr:
        """The latest value that is not null."""
        return self._agg("last", value, window)

    def decayed_sum(self, value: Expr, half_life: Duration, window: WindowLike | None = None) -> Expr:
        """Sum of ``value * 2 ** (-age / half_life)``; null when there is no value.

        Without a window the key starts anew once idle for 64 half-lives, when less than 2^-64 is left.
        """
        length = _positive(half_life, "half_life")
        seen = Window("lifetime", ttl_us=64 * length) if window is None else as_window(window)
        return self._agg("decayed_sum", value, seen, half_life_us=length)

    def since_last(self, window: WindowLike) -> Expr:
        """Seconds since the row before this one; null when the window holds none."""
        return self._agg("since_last", None, window, include_current=False)

    def grid(self, ops: Sequence[str], value: Expr, windows: Sequence[WindowLike]) -> Many:
        """Every op over every window: features ``name_mean_30m``, ``name_max_3h``, ...

        >>> agg.by("card").grid(["mean", "max"], Col("amount"), ["1h", rows(5)]).suffixes
        ('mean_1h', 'max_1h', 'mean_5rows', 'max_5rows')
        """
        for op in ops:
            if op not in GRID_OPS:
                raise DefinitionError(f"grid: unknown op {op!r}; known are {', '.join(GRID_OPS)}")
        cells = [(as_window(window), op) for window in windows for op in ops]
        return Many(
            tuple(f"{op}_{window.suffix}" for window, op in cells),
            tuple(self._agg(op, value, window) for window, op in cells),
        )

    def _agg(self, op: str, value: Expr | None, window: WindowLike, **more: Any) -> Agg:
        if value is not None and not isinstance(value, Expr):
            raise DefinitionError(
                f"{op}({value!r}, ...): write an expression such as col.amount first, then the window"
            )
        return Agg(
            self.keys,
            op,
            value,
            as_window(window),
            where=self.where,
            include_current=more.get("include_current", self.include_current),
            half_life_us=more.get("half_life_us", 0),
            capacity=self.capacity,
            fed_by=None,
        )


class _Aggregates:
    """``agg.by("card")``, ``agg.by("card", "merchant", where=col.amount > 10)``."""

    def by(
        self,
        *keys: str | Expr,
        where: Expr | None = None,
        current: Literal["include", "exclude"] = "include",
        capacity: int = CAPACITY,
        lag: Duration | None = None,
    ) -> Entity:
        """Aggregates over the rows that share ``keys``.

        Args:
            keys: fields or expressions (categories); none: all rows of the shard together.
            where: only rows for which this is true enter the windows.
            current: whether a row sees itself.
            capacity: how many keys a shard keeps; beyond it the one touched longest ago goes, counted.
            lag: not there yet; see the message.

        Raises:
            DefinitionError: the arguments do not fit.
        """
        if lag is not None:
            raise DefinitionError(
                "agg.by(..., lag=...) is not there yet: to aggregate by an entity that is spread over "
                "partitions, write pipeline(..., shards='one')"
            )
        if current not in ("include", "exclude"):
            raise DefinitionError(f"current={current!r}: write 'include' or 'exclude'")
        if not isinstance(capacity, int) or capacity < 1:
            raise DefinitionError(f"capacity={capacity!r}: write how many keys a shard keeps, at least 1")
        if where is not None and not isinstance(where, Expr):
            raise DefinitionError(f"where={where!r}: write a condition such as col.amount > 10")
        exprs = tuple(Col(key) if isinstance(key, str) else key for key in keys)
        return Entity(exprs, where, current == "include", capacity)


agg = _Aggregates()
