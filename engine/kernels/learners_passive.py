"""Passive-aggressive learning, row by row: ``river/linear_model/pa.py``.

Crammer et al., JMLR 7 (2006), sections 3 and 5. Cost per step: two passes over the features. Twin: River.
"""

from __future__ import annotations

import math

from thalweg.engine.kernels.arrays import Float64, Int64
from thalweg.engine.kernels.borrow import borrowed
from thalweg.engine.kernels.jit import inlined, kernel
from thalweg.engine.kernels.learners import (
    Model,
    State,
    Steps,
    dot,
    length,
    meet,
    prepare,
    row_of,
    sigmoid,
)
from thalweg.engine.kernels.learners_powers import square
from thalweg.engine.kernels.steps import LEARN

# Model.codes: a classifier (1) or a regressor (0); River's mode; whether sums are compensated
CLASSIFIES, MODE, HAS_INTERCEPT, COMPENSATED = range(4)
CODES = 4

# Model.numbers: River's C and eps
AGGRESSIVENESS, EPS = range(2)
NUMBERS = 2

# State.scalars; State.head has one row, the weights
INTERCEPT = 0
SCALARS = 1


@kernel
def run_passive(steps: Steps, model: Model, state: State, work: Float64, out: Float64) -> None:
    """Carries out the steps in order; ``work`` float64[3, f] is scratch, ``out`` float64[k] is written: the
    score, or 0 where the row was learned; NaN where River raises.
    """
    kinds, rows, y, strict = steps.kinds, steps.rows, steps.y, model.strict
    x, columns, scalers = borrowed(steps.x), borrowed(model.columns), borrowed(model.scalers)
    codes, numbers, powers = borrowed(model.codes), borrowed(model.numbers), borrowed(model.powers)
    scales, head = borrowed(state.scales), borrowed(state.head)
    scalars, order = borrowed(state.scalars), borrowed(state.order)
    picked, z, spare = borrowed(work[0]), borrowed(work[1]), borrowed(work[2])
    for k in range(len(kinds)):
        learn = kinds[k] == LEARN
        raw = row_of(x, rows[k], columns, picked)
        out[k] = math.nan
        if not prepare(learn, raw, strict, scalers, scales, powers, z, spare):
            continue
        value = dot(head, order, raw, z, codes[COMPENSATED] == 1, False) + scalars[INTERCEPT]
        if not learn:
            out[k] = sigmoid(value) if codes[CLASSIFIES] == 1 else value
        elif _learn(y[k], value, codes, numbers, powers, head, scalars, order, raw, z, spare):
            out[k] = 0.0


@inlined
def _learn(
    y: float,
    value: float,
    codes: Int64,
    numbers: Float64,
    powers: Float64,
    head: Float64,
    scalars: Float64,
    order: Int64,
    raw: Float64,
    z: Float64,
    spare: Float64,
) -> bool:
    if codes[CLASSIFIES] == 1:
        sign = y * 2.0 - 1.0
        loss = 1.0 - sign * value
    else:
        miss = y - value
        sign = 1.0 if miss > 0.0 else (-1.0 if miss < 0.0 else miss)  # NaN stays NaN
        loss = abs(value - (y * 2.0 - 1.0)) - numbers[EPS]  # as River has it, for numbers too
    loss = 0.0 if loss < 0.0 else loss
    norm = length(raw, z, spare)
    squared = square(norm, powers)
    if math.isinf(squared) and not math.isinf(norm):
        return False
    size = _size(codes[MODE], numbers[AGGRESSIVENESS], loss, squared) * sign
    for i in range(len(z)):
        if raw[i] == raw[i]:
            if order[1, i] == 0:
                meet(i, order)
            head[0, i] += size * z[i]
    if codes[HAS_INTERCEPT] == 1:
        scalars[INTERCEPT] += size
    return True


@inlined
def _size(mode: int, aggressiveness: float, loss: float, squared: float) -> float:
    """How far to go, before the sign: River's tau."""
    if mode == 2:
        return loss / (squared + 0.5 / aggressiveness)
    if not squared > 0.0:
        return 0.0
    if mode == 0:
        return loss / squared
    return loss / squared if loss / squared < aggressiveness else aggressiveness
