"""Types of expressions, and their values for the rows of a batch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import numpy as np

from thalweg.engine.batch import Column
from thalweg.engine.errors import DefinitionError
from thalweg.engine.features.expressions import Agg, Call, Col, Expr, LabelValue, Lit
from thalweg.engine.features.operators import NUMBERS, OPERATORS, result_type
from thalweg.engine.schema import BadValue, Schema, column_of, to_time

_CATEGORIES = ("str", "i64", "bool")
_LITERALS = {bool: "bool", int: "i64", float: "f64", str: "str"}


def type_of(expr: Expr, schema: Schema, where: str) -> str:
    """The type of an expression over rows of ``schema``.

    Raises:
        DefinitionError: a field is unknown or an operator does not take its arguments; ``where`` is
            the place that the message names.
    """
    if isinstance(expr, Col):
        return _field_type(expr.name, schema, where)
    if isinstance(expr, Lit):
        return _LITERALS[type(expr.value)]
    if isinstance(expr, Agg):
        return _aggregate_type(expr, schema, where)
    if isinstance(expr, Call):
        types = [type_of(arg, schema, where) for arg in expr.args]
        types = _times(expr, types, where)
        return result_type(expr.op, types, expr.options, f"{where}: {expr.canonical}")
    assert isinstance(expr, LabelValue), expr
    return "f64"


def _field_type(name: str, schema: Schema, where: str) -> str:
    if name in schema:
        return schema[name].type
    near = difflib.get_close_matches(name, schema.names, n=1)
    hint = f"did you mean col.{near[0]}?" if near else f"the fields are {', '.join(schema.names)}"
    raise DefinitionError(f"{where}: there is no field {name!r}; {hint}")


def _aggregate_type(expr: Agg, schema: Schema, where: str) -> str:
    for child in expr.children:
        if any(isinstance(node, Agg) for node in child.walk()):
            raise DefinitionError(f"{where}: an aggregate of an aggregate is not offered; aggregate a field instead")
    for key in expr.by:
        kind = type_of(key, schema, where)
        if kind not in _CATEGORIES:
            raise DefinitionError(f"{where}: by({key.canonical}) is {kind}; group by text, whole numbers or conditions")
    if expr.where is not None and type_of(expr.where, schema, where) != "bool":
        raise DefinitionError(f"{where}: where={expr.where.canonical} is no condition")
    if expr.value is not None and type_of(expr.value, schema, where) not in NUMBERS:
        raise DefinitionError(f"{where}: {expr.op}({expr.value.canonical}) needs numbers")
    return "f64"


def _times(expr: Call, types: list[str], where: str) -> list[str]:
    """Text constants beside a time are times."""
    if "timestamp" not in types:
        return types
    result = list(types)
    for i, arg in enumerate(expr.args):
        if isinstance(arg, Lit) and types[i] == "str":
            try:
                to_time(arg.value)
            except BadValue as bad:
                raise DefinitionError(f"{where}: {bad.args[1]}") from None
            result[i] = "timestamp"
    return result


class Evaluator:
    """Values of expressions over rows of one schema; types are worked out once."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._types: dict[str, str] = {}

    def type(self, expr: Expr) -> str:
        text = expr.canonical
        if text not in self._types:
            self._types[text] = type_of(expr, self._schema, text)
        return self._types[text]

    def __call__(self, expr: Expr, known: dict[str, Column], n: int) -> Column:
        """The column of ``expr`` for ``n`` rows.

        ``known`` holds columns by canonical text (``col(name)`` for fields) and is added to, so that
        what two features share is computed once.
        """
        text = expr.canonical
        if text not in known:
            known[text] = self._compute(expr, known, n)
        return known[text]

    def _compute(self, expr: Expr, known: dict[str, Column], n: int) -> Column:
        if isinstance(expr, Lit):
            return _constant(expr, self.type(expr), n)
        assert isinstance(expr, Call), f"{expr.canonical} has no value here"
        types = [self.type(arg) for arg in expr.args]
        args = [self._argument(arg, types, known, n) for arg in expr.args]
        options = ("times",) if expr.op == "sub" and "timestamp" in types else expr.options
        return OPERATORS[expr.op].apply(args, options)

    def _argument(self, arg: Expr, types: list[str], known: dict[str, Column], n: int) -> Column:
        if "timestamp" in types and isinstance(arg, Lit) and isinstance(arg.value, str):
            return _constant(Lit(to_time(arg.value)), "timestamp", n)
        return self(arg, known, n)


def _constant(expr: Lit, kind: str, n: int) -> Column:
    one = column_of(kind, [expr.value])
    return Column(np.repeat(one.values, n), np.ones(n, dtype=np.bool_))


def fields(columns: Mapping[str, Column]) -> dict[str, Column]:
    """Columns by canonical text, for :class:`Evaluator`."""
    return {f"col({name})": column for name, column in columns.items()}
