"""What became of predictions, by column: the steps that metrics are updated with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from thalweg.engine.kernels.arrays import Float64, Int8, Int64
from thalweg.engine.kernels.steps import GIVE_UP, LEARN, REVISE
from thalweg.engine.learning.member import Label, Prediction

__all__ = ["GIVE_UP", "LEARN", "REVISE", "Answered"]


class Answered(NamedTuple):
    """What became of k predictions, step by step.

    ``kinds`` int8[k]: LEARN, the first label of a prediction; REVISE, another label than the one that was
    counted; GIVE_UP, none will come. ``numbers`` int64[k], of the predictions, consecutive from 0. ``labels``
    float64[k] (binary 1.0 or 0.0), ``before`` float64[k], the label that a revision replaces (NaN: there was
    none), with ``weights`` and ``weights_before`` float64[k]. What had been predicted: ``scores`` float64[k]
    (NaN: nothing known), ``decided`` int8[k] (a class of two as 0 or 1, else -1). A prediction keeps its score
    and decision in each of its steps.

    Multiclass and anomaly take labels, labels before and predictions from ``objects`` instead, a triple a step.
    """

    kinds: Int8
    numbers: Int64
    labels: Float64
    before: Float64
    scores: Float64
    decided: Int8
    weights: Float64
    weights_before: Float64
    objects: Sequence[tuple[Label | None, Label | None, Prediction]] | None = None
