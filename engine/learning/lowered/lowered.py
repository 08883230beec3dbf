"""``compile``: a River model becomes arrays and a kernel, and back."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from river import base, compose, linear_model, naive_bayes, utils

from thalweg.engine.errors import SnapshotError
from thalweg.engine.kernels.arrays import Float64, Int8, Int64
from thalweg.engine.kernels.learners import Model, State, Steps
from thalweg.engine.kernels.learners_powers import POWERS
from thalweg.engine.learning.lowered import bayes, linear, passive
from thalweg.engine.learning.lowered.checks import Refused, refuse_unknown_attributes, refuse_unknown_features
from thalweg.engine.learning.lowered.learner import Learner
from thalweg.engine.learning.lowered.scalers import SCALERS

_LEARNERS: dict[type, tuple[Callable[[Any, Sequence[str], bool], Learner], Callable[[Any, State, Sequence[str]], None]]]
_LEARNERS = {
    linear_model.LinearRegression: (linear.lower, linear.raise_into),
    linear_model.LogisticRegression: (linear.lower, linear.raise_into),
    linear_model.PAClassifier: (passive.lower, passive.raise_into),
    linear_model.PARegressor: (passive.lower, passive.raise_into),
    naive_bayes.GaussianNB: (bayes.lower, bayes.raise_into),
}


def compile(model: object, names: Sequence[str]) -> Lowered | None:  # noqa: A001 - it compiles
    """``model`` as arrays and a kernel, warm where it is warm; None for what is not computed exactly as River does.

    ``names`` are the features in the order of the matrix that ``run`` will be given. :func:`why_not` says why a
    model is left to River. The model itself is not touched.

    >>> import numpy as np
    >>> from river.linear_model import LogisticRegression
    >>> from river.preprocessing import StandardScaler
    >>> lowered = compile(StandardScaler() | LogisticRegression(), ["a", "b"])
    >>> x, y = np.array([[1.0, 2.0], [3.0, np.nan]]), np.array([1.0, 0.0, 0.0])
    >>> kinds, rows, out = np.array([1, 1, 0], dtype=np.int8), np.array([0, 1, 0]), np.empty(3)
    >>> lowered.run(kinds, rows, x, y, np.ones(3), out)
    >>> out.round(6)
    array([0.     , 0.     , 0.50125])
    >>> river = lowered.raise_()
    >>> round(river.predict_proba_one({"a": 1.0, "b": 2.0})[True], 6)
    0.50125
    """
    try:
        return _lower(model, tuple(names))
    except Refused:
        return None


def why_not(model: object, names: Sequence[str] | None = None) -> str | None:
    """Why :func:`compile` leaves ``model`` to River; None when it does not. Without ``names``, those that the model
    has learned are taken for granted.

    >>> from river.naive_bayes import BernoulliNB
    >>> why_not(BernoulliNB())
    'BernoulliNB is not among the models that are lowered'
    """
    try:
        _lower(model, tuple(_features_in(model)) if names is None else tuple(names))
    except Refused as reason:
        return str(reason)
    return None


class Lowered:
    """A River model as arrays and a kernel. Made by :func:`compile`.

    ``names`` are the features in the order of the matrix that it is given. ``nan_is_none``: a prediction that is NaN
    means that nothing has been learned (River's empty answer), and one that failed is infinite instead; otherwise NaN
    is one that failed.
    """

    def __init__(
        self,
        river: Any,
        names: tuple[str, ...],
        used: tuple[str, ...],
        program: Model,
        learner: Learner,
        scales: Float64,
    ) -> None:
        self.names = names
        self.nan_is_none = learner.nan_is_none
        self._river, self._used, self._program, self._kernel = river, used, program, learner.kernel
        self._work = np.empty((3, len(used)))
        self._state = State(scales, learner.head, learner.scalars, learner.order)

    def run(self, kinds: Int8, rows: Int64, x: Float64, y: Float64, w: Float64, out: Float64) -> None:
        """Carries out k steps in order.

        Read: ``kinds`` int8[k] (0: predict, 1: learn), ``rows`` int64[k] of ``x`` float64[r, names] (NaN: the feature
        is absent), ``y`` float64[k] (a number, or 1.0 and 0.0; of what is learned), ``w`` float64[k] (sample weights,
        for models that take them). Written: ``out`` float64[k], the score (P(True), or the value), NaN where River
        would raise, and 0.0 for what was learned, NaN where River would raise.

        An array of another type or order, or one that cannot be written, is copied first.
        """
        assert x.shape[1] == len(self.names), f"{len(self.names)} columns expected, got {x.shape[1]}"
        steps = Steps(_plain(kinds, np.int8), _plain(rows, np.int64), *(_plain(part, np.float64) for part in (x, y, w)))
        self._kernel(steps, self._program, self._state, self._work, out)

    @property
    def tie(self) -> bool:
        """The class that River decides for where both are as probable: naive Bayes the one it saw first, else False."""
        return self.nan_is_none and bool(self._state.scalars[bayes.FIRST])

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What has been learned, as copies of arrays by name: ``scales``, ``head``, ``scalars``, ``order``."""
        return {name: part.copy() for name, part in self._state._asdict().items()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from ``state()`` of the same model over the same names; raises SnapshotError for another."""
        for name, part in self._state._asdict().items():
            given = state.get(name)
            if given is None or given.shape != part.shape or given.dtype != part.dtype:
                what = "nothing" if given is None else f"{given.dtype}{list(given.shape)}"
                raise SnapshotError(f"{name}: {part.dtype}{list(part.shape)} expected in a lowered model, got {what}")
        for name, part in self._state._asdict().items():
            part[...] = state[name]

    def raise_(self) -> Any:
        """A River model that goes on from here: the weights, the optimizer's state, the scalers' counts."""
        river = copy.deepcopy(self._river)
        *scalers, last = _without_choice(_steps(river))
        for scaler, scale in zip(scalers, self._state.scales, strict=True):
            SCALERS[type(scaler)][1](scaler, scale, self._used)
        _LEARNERS[type(last)][1](last, self._state, self._used)
        return river


def _plain(array: npt.NDArray[Any], kind: type[np.generic]) -> npt.NDArray[Any]:
    """``array`` as the kernels were compiled for; each other layout would be compiled anew."""
    if array.dtype == kind and array.flags.c_contiguous and array.flags.writeable:
        return array
    return np.array(array, dtype=kind, order="C")


def _lower(model: Any, names: tuple[str, ...]) -> Lowered:
    assert len(set(names)) == len(names), f"a feature occurs twice in {names}"
    steps = _steps(model)
    used, strict = _chosen(steps, names)
    *scalers, last = _without_choice(steps)
    for step in scalers:
        if type(step) not in SCALERS:
            raise Refused(f"{_name(step)} is not among the transformers that are lowered")
    if type(last) not in _LEARNERS:
        raise Refused(f"{_name(last)} is not among the models that are lowered")
    lowered = [SCALERS[type(step)][0](step, used) for step in scalers]
    takes_weight = len(steps) == 1 or _pipelines_pass_weights()
    learner = _LEARNERS[type(last)][0](last, used, takes_weight)
    columns = np.array([names.index(name) for name in used], dtype=np.int64)
    ops = np.array([op for op, _ in lowered], dtype=np.int64)
    scales = np.zeros((len(lowered), 4, len(used)))
    for scale, (_, rows) in zip(scales, lowered, strict=True):
        scale[...] = rows
    program = Model(columns, int(strict), ops, POWERS, learner.codes, learner.numbers)
    return Lowered(copy.deepcopy(model), names, used, program, learner, scales)


def _steps(model: Any) -> list[Any]:
    if type(model) is not compose.Pipeline:
        return [model]
    if not len(model):
        raise Refused("an empty pipeline")
    return list(model.steps.values())


def _without_choice(steps: list[Any]) -> list[Any]:
    """The steps without the choice of features at the start."""
    choice = itertools.takewhile(lambda step: type(step) in (compose.Select, compose.Discard), steps[:-1])
    return steps[len(list(choice)) :]


def _chosen(steps: list[Any], names: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """The features in use, in the order of ``names``, and whether River raises when one of them is absent."""
    used, strict = names, False
    for step in steps[: len(steps) - len(_without_choice(steps))]:
        refuse_unknown_attributes(step, "keys")
        if type(step) is compose.Select:
            refuse_unknown_features(step.keys, used)
        used = tuple(name for name in used if (name in step.keys) == (type(step) is compose.Select))
        strict = strict or type(step) is compose.Select
    return used, strict


def _name(step: Any) -> str:
    """The class of a step; with its module where River is not its home."""
    kind = step if isinstance(step, type) else type(step)
    return kind.__name__ if kind.__module__.startswith("river.") else f"{kind.__module__}.{kind.__qualname__}"


def _features_in(model: Any) -> dict[str, None]:
    """Every text that is a key in what the steps and their optimizers keep, in order; plus the choice of features."""
    found: dict[str, None] = {}
    for step in model.steps.values() if type(model) is compose.Pipeline else [model]:
        parts = [*vars(step).values(), *vars(getattr(step, "optimizer", step)).values()]
        for keys in [part for part in parts if isinstance(part, Mapping | set | frozenset | utils.VectorDict)]:
            inner = (
                [keys, *(value for value in keys.values() if isinstance(value, Mapping))]
                if hasattr(keys, "values")
                else [keys]
            )
            found.update((key, None) for part in inner for key in part if isinstance(key, str))
    return found


class _Remembers(base.Regressor):
    """Remembers the weight it was given."""

    def __init__(self) -> None:
        self.weight = 1.0

    def learn_one(self, x: dict[Any, Any], y: Any, w: float = 1.0) -> None:
        self.weight = w

    def predict_one(self, x: dict[Any, Any]) -> float:
        return self.weight


@functools.cache
def _pipelines_pass_weights() -> bool:
    """Whether ``w`` given to a pipeline reaches its last step; older Rivers drop it."""
    remembers = _Remembers()
    compose.Pipeline(remembers).learn_one({}, 0.0, w=2.0)
    return remembers.weight == 2.0
