"""The law of the lowered models: they predict and learn as the River that is installed does, to 1e-12."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from river import datasets, linear_model, optim, preprocessing

from thalweg.engine.learning.lowered import Lowered, compile, why_not  # noqa: A004 - it compiles

Array = npt.NDArray[Any]
PREDICT, LEARN = 0, 1


class Stream:
    """Rows as River and as the kernels see them: names, x float64[r, f] (NaN = absent), y float64[r]."""

    def __init__(self, names: list[str], x: Array, y: Array, binary: bool) -> None:
        self.names, self.x, self.y, self.binary = names, x, y, binary

    def row(self, r: int) -> dict[str, float]:
        return {name: value for name, value in zip(self.names, self.x[r].tolist(), strict=True) if value == value}

    def label(self, r: int) -> bool | float:
        return bool(self.y[r]) if self.binary else float(self.y[r])

    def with_absences(self, share: float, seed: int = 7) -> Stream:
        absent = np.random.default_rng(seed).random(self.x.shape) < share
        return Stream(self.names, np.where(absent, math.nan, self.x), self.y, self.binary)


@functools.cache
def stream(name: str) -> Stream:
    xs, ys = zip(*getattr(datasets, name)(), strict=True)
    names = list(xs[0])
    x = np.array([[float(row[name]) for name in names] for row in xs])
    return Stream(names, x, np.array(ys, dtype=np.float64), type(ys[0]) is bool)


def in_order(n: int, delay: int = 0) -> tuple[Array, Array]:
    """Steps (kinds, rows): each row is predicted, and learned once ``delay`` more have been predicted."""
    steps = [(r, PREDICT) for r in range(n)] + [(r + delay, LEARN) for r in range(n)]
    order = sorted(range(2 * n), key=lambda s: steps[s])
    rows = np.array([s % n for s in order])
    return np.array([steps[s][1] for s in order], dtype=np.int8), rows


def by_river(model: Any, data: Stream, kinds: Array, rows: Array, w: Array | None = None) -> Array:
    """``Lowered.run`` in River's words, exceptions included."""
    out = np.full(len(kinds), math.nan)
    for k, (kind, r) in enumerate(zip(kinds.tolist(), rows.tolist(), strict=True)):
        weight = {} if w is None else {"w": float(w[k])}
        try:
            out[k] = _learn(model, data, r, weight) if kind == LEARN else _predict(model, data, r)
        except (ArithmeticError, KeyError):
            continue
    return out


def _predict(model: Any, data: Stream, r: int) -> float:
    if not data.binary:
        return float(model.predict_one(data.row(r)))
    probabilities = model.predict_proba_one(data.row(r))
    return float(probabilities.get(True, 0.0)) if probabilities else math.nan


def _learn(model: Any, data: Stream, r: int, weight: dict[str, float]) -> float:
    model.learn_one(data.row(r), data.label(r), **weight)
    return 0.0


def by_kernel(model: Lowered, data: Stream, kinds: Array, rows: Array, w: Array | None = None) -> Array:
    out = np.empty(len(kinds))
    model.run(kinds, rows, data.x, data.y[rows], np.ones(len(kinds)) if w is None else w, out)
    return out


def lowered(model: Any, names: list[str]) -> Lowered:
    found = compile(model, names)
    assert found is not None, why_not(model, names)
    return found


def assert_same(river: Array, kernel: Array, tolerance: float = 1e-12) -> None:
    """Equal to 1e-12 of the value (of the typical one, for values that happen to be near zero); NaN and infinities
    in the same places.
    """
    finite = np.isfinite(river)
    assert np.array_equal(np.isnan(river), np.isnan(kernel)), "NaN in other places"
    assert np.array_equal(river[~finite], kernel[~finite], equal_nan=True)
    if finite.any():
        scale = np.maximum(np.abs(river[finite]), np.median(np.abs(river[finite])))
        off = np.abs(river[finite] - kernel[finite])
        assert (off <= tolerance * scale).all(), f"off by {np.max(off / np.maximum(scale, 1e-300))}"


SCALERS: dict[str, Callable[[], Any]] = {
    "standard": preprocessing.StandardScaler,
    "centre": lambda: preprocessing.StandardScaler(with_std=False),
    "min max": preprocessing.MinMaxScaler,
    "max abs": preprocessing.MaxAbsScaler,
    "1-norm": lambda: preprocessing.Normalizer(order=1),
    "standard, 2-norm": lambda: preprocessing.StandardScaler() | preprocessing.Normalizer(),
}
BINARY, NUMBERS = ("Phishing", "Bananas"), ("TrumpApproval",)


def _linear(data: Stream, **parameters: Any) -> Any:
    kind = linear_model.LogisticRegression if data.binary else linear_model.LinearRegression
    return kind(**parameters)


@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize("name", [*BINARY, *NUMBERS])
def test_scalers_equal_river(name: str, scaler: str) -> None:
    data = stream(name).with_absences(0.1)
    model = SCALERS[scaler]() | _linear(data, optimizer=optim.SGD(0.01))
    kinds, rows = in_order(len(data.y))
    assert_same(by_river(model.clone(), data, kinds, rows), by_kernel(lowered(model, data.names), data, kinds, rows))
