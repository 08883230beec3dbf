"""A snapshot is either what was packed, or an error that says why not."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thalweg.engine.errors import SnapshotError
from thalweg.engine.snapshot import VERSION, pack, pack_json, unpack, unpack_json

DTYPES = st.sampled_from(["<f8", ">f8", "<f4", "<i8", ">i4", "u1", "?", "<c16", "S5", "<U3", "<M8[us]"])
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
STATES = st.dictionaries(st.text(max_size=8), st.one_of(ARRAYS, st.binary(max_size=20)), max_size=4)


def blob() -> bytes:
    return pack({"counts": np.array([1, -2, 3]), "model": b"\x00\x01", "on": np.array([True, False])})


@given(STATES)
def test_unpack_gives_back_what_was_packed(state):
    found = unpack(pack(state))
    assert list(found) == list(state)
    for name, item in state.items():
        if isinstance(item, bytes):
            assert found[name] == item
        else:
            assert found[name].dtype == item.dtype.newbyteorder("<")
            assert found[name].shape == item.shape
            assert found[name].tobytes() == item.astype(item.dtype.newbyteorder("<")).tobytes()


def test_arrays_come_back_writable_and_in_c_order():
    found = unpack(pack({"a": np.arange(6.0).reshape(2, 3).T}))["a"]
    assert isinstance(found, np.ndarray)
    found[0, 0] = 7.0
    assert found.flags.c_contiguous
    assert found.tolist() == [[7.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_the_same_state_has_the_same_bytes():
    assert blob() == blob()


def test_every_flipped_byte_is_found():
    whole = blob()
    for at in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[at] ^= flip
            with pytest.raises(SnapshotError):
                unpack(bytes(damaged))


def test_every_truncation_is_found():
    whole = blob()
    for length in range(len(whole)):
        with pytest.raises(SnapshotError):
            unpack(whole[:length])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it was cut"),
        (b"\x80\x05" + b"pickled" * 10, "not a snapshot"),
        (blob() + b"\x00", "something was written behind it"),
        (blob() + blob(), "something was written behind it"),
        (blob()[:6] + struct.pack("<H", VERSION + 1) + blob()[8:], f"reads format {VERSION}"),
        (blob()[:-1] + b"\x07", "damaged"),
    ],
)
def test_the_message_says_what_is_wrong(data, says):
    with pytest.raises(SnapshotError, match=says):
        unpack(data)


@pytest.mark.parametrize("array", [np.array([object()]), np.array([None]), np.zeros(2, dtype="i4,f8")])
def test_dtypes_whose_bytes_mean_nothing_are_refused(array):
    with pytest.raises(SnapshotError, match=r"snapshot item 'x' has dtype"):
        pack({"x": array})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    )
)  # fmt: skip
def test_json_gives_back_every_bit(value):
    assert repr(unpack_json(pack_json(value))) == repr(value)


@pytest.mark.parametrize("value", [float("nan"), [1.0, float("inf")], {"a": {"b": -float("inf")}}])
def test_json_refuses_what_it_would_turn_into_null(value):
    with pytest.raises(SnapshotError, match="which JSON cannot"):
        pack_json(value)


def test_json_refuses_other_types_and_other_bytes():
    with pytest.raises(SnapshotError, match="state that JSON cannot hold"):
        pack_json({1: object()})
    with pytest.raises(SnapshotError, match="not the JSON"):
        unpack_json(b"{")
