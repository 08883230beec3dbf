"""Transcendental functions value by value.

NumPy may use vector code for the body of an array and scalar code for its tail, so the last bit of a
value could depend on where a batch was cut. These loops call the scalar function for every value.
"""

from __future__ import annotations

import math

import numpy as np

from thalweg.engine.kernels.arrays import Float64
from thalweg.engine.kernels.jit import kernel


@kernel
def _logarithm(values: Float64, out: Float64) -> None:
    for i in range(len(values)):
        out[i] = math.log(values[i]) if values[i] > 0.0 else math.nan


@kernel
def _sine(values: Float64, out: Float64) -> None:
    for i in range(len(values)):
        out[i] = math.sin(values[i])


@kernel
def _cosine(values: Float64, out: Float64) -> None:
    for i in range(len(values)):
        out[i] = math.cos(values[i])


def logarithm(values: Float64) -> Float64:
    """Natural logarithm, NaN where the value is not positive; float64[n]."""
    out = np.empty(len(values))
    _logarithm(values, out)
    return out


def sine(values: Float64) -> Float64:
    """float64[n], radians."""
    out = np.empty(len(values))
    _sine(values, out)
    return out


def cosine(values: Float64) -> Float64:
    """float64[n], radians."""
    out = np.empty(len(values))
    _cosine(values, out)
    return out
