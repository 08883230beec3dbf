"""What each operator of an expression does: one table, one line an operator.

``type`` gives the result's type from the arguments' types, ``apply`` the columns. Everything works
row by row, so how a log is cut into batches cannot matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from thalweg.engine.batch import Column
from thalweg.engine.errors import DefinitionError
from thalweg.engine.features.zones import zone
from thalweg.engine.kernels.arrays import Bool, Float64
from thalweg.engine.kernels.rowwise import cosine, logarithm, sine
from thalweg.engine.schema import LIMIT, column_of

NUMBERS = ("f64", "i64", "bool")
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Operator:
    """``check(types, options)`` returns the result type or raises ``TypeError`` with what fits."""

    check: Callable[[Sequence[str], Sequence[Any]], str]
    apply: Callable[[Sequence[Column], Sequence[Any]], Column]


def number(values: npt.NDArray[Any], valid: Bool) -> Column:
    """A column of numbers: what is not finite, or is above 1e100, is null."""
    values = np.asarray(values, dtype=np.float64)
    valid = valid & (np.abs(values) <= LIMIT)
    return Column(np.where(valid, values, np.nan) + 0.0, valid)


def as_number(column: Column) -> Float64:
    """float64 values, NaN where null."""
    if column.values.dtype == np.float64:
        return column.values
    values: Float64 = column.values.astype(np.float64)
    return values if column.valid.all() else np.where(column.valid, values, np.nan)


def _arithmetic(function: Callable[[Float64, Float64], Float64]) -> Operator:
    def apply(args: Sequence[Column], options: Sequence[Any]) -> Column:
        with np.errstate(all="ignore"):
            return number(function(as_number(args[0]), as_number(args[1])), args[0].valid & args[1].valid)

    return Operator(_numbers_to_number, apply)


def _unary(function: Callable[[Float64], Float64]) -> Operator:
    def apply(args: Sequence[Column], options: Sequence[Any]) -> Column:
        with np.errstate(all="ignore"):
            return number(function(as_number(args[0])), args[0].valid)

    return Operator(_numbers_to_number, apply)


def _subtract(args: Sequence[Column], options: Sequence[Any]) -> Column:
    left, right = args
    if options:  # two times: the difference in seconds
        with np.errstate(all="ignore"):
            return number((left.values - right.values) / 1e6, left.valid & right.valid)
    with np.errstate(all="ignore"):
        return number(as_number(left) - as_number(right), left.valid & right.valid)


def _comparison(function: Callable[[Any, Any], Any]) -> Operator:
    def apply(args: Sequence[Column], options: Sequence[Any]) -> Column:
        valid = args[0].valid & args[1].valid
        left, right = args[0].values[valid], args[1].values[valid]
        if left.dtype != right.dtype and left.dtype != np.bool_ and right.dtype != np.bool_:
            left, right = (
                left.astype(np.longdouble),
                right.astype(np.longdouble),
            )  # whole numbers beyond 2^53 stay exact
        result = np.zeros(len(valid), dtype=np.bool_)
        result[valid] = function(left, right)
        return Column(result, valid)

    return Operator(_comparable, apply)


def _and(args: Sequence[Column], options: Sequence[Any]) -> Column:
    left, right = (_truth(arg) for arg in args)
    false = (args[0].valid & ~left) | (args[1].valid & ~right)
    return Column(left & right, (args[0].valid & args[1].valid) | false)


def _or(args: Sequence[Column], options: Sequence[Any]) -> Column:
    left, right = (_truth(arg) for arg in args)
    return Column(left | right, (args[0].valid & args[1].valid) | left | right)


def _truth(column: Column) -> Bool:
    return column.values & column.valid


def _fill(args: Sequence[Column], options: Sequence[Any]) -> Column:
    column, default = args
    values = np.where(column.valid, column.values, default.values)
    return Column(values, column.valid | default.valid)


def _clip(args: Sequence[Column], options: Sequence[Any]) -> Column:
    values, low, high = (as_number(arg) for arg in args)
    with np.errstate(all="ignore"):
        return number(np.minimum(np.maximum(values, low), high), args[0].valid)


def _cross(args: Sequence[Column], options: Sequence[Any]) -> Column:
    """Text that no other pair of texts gives: each part but the last carries its length."""
    rows = zip(*(arg.tolist() for arg in args), strict=True)
    return column_of("str", [None if None in row else _joined(row) for row in rows])


def _joined(parts: tuple[Any, ...]) -> str:
    texts = [part if isinstance(part, str) else repr(part) for part in parts]
    return "".join(f"{len(text)}:{text}" for text in texts[:-1]) + texts[-1]


def _hash(args: Sequence[Column], options: Sequence[Any]) -> Column:
    """XXH64 of the text with a seed, modulo the number of buckets: the same in every process."""
    buckets, seed = options
    return column_of(
        "i64",
        [
            None if text is None else xxhash.xxh64_intdigest(str(text).encode(), seed=seed) % buckets
            for text in args[0].tolist()
        ],
    )


def _bucket(args: Sequence[Column], options: Sequence[Any]) -> Column:
    edges = np.array(options, dtype=np.float64)
    return Column(np.searchsorted(edges, as_number(args[0]), side="right").astype(np.int64), args[0].valid)


def _cyclic(args: Sequence[Column], options: Sequence[Any]) -> Column:
    unit, function, name = options
    local = zone(name).local(args[0].values)
    angle = 2.0 * np.pi * _FRACTIONS[unit](local)
    return number((sine if function == "sin" else cosine)(angle), args[0].valid)


# Local microseconds to the fraction of the cycle that has passed; 1970-01-01 was a Thursday.
_FRACTIONS: dict[str, Callable[[npt.NDArray[np.int64]], Float64]] = {
    "minute": lambda t: (t % 3_600_000_000) / 3_600_000_000,
    "hour": lambda t: (t % _DAY_US) / _DAY_US,
    "weekday": lambda t: ((t + 3 * _DAY_US) % (7 * _DAY_US)) / (7 * _DAY_US),
    "day_of_year": lambda t: (
        (t - t.astype("M8[us]").astype("M8[Y]").astype("M8[us]").astype(np.int64)) / (366 * _DAY_US)
    ),
}
CYCLES = tuple(_FRACTIONS)


def _numbers_to_number(types: Sequence[str], options: Sequence[Any]) -> str:
    _require(all(kind in NUMBERS for kind in types), "numbers")
    return "f64"


def _subtractable(types: Sequence[str], options: Sequence[Any]) -> str:
    _require(all(kind in NUMBERS for kind in types) or set(types) == {"timestamp"}, "numbers or two times")
    return "f64"


def _comparable(types: Sequence[str], options: Sequence[Any]) -> str:
    alike = all(kind in NUMBERS for kind in types) or len(set(types)) == 1
    _require(alike, "two values of one type")
    return "bool"


def _booleans(types: Sequence[str], options: Sequence[Any]) -> str:
    _require(set(types) == {"bool"}, "conditions")
    return "bool"


def _fillable(types: Sequence[str], options: Sequence[Any]) -> str:
    if all(kind in NUMBERS for kind in types):
        return types[0] if types[0] == types[1] else "f64"
    _require(types[0] == types[1], "a filler of the same type")
    return types[0]


def _categories(types: Sequence[str], options: Sequence[Any]) -> str:
    _require(all(kind in ("str", "i64", "bool") for kind in types), "categories (text, whole numbers, conditions)")
    return "str"


def _require(fits: bool, expected: str) -> None:
    if not fits:
        raise TypeError(expected)


def _fixed(result: str, *expected: str) -> Callable[[Sequence[str], Sequence[Any]], str]:
    def check(types: Sequence[str], options: Sequence[Any]) -> str:
        _require(not expected or types[0] in expected, " or ".join(expected))
        return result

    return check


OPERATORS: dict[str, Operator] = {
    "add": _arithmetic(np.add),
    "sub": Operator(_subtractable, _subtract),
    "mul": _arithmetic(np.multiply),
    "div": _arithmetic(np.divide),
    "neg": _unary(np.negative),
    "abs": _unary(np.abs),
    "log": _unary(logarithm),
    "eq": _comparison(lambda a, b: a == b),
    "ne": _comparison(lambda a, b: a != b),
    "lt": _comparison(lambda a, b: a < b),
    "le": _comparison(lambda a, b: a <= b),
    "gt": _comparison(lambda a, b: a > b),
    "ge": _comparison(lambda a, b: a >= b),
    "and": Operator(_booleans, _and),
    "or": Operator(_booleans, _or),
    "not": Operator(_booleans, lambda args, _: Column(~args[0].values, args[0].valid)),
    "is_null": Operator(_fixed("bool"), lambda args, _: Column(~args[0].valid, np.ones(len(args[0]), np.bool_))),
    "fill": Operator(_fillable, _fill),
    "clip": Operator(_numbers_to_number, _clip),
    "cross": Operator(_categories, _cross),
    "hash": Operator(_fixed("i64", "str", "i64", "bool"), _hash),
    "bucket": Operator(_fixed("i64", *NUMBERS), _bucket),
    "cyclic": Operator(_fixed("f64", "timestamp"), _cyclic),
}


def result_type(op: str, types: Sequence[str], options: Sequence[Any], text: str) -> str:
    """The type of ``op`` applied to ``types``.

    Raises:
        DefinitionError: the operator does not take these types; ``text`` is where it stands.
    """
    try:
        return OPERATORS[op].check(types, options)
    except TypeError as expected:
        raise DefinitionError(f"{text}: {op} takes {expected}, got {' and '.join(types)}") from None
