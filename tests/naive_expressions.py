"""Expressions by their meaning (rule 8 of the contract), one row and one Python value at a time.

A value is None, bool, int, float, str or :class:`Time`. Part of the naive twin, see ``tests/naive.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import xxhash

from thalweg.engine.features.expressions import Agg, Call, Col, Expr, Lit

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
YEAR = 366 * DAY


class Time(int):
    """Microseconds since 1970."""


def value_of(expr: Expr, row: Mapping[str, Any], aggregates: Callable[[Agg], float | None] | None = None) -> Any:
    """The value of ``expr`` for ``row``; ``aggregates`` knows the aggregates in it."""
    if isinstance(expr, Col):
        return row[expr.name]
    if isinstance(expr, Lit):
        return expr.value
    if isinstance(expr, Agg):
        assert aggregates is not None
        return aggregates(expr)
    assert isinstance(expr, Call)
    args = [value_of(arg, row, aggregates) for arg in expr.args]
    if any(isinstance(arg, Time) for arg in args):
        args = [_as_time(arg) for arg in args]
    if expr.op in _SPECIAL:
        return _SPECIAL[expr.op](*args, *expr.options)
    return None if None in args else _OF_VALUES[expr.op](*args, *expr.options)


def truth(expr: Expr | None, row: Mapping[str, Any]) -> bool:
    """A condition; null is false, none at all is true."""
    return expr is None or value_of(expr, row) is True


def number(value: Any) -> float | None:
    """float64, finite and at most 1e100 in magnitude, or null."""
    result = float(value)
    return result + 0.0 if abs(result) <= 1e100 else None


def _as_time(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return Time((datetime.fromisoformat(value) - EPOCH) // timedelta(microseconds=1))


def _sub(a: Any, b: Any) -> float | None:
    return number((a - b) / 1e6) if isinstance(a, Time) else number(float(a) - float(b))


def _mul(a: Any, b: Any) -> float | None:
    return number(float(a) * float(b))


def _div(a: Any, b: Any) -> float | None:
    return None if b == 0 else number(float(a) / float(b))


def _and(a: Any, b: Any) -> bool | None:
    return False if a is False or b is False else None if a is None or b is None else True


def _or(a: Any, b: Any) -> bool | None:
    return True if a is True or b is True else None if a is None or b is None else False


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _cross(*parts: Any) -> str:
    *front, last = map(_text, parts)
    return "".join(f"{len(part)}:{part}" for part in front) + last


def _hash(value: Any, buckets: int, seed: int) -> int:
    return int(xxhash.xxh64(str(value).encode(), seed=seed).intdigest()) % buckets


def _cyclic(value: Time, unit: str, function: str, zone: str) -> float:
    local = (EPOCH + timedelta(microseconds=value)).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    since, length = {
        "minute": (local - local.replace(minute=0, second=0, microsecond=0), timedelta(hours=1)),
        "hour": (local - midnight, DAY),
        "weekday": (local - (midnight - local.weekday() * DAY), 7 * DAY),
        "day_of_year": (local - midnight.replace(month=1, day=1), YEAR),
    }[unit]
    angle = 2.0 * math.pi * (since / length)
    return math.sin(angle) if function == "sin" else math.cos(angle)


# Operators that see nulls.
_SPECIAL: dict[str, Callable[..., Any]] = {
    "fill": lambda a, default: default if a is None else a,
    "is_null": lambda a: a is None,
    "and": _and,
    "or": _or,
}

_OF_VALUES: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: number(float(a) + float(b)),
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": lambda a: number(-float(a)),
    "abs": lambda a: number(abs(float(a))),
    "log": lambda a: number(math.log(a)) if a > 0 else None,
    "clip": lambda a, low, high: number(min(max(float(a), float(low)), float(high))),
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "not": lambda a: not a,
    "cross": _cross,
    "hash": _hash,
    "bucket": lambda a, *edges: sum(a >= edge for edge in edges),
    "cyclic": _cyclic,
}
