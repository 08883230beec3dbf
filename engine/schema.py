"""Types of fields, and the one place where Python values become columns.

Rule 8 of the contract decides what converts: a value that does not fit its declared type without
loss is refused, with a reason, and never reaches any state.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from thalweg.engine.batch import Column
from thalweg.engine.errors import DefinitionError

LIMIT = 1e100  # larger magnitudes are refused: their squares must stay finite
MAX_TIME = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
UNIT_US = {"s": 1_000_000, "ms": 1_000, "us": 1}
_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns), ?UTC\]")

DTYPES: dict[str, Any] = {
    "f64": np.float64,
    "i64": np.int64,
    "bool": np.bool_,
    "str": object,
    "timestamp": np.int64,
}
_FILL: dict[str, Any] = {"f64": math.nan, "i64": 0, "bool": False, "str": None, "timestamp": 0}


class BadValue(ValueError):
    """Why a value was refused: ``args`` is (reason, detail)."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name, its type and whether it may be null."""

    name: str
    type: str
    nullable: bool
    unit: str = "us"

    @property
    def text(self) -> str:
        """The type as it was declared, in its canonical form."""
        base = f"timestamp[{self.unit}, UTC]" if self.type == "timestamp" else self.type
        return base + ("?" if self.nullable else "")


@dataclass(frozen=True, slots=True)
class Schema:
    """Fields in declared order.

    >>> schema = Schema.parse({"card": "str", "amount": "f64?"})
    >>> columns, kept, refused = schema.decode([{"card": "a", "amount": 1}, {"card": 7}])
    >>> columns["amount"].tolist(), kept.tolist()
    ([1.0], [0])
    >>> refused[0][1:]
    ('type', "field 'card': expected text, got 7 (int)")
    """

    fields: tuple[Field, ...]

    @classmethod
    def parse(cls, declared: Mapping[str, str], *, where: str = "schema") -> Schema:
        """Reads ``{"amount": "f64?", ...}``.

        Raises:
            DefinitionError: a type is unknown, or there is no field.
        """
        if not declared:
            raise DefinitionError(f"{where} has no field; write schema = dict(name='str', ...)")
        return cls(tuple(_parse_field(name, text, where) for name, text in declared.items()))

    def __getitem__(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(field.name == name for field in self.fields)

    @property
    def names(self) -> list[str]:
        return [field.name for field in self.fields]

    def decode(
        self, objects: Sequence[Any]
    ) -> tuple[dict[str, Column], npt.NDArray[np.int64], list[tuple[int, str, str]]]:
        """Turns JSON-like objects into columns, row by row.

        Returns the columns of the rows that fit, the positions of those rows in ``objects``, and
        (position, reason, detail) of the rows that do not. Fields that the schema does not name
        are ignored.
        """
        converters = [(f.name, f.nullable, _converter(f)) for f in self.fields]
        kept: list[int] = []
        rows: list[list[Any]] = []
        refused: list[tuple[int, str, str]] = []
        for position, item in enumerate(objects):
            try:
                rows.append(_convert_row(item, converters))
                kept.append(position)
            except BadValue as bad:
                refused.append((position, bad.args[0], bad.args[1]))
        columns = {field.name: column_of(field.type, [row[i] for row in rows]) for i, field in enumerate(self.fields)}
        return columns, np.array(kept, dtype=np.int64), refused


def column_of(kind: str, values: Sequence[Any]) -> Column:
    """A column of type ``kind`` from Python values, ``None`` being null."""
    valid = np.ones(len(values), dtype=np.bool_)
    if None in values:
        valid = np.fromiter((v is not None for v in values), dtype=np.bool_, count=len(values))
    if kind == "str":
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return Column(array, valid)
    fill = _FILL[kind]
    filled = values if valid.all() else [fill if v is None else v for v in values]
    return Column(np.array(filled, dtype=DTYPES[kind]), valid)


def _parse_field(name: str, text: str, where: str) -> Field:
    if not isinstance(text, str):
        raise DefinitionError(f"{where}: field {name!r} has type {text!r}; write it as text, such as 'f64?'")
    base = text.removesuffix("?")
    nullable = text.endswith("?")
    if match := _TIMESTAMP.fullmatch(base):
        return Field(name, "timestamp", nullable, match[1])
    if base in ("f64", "i64", "bool", "str"):
        return Field(name, base, nullable)
    raise DefinitionError(
        f"{where}: field {name!r} has the unknown type {text!r}; "
        "known are str, f64, i64, bool and timestamp[us, UTC] (or ns, ms, s), each with ? when it may be null"
    )


def _convert_row(item: Any, converters: list[tuple[str, bool, Callable[[Any], Any]]]) -> list[Any]:
    if not isinstance(item, dict):
        raise BadValue("not_an_object", f"expected an object with fields, got {_show(item)}")
    row = []
    for name, nullable, convert in converters:
        value = item.get(name)
        if value is not None:
            try:
                value = convert(value.item() if isinstance(value, np.generic) else value)
            except BadValue as bad:
                raise BadValue(bad.args[0], f"field {name!r}: {bad.args[1]}") from None
        if value is None and not nullable:
            reason = "null" if name in item else "missing"
            raise BadValue(reason, f"field {name!r} is {reason}; declare it with ? if that is allowed")
        row.append(value)
    return row


def _converter(field: Field) -> Callable[[Any], Any]:
    if field.type != "timestamp":
        return _CONVERTERS[field.type]
    return lambda value: to_time(value, field.unit)


def _to_float(value: Any) -> float | None:
    kind = type(value)
    if kind is float:
        if value != value:
            return None  # NaN of Python or Arrow is null; in JSON it does not parse
        if -LIMIT <= value <= LIMIT:
            return value + 0.0  # type: ignore[no-any-return]  # -0.0 becomes 0.0
        raise BadValue("range", f"expected a number within +-1e100, got {value!r}")
    if kind is not int:
        raise BadValue("type", f"expected a number, got {_show(value)}")
    if not -(2**53) <= value <= 2**53 and (abs(value) > 10**100 or int(float(value)) != value):
        raise BadValue("range", f"expected a number that a 64-bit float holds exactly, got {_show(value)}")
    return float(value)


def _to_int(value: Any) -> int:
    if type(value) is float and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if type(value) is not int:
        raise BadValue("type", f"expected a whole number, got {_show(value)}")
    if not -(2**63) <= value < 2**63:
        raise BadValue("range", f"expected a 64-bit whole number, got {_show(value)}")
    return value


def _to_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise BadValue("type", f"expected true or false, got {_show(value)}")
    return value


def _to_str(value: Any) -> str:
    if type(value) is not str:
        raise BadValue("type", f"expected text, got {_show(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadValue("type", "expected text, got a lone surrogate") from None
    return value


def to_time(value: Any, unit: str = "us") -> int:
    """Microseconds since 1970 in UTC of ISO 8601 text with an offset, a number of ``unit``, or a datetime.

    >>> to_time("2013-01-01T05:00:00-05:00"), to_time(1357034400, "s")
    (1357034400000000, 1357034400000000)

    Raises:
        BadValue: no offset, no such time, before 1970 or after 9999.
    """
    kind = type(value)
    if kind is str:
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise BadValue("type", f"expected a time as ISO 8601 text, got {_show(value)}") from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise BadValue("type", f"expected a time with Z or an offset, got {value.isoformat()!r}")
        micros = (value - _EPOCH) // _MICROSECOND
    elif kind is int or (kind is float and value.is_integer()):
        micros = int(value) // 1000 if unit == "ns" else int(value) * UNIT_US[unit]
    else:
        raise BadValue("type", f"expected a time as ISO 8601 text or a number of {unit}, got {_show(value)}")
    if not 0 <= micros <= MAX_TIME:
        raise BadValue("range", f"expected a time from 1970 to 9999, got {_show(value)}")
    return micros


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "f64": _to_float,
    "i64": _to_int,
    "bool": _to_bool,
    "str": _to_str,
}


def _show(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a whole number too long to print
        text = "a number of thousands of digits"
    if len(text) > 60:
        text = text[:57] + "..."
    return f"{text} ({type(value).__name__})"
