"""Numbers as integers of 128 and 192 bits in a unit that a column shares, so that sums can be taken apart again.

A float64 is a whole number of 53 bits times a power of two. In a common unit the running total of a column is an
integer, which is exact, also modulo 2^128: the sum over a window is the total at its end less that at its beginning,
whatever came before. Squares are integers of 192 bits. Words of several are int64, lowest first, in two's complement;
their arithmetic wraps. Naive twin: ``tests/naive_windows.py`` (``math.fsum``).
"""

from __future__ import annotations

from thalweg.engine.kernels.jit import inlined_part, part

# A value whose shift is at most WIDEST is a whole number that fits: a sum of fewer than MOST values has 53 + 26 + 24
# bits and a sign, and above them in its upper word stands their number; squares have 106 + 2 * 26 + 24 bits of 192.
WIDEST = 26
MOST = 1 << 24
ONE_MORE = 1 << 40

# A unit is the biased exponent of what has shift 0; from this one on its power of two is far from subnormal numbers.
LEAST_UNIT = 75
NO_UNIT = 52

_FRACTION = (1 << 52) - 1
_ONE = 1 << 52
_SIGN = -(2**63)
_POSITIVE = 2**63 - 1
_LOW = 0xFFFFFFFF
_WORD = 2.0**64


@inlined_part
def below(a: int, b: int) -> bool:
    """a < b as unsigned words."""
    return (a ^ _SIGN) < (b ^ _SIGN)


@inlined_part
def exponent_of(bits: int) -> int:
    """The biased exponent of the float64 of these bits."""
    return (bits >> 52) & 0x7FF


@inlined_part
def mantissa_of(bits: int) -> int:
    """The whole number of a normal float64."""
    return (bits & _FRACTION) | _ONE


@part
def whole(bits: int, unit: int) -> int:
    """A value below the unit as a multiple of it, without sign; -1 where it is none."""
    mantissa = bits & _FRACTION
    exponent = exponent_of(bits)
    if exponent > 0:
        mantissa |= _ONE
    down = unit - max(exponent, 1)
    if mantissa == 0:
        return 0
    if unit == NO_UNIT or down < 0 or down > 52 or mantissa & ((1 << down) - 1) != 0:
        return -1
    return mantissa >> down


@inlined_part
def shifted(mantissa: int, shift: int, negative: bool) -> tuple[int, int]:
    """+- mantissa * 2^shift in two words, for shifts below 64."""
    low = mantissa << shift
    high = (mantissa >> 1) >> (63 - shift)
    if negative:
        low = -low
        high = ~high + (1 if low == 0 else 0)
    return low, high


@inlined_part
def square(mantissa: int, shift: int) -> tuple[int, int, int]:
    """(mantissa * 2^shift)^2 in three words, for mantissas of 53 bits and shifts below 32."""
    a, b = mantissa >> 27, mantissa & ((1 << 27) - 1)
    y, z = a * b, b * b
    t = (y << 28) + z
    low = t + ((a * a) << 54)
    high = ((a * a) >> 10) + (y >> 36)
    if below(t, z):
        high += 1
    if below(low, t):
        high += 1
    k = 2 * shift
    middle = (high << k) | (((low >> 1) & _POSITIVE) >> (63 - k))
    return low << k, middle, (high >> 1) >> (63 - k)


@inlined_part
def added(a: int, b: int, carry: int) -> tuple[int, int]:
    """a + b + carry as a word, and what is carried."""
    s = a + b
    t = s + carry
    return t, (1 if below(s, a) else 0) + (1 if below(t, s) else 0)


@inlined_part
def taken(a: int, b: int, borrow: int) -> tuple[int, int]:
    """a - b - borrow as a word, and what is borrowed."""
    s = a - b
    return s - borrow, (1 if below(a, b) else 0) + (1 if below(s, borrow) else 0)


@inlined_part
def parted(high: int) -> tuple[int, int]:
    """The upper word of a sum, and how many values it is of."""
    upper = (high << 24) >> 24
    return upper, ((high - upper) >> 40) & (MOST - 1)


@inlined_part
def nearest(low: int, high: int) -> float:
    """The double nearest to an integer of less than 117 bits in two words, ties to even.

    Three exact parts; where the first two fill 53 bits the third is below any tie, so its being there is enough.
    """
    a = float(high) * _WORD
    b = float((low >> 32) & _LOW) * 4294967296.0
    c = float(low & _LOW)
    s = a + b
    e = b - (s - a)
    if e != 0.0:
        c = 2147483648.0 if c > 0.0 else 0.0
    return s + (e + c)


@inlined_part
def unsigned(word: int) -> float:
    """A word without sign as a double."""
    return float(word) + (_WORD if word < 0 else 0.0)


@inlined_part
def about(w0: int, w1: int, w2: int) -> float:
    """The double near an integer of 191 bits, not below 0, within two units in the last place."""
    return (float(w2) * _WORD + unsigned(w1)) * _WORD + unsigned(w0)


@part
def _product(a: int, b: int) -> tuple[int, int]:
    """The two words of a product of words without sign (Knuth, The Art of Computer Programming 2, 4.3.1, algorithm M).

    The halves are added one after the other: adding both middle products at once loses a bit where a = b, in the
    code that LLVM 14 (Numba 0.59) makes of it.
    """
    a0, a1, b0, b1 = a & _LOW, (a >> 32) & _LOW, b & _LOW, (b >> 32) & _LOW
    t = a1 * b0 + (((a0 * b0) >> 32) & _LOW)
    middle = a0 * b1 + (t & _LOW)
    return a * b, a1 * b1 + ((t >> 32) & _LOW) + ((middle >> 32) & _LOW)


@part
def spread(n: int, low: int, high: int, q0: int, q1: int, q2: int) -> float:
    """n * squares - sum^2, which is never below 0: exact, and rounded at the end to three units in the last place."""
    if high < 0:
        low = -low
        high = ~high + (1 if low == 0 else 0)
    # sum^2, four words
    s0, s1 = _product(low, low)
    c0, c1 = _product(low, high)
    s2, s3 = _product(high, high)
    for _ in range(2):
        s1, carry = added(s1, c0, 0)
        s2, carry = added(s2, c1, carry)
        s3 += carry
    # n * squares
    p0, p1 = _product(q0, n)
    d0, d1 = _product(q1, n)
    e0, e1 = _product(q2, n)
    p1, carry = added(p1, d0, 0)
    p2, carry = added(d1, e0, carry)
    p3 = e1 + carry
    v0, borrow = taken(p0, s0, 0)
    v1, borrow = taken(p1, s1, borrow)
    v2, borrow = taken(p2, s2, borrow)
    v3 = p3 - s3 - borrow
    return float(v3) * (_WORD * _WORD * _WORD) + about(v0, v1, 0) + unsigned(v2) * (_WORD * _WORD)
