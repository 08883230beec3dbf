"""Each fault that is planted in a learner's kernel turns the comparison with River red."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from river import compose, linear_model, naive_bayes, optim, preprocessing
from river.optim import losses, schedulers

from tests.test_lowered import OLD, Stream, assert_same, by_kernel, by_river, in_order, lowered, stream
from thalweg.engine.kernels import (
    learners,
    learners_bayes,
    learners_linear,
    learners_optimizers,
    learners_passive,
    learners_powers,
)
from thalweg.engine.learning.lowered import why_not

MODULES = (learners_powers, learners, learners_optimizers, learners_linear, learners_passive, learners_bayes)
ROWS = 120
# What River 0.23 does not do, so that the fault is none, or cannot do: a clone of its AdaBound raises.
NOT_IN_OLD = ("absent in the product", "sample weight", "AdaBound below", "AdaBound above")


def interpreted(module: ModuleType | None = None, old: str = "", new: str = "") -> dict[str, Any]:
    """The learners as plain Python, with one piece of the source of ``module`` replaced; name -> function."""
    spaces: dict[str, dict[str, Any]] = {}
    for each in MODULES:
        source = inspect.getsource(each)
        if each is module:
            assert source.count(old) == 1, f"{each.__name__} no longer says {old!r} once; plant the fault elsewhere"
            source = source.replace(old, new)
        spaces[each.__name__] = _executed(source, spaces, each.__name__)
    return {name: value for space in spaces.values() for name, value in space.items() if name.startswith("run_")}


def _executed(source: str, spaces: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    tree = ast.parse(source)
    space: dict[str, Any] = {"__name__": name}
    for node in list(tree.body):
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
        elif isinstance(node, ast.ImportFrom) and node.module in spaces:
            tree.body.remove(node)
            space |= {alias.asname or alias.name: spaces[node.module][alias.name] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "thalweg.engine.kernels.borrow":
            tree.body.remove(node)
            space["borrowed"] = lambda array: array
    exec(compile(tree, name, "exec"), space)
    return space


def agrees(model: Any, data: Stream, kernels: dict[str, Callable[..., None]]) -> bool:
    """Whether River and these kernels say the same of the first rows, learned a little later."""
    part = Stream(data.names, data.x[:ROWS], data.y[:ROWS], data.binary)
    kinds, rows = in_order(ROWS, delay=3)
    kernel = lowered(model, part.names)
    kernel._kernel = kernels[kernel._kernel.__name__]
    with np.errstate(all="ignore"):
        found = by_kernel(kernel, part, kinds, rows)
    try:
        assert_same(by_river(model.clone(), part, kinds, rows), found)
    except AssertionError:
        return False
    return True


def logistic(optimizer: Any = None, **parameters: Any) -> Any:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer, **parameters)


def after(scaler: Any) -> Any:
    return scaler | linear_model.LogisticRegression(optim.SGD(0.05))


def passive(**parameters: Any) -> Any:
    return preprocessing.StandardScaler() | linear_model.PAClassifier(**parameters)


def bold(optimizer: Any, **parameters: Any) -> Any:
    """A model whose steps are large."""
    return preprocessing.StandardScaler() | linear_model.LinearRegression(optimizer, **parameters)


SGD = optim.SGD(0.05)

FAULTS: dict[str, tuple[ModuleType, str, str, Any]] = {
    # scalers
    "absent is counted": (
        learners,
        "scales[s, 0, i] = count if here else scales[s, 0, i]",
        "scales[s, 0, i] = count",
        logistic(),
    ),
    "old mean": (
        learners,
        "(given[i] - mean) * (given[i] - new_mean)",
        "(given[i] - mean) * (given[i] - mean)",
        logistic(),
    ),
    "variance is kept": (learners, "scales[s, 2, i] = new_variance", "scales[s, 2, i] = variance", logistic()),
    "doubts stay": (learners, "if doubtful > 0:", "if doubtful > 100:", logistic()),
    "no variance": (learners, "z[i] = 0.0 if scales[s, 2, i] == 0.0 else scaled", "z[i] = scaled", logistic()),
    "centre": (
        learners,
        "z[i] = given[i] - scales[s, 1, i]",
        "z[i] = given[i]",
        after(preprocessing.StandardScaler(with_std=False)),
    ),
    "minimum": (
        learners,
        "z[i] < scales[s, 0, i] else",
        "z[i] > scales[s, 0, i] else",
        after(preprocessing.MinMaxScaler()),
    ),
    "largest": (
        learners,
        "abs(z[i]) > scales[s, 0, i]",
        "z[i] > scales[s, 0, i]",
        after(preprocessing.StandardScaler() | preprocessing.MaxAbsScaler()),
    ),
    "norm": (
        learners,
        "if scaler == NORM_2:",
        "if scaler == NORM_1:",
        after(preprocessing.StandardScaler() | preprocessing.Normalizer()),
    ),
    "strict": (learners, "if strict == 1:", "if strict == 2:", compose.Select("https", "popup_window") | logistic(SGD)),
    "sigmoid": (learners, "1.0 / (1.0 + math.exp(-x))", "1.0 / (1.0 + math.exp(x))", logistic(SGD)),
    # linear models
    "order of learning": (learners_linear, "learn = kinds[k] == LEARN", "learn = kinds[k] != LEARN", logistic(SGD)),
    "absent in the product": (
        learners_linear,
        "        if raw[i] == raw[i]:\n            if order[1, i] == 0:",
        "        if True:\n            if order[1, i] == 0:",
        logistic(SGD),
    ),
    "intercept": (learners_linear, "total += scalars[INTERCEPT]\n", "pass\n", logistic(SGD)),
    "weight of the class": (
        learners_linear,
        "weight = b if y == 0.0 else a",
        "weight = a",
        logistic(SGD, loss=losses.Log(2.0, 0.5)),
    ),
    "sample weight": (learners_linear, "slope *= weight", "slope *= 2.0", logistic(SGD)),
    "clip above": (
        learners_linear,
        "slope = numbers[CLIP] if numbers[CLIP] < slope else slope",
        "pass",
        logistic(SGD, clip_gradient=0.1),
    ),
    "clip below": (
        learners_linear,
        "slope = -numbers[CLIP] if -numbers[CLIP] > slope else slope",
        "pass",
        logistic(SGD, clip_gradient=0.1),
    ),
    "l2": (learners_linear, "g[i] += numbers[L2] * head[WEIGHT, i]", "g[i] += numbers[L2]", logistic(SGD, l2=0.1)),
    "l1": (learners_linear, "scalars[MAX_CUM_L1] + head[CUM_L1, i]", "scalars[MAX_CUM_L1]", logistic(SGD, l1=0.01)),
    "l1 below": (
        learners_linear,
        "scalars[MAX_CUM_L1] - head[CUM_L1, i]",
        "scalars[MAX_CUM_L1]",
        logistic(SGD, l1=0.01),
    ),
    "start": (
        learners_linear,
        "head[WEIGHT, i] = numbers[INITIAL]",
        "pass",
        logistic(SGD, initializer=optim.initializers.Constant(1.0)),
    ),
    "iterations": (
        learners_linear,
        "scalars[ITERATIONS] = t + 1.0",
        "pass",
        logistic(optim.SGD(schedulers.InverseScaling(0.1))),
    ),
    "look ahead": (
        learners_linear,
        "head[WEIGHT, i] -= numbers[BETA_1] * head[A, i]",
        "pass",
        logistic(optim.NesterovMomentum(0.01)),
    ),
    "hinge": (
        learners_linear,
        "-sign if sign * value <= a",
        "-sign if sign * value <= 2.0 * a",
        logistic(SGD, loss=losses.Hinge(0.5)),
    ),
    "focal": (
        learners_linear,
        "a * (sign * value) + b",
        "a * (sign * value) - b",
        logistic(SGD, loss=losses.BinaryFocalLoss()),
    ),
    "squared": (learners_linear, "return 2.0 * (value - y), True", "return value - y, True", bold(SGD)),
    "absolute": (
        learners_linear,
        "1.0 if value > y else -1.0",
        "1.0",
        bold(optim.SGD(9.0), loss=losses.Absolute(), intercept_lr=9.0),
    ),
    "cauchy": (learners_linear, "miss / (squared + 1.0)", "miss", bold(SGD, loss=losses.Cauchy())),
    "epsilon": (
        learners_linear,
        "y = y * 2.0 - 1.0",
        "y = y * 2.0",
        bold(optim.SGD(9.0), loss=losses.EpsilonInsensitiveHinge(), intercept_lr=9.0),
    ),
    "huber": (
        learners_linear,
        "miss if abs(miss) <= a else",
        "miss if abs(miss) <= 2.0 * a else",
        bold(SGD, loss=losses.Huber(5.0), intercept_lr=0.9),
    ),
    "quantile": (
        learners_linear,
        "(1.0 if y < value else 0.0) - a",
        "(1.0 if y < value else 0.0)",
        bold(SGD, loss=losses.Quantile(0.2)),
    ),
    "poisson": (
        learners_linear,
        "return power - y,",
        "return power,",
        bold(optim.SGD(1e-5), loss=losses.Poisson(), intercept_lr=1e-3),
    ),
    # optimizers
    "inverse scaling": (
        learners_optimizers,
        "math.pow(t + 1.0, b)",
        "math.pow(t + 2.0, b)",
        logistic(optim.SGD(schedulers.InverseScaling(0.1))),
    ),
    "optimal": (
        learners_optimizers,
        "1.0 / (a * (b + t))",
        "1.0 / (a * b)",
        logistic(optim.SGD(schedulers.Optimal(losses.Log(), 1.0))),
    ),
    "SGD": (
        learners_optimizers,
        "moved = head[WEIGHT, i] - rate * g[i]",
        "moved = head[WEIGHT, i] + rate * g[i]",
        logistic(SGD, l2=0.1),
    ),
    "momentum": (
        learners_optimizers,
        "rho * head[A, i] + rate * g",
        "rho * head[A, i] + g",
        logistic(optim.Momentum(0.01)),
    ),
    "look back": (
        learners_optimizers,
        "head[WEIGHT, i] += numbers[BETA_1] * head[A, i]",
        "pass",
        logistic(optim.NesterovMomentum(0.01)),
    ),
    "AdaMax": (learners_optimizers, "abs(g) if abs(g) > faded else faded", "faded", logistic(optim.AdaMax())),
    "AdaGrad": (learners_optimizers, "head[A, i] += squared", "head[A, i] = squared", logistic(optim.AdaGrad())),
    "AdaDelta": (
        learners_optimizers,
        "change = root(head[B, i] + eps, powers)",
        "change = root(eps, powers)",
        logistic(optim.AdaDelta()),
    ),
    "AMSGrad": (
        learners_optimizers,
        "head[B, i] if head[B, i] > head[C, i] else head[C, i]",
        "head[B, i]",
        logistic(optim.AMSGrad()),
    ),
    "Nadam": (learners_optimizers, "(1.0 - rho) * g / bias_1", "(1.0 - rho) * g", logistic(optim.Nadam())),
    "AdaBound below": (
        learners_optimizers,
        "bound = lower if lower > bound else bound",
        "pass",
        logistic(optim.AdaBound(1e-4)),
    ),
    "AdaBound above": (
        learners_optimizers,
        "bound = upper if upper < bound else bound",
        "pass",
        logistic(optim.AdaBound(0.5, final_lr=0.01, gamma=0.5)),
    ),
    "AdaBound's rate": (
        learners_optimizers,
        "final_rate[0] *= rate / numbers[BASE_RATE]",
        "pass",
        logistic(optim.AdaBound(schedulers.InverseScaling(0.1))),
    ),
    "Adam": (
        learners_optimizers,
        "beta_1 * head[A, i] + (1.0 - beta_1) * g[i]",
        "beta_1 * head[A, i] + g[i]",
        logistic(optim.Adam()),
    ),
    "RMSProp": (learners_optimizers, "beta_2 = beta_1\n", "pass\n", logistic(optim.RMSProp())),
    "FTRL": (
        learners_optimizers,
        "head[A, i] += g[i] - slower * head[WEIGHT, i]",
        "head[A, i] += g[i]",
        logistic(optim.FTRLProximal()),
    ),
    "FTRL's l1": (
        learners_optimizers,
        "pull = numbers[L1] if head[A, i] > 0.0 else -numbers[L1]",
        "pull = 0.0",
        logistic(optim.FTRLProximal(l1=0.3)),
    ),
    # passive-aggressive
    "absent in the passive's product": (
        learners,
        "order[1, i] == 1) and raw[i] == raw[i]",
        "order[1, i] == 1)",
        passive(),
    ),
    "never enough": (learners_passive, "loss = 0.0 if loss < 0.0 else loss", "pass", passive()),
    "capped": (
        learners_passive,
        "loss / squared if loss / squared < aggressiveness else aggressiveness",
        "loss / squared",
        passive(C=0.01),
    ),
    "softened": (learners_passive, "0.5 / aggressiveness", "1.0 / aggressiveness", passive(mode=2)),
    "miss": (
        learners_passive,
        "y * 2.0 - 1.0)) - numbers[EPS]",
        "y * 2.0 - 1.0))",
        preprocessing.StandardScaler() | linear_model.PARegressor(mode=2, eps=3.0),
    ),
    "intercept of the passive": (learners_passive, "scalars[INTERCEPT] += size", "pass", passive()),
    # naive Bayes
    "squares": (
        learners_bayes,
        "(z[i] - mean) * (z[i] - head[base + MEAN, i])",
        "(z[i] - mean) * (z[i] - mean)",
        naive_bayes.GaussianNB(),
    ),
    "prior": (learners_bayes, "math.log(counts[label] / (counts[0] + counts[1]))", "0.0", naive_bayes.GaussianNB()),
    "one class only": (
        learners_bayes,
        "return 0.0 if counts[1] == 0.0 else 1.0",
        "return 0.5",
        naive_bayes.GaussianNB(),
    ),
    "density": (learners_bayes, "/ _ROOT_OF_TAU / deviation", "/ _ROOT_OF_TAU", naive_bayes.GaussianNB()),
}


def data_for(model: Any) -> Stream:
    of_numbers = isinstance(_last(model), linear_model.LinearRegression | linear_model.PARegressor)
    return stream("TrumpApproval" if of_numbers else "Phishing").with_absences(0.1)


def _last(model: Any) -> Any:
    return list(model.steps.values())[-1] if isinstance(model, compose.Pipeline) else model


def does_otherwise(fault: str) -> bool:
    """Whether the fault's model is left to this River."""
    return why_not(FAULTS[fault][3]) is not None or bool(OLD and fault in NOT_IN_OLD)


def test_interpreted_learners_agree_with_river() -> None:
    """No fault, no red."""
    plain = interpreted()
    for name in FAULTS:
        model = FAULTS[name][3]
        assert does_otherwise(name) or agrees(model, data_for(model), plain), name


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_learner_is_found(fault: str) -> None:
    module, old, new, model = FAULTS[fault]
    if does_otherwise(fault):
        pytest.skip(f"{fault}: River {metadata.version('river')} does otherwise")
    assert not agrees(model, data_for(model), interpreted(module, old, new))
