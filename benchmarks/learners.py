"""How much faster is a lowered model than River? Predict and learn every row, the same rows, checked equal first.

CPU time, medians of runs that alternate; River is given its dictionaries ready-made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from river import linear_model, naive_bayes, optim, preprocessing

from benchmarks.harness import digits, in_turns, say
from thalweg.engine.learning.lowered import Lowered, why_not
from thalweg.engine.learning.lowered import compile as lower

ROWS, ROWS_FULL = 2_000, 10_000
RUNS, RUNS_FULL = 5, 9
FEATURES = 20
PASSES = 20  # of the lowered model in one run, so that it can be measured
TOLERANCE = 1e-12
SEED = 11

Array = npt.NDArray[Any]


def run(quick: bool) -> list[dict[str, Any]]:
    """Per model: ``model, events_per_second, ratio_river, max_abs_difference, events_timed``; an event is one row,
    predicted and learned.
    """
    data = Data(ROWS if quick else ROWS_FULL)
    return [_row(name, model, binary, data, RUNS if quick else RUNS_FULL) for name, model, binary in models()]


def models() -> list[tuple[str, Any, bool]]:
    """(name, model, whether it tells two classes apart)."""
    scaled: list[tuple[Any, bool, str]] = [
        (linear_model.LogisticRegression(optim.SGD(0.01)), True, "SGD"),
        (linear_model.LogisticRegression(optim.Adam(0.01)), True, "Adam"),
        (linear_model.LogisticRegression(optim.AdaGrad(0.05)), True, "AdaGrad"),
        (linear_model.LogisticRegression(optim.FTRLProximal()), True, "FTRLProximal"),
        (linear_model.LogisticRegression(optim.SGD(0.01), l2=0.001), True, "SGD, l2"),
        (linear_model.LinearRegression(optim.SGD(0.01)), False, "SGD"),
        (linear_model.PAClassifier(C=0.1), True, ""),
        (linear_model.PARegressor(C=0.1), False, ""),
        (naive_bayes.GaussianNB(), True, ""),
    ]
    alone = (linear_model.LogisticRegression(optim.SGD(0.01)), True, "SGD")
    named = [(f"StandardScaler | {_name(*one)}", preprocessing.StandardScaler() | one[0], one[1]) for one in scaled]
    more = preprocessing.MinMaxScaler() | linear_model.LogisticRegression(optim.SGD(0.01))
    return [*named, (f"MinMaxScaler | {_name(*alone)}", more, True), (_name(*alone), alone[0], True)]


class Data:
    """Rows as both see them: x float64[n, FEATURES] normal, no absences; a linear truth with noise."""

    def __init__(self, n: int) -> None:
        draw = np.random.default_rng(SEED)
        self.names = [f"x{i}" for i in range(FEATURES)]
        self.x = draw.normal(2.0, 3.0, size=(n, FEATURES))
        self.dicts = [dict(zip(self.names, row, strict=True)) for row in self.x.tolist()]
        value = (self.x - 2.0) @ draw.normal(size=FEATURES) / 3.0 + draw.normal(size=n)
        self.labels = {True: (value > 0.0).astype(np.float64), False: value}
        self.kinds = np.tile(np.array([0, 1], dtype=np.int8), n)
        self.rows = np.repeat(np.arange(n), 2)
        self.w = np.ones(2 * n)

    def __len__(self) -> int:
        return len(self.x)


def _row(name: str, model: Any, binary: bool, data: Data, runs: int) -> dict[str, Any]:
    lowered = lower(model, data.names)
    assert lowered is not None, f"{name}: {why_not(model)}"
    start, y = lowered.state(), np.repeat(data.labels[binary], 2)
    labels = [bool(label) for label in y[::2]] if binary else y[::2].tolist()
    river, kernel = _by_river(model, binary, data, labels), _by_kernel(lowered, start, data, y, 1)
    known = ~np.isnan(kernel)
    difference = float(np.max(np.abs(river[known] - kernel[known])))
    assert difference <= TOLERANCE * max(1.0, np.max(np.abs(river[known]))), f"{name} differs by {difference}"
    contestants: dict[str, Callable[[], object]] = {
        "river": partial(_by_river, model, binary, data, labels),
        "lowered": partial(_by_kernel, lowered, start, data, y, PASSES),
    }
    events = {"river": len(data), "lowered": PASSES * len(data)}
    timed = in_turns(contestants, events, runs=runs, clock=time.process_time)
    found = {
        "model": name,
        "features": FEATURES,
        "events_per_second": digits(timed["lowered"].events_per_second),
        "river_events_per_second": digits(timed["river"].events_per_second),
        "ratio_river": digits(timed["lowered"].events_per_second / timed["river"].events_per_second),
        "max_abs_difference": difference,
        "spread": digits(timed["lowered"].spread, 2),
        "events_timed": runs * PASSES * len(data),
    }
    say(f"{name}: {found['ratio_river']} times River, {found['events_per_second']:.0f} events a second")
    return found


def _by_river(model: Any, binary: bool, data: Data, labels: list[Any]) -> Array:
    """The predictions of a fresh copy, each row learned right after."""
    model = model.clone()
    predict, learn, out = model.predict_proba_one if binary else model.predict_one, model.learn_one, []
    for x, y in zip(data.dicts, labels, strict=True):
        out.append(predict(x))
        learn(x, y)
    return np.array([p.get(True, 0.0) for p in out] if binary else out, dtype=np.float64)


def _by_kernel(model: Lowered, start: dict[str, Array], data: Data, y: Array, passes: int) -> Array:
    out = np.empty(len(data.kinds))
    for _ in range(passes):
        model.restore(start)
        model.run(data.kinds, data.rows, data.x, y, data.w, out)
    return out[::2]


def _name(model: Any, binary: bool, detail: str) -> str:
    return f"{type(model).__name__}({detail})" if detail else type(model).__name__
