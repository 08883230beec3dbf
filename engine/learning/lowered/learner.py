"""What the last step of a pipeline becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thalweg.engine.kernels.arrays import Float64, Int64
from thalweg.engine.kernels.learners import Model, State, Steps
from thalweg.engine.learning.lowered.checks import refuse_unknown_features


@dataclass(frozen=True)
class Learner:
    """A kernel, its program (codes and numbers) and what has been learned so far: see :mod:`kernels.learners`."""

    kernel: Callable[[Steps, Model, State, Float64, Float64], None]
    codes: Int64
    numbers: Float64
    head: Float64
    scalars: Float64
    order: Int64
    nan_is_none: bool = False


def order_of(weights: Mapping[str, Any], names: Sequence[str]) -> Int64:
    """int64[2, f]: the features with a weight in the order of the dictionary, and which ones they are."""
    refuse_unknown_features(weights, names)
    order = np.zeros((2, len(names)), dtype=np.int64)
    for place, name in enumerate(weights):
        order[0, place] = names.index(name)
        order[1, order[0, place]] = 1
    return order


def known(state: State, values: Float64, names: Sequence[str]) -> dict[str, float]:
    """The way back: the values of the features met so far, in the order in which they were met."""
    met = int(state.order[1].sum())
    return {names[i]: float(values[i]) for i in state.order[0, :met].tolist()}
