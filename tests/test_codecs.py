"""Both lanes of the JSON codec mean the same, to the last bit and the last reason, whatever the bytes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from thalweg.connectors import json_codec
from thalweg.connectors.arrow import columns_of
from thalweg.connectors.codecs import Form, decode, reading_of
from thalweg.connectors.json_codec import decode_json, decode_slowly
from thalweg.engine.batch import Log, Raw
from thalweg.engine.kernels.text import find_doubtful
from thalweg.engine.reading import Reading
from thalweg.engine.schema import Schema

# fmt: off
FIELDS = {
    "x": "f64", "y": "f64?", "n": "i64", "m": "i64?", "b": "bool", "c": "bool?", "s": "str", "t": "str?",
    "at": "timestamp[us, UTC]", "ms": "timestamp[ms, UTC]?", "sec": "timestamp[s, UTC]?", "ns": "timestamp[ns, UTC]?",
    "é ü": "f64?", "class": "str?", "__x__": "i64?",
}
GOOD: dict[str, Any] = {
    "x": 0.5, "y": 1, "n": 3, "m": None, "b": True, "c": False, "s": "a", "t": "b", "at": 10**15, "ms": 5, "sec": 7,
    "ns": 10**18, "é ü": -1.5, "class": "k", "__x__": 4,
}
# fmt: on
SCHEMA = Schema.parse(FIELDS)
LITERALS = """null true false 0 -0 -0.0 0.0 1 1.0 1e2 1E+2 1e-400 -1.5 9007199254740992 9007199254740993
-9007199254740993 9007199254740994 9223372036854775807 9223372036854775808 -9223372036854775809 18446744073709551615
18446744073709551616 1e18 1e100 1.0000000000000001e100 1e101 -1e101 1e308 1.7976931348623157e308
1.8e308 1e309 1e999 -1e999 5e-324 2e-324
0.1 0.30000000000000004 2.2250738585072011e-308 123456789012345678901234567890 01 1. .5 - + 1e NaN Infinity nul
"" "a" "a\\n" "\\u00e9" "\\ud83d\\ude00" "\\ud800" "\\udc00x" "\\q" "\\u12" "1" "é" [] [1] [1,] {} {"a":1e999} {"x":1}
"2013-01-01T05:00:00Z" "2013-01-01T05:00:00" "2013-01-01 05:00:00.1234567+05:30" "2013-02-29T00:00:00Z"
"1969-12-31T23:59:59Z" 253402300799999999 253402300800000000 253402300799999 253402300800000 253402300799 253402300800
-1""".split()
LITERALS += [
    "9" * 400,
    "1" + "0" * 100,
    "0." + "1" * 400,
    "[" * 1100 + "]" * 1100,
    '"' + "z" * 300 + '"',
    '"a\tb"',
    '" "',
]
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))


@st.composite
def times(draw: st.DrawFn) -> str:
    """Text that is a time, or nearly."""
    moment = draw(MOMENTS | st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC)))
    text = moment.strftime("%Y-%m-%d").zfill(10) + draw(st.sampled_from(["T", " ", "t", "_"]))
    text += moment.strftime(
        draw(st.sampled_from(["%H:%M:%S", "%H:%M:%S", "%H:%M:%S.%f", "%H%M%S", "%H:%M", "%H:%M:60"]))
    )
    text += draw(st.sampled_from(["", "", ".1", ".1234567891", ".", ",5"]))
    zone = st.sampled_from(
        ["Z", "Z", "+00:00", "-00:00", "+05:30", "-23:59", "+24:00", "+0530", "+05", "+05:30:15", "", "z", "Z "]
    )
    return text + draw(zone)


LITERAL = st.one_of(
    st.sampled_from(LITERALS),
    st.integers(-(2**70), 2**70).map(str),
    st.integers(-(10**6), 10**17).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.text(max_size=5).filter(lambda t: t.isprintable()).map(lambda t: orjson.dumps(t).decode()),
    times().map(lambda t: f'"{t}"'),
)


@st.composite
def messages(draw: st.DrawFn) -> bytes | None:
    """A good message, some of whose fields are other than they should be, absent, repeated, in another order, or whose
    bytes were hurt."""
    fields = [(name, orjson.dumps(value).decode()) for name, value in GOOD.items()]
    name = st.sampled_from([*FIELDS, "unknown", "x\\u0079", "\\u0078"])
    for at, drawn in draw(st.dictionaries(st.integers(0, len(fields)), st.tuples(name, LITERAL), max_size=3)).items():
        fields[at : at + draw(st.integers(0, 1))] = [drawn]
    if draw(st.booleans()):
        fields = draw(st.permutations(fields))
    blank = draw(st.sampled_from(["", "", "", " ", "\n", "\r\t"]))
    text = (
        f"{blank}{{{blank}"
        + f"{blank},{blank}".join(f'"{n}"{blank}:{blank}{v}' for n, v in fields)
        + f"{blank}}}{blank}"
    )
    value = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 3)) == 0:
        at, by = (
            draw(st.integers(0, len(value))),
            draw(st.binary(max_size=2) | st.sampled_from([b"\xff", b"\xc3", b'"', b"}"])),
        )
        value = value[:at] + by + value[at + draw(st.integers(0, 2)) :]
    return draw(st.sampled_from([value] * 12 + [None, b"", b"null", b"[]", b"7", value * 2, value[: len(value) // 2]]))


def same(values: list[bytes | None], schema: Schema = SCHEMA, max_bytes: int = 3000) -> None:
    columns, at, refused = decode_json(values, schema, max_bytes)
    wanted, wanted_at, wanted_refused = decode_slowly(values, schema, max_bytes)
    assert sorted(refused) == sorted(wanted_refused)
    assert at.tolist() == wanted_at.tolist()
    assert list(columns) == list(wanted)
    for name, column in columns.items():
        want = wanted[name]
        assert column.values.dtype == want.values.dtype and len(column) == len(want), name
        assert column.valid.tolist() == want.valid.tolist(), name
        assert list(map(_exact, column.tolist())) == list(map(_exact, want.tolist())), name


def _exact(value: Any) -> Any:
    return value.hex() if isinstance(value, float) else (type(value), value)


@given(st.lists(messages(), max_size=4))
def test_both_lanes_mean_the_same(values: list[bytes | None]) -> None:
    same(values)


@pytest.mark.parametrize("name", [*FIELDS, "unknown"])
def test_both_lanes_mean_the_same_for_every_literal_in_every_field(name: str) -> None:
    pieces = {n: orjson.dumps(v).decode() for n, v in GOOD.items()}
    texts = ["{" + ",".join(f'"{n}":{v}' for n, v in (pieces | {name: one}).items()) + "}" for one in LITERALS]
    same([text.encode("utf-8", "surrogatepass") for text in texts])
    for text in texts:
        same([text.encode("utf-8", "surrogatepass")])


@pytest.mark.parametrize(
    "unknown",
    [
        *(
            b'"\xff"',
            b'"\xc3',
            b'"\xed\xa0\x80"',
            b'"\xc0\x80"',
            b'"\xf4\x90\x80\x80"',
            b"1e400",
            b"12.5E+999",
            b"1" * 309,
        ),
        *(
            b"[" * 1020 + b"]" * 1020,
            b"[" * 1030 + b"]" * 1030,
            b'{"a":' * 1100 + b"1" + b"}" * 1100,
            b'"1e999"',
            b'"' + b"1" * 400 + b'"',
        ),
    ],
)
def test_unknown_fields_are_read_strictly_too(unknown: bytes) -> None:
    value = orjson.dumps(GOOD)[:-1] + b',"u":' + unknown + b"}"
    same([value], max_bytes=100_000)
    same([orjson.dumps(GOOD), value, orjson.dumps(GOOD)], max_bytes=100_000)
    same([value, b'\xa9"}'])  # what would complete a torn character stands in the next message


@given(st.lists(times(), min_size=1, max_size=5))
@example(["2020-02-29T23:59:59.999999999-00:01", "1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z"])
@example(["9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999-00:01", "2020-01-01T00:00:00.000001+23:59"])
def test_times_are_those_of_both_lanes(texts: list[str]) -> None:
    same([orjson.dumps({"at": text}) for text in texts], Schema.parse({"at": "timestamp[us, UTC]"}))


def test_usual_messages_take_the_first_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    start = datetime(2013, 1, 1, tzinfo=UTC)
    forms = [(start + timedelta(hours=i)).isoformat() for i in range(5)] + ["2013-01-01T00:00:00.123Z"]
    values: list[bytes | None] = [
        orjson.dumps(GOOD | {"at": text, "t": None, "unknown": [1, {"a": "b\n"}]}) for text in forms
    ]
    wanted = decode_slowly(values, SCHEMA, 1000)
    monkeypatch.setattr(json_codec, "decode_slowly", None)
    columns, at, refused = decode_json(values, SCHEMA, 1000)
    assert at.tolist() == list(range(6)) and refused == []
    assert columns["at"].tolist() == wanted[0]["at"].tolist()


def test_names_that_need_an_escape_are_read() -> None:
    schema = Schema.parse({'a"b': "f64", "c\\d": "i64?"})
    same([orjson.dumps({'a"b': 1.5, "c\\d": 7}), orjson.dumps({'a"b': None})], schema)


def table(rows: int) -> bytes:
    sink = pa.BufferOutputStream()
    data = pa.table({"k": pa.array(["a", None, "b"][:rows], pa.string())})
    with pa.ipc.new_stream(sink, data.schema) as writer:
        writer.write_table(data)
    return bytes(sink.getvalue())


PIECES = [b"1e400", b"e400", b"1E+308", b"1e30", b".e999", b"e", b"E", b"1", b"+", b"ab" * 99]
PIECES += [*(b"1" * n for n in (3, 255, 256, 511)), *(b"[" * n for n in (5, 999, 1000)), b"{" * 500, b"]" * 1000]


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=6).map(b"".join), max_size=4))
def test_doubtful_texts_are_found(texts: list[bytes]) -> None:
    data = np.frombuffer(b"".join(text + b"\n" for text in texts), dtype=np.uint8)
    found = np.empty(len(texts), dtype=np.bool_)
    find_doubtful(data, np.cumsum([len(text) + 1 for text in texts], dtype=np.int64), found)
    huge = re.compile(rb"[0-9./][eE]\+?[0-9]{3}|[0-9]{256}")
    deep = [len(one) > 1998 and one.count(b"[") + one.count(b"{") >= 1000 for one in texts]  # shorter, it never closes
    assert found.tolist() == [bool(huge.search(one)) or nested for one, nested in zip(texts, deep, strict=True)]


TEXTS = st.none() | st.sampled_from(["a", "b", "é", ""])


@given(st.lists(st.lists(TEXTS, max_size=5), max_size=3), st.booleans())
def test_dictionaries_in_arrow_are_texts(chunks: list[list[str | None]], null_within: bool) -> None:
    """Each chunk with a dictionary of its own, where null may stand too."""
    arrays = []
    for chunk in chunks:
        known = ["é", *sorted({one for one in chunk if one is not None}), *([None] if null_within else [])]
        places = [known.index(one) if one in known else None for one in chunk]
        arrays.append(pa.DictionaryArray.from_arrays(pa.array(places, pa.int16()), pa.array(known, pa.string())))
    whole = pa.chunked_array(arrays, pa.dictionary(pa.int16(), pa.string()))
    columns, kept, refused = columns_of(pa.table({"k": whole}), Schema.parse({"k": "str?"}))
    texts = [one for chunk in chunks for one in chunk]
    assert columns["k"].tolist() == texts and columns["k"].valid.tolist() == [one is not None for one in texts]
    assert kept.tolist() == list(range(len(texts))) and refused == []


MESSAGES: dict[str, list[bytes | None]] = {
    "json": [b'{"k": "a"}', b"", None],
    "arrow": [table(1), table(3), table(0), b"no"],
}


@given(st.lists(st.tuples(st.sampled_from(["json", "arrow"]), st.integers(0, 1), st.integers(0, 3)), max_size=12))
def test_a_reading_keeps_the_order_of_its_messages(drawn: list[tuple[str, int, int]]) -> None:
    """Of rows and rejects, one by one, whether a message has one row, several or none."""
    forms = {codec: Form(Schema.parse({"k": "str"}), codec) for codec in MESSAGES}
    raws, wanted = [], []
    for offset, (codec, partition, kind) in enumerate(drawn):
        at = np.array([offset])
        raw = Raw(Log(codec, partition), at, at, at, [None], [MESSAGES[codec][kind % len(MESSAGES[codec])]])
        raws.append(raw)
        wanted += said(Reading.of(decode(raw, forms[codec])))
    assert said(reading_of(raws, forms)) == wanted


def said(reading: Reading) -> list[tuple[Log, int, str]]:
    found = []
    for b, row in zip(reading.which.tolist(), reading.rows.tolist(), strict=True):
        batch = reading.batches[b]
        reject = batch.rejects[-1 - row] if row < 0 else None
        value = batch.columns["k"].tolist()[row] if reject is None else reject.reason
        found.append((batch.log, int(batch.offsets[row]) if reject is None else reject.offset, value))
    return found


@pytest.mark.parametrize("keys", [[b"a", b"b"], [b"a", None], [b"a\nb"], [b"a", b"b", b""], [b"a\nb", b"c"]])
def test_keys_are_compared_one_by_one(keys: list[bytes | None]) -> None:
    texts = ["a", "b\nc"] if keys[0] == b"a\nb" else ["a", "b", ""]
    values: list[bytes | None] = [orjson.dumps({"k": text}) for text in texts[: len(keys)]]
    at = np.arange(len(keys))
    batch = decode(Raw(Log("t", 0), at, at, at, keys, values), Form(Schema.parse({"k": "str"}), key="k"))
    wrong = [i for i, (key, text) in enumerate(zip(keys, texts, strict=False)) if key != text.encode()]
    assert [reject.offset for reject in batch.rejects] == wrong
    assert all(reject.reason == "key" for reject in batch.rejects)
    assert batch.offsets.tolist() == [i for i in range(len(keys)) if i not in wrong]
