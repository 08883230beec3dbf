"""River's drift detectors on the error of what was served, in the order of the labels.

The error is taken from the stored prediction, never from a fresh one: by the time a label comes the model
has learned from others, and a fresh prediction would look better than what users got. Detectors are only
known by what they do here: ``update(x)``, then ``drift_detected``.
"""

from __future__ import annotations

import copy
import inspect
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from thalweg.engine import snapshot
from thalweg.engine.errors import DefinitionError, SnapshotError
from thalweg.engine.learning import identity, pickles
from thalweg.engine.learning.member import LARGEST, Label, Prediction, Task
from thalweg.engine.learning.sums import Mean

_STATISTICS = ("estimation", "width", "p_value")  # of ADWIN and KSWIN; the others tell nothing

_COUNTS_RIGHT = "FHDDM"  # River's alarms when the share of ones *falls*, whatever its documentation says


class Alarm(NamedTuple):
    """What a detector found at the label that caused it; ``error`` is that label's own.

    ``statistics`` are finite numbers by name: ``error_mean`` and ``labels`` since the last alarm, and what
    the detector tells of itself (ADWIN: the mean and width of what it keeps; KSWIN: the p-value).
    """

    detector: str
    version: str
    error: float
    statistics: dict[str, float]


@dataclass(frozen=True)
class ErrorDetector:
    """A detector to run on the served error; made by :func:`on_error`. ``detector`` is the user's object."""

    detector: Any
    name: str

    def check(self, task: Task) -> None:
        """Raise DefinitionError when the serving model's ``task`` has no error that this detector can watch."""
        if task == "anomaly":
            raise DefinitionError(
                f"on_error({self.name}): an anomaly detector has no served error; leave drift= out, "
                "or let a classifier serve"
            )
        kinds = {kind.__name__ for kind in type(self.detector).__mro__}
        if task == "regression" and "BinaryDriftDetector" in kinds:
            raise DefinitionError(
                f"on_error({self.name}): it watches right and wrong, and the error of a regression is a "
                "number; write on_error(ADWIN())"
            )


def on_error(detector: object, name: str | None = None) -> ErrorDetector:
    """Watch the error of the model that serves: wrong or right for classes, the absolute error for numbers.

    ``detector`` is any of River's: ADWIN, PageHinkley, KSWIN with a seed, DDM and the other binary ones.
    Raises DefinitionError for what is not a detector, and for one whose seed is None.
    """
    if inspect.isclass(detector):
        raise DefinitionError(
            f"on_error({detector.__name__}): an object is expected; write on_error({detector.__name__}())"
        )
    if not callable(getattr(detector, "update", None)) or not hasattr(detector, "drift_detected"):
        raise DefinitionError(f"on_error({detector!r}): a drift detector is expected; write e.g. on_error(ADWIN())")
    identity.refuse_unseeded(detector)
    return ErrorDetector(detector, name or type(detector).__name__)


class ErrorMonitor:
    """The stateful worker of one :class:`ErrorDetector`: its own copy of the detector, fed in label order.

    An error that is not finite never reaches the detector (``skipped``); a detector that raises does not stop
    the stream (``failures``).
    """

    def __init__(self, spec: ErrorDetector, *, fingerprint: str = "") -> None:
        self.name = spec.name
        self.skipped = 0
        self.failures = 0
        self._detector = copy.deepcopy(spec.detector)
        self._names = pickles.names_in(pickles.dump(spec.detector))
        self._since = Mean()
        self._counts_right = _COUNTS_RIGHT in {kind.__name__ for kind in type(spec.detector).__mro__}
        executor = identity.executor_of(type(spec.detector).__module__.partition(".")[0])
        self.version = identity.version_of(spec.detector, fingerprint=fingerprint, executor=executor)

    def update(self, y: Label, prediction: Prediction) -> Alarm | None:
        """Feed the error of the served ``prediction``; the alarm if the detector found drift at this label."""
        error = served_error(y, prediction)
        if error is None:
            self.skipped += 1
            return None
        self._since.update(error, 1.0)
        try:
            self._detector.update(1.0 - error if self._counts_right else error)
            detected = bool(self._detector.drift_detected)
        except Exception:
            self.failures += 1
            return None
        return self._alarm(error) if detected else None

    def state(self) -> bytes:
        """The detector (pickle, inside our own checked bytes) and the counters."""
        counters = [self.version, self.skipped, self.failures, self._since.to_json()]
        return snapshot.pack({"counters": snapshot.pack_json(counters), "detector": pickles.dump(self._detector)})

    def restore(self, data: bytes) -> None:
        """Continue from ``state()``. Raises SnapshotError for foreign, damaged or unsafe bytes."""
        items = snapshot.unpack(data)
        counters, detector = items.get("counters"), items.get("detector")
        if not isinstance(counters, bytes) or not isinstance(detector, bytes):
            raise SnapshotError(f"{self.name}: the state of a drift monitor expected, got {sorted(items)}")
        version, skipped, failures, since = snapshot.unpack_json(counters)
        if version != self.version:
            raise SnapshotError(f"{self.name}: this state is of version {version}, the definition is {self.version}")
        self._detector = pickles.load(detector, self._names)
        self.skipped, self.failures = skipped, failures
        self._since.from_json(since)

    def _alarm(self, error: float) -> Alarm:
        told = {name: getattr(self._detector, name, None) for name in _STATISTICS}
        known = {"error_mean": self._since.mean, "labels": self._since.samples, **told}
        statistics = {
            name: float(value)
            for name, value in known.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        self._since = Mean()
        return Alarm(self.name, self.version, error, statistics)


def served_error(y: Label, prediction: Prediction) -> float | None:
    """1.0 for a wrong class, 0.0 for the right one, the absolute error of a number; None when there is none.

    >>> served_error(True, Prediction(0.3, False)), served_error(2.0, Prediction(2.5, None))
    (1.0, 0.5)
    """
    if prediction.label is not None:
        return 1.0 if prediction.label != y else 0.0
    if isinstance(y, bool | str) or not isinstance(prediction.score, float):
        return None
    error = abs(y - prediction.score)
    return error if error <= LARGEST else None
