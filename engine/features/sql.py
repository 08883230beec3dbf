"""A feature set as one DuckDB query: what the vectors mean, in the words of SQL.

It shares nothing with the kernels but the definition, so it serves as a second oracle in the tests, and
shows an analyst what a feature is. It joins every row that asks with every row before it: not fast.
"""

from __future__ import annotations

from thalweg.engine.errors import DefinitionError
from thalweg.engine.features.evaluate import Evaluator
from thalweg.engine.features.expressions import Agg, Call, Col, Expr, Lit
from thalweg.engine.features.featureset import FeatureSetSpec
from thalweg.engine.features.windows import CAPACITY
from thalweg.engine.schema import to_time

_OWN_COLUMNS = ("seq", "wm", "accepted", "scored")
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_COMPARE = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_DAY_US = 86_400_000_000

# What each aggregate is over the rows ``v`` that a row sees as of ``v.as_of``.
_AGGREGATES = {
    "rows": "count(v.seq)",
    "count": "count(v.x)",
    "sum": "fsum(v.x)",
    "mean": "fsum(v.x) / count(v.x)",
    "var": "var_samp(v.centred)",
    "std": "stddev_samp(v.centred)",
    "min": "min(v.x)",
    "max": "max(v.x)",
    "first": "first(v.x ORDER BY v.time, v.seq) FILTER (WHERE v.x IS NOT NULL)",
    "last": "last(v.x ORDER BY v.time, v.seq) FILTER (WHERE v.x IS NOT NULL)",
    "decayed_sum": "fsum(v.x * pow(2.0, -(v.as_of - v.time) / {half_life}::DOUBLE))",
    "since_last": "(any_value(v.as_of) - max(v.time)) / 1e6::DOUBLE",
}


def sql(spec: FeatureSetSpec) -> str:
    """The vectors of ``spec`` as a query over the tables ``events`` and, for target encodings, ``labels``.

    ``events`` has the fields of the stream (times as BIGINT microseconds) and ``seq`` BIGINT (log order), ``wm``
    BIGINT (the watermark that the row met), ``accepted`` and ``scored`` BOOLEAN (the row asked and got a vector).
    ``labels`` has a row a label that counts: ``event_seq`` (the row whose keys it counts under), ``seq_before`` (the
    first row that could see it), ``seq_until`` (the first row that no longer could, after a correction, else NULL),
    ``available`` BIGINT and ``value``. The result has ``seq`` and a column a feature, ordered by ``seq``.

    Raises:
        DefinitionError: ``enc.hash`` has no counterpart in DuckDB, and it forgets no key when ``capacity`` is
            reached; a field is called like one of the columns above.

    >>> from thalweg import FeatureSet, Stream, agg, col
    >>> class Payment(Stream):
    ...     "Card payments."
    ...     topic, key, time = "payments", "card", col.at
    ...     schema = dict(card="str", at="timestamp[us, UTC]", amount="f64")
    >>> class Habits(FeatureSet, source=Payment):
    ...     "What this card has been doing."
    ...     spent_1h = agg.by("card").sum(col.amount, "1h")
    >>> print(sql(Habits.spec()))  # doctest: +ELLIPSIS
    WITH calculated AS (
    ...
    ORDER BY seq
    """
    taken = [name for name in _OWN_COLUMNS if name in spec.source.schema or name in spec.names]
    if taken:
        raise DefinitionError(f"sql({spec.name}): {taken[0]!r} is the query's own name; rename the field or feature")
    return _Query(spec).text()


class _Query:
    """The query as it is put together: columns of single rows, one table an aggregate, columns of vectors."""

    def __init__(self, spec: FeatureSetSpec) -> None:
        self._spec = spec
        self._type = Evaluator(spec.source.schema).type
        self._time = _quoted(spec.source.time)
        self._names: dict[str, str] = {}
        self._of_rows = ["*", f'CASE WHEN accepted THEN {self._time} ELSE wm END AS "$as_of"']
        self._of_vectors = ["e.seq"]
        self._tables: list[str] = []

    def text(self) -> str:
        """The whole query."""
        for node in self._spec.aggregates:
            self._aggregate(node)
        features = [self._column(f.expr) + ("" if f.is_text else "::DOUBLE") for f in self._spec.features]
        names = [f"{value} AS {_quoted(f.name)}" for value, f in zip(features, self._spec.features, strict=True)]
        joins = [f'JOIN node_{i} ON node_{i}."$of" = e.seq' for i in range(len(self._tables))]
        calculated = f"calculated AS (\n  SELECT\n{_lines(self._of_rows)}\n  FROM events\n)"
        source = "\n  ".join(["FROM calculated AS e", *joins, "WHERE e.scored"])
        vectors = f"vectors AS (\n  SELECT\n{_lines(['e.*', *self._of_vectors[1:]])}\n  {source}\n)"
        tables = ",\n".join([calculated, *self._tables, vectors])
        return f"WITH {tables}\nSELECT\n{_lines(['seq', *names])}\nFROM vectors\nORDER BY seq"

    # Aggregates

    def _aggregate(self, node: Agg) -> None:
        """The table of one aggregate: a row for every row that asks."""
        if node.capacity < CAPACITY:
            raise DefinitionError(
                f"sql({self._spec.name}): {node.op} keeps {node.capacity} keys, but SQL forgets none; "
                f"leave capacity= out (that is {CAPACITY})"
            )
        i, value = len(self._tables), _AGGREGATES[node.op].format(half_life=node.half_life_us)
        centred = ", x - avg(x) OVER (PARTITION BY of_seq) AS centred" if node.op in ("var", "std") else ""
        visible = _indented(self._limited(node, self._visible(node)))
        self._tables.append(
            f"node_{i} AS (  -- {node.canonical}\n"
            f'  SELECT e.seq AS "$of", {value} AS "$value"\n'
            f"  FROM calculated AS e LEFT JOIN (SELECT *{centred} FROM (\n{visible}\n"
            f"  )) AS v ON v.of_seq = e.seq\n"
            f"  WHERE e.scored\n"
            f"  GROUP BY e.seq\n"
            f")"
        )
        name = self._names[node.canonical] = f'"${len(self._names)}"'
        self._of_vectors.append(f'{_guarded(f"""node_{i}."$value" """.strip())}::DOUBLE AS {name}')

    def _visible(self, node: Agg) -> str:
        """The rows that each asking row sees (rule 4 of the contract)."""
        time, value = f"r.{self._time}", "NULL::DOUBLE"
        if node.fed_by is None:
            own = "<=" if node.include_current else "<"
            join = f"JOIN calculated AS r ON r.accepted AND r.seq {own} e.seq"
            if node.value is not None:
                value = f"r.{self._column(node.value)}::DOUBLE"
        else:
            read = "l.seq_before <= e.seq AND (l.seq_until IS NULL OR l.seq_until > e.seq)"
            join = f"JOIN labels AS l ON {read}\nJOIN calculated AS r ON r.seq = l.event_seq"
            time, value = "l.available", "l.value::DOUBLE"
        keys = [self._column(key) for key in node.by]
        conditions = ["e.scored", f'{time} <= e."$as_of"', *(f"r.{key} = e.{key}" for key in keys)]
        if node.window.kind == "sliding":
            conditions.append(f'{time} > e."$as_of" - {node.window.length}')
        if node.where is not None:
            conditions.append(f"r.{self._column(node.where)}")
        return (
            f'SELECT e.seq AS of_seq, e."$as_of" AS as_of, r.seq, {time} AS time, {value} AS x\n'
            f"FROM calculated AS e {join}\nWHERE {' AND '.join(conditions)}"
        )

    def _limited(self, node: Agg, visible: str) -> str:
        """Only the last n rows, or those since the key was idle for ``ttl``."""
        of_row, length = "PARTITION BY of_seq ORDER BY time", node.window.length
        if node.window.kind == "rows":
            last = f"row_number() OVER ({of_row} DESC, seq DESC) <= {length}"
            return f"SELECT * FROM (\n{_indented(visible)}\n) QUALIFY {last}"
        if node.window.kind == "sliding":
            return visible
        ttl = node.window.ttl_us
        anew = f"time - lag(time) OVER ({of_row}, seq) >= {ttl} AS anew"
        later = f"OVER ({of_row}, seq ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)"
        return (
            f"SELECT * FROM (SELECT *, {anew} FROM (\n{_indented(visible)}\n))\n"
            f"QUALIFY count(*) FILTER (WHERE anew) {later} = 0\n"
            f"  AND as_of - max(time) OVER (PARTITION BY of_seq) < {ttl}"
        )

    # Expressions

    def _column(self, expr: Expr) -> str:
        """The name of the column that holds ``expr``, unqualified."""
        if isinstance(expr, Col):
            return _quoted(expr.name)
        text = expr.canonical
        if text not in self._names:
            value = self._value(expr)
            name = self._names[text] = f'"${len(self._names)}"'
            over = any(isinstance(node, Agg) for node in expr.walk())
            (self._of_vectors if over else self._of_rows).append(f"{value} AS {name}")
        return self._names[text]

    def _value(self, expr: Expr) -> str:
        if isinstance(expr, Lit):
            return _literal(expr, self._type(expr))
        assert isinstance(expr, Call), expr.canonical
        types = [self._type(arg) for arg in expr.args]
        times = "timestamp" in types
        args = [self._argument(arg, times) for arg in expr.args]
        if expr.op in ("add", "sub", "mul", "div", "neg", "abs", "log", "clip"):
            name = f'"${len(self._names)} unguarded"'
            over = any(isinstance(node, Agg) for node in expr.walk())
            columns = self._of_vectors if over else self._of_rows
            columns.append(f"{_arithmetic(expr.op, args, times)} AS {name}")
            return _guarded(name)
        return self._other(expr, args, types)

    def _argument(self, arg: Expr, times: bool) -> str:
        """Text beside a time is a time."""
        if times and isinstance(arg, Lit) and isinstance(arg.value, str):
            return str(to_time(arg.value))
        return self._column(arg)

    def _other(self, expr: Call, args: list[str], types: list[str]) -> str:
        """Operators whose results need no limits."""
        op, first = expr.op, args[0]
        if op in _COMPARE:
            cast = "::DOUBLE" if len(set(types)) > 1 and "timestamp" not in types else ""
            return f"{first}{cast} {_COMPARE[op]} {args[1]}{cast}"
        if op in ("and", "or"):
            return f"{first} {op.upper()} {args[1]}"
        if op == "fill":
            cast = "::DOUBLE" if self._type(expr) == "f64" else ""
            return f"coalesce({first}{cast}, {args[1]}{cast})"
        if op == "cross":
            *front, last = (_text(arg, kind) for arg, kind in zip(args, types, strict=True))
            return " || ".join([*(f"length({part}) || ':' || {part}" for part in front), last])
        if op == "bucket":
            steps = " + ".join(f"({first}::DOUBLE >= '{edge!r}'::DOUBLE)::BIGINT" for edge in expr.options)
            return f"CASE WHEN {first} IS NOT NULL THEN {steps} END"
        if op == "cyclic":
            return _cycle(first, *expr.options)
        if op == "hash":
            raise DefinitionError(f"sql({self._spec.name}): DuckDB has nothing like {expr.canonical}; leave it out")
        return {"not": f"NOT {first}", "is_null": f"{first} IS NULL"}[op]


def _arithmetic(op: str, args: list[str], times: bool) -> str:
    if times:
        return f"({args[0]} - {args[1]}) / 1e6::DOUBLE"
    a, *others = (f"{arg}::DOUBLE" for arg in args)
    if op == "div":
        return f"CASE WHEN {others[0]} <> 0 THEN {a} / {others[0]} END"
    if op in _INFIX:
        return f"{a} {_INFIX[op]} {others[0]}"
    if op == "clip":
        return f"CASE WHEN {a} IS NOT NULL THEN least(greatest({a}, {others[0]}), {others[1]}) END"
    return {"neg": f"-({a})", "abs": f"abs({a})", "log": f"CASE WHEN {a} > 0 THEN ln({a}) END"}[op]


def _guarded(name: str) -> str:
    """Null instead of what is not finite or is too large, 0.0 for -0.0."""
    return f"CASE WHEN abs({name}) <= 1e100 THEN {name} + 0.0::DOUBLE END"


def _cycle(time: str, unit: str, function: str, zone: str) -> str:
    local = f"timezone('{zone}', make_timestamptz({time}))"
    us, day = f"epoch_us({local})", _DAY_US
    year = f"epoch_us(date_trunc('year', {local})::TIMESTAMP)"
    fraction = {
        "minute": f"({us} % 3600000000) / 3600000000::DOUBLE",
        "hour": f"({us} % {day}) / {day}::DOUBLE",
        "weekday": f"(({us} + {3 * day}) % {7 * day}) / {7 * day}::DOUBLE",
        "day_of_year": f"({us} - {year}) / {366 * day}::DOUBLE",
    }[unit]
    return f"{function}(2 * pi() * ({fraction}))"


def _text(column: str, kind: str) -> str:
    if kind == "bool":
        return f"CASE WHEN {column} THEN 'True' WHEN NOT {column} THEN 'False' END"
    return column if kind == "str" else f"{column}::VARCHAR"


def _literal(expr: Lit, kind: str) -> str:
    if kind == "str":
        return "'" + str(expr.value).replace("'", "''") + "'"
    return f"'{expr.value!r}'::{ {'bool': 'BOOLEAN', 'i64': 'BIGINT', 'f64': 'DOUBLE'}[kind] }"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _lines(columns: list[str]) -> str:
    return ",\n".join(f"    {column}" for column in columns)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))
