"""Online models over arrays: what every learner shares, which is the steps, the state and the scalers.

A step predicts one row or learns it. A row is what River's dictionary would hold, NaN where the feature is
absent. The arithmetic and its order are River's (``river/preprocessing/scale.py``, ``river/compose/select.py``);
River itself is the twin that ``tests/test_lowered.py`` compares with. Where River raises, a function here returns
False, and what stood learned before the exception stays learned.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from thalweg.engine.kernels.arrays import Float64, Int8, Int64
from thalweg.engine.kernels.jit import inlined, kernel
from thalweg.engine.kernels.learners_powers import is_root_doubtful

# Scalers, and what their four rows of state hold: count, mean, variance, deviation; smallest, largest; largest size.
STANDARD, CENTRE, MIN_MAX, MAX_ABS, NORM_1, NORM_2 = range(6)


class Steps(NamedTuple):
    """Input: kinds int8[k] (PREDICT or LEARN), rows int64[k] of x float64[r, columns], y float64[k] (what is learned:
    a number, or 1 and 0 for the classes), weights float64[k]."""

    kinds: Int8
    rows: Int64
    x: Float64
    y: Float64
    weights: Float64


class Model(NamedTuple):
    """What is computed: columns int64[f] of x in use, strict (1: River raises when one is absent), scalers int64[s]
    in order, powers float64[3] (:data:`POWERS`), and codes int64 and numbers float64 as the learner reads them."""

    columns: Int64
    strict: int
    scalers: Int64
    powers: Float64
    codes: Int64
    numbers: Float64


class State(NamedTuple):
    """What is learned: scales float64[s, 4, f]; head float64[h, f] and scalars float64 as the learner keeps them;
    order int64[2, f]: the features in the order in which they were first learned, and which ones were (0 or 1)."""

    scales: Float64
    head: Float64
    scalars: Float64
    order: Int64


@inlined
def row_of(x: Float64, row: int, columns: Int64, spare: Float64) -> Float64:
    """float64[f]: the columns in use of a row, as a view of x where all are, or in ``spare`` float64[f]."""
    if len(columns) == x.shape[1]:  # all, in order
        whole: Float64 = x[row]
        return whole
    for i in range(len(columns)):
        spare[i] = x[row, columns[i]]
    return spare


@inlined
def prepare(
    learn: bool,
    raw: Float64,
    strict: int,
    scalers: Int64,
    scales: Float64,
    powers: Float64,
    z: Float64,
    spare: Float64,
) -> bool:
    """Scales the row ``raw`` float64[f] into ``z`` float64[f]; the scalers learn it first where ``learn``. ``spare``
    float64[f] is written. False: River raises here.
    """
    if strict == 1:
        for i in range(len(z)):
            if raw[i] != raw[i]:
                return False
    if len(scalers) == 0 or scalers[0] > CENTRE:
        for i in range(len(z)):
            z[i] = raw[i]
    for s in range(len(scalers)):
        scaler = scalers[s]
        if scaler <= CENTRE:
            if s == 0:
                _standard(learn, s, scaler, powers[0], scales, raw, raw, z)
            else:
                _standard(learn, s, scaler, powers[0], scales, raw, z, z)
        elif scaler == MIN_MAX:
            _min_max(learn, s, scales, raw, z)
        elif scaler == MAX_ABS:
            _max_abs(learn, s, scales, raw, z)
        elif not _normalise(scaler, raw, z, spare):
            return False
    return True


@inlined
def _standard(
    learn: bool, s: int, scaler: int, half: float, scales: Float64, raw: Float64, given: Float64, z: Float64
) -> None:
    """From ``given`` into ``z``, which may be the same."""
    if learn:
        _learn_standard(s, half, scales, raw, given)
    if scaler == STANDARD:
        for i in range(len(z)):
            scaled = (given[i] - scales[s, 1, i]) / scales[s, 3, i]
            z[i] = 0.0 if scales[s, 2, i] == 0.0 else scaled
    else:
        for i in range(len(z)):
            z[i] = given[i] - scales[s, 1, i]


@inlined
def _learn_standard(s: int, half: float, scales: Float64, raw: Float64, given: Float64) -> None:
    # Without branches: LLVM makes vectors of it.
    doubtful = 0
    for i in range(len(raw)):
        here = raw[i] == raw[i]
        count, mean, variance = scales[s, 0, i] + 1.0, scales[s, 1, i], scales[s, 2, i]
        new_mean = mean + (given[i] - mean) / count
        new_variance = variance + ((given[i] - mean) * (given[i] - new_mean) - variance) / count
        new_variance = new_variance if here else variance
        deviation = math.sqrt(new_variance)
        doubt = is_root_doubtful(new_variance, deviation)
        doubtful += doubt
        scales[s, 0, i] = count if here else scales[s, 0, i]
        scales[s, 1, i] = new_mean if here else mean
        scales[s, 2, i] = new_variance
        scales[s, 3, i] = -deviation if doubt else deviation
    if doubtful > 0:
        for i in range(len(raw)):
            if scales[s, 3, i] < 0.0:
                scales[s, 3, i] = math.pow(scales[s, 2, i], half)


@inlined
def _min_max(learn: bool, s: int, scales: Float64, raw: Float64, z: Float64) -> None:
    for i in range(len(z)):
        if raw[i] != raw[i]:
            continue
        if learn:
            scales[s, 0, i] = z[i] if z[i] < scales[s, 0, i] else scales[s, 0, i]
            scales[s, 1, i] = z[i] if z[i] > scales[s, 1, i] else scales[s, 1, i]
        length = scales[s, 1, i] - scales[s, 0, i]
        z[i] = (z[i] - scales[s, 0, i]) / length if length != 0.0 else 0.0


@inlined
def _max_abs(learn: bool, s: int, scales: Float64, raw: Float64, z: Float64) -> None:
    for i in range(len(z)):
        if raw[i] != raw[i]:
            continue
        if learn and abs(z[i]) > scales[s, 0, i]:
            scales[s, 0, i] = abs(z[i])
        z[i] = z[i] / scales[s, 0, i] if scales[s, 0, i] != 0.0 else 0.0


@kernel
def _normalise(scaler: int, raw: Float64, z: Float64, spare: Float64) -> bool:
    """False where all that is there is zero: River divides by it."""
    norm, some = 0.0, False
    for i in range(len(z)):
        if raw[i] == raw[i]:
            some = True
            norm += abs(z[i])
    if scaler == NORM_2:
        norm = length(raw, z, spare)
    if some and norm == 0.0:
        return False
    for i in range(len(z)):
        z[i] /= norm
    return True


@kernel
def length(raw: Float64, z: Float64, spare: Float64) -> float:
    """The Euclidean norm of what is there, summed as ``numpy.linalg.norm`` does it, which is by BLAS; ``spare``
    float64[f] is written."""
    n = 0
    for i in range(len(z)):
        if raw[i] == raw[i]:
            spare[n] = z[i]
            n += 1
    return math.sqrt(np.dot(spare[:n], spare[:n]))


@kernel
def meet(i: int, order: Int64) -> None:
    """Feature ``i`` is learned for the first time."""
    known = 0
    for j in range(order.shape[1]):
        known += order[1, j]
    order[0, known] = i
    order[1, i] = 1


@inlined
def sigmoid(x: float) -> float:
    """River's: exactly 0 and 1 beyond 30, so that nothing overflows."""
    if x < -30.0:
        return 0.0
    if x > 30.0:
        return 1.0
    return 1.0 / (1.0 + math.exp(-x))


@inlined
def add(total: float, low: float, x: float, compensated: bool) -> tuple[float, float]:
    """One more term of Python's ``sum`` of floats: since 3.12 with Neumaier's compensation, kept in ``low``
    (Zeitschrift fuer Angewandte Mathematik und Mechanik 54 (1974), page 39)."""
    new = total + x
    if compensated:
        low += (total - new) + x if abs(total) >= abs(x) else (x - new) + total
    return new, low


@inlined
def added(total: float, low: float) -> float:
    """The end of that sum."""
    return total + low if low != 0.0 and math.isfinite(low) else total


@kernel
def dot(head: Float64, order: Int64, raw: Float64, z: Float64, compensated: bool, by_weights: bool) -> float:
    """The product of the row and the weights (the first row of ``head``), leaving out what has none.

    River walks the shorter of the two, or always the weights, which stand in the order of their first learning.
    """
    here, known = 0, 0
    for i in range(len(z)):
        here += 1 if raw[i] == raw[i] else 0
        known += order[1, i]
    by_weights = by_weights or here >= known
    total, low = 0.0, 0.0
    for j in range(len(z)):
        i = order[0, j] if by_weights else j
        if (j < known if by_weights else order[1, i] == 1) and raw[i] == raw[i]:
            total, low = add(total, low, z[i] * head[0, i], compensated)
    return added(total, low)
