"""River's linear and logistic regression, their losses, optimizers and schedules, as numbers and back."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from river import linear_model, optim, utils

from thalweg.engine.kernels import learners_linear as kernels
from thalweg.engine.kernels import learners_optimizers as steps
from thalweg.engine.kernels.arrays import Float64, Int64
from thalweg.engine.kernels.learners import State
from thalweg.engine.learning.lowered.checks import (
    Refused,
    checked,
    number,
    refuse_unknown_attributes,
    row,
)
from thalweg.engine.learning.lowered.learner import Learner, known, order_of

Names = Sequence[str]

_GLM = ("optimizer", "loss", "l2", "l1", "intercept_init", "intercept", "intercept_lr", "clip_gradient", "initializer")
_LOSSES: dict[type, tuple[int, tuple[str, ...]]] = {
    optim.losses.Squared: (kernels.SQUARED, ()),
    optim.losses.Absolute: (kernels.ABSOLUTE, ()),
    optim.losses.Cauchy: (kernels.CAUCHY, ("C",)),
    optim.losses.EpsilonInsensitiveHinge: (kernels.EPSILON_HINGE, ("eps",)),
    optim.losses.Huber: (kernels.HUBER, ("epsilon",)),
    optim.losses.Quantile: (kernels.QUANTILE, ("alpha",)),
    optim.losses.Poisson: (kernels.POISSON, ()),
    optim.losses.Log: (kernels.LOG, ("weight_pos", "weight_neg")),
    optim.losses.Hinge: (kernels.HINGE, ("threshold",)),
    optim.losses.BinaryFocalLoss: (kernels.FOCAL, ("gamma", "beta")),
}


@dataclass(frozen=True)
class _Recipe:
    """An optimizer: its code, attribute -> place in ``numbers``, and its attributes that hold a number a feature.

    ``vector``: River updates the whole vector at once, and keeps it in a VectorDict.
    """

    code: int
    numbers: Mapping[str, int]
    rows: tuple[str, ...] = ()
    vector: bool = False


_RHO = {"rho": steps.BETA_1}
_EPS = {"eps": steps.EPS}
_MOMENTS = {"beta_1": steps.BETA_1, "beta_2": steps.BETA_2, **_EPS}
_BOUNDS = {**_MOMENTS, "gamma": steps.GAMMA, "base_lr": steps.BASE_RATE}
_FTRL = {"alpha": steps.ALPHA, "beta": steps.BETA, "l1": steps.L1, "l2": steps.L2}
_OPTIMIZERS: dict[type, _Recipe] = {
    optim.AdaBound: _Recipe(steps.ADA_BOUND, _BOUNDS, ("m", "v")),
    optim.AdaDelta: _Recipe(steps.ADA_DELTA, {**_RHO, **_EPS}, ("g2", "s2")),
    optim.AdaGrad: _Recipe(steps.ADA_GRAD, _EPS, ("g2",)),
    optim.AdaMax: _Recipe(steps.ADA_MAX, _MOMENTS, ("m", "u")),
    optim.Adam: _Recipe(steps.ADAM, _MOMENTS, ("m", "v"), vector=True),
    optim.AMSGrad: _Recipe(steps.AMS_GRAD, _MOMENTS, ("m", "v", "v_hat")),
    optim.FTRLProximal: _Recipe(steps.FTRL, _FTRL, ("z", "n")),
    optim.Momentum: _Recipe(steps.MOMENTUM, _RHO, ("s",)),
    optim.Nadam: _Recipe(steps.NADAM, _MOMENTS, ("m", "v")),
    optim.NesterovMomentum: _Recipe(steps.NESTEROV, _RHO, ("s",)),
    optim.RMSProp: _Recipe(steps.RMS_PROP, {**_RHO, **_EPS}, ("g2",), vector=True),
    optim.SGD: _Recipe(steps.SGD, {}),
}
_TINY, _ALMOST_ONE = math.ulp(0.0), math.nextafter(1.0, 0.0)
_RANGES = {
    **dict.fromkeys(("alpha", "gamma"), (_TINY, math.inf)),  # River divides by them,
    **dict.fromkeys(("beta_1", "beta_2"), (0.0, _ALMOST_ONE)),  # by one minus these,
    **dict.fromkeys(("eps", "beta", "l1", "l2"), (0.0, math.inf)),  # and takes the root of something with these
    "rho": (0.0, 1.0),
    "base_lr": (-math.inf, math.inf),
}


def lower(model: Any, names: Names, takes_weight: bool) -> Learner:
    """Raises Refused for what these kernels do not compute exactly as River does."""
    penalised = ("max_cum_l1", "cum_l1") if model.l1 != 0 else ()
    refuse_unknown_attributes(model, *_GLM, "_weights", "_y_name", *penalised)
    codes, numbers = np.zeros(kernels.CODES, dtype=np.int64), np.zeros(kernels.NUMBERS)
    head, scalars = np.zeros((kernels.ROWS, len(names))), np.zeros(kernels.SCALARS)
    codes[kernels.TAKES_WEIGHT], codes[kernels.OLD_PRODUCT] = takes_weight, _has_old_product()
    numbers[kernels.L1], numbers[kernels.L2] = number(model, "l1"), number(model, "l2")
    numbers[kernels.CLIP] = number(model, "clip_gradient", 0.0)
    numbers[kernels.INITIAL] = _initial(model.initializer)
    codes[kernels.LOSS] = _loss(model, numbers)
    codes[kernels.RATE] = _optimizer(model.optimizer, codes, numbers, head, scalars, names)
    codes[kernels.INTERCEPT_RATE] = _schedule(model.intercept_lr, numbers, kernels.INTERCEPT_A)
    weights = model._weights.to_dict()
    head[steps.WEIGHT] = row(weights, names, "weights")
    scalars[kernels.INTERCEPT] = number(model, "intercept")
    if penalised:
        if type(model.optimizer) is optim.FTRLProximal:
            raise Refused("FTRLProximal has no learning rate, which l1 of the model needs; write FTRLProximal(l1=...)")
        scalars[kernels.MAX_CUM_L1] = number(model, "max_cum_l1")
        head[kernels.CUM_L1] = row(model.cum_l1.to_dict(), names, "cum_l1")
    return Learner(kernels.run_linear, codes, numbers, head, scalars, order_of(weights, names))


def raise_into(model: Any, state: State, names: Names) -> None:
    """Writes what was learned into ``model``, a copy of the River model."""
    scalars, optimizer = state.scalars, model.optimizer
    model._weights = utils.VectorDict(known(state, state.head[steps.WEIGHT], names))
    model.intercept = float(scalars[kernels.INTERCEPT])
    optimizer.n_iterations = int(scalars[kernels.ITERATIONS])
    recipe = _OPTIMIZERS[type(optimizer)]
    for attribute, values in zip(recipe.rows, state.head[steps.A :], strict=False):
        _raise_row(optimizer, attribute, known(state, values, names), recipe.vector)
    if hasattr(optimizer, "final_lr"):
        optimizer.final_lr = float(scalars[kernels.FINAL_RATE])
    if model.l1 != 0:
        model.max_cum_l1 = float(scalars[kernels.MAX_CUM_L1])
        cum_l1 = known(state, state.head[kernels.CUM_L1], names)
        model.cum_l1 = utils.VectorDict(cum_l1, optim.initializers.Zeros())


def _raise_row(optimizer: Any, attribute: str, values: dict[str, float], vector: bool) -> None:
    if not vector:
        getattr(optimizer, attribute).clear()
        getattr(optimizer, attribute).update(values)
    elif optimizer.n_iterations or values:
        setattr(optimizer, attribute, utils.VectorDict(values))


def _loss(model: Any, numbers: Float64) -> int:
    loss, logistic = model.loss, type(model) is linear_model.LogisticRegression
    code, parameters = _LOSSES.get(type(loss), (-1, ()))
    if code < 0 or (code >= kernels.LOG) != logistic:
        raise Refused(f"{type(model).__name__} with the loss {type(loss).__name__}")
    refuse_unknown_attributes(loss, *parameters)
    for place, parameter in enumerate(parameters):
        numbers[kernels.LOSS_A + place] = number(loss, parameter)
    if code == kernels.CAUCHY and numbers[kernels.LOSS_A] == 0.0:
        raise Refused("Cauchy(C=0) divides by zero")
    return code


def _optimizer(optimizer: Any, codes: Int64, numbers: Float64, head: Float64, scalars: Float64, names: Names) -> int:
    """Fills in the optimizer; gives back the code of its schedule."""
    recipe = _OPTIMIZERS.get(type(optimizer))
    if recipe is None:
        raise Refused(f"the optimizer {type(optimizer).__name__}")
    if recipe.vector and not _moments_stay():
        raise Refused(f"this River's {type(optimizer).__name__} moves the state of absent features")
    rate = ("lr",) if hasattr(optimizer, "lr") else ()
    more = ("final_lr",) if recipe.code == steps.ADA_BOUND else ("correct_bias",) * (recipe.code == steps.AMS_GRAD)
    refuse_unknown_attributes(optimizer, "n_iterations", *rate, *more, *recipe.numbers, *recipe.rows)
    codes[kernels.OPTIMIZER] = recipe.code
    for attribute, place in recipe.numbers.items():
        numbers[place] = number(optimizer, attribute, *_RANGES[attribute])
    for place, attribute in enumerate(recipe.rows):
        head[steps.A + place] = _row_of(optimizer, attribute, recipe.vector, names)
    scalars[kernels.ITERATIONS] = number(optimizer, "n_iterations", 0)
    if recipe.code == steps.ADA_BOUND:
        scalars[kernels.FINAL_RATE] = number(optimizer, "final_lr")
        if not numbers[steps.BASE_RATE]:
            raise Refused("AdaBound(lr=0) divides by zero")
    if recipe.code == steps.AMS_GRAD:
        if type(optimizer.correct_bias) is not bool:
            raise Refused(f"AMSGrad.correct_bias is {optimizer.correct_bias!r}, True or False is expected")
        codes[kernels.CORRECTS_BIAS] = optimizer.correct_bias
    return _schedule(optimizer.lr, numbers, kernels.RATE_A) if rate else steps.CONSTANT


def _row_of(optimizer: Any, attribute: str, vector: bool, names: Names) -> Float64:
    values = getattr(optimizer, attribute)
    if vector and values is None:
        return np.zeros(len(names))
    if vector and type(values) is not utils.VectorDict:
        raise Refused(f"{type(optimizer).__name__} has learned batches at once, by learn_many")
    return row(values.to_dict() if vector else values, names, f"{type(optimizer).__name__}.{attribute}")


def _schedule(schedule: Any, numbers: Float64, place: int) -> int:
    if type(schedule) is optim.schedulers.Constant:
        refuse_unknown_attributes(schedule, "learning_rate")
        numbers[place] = number(schedule, "learning_rate")
        return steps.CONSTANT
    if type(schedule) is optim.schedulers.InverseScaling:
        refuse_unknown_attributes(schedule, "learning_rate", "power")
        numbers[place : place + 2] = number(schedule, "learning_rate"), number(schedule, "power")
        return steps.INVERSE_SCALING
    if type(schedule) is optim.schedulers.Optimal:
        refuse_unknown_attributes(schedule, "loss", "alpha", "t0")
        numbers[place : place + 2] = number(schedule, "alpha", _TINY), number(schedule, "t0", _TINY)
        return steps.OPTIMAL
    raise Refused(f"a learning rate by {type(schedule).__name__}")


def _initial(initializer: Any) -> float:
    if type(initializer) not in (optim.initializers.Zeros, optim.initializers.Constant):
        raise Refused(f"weights that start from {type(initializer).__name__}")
    refuse_unknown_attributes(initializer, "value")
    return checked(initializer.value, "the initial weight")


@functools.cache
def _has_old_product() -> bool:
    """Whether a feature without a weight is left out of the product; since 0.26 it is multiplied by zero."""
    return float(linear_model.LinearRegression().predict_one({"x": math.nan})) == 0.0


@functools.cache
def _moments_stay() -> bool:
    """Whether Adam leaves the state of absent features alone; before 0.26 it decays."""
    adam = optim.Adam()
    model = linear_model.LinearRegression(adam)
    model.learn_one({"x": 1.0, "y": 1.0}, 1.0)
    before = model.weights["y"], adam.m["y"]
    model.learn_one({"x": 1.0}, 1.0)
    return bool((model.weights["y"], adam.m["y"]) == before)
