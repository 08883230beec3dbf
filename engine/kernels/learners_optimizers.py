"""One step of an optimizer, as ``river/optim`` takes it: feature by feature, in River's order of operations.

SGD without L2 stands in ``learners_linear.py``, too, since a call with ten arrays takes as long as it does.

Sources: Duchi, Hazan and Singer, JMLR 12 (2011) (AdaGrad); Zeiler, arXiv 1212.5701 (AdaDelta); Kingma and Ba, ICLR 2015
(Adam, AdaMax); Reddi, Kale and Kumar, ICLR 2018 (AMSGrad); Dozat, ICLR 2016 workshop (Nadam); Luo et al., ICLR 2019
(AdaBound); McMahan et al., KDD 2013 (FTRL-Proximal). Cost: one pass over the features. Twin: River.
"""

from __future__ import annotations

import math

from thalweg.engine.kernels.arrays import Float64, Int64
from thalweg.engine.kernels.jit import inlined, kernel
from thalweg.engine.kernels.learners_powers import inverse, root, square

# Optimizers, in the alphabet's order.
(ADA_BOUND, ADA_DELTA, ADA_GRAD, ADA_MAX, ADAM, AMS_GRAD, FTRL, MOMENTUM, NADAM, NESTEROV, RMS_PROP, SGD) = range(12)

# Schedules of a learning rate, with their two numbers: rate | rate and power | alpha and t0.
CONSTANT, INVERSE_SCALING, OPTIMAL = range(3)

# Where the optimizer's numbers stand; BETA_1 is also rho. FTRL's are alpha, beta, l1 and l2 in the same places.
BETA_1, BETA_2, EPS, GAMMA, BASE_RATE = range(5)
ALPHA, BETA, L1, L2 = range(4)
NUMBERS = 5

# State, a row of numbers a feature: the weights, and what the optimizer keeps.
WEIGHT, A, B, C = range(4)
ROWS = 4


@inlined
def rate_at(schedule: int, a: float, b: float, t: float) -> float:
    """The learning rate after ``t`` iterations: ``river/optim/schedulers.py``."""
    if schedule == INVERSE_SCALING:
        return a / math.pow(t + 1.0, b)
    if schedule == OPTIMAL:
        return 1.0 / (a * (b + t))
    return a


@kernel
def step(
    optimizer: int,
    rate: float,
    t: float,
    corrects_bias: bool,
    numbers: Float64,
    powers: Float64,
    final_rate: Float64,
    head: Float64,
    order: Int64,
    raw: Float64,
    g: Float64,
) -> bool:
    """Moves the weights of the features that are there (``raw`` float64[f] is not NaN) against the gradient ``g``
    float64[f], at iteration ``t`` with that learning ``rate``. Written: ``head`` float64[ROWS or more, f] and, by
    AdaBound, ``final_rate`` float64[1]. False where River divides by zero or overflows; what comes before is written.
    """
    if optimizer == SGD:
        for i in range(len(g)):
            moved = head[WEIGHT, i] - rate * g[i]
            head[WEIGHT, i] = moved if raw[i] == raw[i] else head[WEIGHT, i]
        return True
    if optimizer == FTRL:
        return _follow_the_leader(numbers, powers, head, raw, g)
    if optimizer in (ADAM, RMS_PROP):
        return _whole_vector(optimizer, rate, t, numbers, powers, head, order, raw, g)
    bias_1, bias_2, lower, upper = 1.0, 1.0, 0.0, 0.0
    if optimizer in (ADA_BOUND, ADA_MAX, NADAM) or corrects_bias:
        bias_1 = 1.0 - math.pow(numbers[BETA_1], t + 1.0)
        bias_2 = 1.0 - math.pow(numbers[BETA_2], t + 1.0)
    if optimizer == ADA_MAX:
        rate /= bias_1
    elif optimizer == AMS_GRAD and corrects_bias:
        rate = rate * root(bias_2, powers) / bias_1
    elif optimizer == ADA_BOUND:
        final_rate[0] *= rate / numbers[BASE_RATE]
        rate = rate * math.sqrt(bias_2) / bias_1
        lower = final_rate[0] * (1.0 - 1.0 / (numbers[GAMMA] * (t + 1.0) + 1.0))
        upper = final_rate[0] * (1.0 + 1.0 / (numbers[GAMMA] * (t + 1.0)))
    elif optimizer == NESTEROV:  # back to where the look ahead started
        for i in range(len(g)):
            if raw[i] == raw[i]:
                head[WEIGHT, i] += numbers[BETA_1] * head[A, i]
    for i in range(len(g)):
        if raw[i] == raw[i]:
            change, defined = _change(optimizer, i, rate, bias_1, bias_2, lower, upper, numbers, powers, head, g[i])
            if not defined:
                return False
            head[WEIGHT, i] -= change
    return True


@inlined
def _change(
    optimizer: int,
    i: int,
    rate: float,
    bias_1: float,
    bias_2: float,
    lower: float,
    upper: float,
    numbers: Float64,
    powers: Float64,
    head: Float64,
    g: float,
) -> tuple[float, bool]:
    """What is taken from the weight of feature ``i``, and whether River gets that far."""
    rho, eps = numbers[BETA_1], numbers[EPS]
    if optimizer in (MOMENTUM, NESTEROV):
        head[A, i] = rho * head[A, i] + rate * g
        return head[A, i], True
    if optimizer == ADA_MAX:
        head[A, i] = rho * head[A, i] + (1.0 - rho) * g
        faded = numbers[BETA_2] * head[B, i]
        head[B, i] = abs(g) if abs(g) > faded else faded
        below = head[B, i] + eps
        return rate * head[A, i] / below, below != 0.0
    squared = square(g, powers)
    overflows = math.isinf(squared) and not math.isinf(g)
    if optimizer == ADA_GRAD:
        if overflows:
            return 0.0, False
        head[A, i] += squared
        below = root(head[A, i] + eps, powers)
        return rate / below * g, below != 0.0
    if optimizer == ADA_DELTA:
        if overflows:
            return 0.0, False
        head[A, i] = rho * head[A, i] + (1.0 - rho) * squared
        below = root(head[A, i] + eps, powers)
        change = root(head[B, i] + eps, powers) / below * g
        squared = square(change, powers)
        if below == 0.0 or (math.isinf(squared) and not math.isinf(change)):
            return 0.0, False
        head[B, i] = rho * head[B, i] + (1.0 - rho) * squared
        return change, True
    head[A, i] = rho * head[A, i] + (1.0 - rho) * g
    if overflows:
        return 0.0, False
    head[B, i] = numbers[BETA_2] * head[B, i] + (1.0 - numbers[BETA_2]) * squared
    if optimizer == AMS_GRAD:
        head[C, i] = head[B, i] if head[B, i] > head[C, i] else head[C, i]
        below = root(head[C, i], powers) + eps
        return rate * head[A, i] / below, below != 0.0
    if optimizer == NADAM:
        below = root(head[B, i] / bias_2, powers) + eps
        return rate * (rho * (head[A, i] / bias_1) + (1.0 - rho) * g / bias_1) / below, below != 0.0
    below = math.sqrt(head[B, i]) + eps  # AdaBound
    bound = rate / below
    bound = upper if upper < bound else bound
    bound = lower if lower > bound else bound
    return bound * head[A, i], below != 0.0


@inlined
def _whole_vector(
    optimizer: int,
    rate: float,
    t: float,
    numbers: Float64,
    powers: Float64,
    head: Float64,
    order: Int64,
    raw: Float64,
    g: Float64,
) -> bool:
    """Adam and RMSProp: River divides whole vectors, also by the entries of features that are absent."""
    beta_1, beta_2, eps = numbers[BETA_1], numbers[BETA_2], numbers[EPS]
    spread = B if optimizer == ADAM else A
    if optimizer == ADAM:
        rate = rate * root(1.0 - math.pow(beta_2, t + 1.0), powers) / (1.0 - math.pow(beta_1, t + 1.0))
    else:
        beta_2 = beta_1
    for i in range(len(g)):
        if raw[i] == raw[i]:
            if optimizer == ADAM:
                head[A, i] = beta_1 * head[A, i] + (1.0 - beta_1) * g[i]
            head[spread, i] = beta_2 * head[spread, i] + (1.0 - beta_2) * (g[i] * g[i])
    if eps == 0.0:
        for i in range(len(g)):
            if order[1, i] == 1 and head[spread, i] == 0.0:
                return False
    for i in range(len(g)):
        if raw[i] == raw[i]:
            if optimizer == ADAM:
                head[WEIGHT, i] -= rate * head[A, i] / (root(head[B, i], powers) + eps)
            else:
                head[WEIGHT, i] -= rate / root(head[A, i] + eps, powers) * g[i]
    return True


@inlined
def _follow_the_leader(numbers: Float64, powers: Float64, head: Float64, raw: Float64, g: Float64) -> bool:
    """FTRL-Proximal: z in row A, n in row B."""
    for i in range(len(g)):
        if raw[i] == raw[i] and abs(head[A, i]) > numbers[L1]:
            below = (numbers[BETA] + root(head[B, i], powers)) / numbers[ALPHA] + numbers[L2]
            if below == 0.0:
                return False
            pull = numbers[L1] if head[A, i] > 0.0 else -numbers[L1]
            head[WEIGHT, i] = -inverse(below, powers) * (head[A, i] - pull)
    for i in range(len(g)):
        if raw[i] == raw[i]:
            squared = square(g[i], powers)
            if math.isinf(squared) and not math.isinf(g[i]):
                return False
            slower = (root(head[B, i] + squared, powers) - root(head[B, i], powers)) / numbers[ALPHA]
            head[A, i] += g[i] - slower * head[WEIGHT, i]
            head[B, i] += squared
    return True
