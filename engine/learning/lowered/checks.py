"""Reading a River object without guessing: what is not exactly as expected is refused, with the reason."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from thalweg.engine.kernels.arrays import Float64


class Refused(Exception):
    """The model runs through River; the message says why."""


def refuse_unknown_attributes(obj: object, *known: str) -> None:
    """Raise Refused where ``obj`` has an attribute that is not ``known``: a newer River, or somebody's own."""
    for name in vars(obj):
        if name not in known:
            raise Refused(f"{type(obj).__name__} has an attribute {name} that is not known here")


def number(obj: object, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """The plain number ``obj.name``, from ``low`` to ``high``; Refused for anything else."""
    return checked(getattr(obj, name), f"{type(obj).__name__}.{name}", low, high)


def checked(value: Any, what: str, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a float, where it is an int, a float or NumPy's of them, and from ``low`` to ``high``."""
    if type(value) is not int and not isinstance(value, float) and not isinstance(value, np.integer):
        raise Refused(f"{what} is {value!r}, a plain number is expected")
    if not low <= value <= high and not (value != value and low == -math.inf and high == math.inf):
        raise Refused(f"{what} is {value!r}, which lies outside {low} to {high}")
    return float(value)


def row(values: Mapping[Any, Any], names: Sequence[str], what: str, default: float = 0.0) -> Float64:
    """float64[f]: the numbers of a dictionary by feature; Refused for a feature that is not among ``names``."""
    refuse_unknown_features(values, names)
    return np.array([checked(values[name], what) if name in values else default for name in names], dtype=np.float64)


def refuse_unknown_features(values: Iterable[Any], names: Sequence[str]) -> None:
    """Raise Refused where the model has learned a feature that will not come."""
    strange = [name for name in values if name not in names]
    if strange:
        raise Refused(f"it has learned a feature {strange[0]!r}, which is not among those that it will be given")


def sums_are_compensated() -> bool:
    """Whether Python's ``sum`` of floats keeps what rounding loses, as it does since 3.12."""
    return sum([1e16, 1.0, -1e16]) == 1.0
