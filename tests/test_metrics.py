"""Our metrics are River's to the last digit, scikit-learn's to rounding; undoing, windows, shards and buckets."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import metrics
from sklearn import metrics as oracle

from thalweg.engine.errors import SnapshotError
from thalweg.engine.learning import Prediction
from thalweg.engine.learning.metrics import ByPrediction, Prequential, merge
from thalweg.engine.learning.sums import ScaleFreeRanks, ThresholdRanks
from thalweg.engine.learning.totals import N_THRESHOLDS, totals

SCORES = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.001, 0.5, 0.999, 1.0, 5e-324]))
WEIGHTS = st.sampled_from([0.25, 0.5, 1.0, 1.0, 2.0, 3.0])  # sums of powers of two: they add exactly
BINARY = st.lists(st.tuples(st.booleans(), st.none() | SCORES, WEIGHTS), max_size=40)
NUMBERS = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))
REGRESSION = st.lists(st.tuples(NUMBERS, st.none() | NUMBERS, WEIGHTS), max_size=40)
CLASSES = st.integers(0, 3)
PROBABILITIES = st.dictionaries(CLASSES, st.floats(0.0, 1.0), max_size=4)
MULTICLASS = st.lists(st.tuples(CLASSES, PROBABILITIES, WEIGHTS), max_size=40)


def binary(score: float | None) -> Prediction:
    return Prediction(score, None if score is None else score > 0.5)


def multiclass(score: dict[int, float]) -> Prediction:
    return Prediction(score, max(score, key=score.get)) if score else Prediction(None, None)


def regression(score: float | None) -> Prediction:
    return Prediction(score, None)


def anomaly(score: float | None) -> Prediction:
    return Prediction(score, None)


def filled(task, rows, make, **options) -> Prequential:
    ours = Prequential(task, **options)
    for y, score, weight in rows:
        ours.update(y, make(score), weight)
    return ours


@given(BINARY)
def test_binary_equals_river(rows):
    labels = {"accuracy": metrics.Accuracy(), "precision": metrics.Precision(), "recall": metrics.Recall()}
    labels |= {"f1": metrics.F1()}
    scores = {"log_loss": metrics.LogLoss(), "roc_auc": metrics.ROCAUC(n_thresholds=N_THRESHOLDS)}
    seen = [row for row in rows if row[1] is not None]
    for y, score, weight in seen:
        for metric in labels.values():
            metric.update(y, score > 0.5, weight)
        for metric in scores.values():
            metric.update(y, score, weight)
    ours = filled("binary", rows, binary).read()["cumulative"]
    assert ours["labels"] == len(rows)
    for name, metric in (labels | scores).items():
        assert ours[name] == (metric.get() if seen else None), name


@pytest.mark.parametrize("n", [2, 10, 11, 500])
def test_roc_auc_equals_river_for_any_number_of_thresholds(n):
    rng = np.random.default_rng(n)
    ours, rivers = ThresholdRanks(n), metrics.ROCAUC(n_thresholds=n)
    for score in [*(i / (n - 1) for i in range(n)), *rng.random(200).tolist()]:
        y = bool(rng.random() < score)
        ours.update(y, score, 1.0)
        rivers.update(y, score)
    assert ours.read() == rivers.get()


@given(MULTICLASS)
def test_multiclass_equals_river(rows):
    labels = {"accuracy": metrics.Accuracy(), "macro_f1": metrics.MacroF1()}
    loss, seen = metrics.CrossEntropy(), [row for row in rows if row[1]]
    for y, score, weight in seen:
        loss.update(y, score, weight)
        for metric in labels.values():
            metric.update(y, max(score, key=score.get), weight)
    ours = filled("multiclass", rows, multiclass).read()["cumulative"]
    for name, metric in (labels | {"log_loss": loss}).items():
        assert ours[name] == (metric.get() if seen else None), name
    cells = {(y, c): weight for y, c, weight in ours["confusion"]}
    assert sum(cells.values()) == sum(weight for *_, weight in seen)


@given(REGRESSION)
def test_regression_equals_river(rows):
    rivers = {"mae": metrics.MAE(), "rmse": metrics.RMSE(), "r2": metrics.R2()}
    seen = [row for row in rows if row[1] is not None]
    for y, score, weight in seen:
        for metric in rivers.values():
            metric.update(y, score, weight)
    ours = filled("regression", rows, regression).read()["cumulative"]
    for name, metric in rivers.items():
        assert ours[name] == (metric.get() if seen else None), name


def test_binary_equals_sklearn():
    rng = np.random.default_rng(1)
    score = rng.integers(0, 1000, 3000) / 1000 + 0.0005  # between two thresholds each
    y, weight = rng.random(3000) < score, rng.integers(1, 5, 3000).astype(float)
    ours = filled("binary", zip(y.tolist(), score.tolist(), weight.tolist(), strict=True), binary)
    found, given_ = ours.read()["cumulative"], {"sample_weight": weight}
    decided = score > 0.5
    tn, fp, fn, tp = oracle.confusion_matrix(y, decided, **given_).ravel().tolist()
    assert found["confusion"] == {"tp": tp, "fp": fp, "tn": tn, "fn": fn}
    near = {"rel": 1e-12, "abs": 1e-12}
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(y, decided, **given_), **near)
    assert found["precision"] == pytest.approx(oracle.precision_score(y, decided, **given_), **near)
    assert found["recall"] == pytest.approx(oracle.recall_score(y, decided, **given_), **near)
    assert found["f1"] == pytest.approx(oracle.f1_score(y, decided, **given_), **near)
    assert found["log_loss"] == pytest.approx(oracle.log_loss(y, score, **given_), **near)
    assert found["roc_auc"] == pytest.approx(oracle.roc_auc_score(y, score, **given_), **near)


def test_regression_equals_sklearn():
    rng = np.random.default_rng(2)
    y, score, weight = rng.normal(5, 3, 2000), rng.normal(4, 3, 2000), np.ones(2000)
    rows = zip(y.tolist(), score.tolist(), weight.tolist(), strict=True)
    found = filled("regression", rows, regression).read()["cumulative"]
    assert found["mae"] == pytest.approx(oracle.mean_absolute_error(y, score), rel=1e-12)
    assert found["rmse"] == pytest.approx(math.sqrt(oracle.mean_squared_error(y, score)), rel=1e-12)
    assert found["r2"] == pytest.approx(oracle.r2_score(y, score), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6, -1.0])
def test_anomaly_ranks_need_no_scale(scale):
    rng = np.random.default_rng(3)
    y = rng.random(3000) < 0.2
    score = scale * (1.0 + rng.random(3000) + 0.3 * y)
    rows = zip(y.tolist(), score.tolist(), itertools.repeat(1.0))
    found = filled("anomaly", rows, anomaly).read()["cumulative"]
    assert found["roc_auc"] == pytest.approx(oracle.roc_auc_score(y, score), abs=1e-3)


@given(st.lists(st.floats(-1e100, 1e100), min_size=2, max_size=2))
def test_a_larger_score_is_in_no_smaller_bin(pair):
    low, high = sorted(pair)
    ranks = ScaleFreeRanks()
    ranks.update(True, high, 1.0)
    ranks.update(False, low, 1.0)
    assert ranks.read() in (0.5, 1.0)
    assert len(ranks.bins) <= 2


TASKS = [
    ("binary", BINARY, binary),
    ("multiclass", MULTICLASS, multiclass),
    ("regression", REGRESSION, regression),
    ("anomaly", BINARY, anomaly),
]


@pytest.mark.parametrize(("task", "rows", "make"), TASKS, ids=[t[0] for t in TASKS])
def test_undoing_restores_the_counts(task, rows, make):
    @given(rows, rows)
    def check(kept, undone):
        plain, ours = filled(task, kept, make), filled(task, kept, make)
        for y, score, weight in undone:
            ours.update(y, make(score), weight)
        for y, score, weight in reversed(undone):
            ours.revert(y, make(score), weight)
        assert same(ours.read()["cumulative"], plain.read()["cumulative"], exact=("labels", "accuracy", "confusion"))
        for y, score, weight in kept:
            ours.revert(y, make(score), weight)
        assert ours.read() == Prequential(task).read()

    check()


@pytest.mark.parametrize(("task", "rows", "make"), TASKS, ids=[t[0] for t in TASKS])
def test_a_weight_is_a_number_of_copies(task, rows, make):
    @given(rows)
    def check(sample):
        whole = [(y, score, math.ceil(weight)) for y, score, weight in sample]
        copies = [(y, score, 1.0) for y, score, weight in whole for _ in range(weight)]
        weighted = filled(task, [(y, s, float(w)) for y, s, w in whole], make).read()["cumulative"]
        repeated = filled(task, copies, make).read()["cumulative"]
        assert same(weighted | {"labels": 0}, repeated | {"labels": 0}, exact=("accuracy", "roc_auc", "confusion"))

    check()


@pytest.mark.parametrize(("task", "rows", "make"), TASKS, ids=[t[0] for t in TASKS])
def test_the_window_is_the_metrics_of_the_last_labels(task, rows, make):
    @given(rows, st.integers(1, 8))
    def check(sample, window):
        ours = filled(task, sample, make, window=window)
        assert ours.read()["window"] == filled(task, sample[-window:], make).read()["cumulative"]

    check()


@pytest.mark.parametrize(("task", "rows", "make"), TASKS, ids=[t[0] for t in TASKS])
def test_shards_merge_to_the_metrics_of_all_rows(task, rows, make):
    @given(rows, rows, rows)
    def check(a, b, c):
        together = merge([filled(task, part, make) for part in (a, b, c)])
        alone = filled(task, [*a, *b, *c], make).read()["cumulative"]
        assert same(together, alone, exact=("labels", "accuracy", "roc_auc", "confusion"))

    check()


@pytest.mark.parametrize(("task", "rows", "make"), TASKS, ids=[t[0] for t in TASKS])
def test_a_restart_changes_no_metric(task, rows, make):
    @given(rows, rows)
    def check(before, after):
        whole, second = filled(task, [*before, *after], make, window=5), Prequential(task, window=5)
        second.restore(filled(task, before, make, window=5).state())
        for y, score, weight in after:
            second.update(y, make(score), weight)
        assert second.read() == whole.read()
        assert second.state() == whole.state()

    check()


def test_a_correction_replaces_the_label_in_the_window():
    ours = filled("binary", [(True, 0.9, 1.0), (False, 0.9, 1.0), (True, 0.2, 1.0)], binary, window=2)
    ours.revert(False, binary(0.9))
    ours.update(True, binary(0.9))
    assert ours.read()["cumulative"]["confusion"] == {"tp": 2.0, "fp": 0.0, "tn": 0.0, "fn": 1.0}
    assert ours.read()["window"]["confusion"] == {"tp": 1.0, "fp": 0.0, "tn": 0.0, "fn": 1.0}
    ours.revert(True, binary(0.9))  # one of two equal ones: the newest
    assert ours.read()["window"]["labels"] == 1


def test_buckets_close_in_order_once_each_prediction_is_resolved():
    ours = ByPrediction("binary", size=2)
    assert ours.resolve(3, True, binary(0.9)) == []
    assert ours.resolve(2, None, binary(0.9)) == []  # bucket 1 is full, bucket 0 is not
    assert ours.resolve(0, True, binary(0.2)) == []
    closed = ours.resolve(1, None, binary(0.7))
    assert [(b["first"], b["last"], b["labels"], b["accuracy"]) for b in closed] == [(0, 1, 1, 0.0), (2, 3, 1, 1.0)]


@given(st.permutations(range(12)), st.integers(0, 12))
def test_buckets_hold_their_own_predictions_whatever_the_order_of_labels(order, cut):
    rows = [(i % 3 == 0, (i * 7 % 10) / 10) for i in range(12)]
    ours, closed = ByPrediction("binary", size=4), []
    for step, number in enumerate(order):
        if step == cut:
            state, ours = ours.state(), ByPrediction("binary", size=4)
            ours.restore(state)
        closed += ours.resolve(number, rows[number][0], binary(rows[number][1]))
    assert [b["first"] for b in closed] == [0, 4, 8]
    for bucket in closed:
        mine = [(*row, 1.0) for row in rows[bucket["first"] : bucket["last"] + 1]]
        alone = filled("binary", mine, binary).read()["cumulative"]
        assert same({k: bucket[k] for k in alone}, alone, exact=("labels", "accuracy", "roc_auc", "confusion"))


def test_a_correction_reaches_an_open_bucket_only():
    ours = ByPrediction("binary", size=2)
    ours.resolve(0, False, binary(0.9))
    assert ours.correct(0, False, True, binary(0.9))
    assert not ours.correct(1, None, True, binary(0.9))
    (closed,) = ours.resolve(1, None, binary(0.9))
    assert closed["accuracy"] == 1.0
    assert not ours.correct(0, True, False, binary(0.9))


def test_a_prediction_is_resolved_once():
    ours = ByPrediction("binary", size=1)
    ours.resolve(0, True, binary(0.9))
    with pytest.raises(ValueError, match=r"use correct\(\)"):
        ours.resolve(0, True, binary(0.9))


def test_state_of_another_task_or_size_is_refused():
    with pytest.raises(SnapshotError, match="metrics of a binary model"):
        Prequential("regression").restore(Prequential("binary").state())
    with pytest.raises(SnapshotError, match="buckets of 2"):
        ByPrediction("binary", size=3).restore(ByPrediction("binary", size=2).state())
    with pytest.raises(SnapshotError, match="'prequential' expected"):
        Prequential("binary").restore({})


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "anomaly"])
def test_nothing_is_none(task):
    found = totals(task).read()
    assert {name for name, value in found.items() if value is not None} <= {"labels", "confusion"}


def same(found: dict, expected: dict, exact: tuple[str, ...]) -> bool:
    """Equal for the names in ``exact``, to rounding for the others."""
    for name, value in expected.items():
        if name in exact or value is None:
            assert found[name] == value, name
        else:
            assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
    return True
