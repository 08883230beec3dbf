"""Linear and logistic regression, learned row by row: ``river/linear_model/base.py`` and ``river/optim``.

Cost per step: one pass over the features for the product, and when learning one for the gradient and one for the
optimizer; nothing is allocated. Twin: River (``tests/test_lowered.py``).
"""

from __future__ import annotations

import math

from thalweg.engine.kernels.arrays import Float64, Int64
from thalweg.engine.kernels.borrow import borrowed
from thalweg.engine.kernels.jit import inlined, kernel
from thalweg.engine.kernels.learners import Model, State, Steps, dot, meet, prepare, row_of, sigmoid
from thalweg.engine.kernels.learners_optimizers import BETA_1, NESTEROV, SGD, WEIGHT, A, rate_at, step
from thalweg.engine.kernels.learners_optimizers import NUMBERS as _OWN
from thalweg.engine.kernels.learners_optimizers import ROWS as ROWS_OF_OPTIMIZER
from thalweg.engine.kernels.learners_powers import square
from thalweg.engine.kernels.steps import LEARN

# Model.codes; OLD_PRODUCT: that of River before 0.26, which leaves out features without a weight, in another order
LOSS, OPTIMIZER, RATE, INTERCEPT_RATE, OLD_PRODUCT, TAKES_WEIGHT, CORRECTS_BIAS = range(7)
CODES = 7

# Losses; from LOG on they are of two classes, whose scores go through the sigmoid.
SQUARED, ABSOLUTE, CAUCHY, EPSILON_HINGE, HUBER, QUANTILE, POISSON, LOG, HINGE, FOCAL = range(10)

# Model.numbers, after those of the optimizer
(L1, L2, CLIP, INITIAL, LOSS_A, LOSS_B, RATE_A, RATE_B, INTERCEPT_A, INTERCEPT_B) = range(_OWN, _OWN + 10)
NUMBERS = _OWN + 10

# State.scalars
FINAL_RATE, INTERCEPT, ITERATIONS, MAX_CUM_L1 = range(4)
SCALARS = 4

# State.head: weights and what the optimizer keeps, then the L1 penalties applied so far
CUM_L1 = ROWS_OF_OPTIMIZER
ROWS = ROWS_OF_OPTIMIZER + 1


@kernel
def run_linear(steps: Steps, model: Model, state: State, work: Float64, out: Float64) -> None:
    """Carries out the steps in order; ``work`` float64[3, f] is scratch, ``out`` float64[k] is written: the
    score, or 0 where the row was learned; NaN where River raises.
    """
    kinds, rows, y, weights, strict = steps.kinds, steps.rows, steps.y, steps.weights, model.strict
    x, columns, scalers = borrowed(steps.x), borrowed(model.columns), borrowed(model.scalers)
    codes, numbers, powers = borrowed(model.codes), borrowed(model.numbers), borrowed(model.powers)
    scales, head = borrowed(state.scales), borrowed(state.head)
    scalars, order = borrowed(state.scalars), borrowed(state.order)
    picked, z, g = borrowed(work[0]), borrowed(work[1]), borrowed(work[2])
    for k in range(len(kinds)):
        learn = kinds[k] == LEARN
        raw = row_of(x, rows[k], columns, picked)
        out[k] = math.nan
        if not prepare(learn, raw, strict, scalers, scales, powers, z, g):
            continue
        if not learn:
            out[k] = _mean(codes, _predict(codes, head, scalars, order, raw, z))
        elif _learn(y[k], weights[k], codes, numbers, powers, head, scalars, order, raw, z, g):
            out[k] = 0.0


@inlined
def _predict(codes: Int64, head: Float64, scalars: Float64, order: Int64, raw: Float64, z: Float64) -> float:
    total: float = 0.0
    if codes[OLD_PRODUCT] == 1:
        total = dot(head, order, raw, z, False, False)
    else:
        for i in range(len(z)):
            if raw[i] == raw[i]:  # also by zero, where there is no weight yet
                total += (head[WEIGHT, i] if order[1, i] == 1 else 0.0) * z[i]
    total += scalars[INTERCEPT]
    return total


@inlined
def _mean(codes: Int64, value: float) -> float:
    """From the raw output to a score: the inverse of the link function of the loss."""
    if codes[LOSS] >= LOG:
        return sigmoid(value)
    if codes[LOSS] == POISSON:
        score = math.exp(value)
        return math.nan if math.isinf(score) and not math.isinf(value) else score
    return value


@inlined
def _learn(
    y: float,
    weight: float,
    codes: Int64,
    numbers: Float64,
    powers: Float64,
    head: Float64,
    scalars: Float64,
    order: Int64,
    raw: Float64,
    z: Float64,
    g: Float64,
) -> bool:
    if codes[OPTIMIZER] == NESTEROV:
        for i in range(len(z)):
            if raw[i] == raw[i] and order[1, i] == 1:
                head[WEIGHT, i] -= numbers[BETA_1] * head[A, i]
    total = 0.0
    for i in range(len(z)):
        if raw[i] == raw[i]:
            if order[1, i] == 0:
                meet(i, order)
                head[WEIGHT, i] = numbers[INITIAL]
            total += head[WEIGHT, i] * z[i]
    if codes[OLD_PRODUCT] == 1:
        total = dot(head, order, raw, z, False, True)
    slope, defined = _slope(codes[LOSS], numbers[LOSS_A], numbers[LOSS_B], powers, y, total + scalars[INTERCEPT])
    if not defined:
        return False
    if codes[TAKES_WEIGHT] == 1:
        slope *= weight
    slope = numbers[CLIP] if numbers[CLIP] < slope else slope
    slope = -numbers[CLIP] if -numbers[CLIP] > slope else slope
    t = scalars[ITERATIONS]
    scalars[INTERCEPT] -= rate_at(codes[INTERCEPT_RATE], numbers[INTERCEPT_A], numbers[INTERCEPT_B], t) * slope
    rate = rate_at(codes[RATE], numbers[RATE_A], numbers[RATE_B], t)
    corrects_bias = codes[CORRECTS_BIAS] == 1
    if codes[OPTIMIZER] == SGD and numbers[L2] == 0.0:
        for i in range(len(z)):
            moved = head[WEIGHT, i] - rate * (z[i] * slope)
            head[WEIGHT, i] = moved if raw[i] == raw[i] else head[WEIGHT, i]
    else:
        for i in range(len(z)):
            g[i] = z[i] * slope
        if numbers[L2] != 0.0:
            for i in range(len(z)):
                g[i] += numbers[L2] * head[WEIGHT, i]
        if not step(codes[OPTIMIZER], rate, t, corrects_bias, numbers, powers, scalars, head, order, raw, g):
            return False
    scalars[ITERATIONS] = t + 1.0
    if numbers[L1] != 0.0:
        _penalise(codes, numbers, head, scalars, raw)
    return True


@inlined
def _slope(loss: int, a: float, b: float, powers: Float64, y: float, value: float) -> tuple[float, bool]:
    """The gradient of the loss by the raw output, and whether River gets that far: ``river/optim/losses.py``."""
    if loss == SQUARED:
        return 2.0 * (value - y), True
    if loss == LOG:
        sign = -1.0 if y == 0.0 else 1.0
        weight = b if y == 0.0 else a
        margin = value * sign
        if margin > 18.0:
            return weight * math.exp(-margin) * -sign, True
        if margin < -18.0:
            return weight * -sign, True
        return weight * -sign / (math.exp(margin) + 1.0), True
    if loss == ABSOLUTE:
        return 1.0 if value > y else -1.0, True
    if loss == CAUCHY:
        miss = value - y
        part = miss / a
        squared = square(part, powers)
        return miss / (squared + 1.0), math.isinf(part) or not math.isinf(squared)
    if loss == EPSILON_HINGE:
        y = y * 2.0 - 1.0  # as River has it, for numbers too
        return (1.0 if value > y + a else (-1.0 if value + a < y else 0.0)), True
    if loss == HUBER:
        miss = value - y
        return (miss if abs(miss) <= a else (a if miss > 0.0 else -a)), True
    if loss == QUANTILE:
        return (1.0 if y < value else 0.0) - a, True
    if loss == POISSON:
        power = math.exp(value)
        return power - y, math.isinf(value) or not math.isinf(power)
    sign = y * 2.0 - 1.0
    if loss == HINGE:
        return (-sign if sign * value <= a else 0.0), True
    return sign * (sigmoid(a * (sign * value) + b) - 1.0), True


@kernel
def _penalise(codes: Int64, numbers: Float64, head: Float64, scalars: Float64, raw: Float64) -> None:
    """The cumulative L1 penalty: Tsuruoka, Tsujii and Ananiadou, ACL 2009, as River applies it."""
    rate = rate_at(codes[RATE], numbers[RATE_A], numbers[RATE_B], scalars[ITERATIONS])
    scalars[MAX_CUM_L1] += numbers[L1] * rate
    for i in range(len(raw)):
        if raw[i] != raw[i]:
            continue
        weight, moved = head[WEIGHT, i], head[WEIGHT, i]
        if weight > 0.0:
            moved = weight - (scalars[MAX_CUM_L1] + head[CUM_L1, i])
            moved = moved if moved > 0.0 else 0.0
        elif weight < 0.0:
            moved = weight + (scalars[MAX_CUM_L1] - head[CUM_L1, i])
            moved = moved if moved < 0.0 else 0.0
        head[WEIGHT, i] = moved
        head[CUM_L1, i] += moved - weight
