"""River's Gaussian naive Bayes for two classes as numbers, and back."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from river import naive_bayes, proba, stats

from thalweg.engine.kernels import learners_bayes as kernels
from thalweg.engine.kernels.arrays import Float64
from thalweg.engine.kernels.learners import State
from thalweg.engine.learning.lowered.checks import (
    Refused,
    checked,
    number,
    refuse_unknown_attributes,
    refuse_unknown_features,
    sums_are_compensated,
)
from thalweg.engine.learning.lowered.learner import Learner

FIRST = kernels.FIRST
_CLASSES = (False, True)


def lower(model: Any, names: Sequence[str], takes_weight: bool) -> Learner:
    """Raises Refused for what these kernels do not compute exactly as River does."""
    refuse_unknown_attributes(model, "class_counts", "gaussians")
    for label in [*model.class_counts, *model.gaussians]:
        if type(label) is not bool:
            raise Refused(f"it has learned a class {label!r}, True and False are expected")
    if not _knows_classes_without_features():
        raise Refused("this River's naive Bayes does not know a class that it has seen without features only")
    codes, head = np.zeros(kernels.CODES, dtype=np.int64), np.zeros((kernels.ROWS, len(names)))
    codes[kernels.COMPENSATED], codes[kernels.DDOF] = sums_are_compensated(), _ddof(model)
    for label in _CLASSES:
        gaussians = model.gaussians.get(label, {})
        refuse_unknown_features(gaussians, names)
        for name, gaussian in gaussians.items():
            head[3 * label : 3 * label + 3, names.index(name)] = _moments(gaussian, _ddof(model))
    counts = [checked(model.class_counts.get(label, 0), "class_counts") for label in _CLASSES]
    scalars = np.array([*counts, next(iter(model.class_counts), False)], dtype=np.float64)
    order, numbers = np.zeros((2, len(names)), dtype=np.int64), np.zeros(0)
    return Learner(kernels.run_bayes, codes, numbers, head, scalars, order, nan_is_none=True)


@functools.cache
def _knows_classes_without_features() -> bool:
    """River 0.23 does not."""
    model = naive_bayes.GaussianNB()
    model.learn_one({}, True)
    return bool(model.predict_proba_one({}).get(True) == 1.0)


def raise_into(model: Any, state: State, names: Sequence[str]) -> None:
    """Writes what was learned into ``model``, a copy of the River model."""
    model.class_counts.clear()
    model.gaussians.clear()
    first = bool(state.scalars[FIRST])
    for label in (first, not first):
        count = int(state.scalars[int(label)])
        if count:
            model.class_counts[label] = count
            _raise_class(model.gaussians[label], state.head[3 * label : 3 * label + 3], names)


def _raise_class(gaussians: Any, rows: Float64, names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        if rows[kernels.COUNT, i]:
            variance = gaussians[name]._var
            variance.mean.n, variance.mean._mean = float(rows[kernels.COUNT, i]), float(rows[kernels.MEAN, i])
            variance._S = float(rows[kernels.SQUARES, i])


def _ddof(model: Any) -> int:
    """What this River divides a variance by, less than the count: 1, and 0 since 0.25 or so."""
    return int(model.gaussians.default_factory().default_factory()._var.ddof)


def _moments(gaussian: Any, ddof: int) -> tuple[float, float, float]:
    variance = gaussian._var
    kinds = type(gaussian), type(variance), type(variance.mean)
    if kinds != (proba.Gaussian, stats.Var, stats.Mean) or variance.ddof != ddof:
        raise Refused(f"a class is described by a {type(gaussian).__name__} of its own")
    return number(variance.mean, "n"), number(variance.mean, "_mean"), number(variance, "_S")
