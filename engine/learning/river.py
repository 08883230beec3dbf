"""The only engine file that imports River: any River classifier, regressor, pipeline or anomaly detector as a
Member.

River's own arithmetic runs unchanged, row by row. What is added: the task is checked when the pipeline is
defined, a model that raises or leaves the numbers is caught, and the state can be saved and continued bit for
bit, in another process too.
"""

import copy
import functools
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from river import base, compose

from thalweg.engine import snapshot
from thalweg.engine.errors import DefinitionError, SnapshotError
from thalweg.engine.learning import identity, pickles
from thalweg.engine.learning.lowered import compile as lower
from thalweg.engine.learning.lowered import why_not
from thalweg.engine.learning.lowered.member import LoweredMember
from thalweg.engine.learning.member import (
    LARGEST,
    TASK_OF_LABEL,
    Features,
    Label,
    LabelType,
    Prediction,
    Task,
)
from thalweg.engine.learning.work import Answers, Work, row_by_row

EXECUTOR = identity.executor_of("river")
LOWERED = "lowered 1"


def member(
    model: object,
    *,
    name: str | None = None,
    fingerprint: str,
    label_type: LabelType | None = None,
    weighted: bool = False,
    numbers: Sequence[str] | None = None,
) -> "RiverMember | LoweredMember":
    """A member around a deep copy of ``model`` (a warm model stays warm; the user's object is never touched).

    ``fingerprint`` is the feature set's, ``label_type`` the type of the label's value (None: no label),
    ``weighted`` whether the pipeline has ``weight=``. Raises DefinitionError, saying what to write, for a
    model that does not fit the label, is not seeded, cannot take the weights, or cannot be saved.
    """
    kinds = _kinds(model)
    task = _task(model, kinds, label_type)
    _refuse_shared_state(model)
    identity.refuse_unseeded(model)
    takes_weight = _takes_weight(model)
    if weighted and task != "anomaly" and not takes_weight:
        raise DefinitionError(_no_weight(model))
    why_not = why_not_lowered(model, task, numbers)
    executor = EXECUTOR if why_not else f"{LOWERED}, {EXECUTOR}"
    model_version = identity.version_of(model, fingerprint=fingerprint, executor=executor)
    if not why_not:
        assert numbers is not None
        lowered = lower(model, numbers)
        assert lowered is not None, model
        return LoweredMember(lowered, name or str(model), model_version, task)
    one = RiverMember(copy.deepcopy(model), name or str(model), model_version, task, kinds, takes_weight)
    one.runs = f"through River, row by row: {why_not}"
    return one


def why_not_lowered(model: object, task: Task, numbers: Sequence[str] | None) -> str | None:
    """Why a model runs in River, row by row; None where it runs in kernels."""
    if task not in ("binary", "regression"):
        return f"only labels of two classes and numbers are, not {task}"
    if numbers is None:
        return "a feature is text"
    return why_not(model, numbers)


class RiverMember:
    """A River model that predicts, learns, never stops the stream, and survives a restart. Made by
    :func:`member`.
    """

    def __init__(
        self, model: Any, name: str, version: str, task: Task, kinds: frozenset[str], takes_weight: bool
    ) -> None:
        self.name, self.version, self.task, self.takes_weight = name, version, task, takes_weight
        self.runs = "through River, row by row"
        self.learned = 0
        self.failures = 0
        self.last_failure: str | None = None
        self._model: Any = _stable(model)
        self._names = _names(model)
        self._is_filter = "AnomalyFilter" in kinds
        self._proba_only, self._label_only = _how_it_classifies(model) if "Classifier" in kinds else (False, False)

    def predict(self, x: Features) -> Prediction:
        """See :class:`Member`. An exception, a NaN, an infinity or a score beyond 1e100 gives a degraded
        prediction, counted.
        """
        try:
            prediction = self._predict(dict(x))  # some of River's transformers write into what they are given
        except Exception as error:
            return self._degraded(f"{type(error).__name__}: {error}")
        if not _is_finite(prediction.score):
            return self._degraded(f"score {prediction.score}")
        return prediction

    def learn(self, x: Features, y: Label | None, weight: float = 1.0) -> bool:
        """See :class:`Member`. ``w`` is passed to River only when it is not 1, so that plain models need not
        know of weights.
        """
        try:
            if self.task == "anomaly":
                self._model.learn_one(dict(x))
            elif weight == 1.0:
                self._model.learn_one(dict(x), y)
            else:
                self._model.learn_one(dict(x), y, w=weight)
        except Exception as error:
            self._count_failure(f"{type(error).__name__}: {error}")
            return False
        self.learned += 1
        return True

    def run(self, work: Work) -> Answers:
        """See :class:`Member`."""
        return row_by_row(self, work)

    def state(self) -> bytes:
        """The model (pickle, inside our own checked bytes) and the counters."""
        counters = [self.version, self.learned, self.failures]
        return snapshot.pack({"counters": snapshot.pack_json(counters), "model": pickles.dump(self._model)})

    def restore(self, data: bytes) -> None:
        """Continue from ``state()`` of a member of the same version; see :mod:`pickles` for what the bytes
        may hold.
        """
        items = snapshot.unpack(data)
        counters, model = items.get("counters"), items.get("model")
        if not isinstance(counters, bytes) or not isinstance(model, bytes):
            raise SnapshotError(f"{self.name}: counters and model expected in a member's state, got {sorted(items)}")
        version, learned, failures = snapshot.unpack_json(counters)
        if version != self.version:
            raise SnapshotError(f"{self.name}: this state is of version {version}, the definition is {self.version}")
        self._model = pickles.load(model, self._names)
        self.learned, self.failures, self.last_failure = learned, failures, None

    def _predict(self, x: Features) -> Prediction:
        if self.task == "regression":
            value = self._model.predict_one(x)
            return Prediction(None if value is None else float(value), None)
        if self.task == "anomaly":
            score = self._model.score_one(x)
            return Prediction(float(score), _plain(_last(self._model).classify(score)) if self._is_filter else None)
        if self._label_only:
            return self._certain(self._model.predict_one(x))
        return self._classify(x)

    def _classify(self, x: Features) -> Prediction:
        try:
            probabilities = self._model.predict_proba_one(x)
        except NotImplementedError:  # a wrapper around a classifier that only decides
            return self._certain(self._model.predict_one(x))
        label: Label | None
        if not self._proba_only:
            label = _plain(self._model.predict_one(dict(x)))
        else:  # River's own default: the first of the largest
            label = _plain(max(probabilities, key=probabilities.get)) if probabilities else None
        if not probabilities:
            return Prediction(None, label)
        if self.task == "binary":
            return Prediction(float(probabilities.get(True, 0.0)), label)
        return Prediction({_plain(c): float(p) for c, p in probabilities.items()}, label)

    def _certain(self, decided: Any) -> Prediction:
        if decided is None:
            return Prediction(None, None)
        label = _plain(decided)
        return Prediction(float(bool(label)) if self.task == "binary" else {label: 1.0}, label)

    def _degraded(self, reason: str) -> Prediction:
        self._count_failure(reason)
        return Prediction(None, None, degraded=True)

    def _count_failure(self, reason: str) -> None:
        self.failures += 1
        self.last_failure = reason[:500]


def _task(model: object, kinds: frozenset[str], label_type: LabelType | None) -> Task:
    if inspect.isclass(model):
        raise DefinitionError(f"a model is expected, not the class {model.__name__}; write {model.__name__}()")
    if not isinstance(model, base.Base) or not callable(getattr(model, "learn_one", None)):
        raise DefinitionError(
            f"a River model is expected, got {type(model).__name__}; write e.g. "
            "LogisticRegression() or baseline.Prior()"
        )
    if "SupervisedAnomalyDetector" in kinds or (kinds & {"AnomalyDetector", "AnomalyFilter"} and _supervised(model)):
        raise DefinitionError(
            f"{model} scores a row together with its label, which is not known then; write e.g. HalfSpaceTrees(seed=42)"
        )
    if kinds & {"AnomalyDetector", "AnomalyFilter"}:
        return "anomaly"
    if not kinds & {"Classifier", "Regressor"}:
        raise DefinitionError(
            f"{model} neither classifies nor regresses nor scores anomalies; end the pipeline with a model that does"
        )
    if label_type is None:
        raise DefinitionError(
            f"{model} learns from labels and the pipeline has none; give label=, or an anomaly detector"
        )
    return _labelled_task(model, kinds, TASK_OF_LABEL[label_type], label_type)


def _labelled_task(model: object, kinds: frozenset[str], task: Task, label_type: str) -> Task:
    if task == "regression" and "Regressor" not in kinds:
        raise DefinitionError(
            f"{model} is a classifier and the label's value is f64; write a regressor, or a "
            "condition, e.g. value = col.x > 15"
        )
    if task != "regression" and "Classifier" not in kinds:
        raise DefinitionError(
            f"{model} is a regressor and the label's value is {label_type}; write a classifier, or a label of type f64"
        )
    if task == "multiclass" and not getattr(model, "_multiclass", True):
        raise DefinitionError(
            f"{model} knows two classes and the label's value is {label_type}; "
            f"write OneVsRestClassifier({type(_last(model)).__name__}(...)), or a label of type bool"
        )
    return task


def _last(model: Any) -> Any:
    """The step that decides what a pipeline is."""
    while "Pipeline" in (kind.__name__ for kind in type(model).__mro__):
        if not len(model):
            raise DefinitionError("an empty pipeline; write e.g. StandardScaler() | LogisticRegression()")
        model = model._last_step
    return model


def _kinds(model: object) -> frozenset[str]:
    """The names of River's base classes (they moved between versions; names did not)."""
    return frozenset(kind.__name__ for kind in type(_last(model)).__mro__ if kind.__module__.startswith("river."))


def _supervised(model: object) -> bool:
    return bool(getattr(model, "_supervised", False))


def _takes_weight(model: object) -> bool:
    """Whether ``w`` reaches what learns; River's pipelines drop it silently otherwise."""
    step = _last(model)
    if step is not model and not pipelines_pass_weights():
        return False
    names = inspect.signature(step.learn_one).parameters
    if "w" in names:
        return True
    inner = getattr(step, "_wrapped_model", None)
    return inner is not None and any(p.kind is p.VAR_KEYWORD for p in names.values()) and _takes_weight(inner)


def _no_weight(model: object) -> str:
    if _takes_weight(_last(model)):
        return (
            f"the pipelines of {EXECUTOR} drop sample weights, and the pipeline has weight=; "
            "drop weight=, or install a newer River: pip install -U river"
        )
    return (
        f"{model} takes no sample weights (its learn_one has no `w`), and the pipeline has weight=; "
        "drop weight=, or resample, e.g. imblearn.RandomSampler(model, desired_dist=..., seed=42)"
    )


class _Scales(base.Regressor):
    """Remembers the weight it was given."""

    def __init__(self) -> None:
        self.weight = 0.0

    def learn_one(self, x: dict[Any, Any], y: Any, w: float = 1.0) -> None:
        self.weight = w

    def predict_one(self, x: dict[Any, Any]) -> float:
        return self.weight


@functools.cache
def pipelines_pass_weights() -> bool:
    """Whether ``w`` given to a pipeline reaches its last step; River 0.23 drops it without a word."""
    scales = _Scales()
    compose.Pipeline(scales).learn_one({}, 0.0, w=2.0)
    return scales.weight == 2.0


def _how_it_classifies(model: object) -> tuple[bool, bool]:
    """(its label is the most probable class, it has no probabilities), by what the class overrides."""
    kind = type(_last(model))
    proba_only = kind.predict_one is base.Classifier.predict_one
    return proba_only, kind.predict_proba_one is base.Classifier.predict_proba_one


def _refuse_shared_state(model: object) -> None:
    for inner in _walk(model):
        if type(inner).__name__ == "SWINN":
            raise DefinitionError(
                f"{model} searches with SWINN, which keeps state outside itself and would not restart; "
                "write engine=neighbors.LazySearch()"
            )


def _names(model: object) -> frozenset[pickles.Name]:
    """What the definition itself is made of, and with it that the model can be saved at all."""
    try:
        return pickles.names_in(pickles.dump(model))
    except SnapshotError as error:
        raise DefinitionError(
            f"{error}; a model must survive a restart: use named functions of a module, no lambdas"
        ) from error


def _stable(model: object) -> object:
    """``model`` with its plain sets replaced, in place, by sets that are walked in the same order in every
    process.
    """
    for inner in _walk(model):
        if isinstance(inner, dict):
            inner.update({key: pickles.StableSet(value) for key, value in inner.items() if type(value) is set})
            if getattr(inner, "default_factory", None) is set:
                inner.default_factory = pickles.StableSet  # type: ignore[attr-defined]
    return model


def _walk(model: object) -> Iterator[Any]:
    """Every River object inside ``model``, attribute dictionaries and containers included, each once."""
    seen: set[int] = set()
    pending: list[Any] = [model]
    while pending:
        inner = pending.pop()
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        yield inner
        if isinstance(inner, dict):
            pending.extend(inner.values())
        elif isinstance(inner, list | tuple):
            pending.extend(inner)
        elif isinstance(inner, base.Base) or type(inner).__module__.startswith("river."):
            pending.append(getattr(inner, "__dict__", {}))


def _plain(label: Any) -> Label:
    plain: Label = label.item() if isinstance(label, np.generic) else label
    return plain


def _is_finite(score: float | dict[Label, float] | None) -> bool:
    if score is None:
        return True
    values = score.values() if isinstance(score, dict) else (score,)
    return all(-LARGEST <= value <= LARGEST for value in values)
