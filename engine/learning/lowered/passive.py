"""River's passive-aggressive classifier and regressor as numbers, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from river import linear_model, optim

from thalweg.engine.kernels import learners_passive as kernels
from thalweg.engine.kernels.learners import State
from thalweg.engine.learning.lowered.checks import Refused, number, refuse_unknown_attributes, row, sums_are_compensated
from thalweg.engine.learning.lowered.learner import Learner, known, order_of


def lower(model: Any, names: Sequence[str], takes_weight: bool) -> Learner:
    """Raises Refused for what these kernels do not compute exactly as River does."""
    classifies = type(model) is linear_model.PAClassifier
    own = () if classifies else ("eps",)
    refuse_unknown_attributes(model, "C", "mode", "calc_tau", "learn_intercept", "weights", "intercept", "loss", *own)
    if model.mode not in (0, 1, 2) or model.calc_tau != getattr(model, f"_calc_tau_{model.mode}"):
        raise Refused(f"{type(model).__name__}.mode is {model.mode!r}, 0, 1 or 2 is expected")
    if type(model.learn_intercept) is not bool:
        raise Refused(f"{type(model).__name__}.learn_intercept is {model.learn_intercept!r}, True or False is expected")
    _check_loss(model, classifies)
    codes, numbers = np.zeros(kernels.CODES, dtype=np.int64), np.zeros(kernels.NUMBERS)
    codes[kernels.CLASSIFIES], codes[kernels.MODE] = classifies, model.mode
    codes[kernels.HAS_INTERCEPT] = model.learn_intercept
    codes[kernels.COMPENSATED] = classifies and sums_are_compensated()  # not sums of NumPy's numbers
    numbers[kernels.AGGRESSIVENESS] = number(model, "C", math.ulp(0.0))
    numbers[kernels.EPS] = 0.0 if classifies else number(model, "eps")
    head, scalars = row(model.weights, names, "weights")[np.newaxis], np.zeros(kernels.SCALARS)
    scalars[kernels.INTERCEPT] = number(model, "intercept")
    return Learner(kernels.run_passive, codes, numbers, head, scalars, order_of(model.weights, names))


def raise_into(model: Any, state: State, names: Sequence[str]) -> None:
    """Writes what was learned into ``model``, a copy of the River model."""
    kind = float if type(model) is linear_model.PAClassifier else np.float64  # as River leaves them
    model.weights.clear()
    model.weights.update({name: kind(weight) for name, weight in known(state, state.head[0], names).items()})
    model.intercept = kind(state.scalars[kernels.INTERCEPT])


def _check_loss(model: Any, classifies: bool) -> None:
    kind = optim.losses.Hinge if classifies else optim.losses.EpsilonInsensitiveHinge
    parameter, value = ("threshold", 1.0) if classifies else ("eps", getattr(model, "eps", None))
    if type(model.loss) is not kind or vars(model.loss) != {parameter: value}:
        raise Refused(f"{type(model).__name__} with a loss of its own")
