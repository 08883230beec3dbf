"""Detectors see the error of what was served, in label order, and continue after a restart."""

from __future__ import annotations

import random

import pytest
from river import drift, linear_model
from river.drift import binary

from thalweg.engine import snapshot
from thalweg.engine.drift import ErrorMonitor, on_error
from thalweg.engine.drift.detectors import served_error
from thalweg.engine.errors import DefinitionError, SnapshotError
from thalweg.engine.learning import Prediction

DETECTORS = [
    drift.ADWIN(delta=0.01),
    drift.PageHinkley(threshold=10.0),
    drift.PageHinkley(threshold=10.0, mode="up"),
    drift.KSWIN(alpha=0.0001, seed=42),
    binary.DDM(),
    binary.EDDM(),
    binary.FHDDM(),
    *(kind() for name, kind in vars(binary).items() if name in ("HDDMA", "HDDMW", "HDDM_A", "HDDM_W")),
]


def answers(n: int = 1200) -> list[tuple[bool, Prediction]]:
    """A model that is right in 9 of 10 rows, then in 4 of 10."""
    rng = random.Random(7)
    truths = [rng.random() < 0.5 for _ in range(n)]
    rates = (0.1 if i < n // 2 else 0.6 for i in range(n))
    return [(y, Prediction(0.5, y ^ (rng.random() < rate))) for y, rate in zip(truths, rates, strict=True)]


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: type(d).__name__)
def test_alarms_are_those_of_the_detector_fed_by_hand(detector):
    monitor, by_hand, expected, found = ErrorMonitor(on_error(detector)), detector.clone(), [], []
    for i, (y, prediction) in enumerate(answers()):
        wrong = 1.0 if prediction.label != y else 0.0
        by_hand.update(1.0 - wrong if isinstance(detector, binary.FHDDM) else wrong)  # it counts right answers
        expected += [i] if by_hand.drift_detected else []
        alarm = monitor.update(y, prediction)
        if alarm is not None:
            found.append(i)
            assert alarm.error in (0.0, 1.0)
            assert 0.0 <= alarm.statistics["error_mean"] <= 1.0
    assert found == expected
    assert any(i >= 600 for i in found)


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: type(d).__name__)
def test_a_restart_anywhere_changes_no_alarm(detector):
    whole = ErrorMonitor(on_error(detector))
    stream = answers()
    expected = [whole.update(*answer) for answer in stream]
    for cut in (1, 650):
        first, second = ErrorMonitor(on_error(detector)), ErrorMonitor(on_error(detector))
        found = [first.update(*answer) for answer in stream[:cut]]
        second.restore(first.state())
        assert found + [second.update(*answer) for answer in stream[cut:]] == expected


def test_the_users_detector_is_not_touched():
    adwin = drift.ADWIN()
    monitor = ErrorMonitor(on_error(adwin))
    monitor.update(True, Prediction(0.9, True))
    assert adwin.width == 0


def test_version_follows_the_parameters():
    versions = {ErrorMonitor(on_error(d)).version for d in (drift.ADWIN(), drift.ADWIN(delta=0.1), drift.PageHinkley())}
    assert len(versions) == 3
    assert ErrorMonitor(on_error(drift.ADWIN())).version == ErrorMonitor(on_error(drift.ADWIN(), name="b")).version


@pytest.mark.parametrize(
    ("y", "prediction", "error"),
    [
        (True, Prediction(0.2, False), 1.0),
        ("a", Prediction({"a": 1.0}, "a"), 0.0),
        (3.0, Prediction(1.0, None), 2.0),
        (True, Prediction(None, None), None),
        (True, Prediction(0.7, None), None),
        (3.0, Prediction(None, None, degraded=True), None),
        (3.0, Prediction(-1e100, None), 1e100),
        (1e100, Prediction(-1e100, None), None),
    ],
)
def test_the_served_error(y, prediction, error):
    assert served_error(y, prediction) == error


def test_an_error_that_is_none_never_reaches_the_detector():
    monitor = ErrorMonitor(on_error(drift.ADWIN()))
    assert monitor.update(1.0, Prediction(None, None)) is None
    assert monitor.skipped == 1
    assert monitor._detector.width == 0


class Broken:
    """A detector of the user's own that raises."""

    drift_detected = False

    def update(self, x: float) -> None:
        raise ZeroDivisionError(x)


def test_a_detector_that_raises_does_not_stop_the_stream():
    monitor = ErrorMonitor(on_error(Broken()))
    assert monitor.update(True, Prediction(0.2, False)) is None
    assert monitor.failures == 1


@pytest.mark.parametrize(
    ("detector", "says"),
    [
        (drift.KSWIN(), r"KSWIN.seed is None.*seed=42"),
        (drift.ADWIN, r"write on_error\(ADWIN\(\)\)"),
        (linear_model.LogisticRegression(), "a drift detector is expected"),
        ("ADWIN", "a drift detector is expected"),
    ],
)
def test_what_is_no_seeded_detector_is_refused(detector, says):
    with pytest.raises(DefinitionError, match=says):
        on_error(detector)


def test_a_detector_that_cannot_watch_the_task_is_refused():
    on_error(binary.DDM()).check("binary")
    on_error(drift.ADWIN()).check("regression")
    with pytest.raises(DefinitionError, match="error of a regression is a number"):
        on_error(binary.DDM()).check("regression")
    with pytest.raises(DefinitionError, match="no served error"):
        on_error(drift.ADWIN()).check("anomaly")


def test_foreign_state_is_refused():
    monitor = ErrorMonitor(on_error(drift.ADWIN()))
    with pytest.raises(SnapshotError, match="of version"):
        monitor.restore(ErrorMonitor(on_error(drift.ADWIN(delta=0.1))).state())
    with pytest.raises(SnapshotError, match="drift monitor expected"):
        monitor.restore(snapshot.pack({"counters": b"[]"}))
