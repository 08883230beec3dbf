"""Typed expressions over the columns of a row: ``col.amount / col.limit``, ``.fill(0)``, ``.log()``.

An expression is a small frozen tree. Its *canonical text* is its identity: equal texts share state,
and fingerprints are made of them. What an operator does to types and values stands in
:mod:`thalweg.engine.features.operators`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from thalweg.engine.durations import format_us
from thalweg.engine.errors import DefinitionError

Scalar = bool | int | float | str


class Expr:
    """A value for every row. Build one from ``col``, constants, aggregates and encoders.

    Numbers are float64, finite and at most 1e100 in magnitude, or null: what an operation would
    make larger, infinite or undefined (division by zero, the logarithm of what is not positive)
    is null. Null passes through; ``fill`` ends it.

    >>> (col.amount / col.limit).fill(0.0).canonical
    'fill(div(col(amount),col(limit)),0.0)'
    """

    __slots__ = ()
    __hash__ = object.__hash__

    @property
    def canonical(self) -> str:
        """The text that identifies this expression."""
        raise NotImplementedError

    @property
    def children(self) -> tuple[Expr, ...]:
        return ()

    def walk(self) -> Iterator[Expr]:
        """This node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def __add__(self, other: Operand) -> Expr:
        return call("add", self, other)

    def __radd__(self, other: Operand) -> Expr:
        return call("add", other, self)

    def __sub__(self, other: Operand) -> Expr:
        return call("sub", self, other)

    def __rsub__(self, other: Operand) -> Expr:
        return call("sub", other, self)

    def __mul__(self, other: Operand) -> Expr:
        return call("mul", self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return call("mul", other, self)

    def __truediv__(self, other: Operand) -> Expr:
        return call("div", self, other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return call("div", other, self)

    def __neg__(self) -> Expr:
        return call("neg", self)

    def __abs__(self) -> Expr:
        return call("abs", self)

    def __eq__(self, other: Operand) -> Expr:  # type: ignore[override]
        return call("eq", self, other)

    def __ne__(self, other: Operand) -> Expr:  # type: ignore[override]
        return call("ne", self, other)

    def __lt__(self, other: Operand) -> Expr:
        return call("lt", self, other)

    def __le__(self, other: Operand) -> Expr:
        return call("le", self, other)

    def __gt__(self, other: Operand) -> Expr:
        return call("gt", self, other)

    def __ge__(self, other: Operand) -> Expr:
        return call("ge", self, other)

    def __and__(self, other: Operand) -> Expr:
        return call("and", self, other)

    def __or__(self, other: Operand) -> Expr:
        return call("or", self, other)

    def __invert__(self) -> Expr:
        return call("not", self)

    def __bool__(self) -> bool:
        raise DefinitionError(
            f"{self.canonical} has no single truth value: it is a value for every row. "
            "Write & | ~ instead of and, or, not, and is_in([...]) instead of in"
        )

    def fill(self, value: Operand) -> Expr:
        """``value`` where this is null: a constant, or an expression such as a running mean."""
        return call("fill", self, value)

    def is_null(self) -> Expr:
        """True where this is null."""
        return call("is_null", self)

    def clip(self, low: float, high: float) -> Expr:
        """At least ``low`` and at most ``high``."""
        if not low <= high:
            raise DefinitionError(f"clip({low}, {high}): the lower limit is above the upper one")
        return call("clip", self, float(low), float(high))

    def log(self) -> Expr:
        """Natural logarithm; null where this is not positive."""
        return call("log", self)

    def abs(self) -> Expr:
        """Magnitude."""
        return call("abs", self)

    def is_in(self, values: Sequence[Scalar]) -> Expr:
        """True where this equals one of ``values``."""
        if isinstance(values, str) or not values:
            raise DefinitionError(f"is_in({values!r}): write a list of at least one value")
        result = self == values[0]
        for value in values[1:]:
            result = result | (self == value)
        return result


Operand = Expr | bool | int | float | str


@dataclass(frozen=True, slots=True, eq=False)
class Col(Expr):
    """A field of the row itself."""

    name: str

    @property
    def canonical(self) -> str:
        return f"col({self.name})"


@dataclass(frozen=True, slots=True, eq=False)
class Lit(Expr):
    """A constant."""

    value: Scalar

    @property
    def canonical(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, eq=False)
class Call(Expr):
    """An operator of :mod:`thalweg.engine.features.operators` applied to expressions.

    ``options`` are constants that belong to the operator, such as the edges of ``bucket``.
    """

    op: str
    args: tuple[Expr, ...]
    options: tuple[Any, ...] = ()

    @cached_property
    def canonical(self) -> str:
        parts = [arg.canonical for arg in self.args] + [repr(option) for option in self.options]
        return f"{self.op}({','.join(parts)})"

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.args


@dataclass(frozen=True, slots=True, eq=False)
class LabelValue(Expr):
    """The value of a label, as a number: what feeds target encoding."""

    label: str

    @property
    def canonical(self) -> str:
        return f"label({self.label})"


@dataclass(frozen=True, slots=True)
class Window:
    """Which rows behind an event are seen: kind ``sliding`` (length in microseconds), ``rows`` (how many)
    or ``lifetime`` (``ttl_us``: a key idle that long starts anew)."""

    kind: Literal["sliding", "rows", "lifetime"]
    length: int = 0
    ttl_us: int = 0

    @property
    def text(self) -> str:
        if self.kind == "sliding":
            return format_us(self.length)
        return f"rows({self.length})" if self.kind == "rows" else f"lifetime({format_us(self.ttl_us)})"

    @property
    def suffix(self) -> str:
        """The window in a feature's name."""
        if self.kind == "sliding":
            return format_us(self.length)
        return f"{self.length}rows" if self.kind == "rows" else "lifetime"


@dataclass(frozen=True, eq=False)
class Agg(Expr):
    """One aggregate: ``op`` of ``value`` (None: the rows themselves) over ``window`` of the key ``by``.

    ``fed_by`` names the label whose rows feed it instead of the stream's (target encoding).
    """

    by: tuple[Expr, ...]
    op: str
    value: Expr | None
    window: Window
    where: Expr | None
    include_current: bool
    half_life_us: int
    capacity: int
    fed_by: str | None

    @cached_property
    def group(self) -> str:
        """Aggregates of one group share their keys and rows."""
        keys = ",".join(key.canonical for key in self.by)
        where = "" if self.where is None else f" where {self.where.canonical}"
        fed = "" if self.fed_by is None else f" of label {self.fed_by}"
        return f"by({keys}){where}{fed} capacity {self.capacity}"

    @cached_property
    def canonical(self) -> str:
        value = "" if self.value is None else self.value.canonical
        half_life = f" half_life {format_us(self.half_life_us)}" if self.half_life_us else ""
        current = "" if self.include_current else " without current"
        return f"{self.op}({value}) over {self.window.text}{half_life}{current} {self.group}"

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.by + tuple(e for e in (self.value, self.where) if e is not None)


def call(op: str, *args: Operand, options: tuple[Any, ...] = ()) -> Expr:
    """``op`` applied to expressions or constants."""
    return Call(op, tuple(as_expr(arg) for arg in args), options)


def as_expr(value: Operand) -> Expr:
    """The expression itself, or a constant.

    Raises:
        DefinitionError: neither; also for NaN and infinity, which no row can hold.
    """
    if isinstance(value, Expr):
        return value
    if isinstance(value, bool | str):
        return Lit(value)
    if isinstance(value, int | float) and -1e100 <= value <= 1e100:
        return Lit(value)
    raise DefinitionError(f"{value!r} is no constant for an expression; write a finite number, text, True or False")


class _Columns:
    """``col.name`` (or ``col["odd name"]``) is the field ``name`` of the row."""

    def __getattr__(self, name: str) -> Col:
        if name.startswith("__"):
            raise AttributeError(name)
        return Col(name)

    def __getitem__(self, name: str) -> Col:
        return Col(name)


col = _Columns()


@dataclass(frozen=True, slots=True)
class Many:
    """Several features under one name: ``suffixes[i]`` is appended to the name for ``exprs[i]``."""

    suffixes: tuple[str, ...]
    exprs: tuple[Expr, ...]
