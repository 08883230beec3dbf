"""What the last step of a pipeline becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from thalweg.engine.kernels.arrays import Float64, Int64
from thalweg.engine.kernels.learners import Model, State, Steps


@dataclass(frozen=True)
class Learner:
    """A kernel, its program (codes and numbers) and what has been learned so far: see :mod:`kernels.learners`."""

    kernel: Callable[[Steps, Model, State, Float64], None]
    codes: Int64
    numbers: Float64
    head: Float64
    scalars: Float64
    order: Int64
    nan_is_none: bool = False
