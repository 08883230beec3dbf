"""Naive Bayes with a Gaussian a feature and class, learned row by row: ``river/naive_bayes/gaussian.py``.

West, Communications of the ACM 22 (1979), for mean and variance. Cost per prediction: an exponential and a logarithm
a feature and class. Twin: River.
"""

from __future__ import annotations

import math

from thalweg.engine.kernels.arrays import Float64, Int64
from thalweg.engine.kernels.borrow import borrowed
from thalweg.engine.kernels.jit import inlined, kernel
from thalweg.engine.kernels.learners import Model, State, Steps, add, added, prepare, row_of
from thalweg.engine.kernels.steps import LEARN

# Model.codes: whether sums are compensated, and what a variance is divided by less than the count
COMPENSATED, DDOF = range(2)
CODES = 2

# State.scalars: how many rows of class False and of class True, and which was the first (0 or 1)
FIRST = 2
SCALARS = 3

# State.head, of class False and then of class True
COUNT, MEAN, SQUARES = range(3)
ROWS = 6

_FLOOR = 10e-10  # River adds it to every density
_ROOT_OF_TAU = math.sqrt(2.0 * math.pi)


@kernel
def run_bayes(steps: Steps, model: Model, state: State, work: Float64, out: Float64) -> None:
    """Carries out the steps in order; ``work`` float64[3, f] is scratch, ``out`` float64[k] is written: P(True),
    NaN before anything is learned and infinity where River raises or has no number; or 0 where the row was learned,
    NaN where River raises.
    """
    kinds, rows, y, strict = steps.kinds, steps.rows, steps.y, model.strict
    x, columns, scalers = borrowed(steps.x), borrowed(model.columns), borrowed(model.scalers)
    codes, powers = borrowed(model.codes), borrowed(model.powers)
    scales, head, counts = borrowed(state.scales), borrowed(state.head), borrowed(state.scalars)
    picked, z, spare = borrowed(work[0]), borrowed(work[1]), borrowed(work[2])
    for k in range(len(kinds)):
        learn = kinds[k] == LEARN
        raw = row_of(x, rows[k], columns, picked)
        defined = prepare(learn, raw, strict, scalers, scales, powers, z, spare)
        if learn:
            out[k] = math.nan
            if defined:
                _learn(1 if y[k] != 0.0 else 0, head, counts, raw, z)
                out[k] = 0.0
        else:
            out[k] = _predict(codes, head, counts, raw, z) if defined else math.inf


@inlined
def _learn(label: int, head: Float64, counts: Float64, raw: Float64, z: Float64) -> None:
    if counts[0] == 0.0 and counts[1] == 0.0:
        counts[FIRST] = label
    counts[label] += 1.0
    base = 3 * label
    for i in range(len(z)):
        if raw[i] == raw[i]:
            mean = head[base + MEAN, i]
            head[base + COUNT, i] += 1.0
            head[base + MEAN, i] += (1.0 / head[base + COUNT, i]) * (z[i] - mean)
            head[base + SQUARES, i] += (z[i] - mean) * (z[i] - head[base + MEAN, i])


@inlined
def _predict(codes: Int64, head: Float64, counts: Float64, raw: Float64, z: Float64) -> float:
    if counts[0] == 0.0 and counts[1] == 0.0:
        return math.nan
    if counts[1] == 0.0 or counts[0] == 0.0:
        only = _log_likelihood(0 if counts[1] == 0.0 else 1, codes, head, counts, raw, z)
        if math.isnan(only):
            return math.inf
        return 0.0 if counts[1] == 0.0 else 1.0
    no = _log_likelihood(0, codes, head, counts, raw, z)
    yes = _log_likelihood(1, codes, head, counts, raw, z)
    high, less = (yes, no) if yes > no else (no, yes)
    score = math.exp(yes - (high + math.log1p(math.exp(less - high))))
    return math.inf if math.isnan(score) else score


@inlined
def _log_likelihood(label: int, codes: Int64, head: Float64, counts: Float64, raw: Float64, z: Float64) -> float:
    base = 3 * label
    total, low = 0.0, 0.0
    for i in range(len(z)):
        if raw[i] == raw[i]:
            density = 0.0
            if head[base + COUNT, i] > codes[DDOF]:
                variance = head[base + SQUARES, i] / (head[base + COUNT, i] - codes[DDOF])
                if variance > 0.0:
                    deviation = math.sqrt(variance)
                    away = (z[i] - head[base + MEAN, i]) / deviation
                    density = math.exp(-0.5 * away * away) / _ROOT_OF_TAU / deviation
            total, low = add(total, low, math.log(_FLOOR + density), codes[COMPENSATED] == 1)
    return math.log(counts[label] / (counts[0] + counts[1])) + added(total, low)
