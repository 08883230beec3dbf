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

from tests.naive_metrics import Naive, Step, answered
from thalweg.engine import snapshot
from thalweg.engine.errors import SnapshotError
from thalweg.engine.kernels.metrics import N_THRESHOLDS, enter_all
from thalweg.engine.learning import Prediction
from thalweg.engine.learning.columns import metrics_of
from thalweg.engine.learning.metrics import GIVE_UP, LEARN, REVISE, Measured, measured, merge
from thalweg.engine.learning.sums import ScaleFreeRanks

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


def learned(rows, make, first=0) -> list[Step]:
    """Predictions numbered from ``first`` on, each with its label."""
    return [Step(LEARN, first + i, make(score), y, weight=w) for i, (y, score, w) in enumerate(rows)]


def filled(task, rows, make, *, size=1000, window=1000) -> Measured:
    ours = measured(task, size, window)
    ours.update(answered(learned(rows, make)))
    return ours


def restarted(ours, task, size, window) -> Measured:
    """What continues from a snapshot of ``ours``."""
    continued = measured(task, size, window)
    continued.restore(snapshot.unpack(snapshot.pack(ours.state())))
    return continued


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


def test_roc_auc_equals_river_at_every_threshold():
    rng = np.random.default_rng(1)
    scores = np.array([*(i / (N_THRESHOLDS - 1) for i in range(N_THRESHOLDS)), *rng.random(500), -1e100, 1e100])
    scores = np.concatenate([scores, np.nextafter(scores, 0.0), np.nextafter(scores, 1.0)])
    labels, rivers = rng.random(len(scores)) < scores, metrics.ROCAUC(n_thresholds=N_THRESHOLDS)
    for y, score in zip(labels.tolist(), scores.tolist(), strict=True):
        rivers.update(y, score)
    assert metrics_of("binary", labels, scores)["roc_auc"] == rivers.get()


def test_the_kernel_has_the_bits_of_cpython():
    rng = np.random.default_rng(2)
    p, y = np.concatenate([rng.random(50_000), np.exp(-35.0 * rng.random(50_000))]), rng.random(100_000) < 0.5
    entries, error = np.empty((2, 100_000, 8)), rng.normal(size=100_000) * 10.0 ** rng.integers(-50, 50, 100_000)
    nothing, one = np.full(100_000, -1, dtype=np.int8), np.ones(100_000)
    enter_all(True, y.astype(float), p, nothing, one, 2.0, entries[0])
    enter_all(False, error, np.zeros(100_000), nothing, one, 2.0, entries[1])
    clamped = [max(min(x, 1 - 1e-15), 1e-15) for x in p.tolist()]
    losses = [-math.log(x if true else 1 - x) for x, true in zip(clamped, y.tolist(), strict=True)]
    assert entries[0, :, 6].tolist() == losses
    assert entries[1, :, 7].tolist() == [x**2 for x in error.tolist()]


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


ALL_TASKS = pytest.mark.parametrize(("task", "rows", "make"), TASKS, ids=[t[0] for t in TASKS])


@st.composite
def stories(draw, rows) -> list[tuple[int, object, object, float]]:
    """(prediction, its score, label or None, weight) over and over: first labels, none ever, other labels."""
    predictions = draw(rows.filter(bool))
    numbers = draw(st.lists(st.integers(0, len(predictions) - 1), max_size=40))
    labels = [*(y for y, *_ in predictions), None]
    return [
        (n, predictions[n][1], draw(st.sampled_from(labels)), draw(st.sampled_from([0.0, 0.1, 0.3, 1.0, 1.0, 2.5])))
        for n in numbers
    ]


def told(story, make) -> list[Step]:
    """The steps of a story, each with what it replaces."""
    now, steps = {}, []
    for number, score, label, weight in story:
        before, weight_before = now.get(number, (None, math.nan))
        if number not in now:
            kind = GIVE_UP if label is None else LEARN
            steps.append(Step(kind, number, make(score), label, None, weight))
        elif label is None or label == before:
            continue
        else:
            steps.append(Step(REVISE, number, make(score), label, before, weight, weight_before))
        now[number] = (label, weight)
    return steps


def same_bits(ours, twin) -> bool:
    return repr((ours.read(), ours.closed)) == repr((twin.read(), twin.closed))


@ALL_TASKS
def test_equals_the_naive_twin_however_it_is_cut_and_restarted(task, rows, make):
    @given(stories(rows), st.integers(1, 7), st.integers(1, 5), st.lists(st.integers(0, 40), max_size=6), st.data())
    def check(story, window, size, cuts, data):
        steps, ours, twin = told(story, make), measured(task, size, window), Naive(task, size, window)
        cuts = [0, *sorted(cut for cut in cuts if cut < len(steps)), len(steps)]
        for start, stop in itertools.pairwise(cuts):
            ours.update(answered(steps[start:stop]))
            for step in steps[start:stop]:
                twin.step(step)
            if data.draw(st.booleans()):
                ours = restarted(ours, task, size, window)
            assert same_bits(ours, twin)
        whole = measured(task, size, window)
        whole.update(answered(steps))
        assert snapshot.pack(whole.state()) == snapshot.pack(ours.state())

    check()


@pytest.mark.parametrize(("size", "task"), [(1, "binary"), (30, "regression"), (300, "binary"), (1000, "binary")])
def test_equals_the_naive_twin_on_many_labels_out_of_order(size, task):
    rng = np.random.default_rng(size)
    ours, twin, number = measured(task, size, 200), Naive(task, size, 200), np.arange(4000)
    order = np.argsort(np.concatenate([number + rng.exponential(300, 4000), number + rng.exponential(2000, 4000)]))
    scores, weights = rng.random(8000).round(3), rng.choice([0.1, 0.7, 1.0], 8000)
    story = [
        (int(i % 4000), None if i % 17 == 0 else float(scores[i % 4000]), None if k % 11 == 0 else y, w)
        for k, (i, y, w) in enumerate(zip(order, (rng.random(8000) < 0.3).tolist(), weights.tolist(), strict=True))
    ]
    steps = told(story, binary if task == "binary" else regression)
    for start in range(0, len(steps), 1500):
        ours.update(answered(steps[start : start + 1500]))
        for step in steps[start : start + 1500]:
            twin.step(step)
        assert same_bits(ours, twin)
        ours = restarted(ours, task, size, 200)
    assert ours.closed is not None


@pytest.mark.parametrize(("task", "rows", "make"), [TASKS[0], TASKS[2]], ids=["binary", "regression"])
def test_revising_equals_rivers_revert(task, rows, make):
    @given(stories(rows))
    def check(story):
        if task == "binary":
            rivers = {"accuracy": metrics.Accuracy(), "precision": metrics.Precision(), "recall": metrics.Recall()}
            rivers |= {"f1": metrics.F1(), "log_loss": metrics.LogLoss()}
        else:
            rivers = {"mae": metrics.MAE()}  # the others amplify the rounding that reverting leaves
        exact = [(*what, 2.0 if weight > 1.0 else 1.0) for *what, weight in story]  # River's n is zero only if exactly
        steps = [step for step in told(exact, make) if step.prediction.score is not None]
        for step, (name, metric) in itertools.product(steps, rivers.items()):
            said = step.prediction.label if name in ("accuracy", "precision", "recall", "f1") else step.prediction.score
            if step.before is not None:
                metric.revert(step.before, said, step.weight_before)
            if step.label is not None:
                metric.update(step.label, said, step.weight)
        ours = measured(task, 1000)
        ours.update(answered(steps))
        found = ours.read()["cumulative"]
        for name, metric in rivers.items():
            assert found[name] is None or found[name] == pytest.approx(metric.get(), rel=1e-9, abs=1e-9), name

    check()


@ALL_TASKS
def test_a_revision_restores_the_counts(task, rows, make):
    @given(rows, st.data())
    def check(sample, data):
        wrong = [(data.draw(st.sampled_from([y for y, *_ in sample])), score, weight) for _, score, weight in sample]
        revisions = [
            Step(REVISE, i, make(score), y, before, weight, weight)
            for i, ((y, score, weight), (before, *_)) in enumerate(zip(sample, wrong, strict=True))
        ]
        ours, plain = filled(task, wrong, make), filled(task, sample, make).read()["cumulative"]
        ours.update(answered(revisions))
        found = ours.read()["cumulative"]
        for name in ("rmse", "r2"):  # a root and a quotient of small numbers amplify the rounding that is left
            plain.pop(name, None)
        assert same(found, plain, exact=("labels", "accuracy", "confusion"))
        if len(sample) == 1:  # nothing was left in between: no rounding remains
            assert found == filled(task, sample, make).read()["cumulative"]

    check()


def test_rounding_never_makes_an_error_that_is_no_number():
    rng = np.random.default_rng(1)
    for _ in range(200):
        y = rng.normal(size=4)
        ours = filled("regression", [(float(x), 0.0, 1.0) for x in (0.0, 0.0, *y)], regression)
        ours.update(answered([Step(REVISE, 2 + i, regression(0.0), 0.0, float(x)) for i, x in enumerate(y)]))
        assert isinstance(ours.read()["cumulative"]["rmse"], float)


@ALL_TASKS
def test_a_weight_is_a_number_of_copies(task, rows, make):
    @given(rows)
    def check(sample):
        whole = [(y, score, math.ceil(weight)) for y, score, weight in sample]
        copies = [(y, score, 1.0) for y, score, weight in whole for _ in range(weight)]
        weighted = filled(task, [(y, s, float(w)) for y, s, w in whole], make).read()["cumulative"]
        repeated = filled(task, copies, make).read()["cumulative"]
        assert same(weighted | {"labels": 0}, repeated | {"labels": 0}, exact=("accuracy", "roc_auc", "confusion"))

    check()


@ALL_TASKS
def test_the_window_is_the_metrics_of_the_last_labels(task, rows, make):
    @given(rows, st.integers(1, 8))
    def check(sample, window):
        ours = filled(task, sample, make, window=window)
        assert ours.read()["window"] == filled(task, sample[-window:], make).read()["cumulative"]

    check()


@ALL_TASKS
def test_shards_merge_to_the_metrics_of_all_rows(task, rows, make):
    @given(rows, rows, rows)
    def check(a, b, c):
        together = merge([filled(task, part, make) for part in (a, b, c)])
        alone = filled(task, [*a, *b, *c], make).read()["cumulative"]
        assert same(together, alone, exact=("labels", "accuracy", "roc_auc", "confusion"))

    check()


def test_a_correction_replaces_the_label_in_the_window():
    ours = filled("binary", [(True, 0.9, 1.0), (False, 0.9, 1.0), (True, 0.2, 1.0)], binary, window=2)
    ours.update(answered([Step(REVISE, 1, binary(0.9), True, False)]))
    assert ours.read()["cumulative"]["confusion"] == {"tp": 2.0, "fp": 0.0, "tn": 0.0, "fn": 1.0}
    assert ours.read()["window"]["confusion"] == {"tp": 1.0, "fp": 0.0, "tn": 0.0, "fn": 1.0}


def test_buckets_close_in_order_once_each_prediction_is_resolved():
    ours = measured("binary", 2)
    ours.update(answered([Step(LEARN, 3, binary(0.9), True), Step(GIVE_UP, 2, binary(0.9))]))
    ours.update(answered([Step(LEARN, 0, binary(0.2), True)]))
    assert ours.closed is None  # bucket 1 is full, bucket 0 is not
    ours.update(answered([Step(GIVE_UP, 1, binary(0.7)), Step(LEARN, 4, binary(0.7), True)]))
    assert {"first": 2, "last": 3, "labels": 1, "accuracy": 1.0}.items() <= ours.closed.items()


@given(st.permutations(range(12)), st.integers(0, 12))
def test_buckets_hold_their_own_predictions_whatever_the_order_of_labels(order, cut):
    rows = [(i % 3 == 0, (i * 7 % 10) / 10) for i in range(12)]
    ours, closed = measured("binary", 4), {}
    for i, number in enumerate(order):
        ours = restarted(ours, "binary", 4, 1000) if i == cut else ours
        ours.update(answered([Step(LEARN, number, binary(rows[number][1]), rows[number][0])]))
        if ours.closed is not None:
            closed[ours.closed["first"]] = ours.closed
    assert 8 in closed
    for first, bucket in closed.items():
        alone = filled("binary", [(*row, 1.0) for row in rows[first : first + 4]], binary).read()["cumulative"]
        assert same({k: bucket[k] for k in alone}, alone, exact=("labels", "accuracy", "roc_auc", "confusion"))


def test_a_correction_reaches_an_open_bucket_only():
    ours = measured("binary", 2)
    ours.update(answered([Step(LEARN, 0, binary(0.9), False), Step(REVISE, 0, binary(0.9), True, False)]))
    ours.update(answered([Step(GIVE_UP, 1, binary(0.9))]))
    assert ours.closed["accuracy"] == 1.0
    ours.update(answered([Step(REVISE, 0, binary(0.9), False, True)]))
    assert ours.closed["accuracy"] == 1.0 and ours.read()["cumulative"]["accuracy"] == 0.0


def test_a_corrected_label_is_taken_back_with_the_weight_it_had():
    ours, weights = measured("binary", 2), {"weight": 10.0, "weight_before": 1.0}
    ours.update(answered([Step(LEARN, 0, binary(0.9), False), Step(REVISE, 0, binary(0.9), True, False, **weights)]))
    ours.update(answered([Step(GIVE_UP, 1, binary(0.9))]))
    assert ours.closed["confusion"] == {"tp": 10.0, "fp": 0.0, "tn": 0.0, "fn": 0.0}


@pytest.mark.parametrize("number", [0, 2])
def test_a_prediction_is_resolved_once(number):
    ours = measured("binary", 1)
    ours.update(answered([Step(LEARN, 0, binary(0.9), True), Step(LEARN, 2, binary(0.9), True)]))
    with pytest.raises(ValueError, match=f"prediction {number} was resolved before"):
        ours.update(answered([Step(GIVE_UP, number, binary(0.9))]))


def test_pending_predictions_bound_what_is_kept():
    ours, rng = measured("binary", 10), np.random.default_rng(1)
    for first in range(0, 50_000, 500):
        numbers = first + rng.permutation(500)
        ours.update(answered([Step(LEARN, int(n), binary(0.5), True) for n in numbers]))
    assert len(ours._resolved) <= 1024 and len(ours._buckets.sums) <= 1 + 64


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_state_of_other_metrics_is_refused(task):
    state = measured(task, 2).state()
    with pytest.raises(SnapshotError, match=f"metrics of a {task} model"):
        measured({"binary": "regression", "regression": "binary"}[task], 2).restore(state)
    with pytest.raises(SnapshotError, match="buckets of 2"):
        measured(task, 3).restore(state)
    with pytest.raises(SnapshotError, match="window of 1000"):
        measured(task, 2, window=5).restore(state)
    with pytest.raises(SnapshotError, match="metrics expected"):
        measured(task, 2).restore({})


def test_state_of_other_metrics_by_row_is_refused():
    with pytest.raises(SnapshotError, match="metrics of a multiclass model"):
        measured("anomaly", 2).restore(measured("multiclass", 2).state())
    with pytest.raises(SnapshotError, match="buckets of 2"):
        measured("anomaly", 3).restore(measured("anomaly", 2).state())
    with pytest.raises(SnapshotError, match="'prequential' expected"):
        measured("anomaly", 3).restore({})


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "anomaly"])
def test_nothing_is_none(task):
    read = measured(task, 1).read()
    found = read["cumulative"]
    assert read["window"] == found
    assert {name for name, value in found.items() if value is not None} <= {"labels", "confusion"}


def same(found: dict, expected: dict, exact: tuple[str, ...]) -> bool:
    """Equal for the names in ``exact``, to rounding for the others."""
    for name, value in expected.items():
        if name in exact or value is None:
            assert found[name] == value, name
        else:
            assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
    return True
