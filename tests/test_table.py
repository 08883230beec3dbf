"""Rows by column have the bytes of ``orjson.dumps`` of their dicts; vectors hash as the naive twin says."""

from __future__ import annotations

import math
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from thalweg.connectors.arrow import ArrowError, arrow_rows, dicts_of, stream_of
from thalweg.connectors.codecs import encode
from thalweg.engine.features.plan import vector_hash
from thalweg.engine.kernels.text import placed, vector_hashes
from thalweg.engine.records import Block
from thalweg.engine.table import Constant, Flag, Hex, Numbered, Table, Times, Values, dicts, json_rows, texts

ABSENT = object()
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ['"', "\\", '\\"', '",', "],[", "}{", "\x00\x1f", "\u2028é😀", "a" * 40]
)
WHOLE = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
MIN_TIME, MAX_TIME = -62_167_219_200_000_000, 253_402_300_799_999_999


def naive(table: Table) -> list[bytes]:
    return [orjson.dumps(value) for value in _objects(table)]


def _objects(table: Table) -> list[dict[str, Any]]:
    columns = {name: _values(values, table.length) for name, values in table.fields.items()}
    return [{name: c[i] for name, c in columns.items() if c[i] is not ABSENT} for i in range(table.length)]


def _values(values: Values, n: int) -> list[Any]:
    if isinstance(values, Constant):
        return [values.value] * n
    if isinstance(values, Times):
        valid = [True] * n if values.valid is None else values.valid.tolist()
        texts = [str(np.datetime_as_string(np.datetime64(int(t), "us"), unit="us")) + "Z" for t in values.values]
        return [one if ok else None for one, ok in zip(texts, valid, strict=True)]
    if isinstance(values, Hex):
        return [f"{one:016x}" for one in values.values.tolist()]
    if isinstance(values, Flag):
        return [True if one else ABSENT for one in values.values.tolist()]
    if isinstance(values, Numbered):
        rows = [-1] * n if values.rows is None else values.rows.tolist()
        numbers = [f"{one}" if row < 0 else f"{one}.{row}" for one, row in zip(values.numbers, rows, strict=True)]
        return [values.prefix + one + values.suffix for one in numbers]
    if isinstance(values, Table):
        return _objects(values)
    return values if isinstance(values, list) else values.tolist()


def columns(n: int, deep: int = 2) -> st.SearchStrategy[Values]:
    truths, wholes = arrays(np.bool_, n), arrays(np.int64, n, elements=WHOLE)
    times = arrays(np.int64, n, elements=st.integers(MIN_TIME, MAX_TIME) | st.integers(0, 2 * 10**15))
    rows = arrays(np.int64, n, elements=st.integers(-1, 12))
    flat: list[st.SearchStrategy[Values]] = [
        st.builds(Constant, JSON),
        st.lists(JSON, min_size=n, max_size=n),
        st.lists(TEXT | st.none(), min_size=n, max_size=n),
        arrays(np.float64, n),
        wholes,
        truths,
        st.builds(Times, times, st.none() | truths),
        st.builds(Hex, arrays(np.uint64, n)),
        st.builds(Flag, truths),
        st.builds(Numbered, TEXT, wholes, TEXT, st.none() | rows),
    ]
    return st.one_of(*flat, *([tables(st.just(n), deep - 1)] if deep else []))


@st.composite
def tables(draw: st.DrawFn, lengths: st.SearchStrategy[int], deep: int = 2) -> Table:
    n = draw(lengths)
    return Table(n, draw(st.dictionaries(TEXT, columns(n, deep), max_size=6)))


@st.composite
def arrow_tables(draw: st.DrawFn, lengths: st.SearchStrategy[int], deep: int = 1) -> Table:
    """Of what has a type in Arrow; times are those of Python."""
    n = draw(lengths)
    past = arrays(np.int64, n, elements=st.integers(0, MAX_TIME))
    column: list[st.SearchStrategy[Values]] = [
        st.builds(Constant, st.none() | TEXT | WHOLE),
        st.lists(TEXT | st.none(), min_size=n, max_size=n),
        arrays(np.float64, n),
        arrays(np.int64, n),
        st.builds(Times, past, st.none() | arrays(np.bool_, n)),
        st.builds(Hex, arrays(np.uint64, n)),
        st.builds(Flag, arrays(np.bool_, n)),
        st.builds(
            Numbered, TEXT, arrays(np.int64, n), TEXT, st.none() | arrays(np.int64, n, elements=st.integers(-1, 9))
        ),
    ]
    inner = [arrow_tables(st.just(n), deep - 1)] if deep else []
    return Table(n, draw(st.dictionaries(TEXT, st.one_of(*column, *inner), min_size=1, max_size=5)))


@given(tables(st.integers(0, 5)))
def test_rows_have_the_bytes_of_their_dicts(table: Table) -> None:
    assert json_rows(table) == naive(table)
    assert dicts(table) == [orjson.loads(row) for row in naive(table)]


@pytest.mark.parametrize("fields", [{}, {"f": Flag(np.array([True, False]))}, {"t": Table(2, {})}])
def test_objects_without_a_sure_field(fields: dict[str, Values]) -> None:
    table = Table(2, fields)
    assert json_rows(table) == naive(table)


def test_texts_are_joined_whatever_their_number() -> None:
    for n in (0, 1, 700):
        values = Numbered('"é', np.arange(n), "/m", np.arange(n) % 3 - 1)
        data, ends = texts(values)
        pieces = [data[a:b].decode() for a, b in pairwise([0, *ends.tolist()])]
        assert pieces == _values(values, n)


@given(arrow_tables(st.integers(0, 4)))
def test_arrow_rows_say_what_json_rows_say(table: Table) -> None:
    with pa.ipc.open_stream(stream_of(arrow_rows(table))) as stream:
        found = stream.read_all()
    assert found.to_pylist() == [_as_arrow(row, table) for row in _objects(table)]
    assert dicts_of(found) == dicts(table)


def _as_arrow(row: dict[str, Any], table: Table) -> dict[str, Any]:
    """A flag that is absent is false, a time is a time."""
    said: dict[str, Any] = {}
    for name, values in table.fields.items():
        value = row.get(name)
        if isinstance(values, Table):
            value = _as_arrow(row[name], values)
        elif isinstance(values, Flag):
            value = name in row
        elif isinstance(values, Times) and value is not None:
            value = datetime.fromisoformat(value)
        elif isinstance(value, float) and not math.isfinite(value):
            value = None
        said[name] = value
    return said


def test_arrow_messages_stay_below_what_a_broker_takes() -> None:
    n = 9_000
    block = Block("predictions", 0, [b"k"] * n, Table(n, {"n": np.arange(n), "text": ["x" * 300] * n}), np.arange(n))
    keys, values = encode(block, "arrow")
    assert len(keys) == len(values) == 4 and max(map(len, values)) < 1_000_000
    assert [row["n"] for value in values for row in pa.ipc.open_stream(value).read_all().to_pylist()] == list(range(n))


def test_values_without_a_common_type_are_named() -> None:
    with pytest.raises(ArrowError, match="'k' has values without a common type"):
        arrow_rows(Table(2, {"k": ["a", {"b": 1}]}))


def test_times_at_the_edges_and_beyond_them() -> None:
    edges = [MIN_TIME, -1, 0, 951_782_400_000_000, MAX_TIME, MAX_TIME + 1, MIN_TIME - 1]
    for values in (edges[:5], edges):
        table = Table(len(values), {"t": Times(np.array(values))})
        assert json_rows(table) == naive(table)


def test_arrays_need_not_be_contiguous() -> None:
    whole = np.arange(12).reshape(4, 3)
    table = Table(
        4, {"x": whole[:, 1].astype(np.float64)[::-1], "n": whole[:, 2], "h": Hex(whole[:, 0].view(np.uint64))}
    )
    assert json_rows(table) == naive(table)


def test_columns_of_another_length_are_no_table() -> None:
    with pytest.raises(AssertionError):
        json_rows(Table(2, {"k": ["a"]}))


@st.composite
def vectors(draw: st.DrawFn) -> tuple[list[bool], list[list[Any]]]:
    is_text = draw(st.lists(st.booleans(), max_size=7))
    number = st.none() | st.floats(allow_nan=False)
    row = st.tuples(*(st.none() | TEXT if one else number for one in is_text)).map(list)
    return is_text, draw(st.lists(row, max_size=4))


@given(vectors())
def test_vectors_hash_as_rule_10_says(drawn: tuple[list[bool], list[list[Any]]]) -> None:
    is_text, rows = drawn
    numbers = [[np.nan if one is None or isinstance(one, str) else one for one in row] for row in rows]
    texts = [[row[f] for row in rows] for f, text in enumerate(is_text) if text]
    found = vector_hashes(
        np.array(numbers, dtype=np.float64).reshape(len(rows), len(is_text)), np.array(is_text, np.int8), *placed(texts)
    )
    assert [f"{one:016x}" for one in found.tolist()] == [vector_hash(row) for row in rows]
