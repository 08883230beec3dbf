"""River's scalers as rows of numbers, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from river import preprocessing, stats

from thalweg.engine.kernels import learners
from thalweg.engine.kernels.arrays import Float64
from thalweg.engine.learning.lowered.checks import Refused, checked, refuse_unknown_attributes, row

Names = Sequence[str]
Lower = Callable[[Any, Names], tuple[int, Float64]]
Raise = Callable[[Any, Float64, Names], None]


def _lower_standard(scaler: Any, names: Names) -> tuple[int, Float64]:
    refuse_unknown_attributes(scaler, "with_std", "window_size", "counts", "means", "vars")
    _refuse_window(scaler)
    if type(scaler.with_std) is not bool:
        raise Refused(f"StandardScaler.with_std is {scaler.with_std!r}, True or False is expected")
    parts = ("counts", "means", "vars")
    rows = [row(getattr(scaler, part), names, f"StandardScaler.{part}") for part in parts]
    deviations = np.array([float(variance) ** 0.5 for variance in np.maximum(rows[2], 0.0)])
    return learners.STANDARD if scaler.with_std else learners.CENTRE, np.stack([*rows, deviations])


def _raise_standard(scaler: Any, scale: Float64, names: Names) -> None:
    for part in (scaler.counts, scaler.means, scaler.vars):
        part.clear()
    for i, name in enumerate(names):
        if scale[0, i]:
            scaler.counts[name], scaler.means[name] = int(scale[0, i]), float(scale[1, i])
            if scaler.with_std:
                scaler.vars[name] = float(scale[2, i])


def _lower_min_max(scaler: Any, names: Names) -> tuple[int, Float64]:
    refuse_unknown_attributes(scaler, "window_size", "min", "max")
    _refuse_window(scaler)
    lows = _extremes(scaler.min, stats.Min, "min", names, math.inf)
    highs = _extremes(scaler.max, stats.Max, "max", names, -math.inf)
    return learners.MIN_MAX, _four(lows, highs)


def _raise_min_max(scaler: Any, scale: Float64, names: Names) -> None:
    for i, name in enumerate(names):
        scaler.min[name].min, scaler.max[name].max = float(scale[0, i]), float(scale[1, i])


def _lower_max_abs(scaler: Any, names: Names) -> tuple[int, Float64]:
    refuse_unknown_attributes(scaler, "window_size", "abs_max")
    _refuse_window(scaler)
    largest = _extremes(scaler.abs_max, stats.AbsMax, "abs_max", names, 0.0)
    return learners.MAX_ABS, _four(largest)


def _raise_max_abs(scaler: Any, scale: Float64, names: Names) -> None:
    for i, name in enumerate(names):
        scaler.abs_max[name].abs_max = float(scale[0, i])


def _lower_normalizer(scaler: Any, names: Names) -> tuple[int, Float64]:
    refuse_unknown_attributes(scaler, "order")
    if type(scaler.order) is not int or scaler.order not in (1, 2):
        raise Refused(f"Normalizer.order is {scaler.order!r}, 1 and 2 are lowered")
    return learners.NORM_1 if scaler.order == 1 else learners.NORM_2, np.zeros((4, len(names)))


def _raise_normalizer(scaler: Any, scale: Float64, names: Names) -> None:
    pass


def _four(*rows: Float64) -> Float64:
    return np.stack([*rows, *(np.zeros(len(rows[0])) for _ in range(4 - len(rows)))])


def _extremes(found: Any, kind: type, attribute: str, names: Names, default: float) -> Float64:
    for statistic in found.values():
        if type(statistic) is not kind:
            raise Refused(f"a scaler keeps a {type(statistic).__name__}, a {kind.__name__} is expected")
        refuse_unknown_attributes(statistic, attribute)
    values = {name: getattr(statistic, attribute) for name, statistic in found.items()}
    return row(values, names, attribute, default)


def _refuse_window(scaler: Any) -> None:
    if getattr(scaler, "window_size", None) is not None:
        checked(scaler.window_size, "window_size")
        raise Refused(f"{type(scaler).__name__} forgets by window_size={scaler.window_size}")


SCALERS: dict[type, tuple[Lower, Raise]] = {
    preprocessing.StandardScaler: (_lower_standard, _raise_standard),
    preprocessing.MinMaxScaler: (_lower_min_max, _raise_min_max),
    preprocessing.MaxAbsScaler: (_lower_max_abs, _raise_max_abs),
    preprocessing.Normalizer: (_lower_normalizer, _raise_normalizer),
}
"""By exact class: (scaler, names) -> op code and float64[4, f]; and the way back, into a copy of the scaler."""
