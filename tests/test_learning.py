"""Members: River's numbers to the last digit, bit for bit after a restart, and nothing that stops the stream."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from river import (
    anomaly,
    base,
    compose,
    datasets,
    drift,
    dummy,
    ensemble,
    evaluate,
    feature_extraction,
    forest,
    linear_model,
    metrics,
    multiclass,
    naive_bayes,
    neighbors,
    optim,
    preprocessing,
    tree,
)

from thalweg.engine import snapshot
from thalweg.engine.errors import DefinitionError, SnapshotError
from thalweg.engine.kernels.metrics import N_THRESHOLDS
from thalweg.engine.learning import Prediction, baselines, identity, member, pickles
from thalweg.engine.learning.columns import metrics_of
from thalweg.engine.learning.river import pipelines_pass_weights

scaler, one_hot = preprocessing.StandardScaler, preprocessing.OneHotEncoder
logistic = linear_model.LogisticRegression


def euclid(a, b):
    """A user's own distance: KNN must survive with it."""
    return sum((a[k] - b[k]) ** 2 for k in a if isinstance(a[k], float))


class OwnClassifier(base.Classifier):
    """A user's own River estimator: says True as soon as it has learned ``after`` labels."""

    def __init__(self, after: int = 3) -> None:
        self.after, self.seen = after, 0

    def learn_one(self, x, y):
        self.seen += 1

    def predict_one(self, x):
        return self.seen >= self.after


def rows(n: int = 240) -> list[tuple[dict, float]]:
    """Two numbers, two texts, and a number to learn, by a linear congruence (the same in every process)."""
    state, result = 12345, []
    for _ in range(n):
        draws = []
        for _ in range(4):
            state = (state * 1103515245 + 12345) % 2**31
            draws.append(state / 2**31)
        x = {"a": draws[0], "b": draws[1], "s": "uvwxyz"[int(draws[2] * 6)], "t": ["one", "two"][int(draws[3] * 2)]}
        result.append((x, x["a"] + x["b"] + (x["s"] == "u")))
    return result


numbers = functools.partial(compose.Select, "a", "b")

BINARY = {
    "scaled logistic": lambda: numbers() | scaler() | logistic(),
    "adam": lambda: numbers() | scaler() | logistic(optimizer=optim.Adam(0.01)),
    "gaussian bayes": lambda: numbers() | naive_bayes.GaussianNB(),
    "hoeffding tree": lambda: tree.HoeffdingTreeClassifier(grace_period=40),
    "adaptive tree": lambda: tree.HoeffdingAdaptiveTreeClassifier(grace_period=40, seed=1),
    "arf": lambda: forest.ARFClassifier(n_models=3, seed=1),
    "knn": lambda: numbers() | neighbors.KNNClassifier(engine=neighbors.LazySearch()),
    "knn, own distance": lambda: neighbors.KNNClassifier(engine=neighbors.LazySearch(50, dist_func=euclid)),
    "passive aggressive": lambda: numbers() | linear_model.PAClassifier(),
    "perceptron": lambda: numbers() | linear_model.Perceptron(),
    "one-hot": lambda: (numbers() + (compose.Select("s", "t") | one_hot())) | scaler() | logistic(),
    "union": lambda: (numbers() | scaler()) + (compose.Select("s") | one_hot()) | logistic(),
    "by type": lambda: (compose.SelectType(str) | one_hot()) + (compose.SelectType(float) | scaler()) | logistic(),
    "interactions": lambda: numbers() | feature_extraction.PolynomialExtender() | logistic(),
    "bagging": lambda: numbers() | ensemble.ADWINBaggingClassifier(logistic(), n_models=3, seed=1),
    "retraining": lambda: numbers() | drift.DriftRetrainingClassifier(logistic()),
    "own estimator": OwnClassifier,
}
MULTICLASS = {
    "tree, classes": lambda: tree.HoeffdingTreeClassifier(grace_period=40),
    "bayes, classes": lambda: numbers() | naive_bayes.GaussianNB(),
    "one-vs-rest": lambda: numbers() | scaler() | multiclass.OneVsRestClassifier(logistic()),
    "softmax": lambda: numbers() | linear_model.SoftmaxRegression(),
    "knn, classes": lambda: numbers() | neighbors.KNNClassifier(engine=neighbors.LazySearch()),
}
REGRESSION = {
    "linear": lambda: numbers() | scaler() | linear_model.LinearRegression(),
    "tree, numbers": lambda: numbers() | tree.HoeffdingTreeRegressor(grace_period=40),
    "arf, numbers": lambda: numbers() | forest.ARFRegressor(n_models=2, seed=1),
    "bayesian": lambda: numbers() | linear_model.BayesianLinearRegression(),
    "passive aggressive, numbers": lambda: numbers() | linear_model.PARegressor(),
}
ANOMALY = {
    "half-space trees": lambda: numbers() | anomaly.HalfSpaceTrees(n_trees=5, height=4, window_size=50, seed=1),
    "half-space filter": lambda: anomaly.QuantileFilter(numbers() | anomaly.HalfSpaceTrees(5, 4, 50, seed=1), q=0.9),
    "one-class": lambda: numbers() | anomaly.OneClassSVM(),
}
BASELINES = {name: getattr(baselines, name) for name in ("Majority", "NoChange", "Prior")}

LABELS = {
    "bool": lambda y: y > 1.0,
    "str": lambda y: "low" if y < 0.7 else "middle" if y < 1.4 else "high",
    "f64": lambda y: y,
    None: lambda y: None,
}
CASES = [
    *((name, make, "bool") for name, make in BINARY.items()),
    *((name, make, "str") for name, make in MULTICLASS.items()),
    *((name, make, "f64") for name, make in REGRESSION.items()),
    *((name, make, None) for name, make in ANOMALY.items()),
    *((name, make, kind) for name, make in BASELINES.items() for kind in ("bool", "str", "f64")),
]
CASES = [case for case in CASES if (case[0], case[2]) != ("Majority", "f64")]
each_model = pytest.mark.parametrize(("name", "make", "kind"), CASES, ids=[f"{c[0]}-{c[2]}" for c in CASES])


def opened(make, kind, **options):
    return member(make(), fingerprint="f" * 16, label_type=kind, **options)


def step(one, x, y, kind) -> Prediction:
    prediction = one.predict(x)
    assert one.learn(x, LABELS[kind](y)), one.last_failure
    return prediction


@each_model
def test_a_restart_anywhere_changes_no_bit(name, make, kind):
    whole, stream = opened(make, kind), rows()
    expected = [step(whole, x, y, kind) for x, y in stream]
    assert not any(p.degraded for p in expected), whole.last_failure
    for cut in (1, 150):
        first, second = opened(make, kind), opened(make, kind)
        found = [step(first, x, y, kind) for x, y in stream[:cut]]
        second.restore(first.state())
        found += [step(second, x, y, kind) for x, y in stream[cut:]]
        assert repr(found) == repr(expected)
        assert second.learned == whole.learned == len(stream)


def digest_of_all() -> str:
    """One hash over every prediction of every model: what a new process must reproduce."""
    found = []
    for _name, make, kind in CASES:
        one = opened(make, kind)
        found += [one.version, *(repr(step(one, x, y, kind)) for x, y in rows(120))]
    return identity.version_of(found, fingerprint="", executor="")


def test_another_process_has_the_same_bits():
    """Python seeds the hash of text anew in every process; no sum and no version may follow it."""
    code = "from tests.test_learning import digest_of_all; print(digest_of_all())"
    root = Path(__file__).parent.parent
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root, env=env)
        for env in ({**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2"))
    ]
    first, second = (child.communicate()[0].strip() for child in children)
    assert len(first) == 16
    assert first == second


@each_model
def test_predicting_learns_nothing_and_leaves_its_argument_alone(name, make, kind):
    one, other, stream = opened(make, kind), opened(make, kind), rows(60)
    for x, y in stream:
        before = dict(x)
        one.predict(x)
        one.predict(x)
        assert repr(step(one, x, y, kind)) == repr(step(other, x, y, kind))
        assert x == before


CLASSIFIED = {"accuracy": metrics.Accuracy, "precision": metrics.Precision, "recall": metrics.Recall}
CLASSIFIED |= {"f1": metrics.F1, "log_loss": metrics.LogLoss}
CLASSIFIED |= {"roc_auc": functools.partial(metrics.ROCAUC, n_thresholds=N_THRESHOLDS)}
MEASURED = {"mae": metrics.MAE, "rmse": metrics.RMSE, "r2": metrics.R2}


def prequential(model, kind, dataset) -> dict:
    one = member(model, fingerprint="f", label_type=kind)
    labels, scores, decided = [], [], []
    for x, y in dataset:
        y = bool(y) if kind == "bool" else float(y)
        said = one.predict(x)
        labels.append(y)
        scores.append(said.score)
        decided.append(-1 if said.label is None else said.label)
        one.learn(x, y)
    assert one.failures == 0, one.last_failure
    return metrics_of(one.task, *np.array([labels, scores], dtype=np.float64), np.array(decided, dtype=np.int8))


@pytest.mark.parametrize("dataset", [datasets.Phishing, datasets.Bananas])
@pytest.mark.parametrize(
    "make",
    [
        lambda: scaler() | logistic(),
        naive_bayes.GaussianNB,
        lambda: tree.HoeffdingTreeClassifier(grace_period=50),
        lambda: scaler() | linear_model.PAClassifier(),
    ],
    ids=["logistic", "bayes", "tree", "passive aggressive"],
)
def test_classification_equals_progressive_val_score(make, dataset):
    ours = prequential(make(), "bool", dataset().take(1500))
    for name, metric in CLASSIFIED.items():
        rivers = evaluate.progressive_val_score(dataset().take(1500), make(), metric())
        assert ours[name] == rivers.get(), name


@pytest.mark.parametrize(
    "make",
    [
        lambda: scaler() | linear_model.LinearRegression(intercept_lr=0.1),
        lambda: tree.HoeffdingTreeRegressor(grace_period=50),
        lambda: scaler() | linear_model.PARegressor(),
    ],
    ids=["linear", "tree", "passive aggressive"],
)
def test_regression_equals_progressive_val_score(make):
    ours = prequential(make(), "f64", datasets.TrumpApproval())
    for name, metric in MEASURED.items():
        assert ours[name] == evaluate.progressive_val_score(datasets.TrumpApproval(), make(), metric()).get(), name


DECIDED = {name: CLASSIFIED[name] for name in ("accuracy", "precision", "recall", "f1")}


@pytest.mark.parametrize(
    ("baseline", "twin", "names"),
    [
        (baselines.Prior(), dummy.PriorClassifier(), CLASSIFIED),
        (baselines.NoChange(), dummy.NoChangeClassifier(), DECIDED),  # it scores before the first label
    ],
)
def test_baselines_equal_rivers_dummies(baseline, twin, names):
    ours = prequential(baseline, "bool", datasets.Phishing())
    for name, metric in names.items():
        rivers = evaluate.progressive_val_score(datasets.Phishing(), twin.clone(), metric())
        assert ours[name] == pytest.approx(rivers.get(), rel=1e-12), name


def test_baselines_on_a_few_labels():
    said = {}
    for name, make in BASELINES.items():
        one = opened(make, "str")
        assert one.predict({}) == (None, None, False)
        for y in ("a", "b", "b", "a"):
            one.learn({}, y)
        said[name] = one.predict({})[:2]
    assert said == {
        "Majority": ({"a": 1.0}, "a"),
        "NoChange": ({"a": 1.0}, "a"),
        "Prior": ({"a": 0.5, "b": 0.5}, "a"),
    }
    mean = opened(baselines.Prior, "f64")
    for y, weight in ((1.0, 1.0), (4.0, 2.0)):
        mean.learn({}, y, weight)
    assert mean.predict({}) == (3.0, None, False)


@pytest.mark.parametrize(
    ("make", "kind", "task"),
    [
        (lambda: scaler() | logistic(), "bool", "binary"),
        (naive_bayes.GaussianNB, "i64", "multiclass"),
        (lambda: scaler() | linear_model.LinearRegression(), "f64", "regression"),
        (lambda: scaler() | anomaly.HalfSpaceTrees(seed=1), None, "anomaly"),
        (lambda: anomaly.HalfSpaceTrees(seed=1), "bool", "anomaly"),
        (baselines.Prior, "f64", "regression"),
    ],
)
def test_the_task_follows_the_model_and_the_label(make, kind, task):
    assert opened(make, kind).task == task


def test_names_are_readable():
    assert opened(BINARY["scaled logistic"], "bool").name.endswith("StandardScaler | LogisticRegression")
    assert opened(logistic, "bool", name="mine").name == "mine"
    assert opened(baselines.NoChange, "bool").name == "NoChange"


def nothing_known(kind):
    return opened(lambda: tree.HoeffdingTreeClassifier(), kind).predict({"a": 1.0})


def test_a_model_that_knows_nothing_says_so():
    assert nothing_known("bool") == nothing_known("str") == (None, None, False)


def test_a_classifier_without_probabilities_is_certain():
    one = opened(OwnClassifier, "bool")
    assert one.predict({}) == (0.0, False, False)
    for _ in range(3):
        one.learn({}, True)
    assert one.predict({}) == (1.0, True, False)


def test_a_warm_model_stays_warm_and_the_users_object_cold():
    model = scaler() | logistic()
    for x, y in datasets.Phishing().take(50):
        model.learn_one(x, y)
    x, y = next(iter(datasets.Phishing()))
    warm = model.predict_proba_one(x)[True]
    one = member(model, fingerprint="f", label_type="bool")
    assert one.predict(x).score == warm
    one.learn(x, y)
    assert model.predict_proba_one(x)[True] == warm


def test_version_follows_everything_that_decides_a_score():
    def version(model, fingerprint="f"):
        return member(model, fingerprint=fingerprint, label_type="bool").version

    models = [
        scaler() | logistic(),
        scaler() | logistic(l2=0.1),
        scaler() | logistic(optimizer=optim.SGD(0.02)),
        scaler() | scaler() | logistic(),
        compose.Select("a", "b") | logistic(),
        compose.Select("a", "c") | logistic(),
        (scaler() + one_hot()) | logistic(),
        (scaler() + (one_hot() | scaler())) | logistic(),
        ensemble.ADWINBaggingClassifier(logistic(), seed=1),
        ensemble.ADWINBaggingClassifier(logistic(), seed=2),
        ensemble.ADWINBaggingClassifier(logistic(l2=0.1), seed=2),
        baselines.Prior(),
        baselines.NoChange(),
    ]
    versions = [version(model) for model in models]
    assert len(set(versions)) == len(models)
    assert versions == [version(model) for model in models]
    assert version(models[0], "g") != versions[0]
    assert all(len(v) == 16 and int(v, 16) >= 0 for v in versions)


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda: linear_model.LinearRegression(), "bool", "is a regressor and the label's value is bool"),
        (lambda: linear_model.LinearRegression(), "i64", "a label of type f64"),
        (lambda: logistic(), "f64", "is a classifier and the label's value is f64"),
        (lambda: logistic(), "str", r"write OneVsRestClassifier\(LogisticRegression\(...\)\)"),
        (lambda: logistic(), None, "the pipeline has none; give label="),
        (lambda: logistic, "bool", r"write LogisticRegression\(\)"),
        (lambda: "LogisticRegression", "bool", "a River model is expected, got str"),
        (lambda: scaler(), "bool", "end the pipeline with a model"),
        (lambda: compose.Pipeline(), "bool", "an empty pipeline"),
        (lambda: forest.ARFClassifier(), "bool", r"ARFClassifier.seed is None.*seed=42"),
        (lambda: anomaly.HalfSpaceTrees(), None, "HalfSpaceTrees.seed is None"),
        (lambda: scaler() | ensemble.BaggingClassifier(logistic()), "bool", "seed is None"),
        (lambda: logistic(initializer=optim.initializers.Normal()), "bool", "initializer.seed is None"),
        (lambda: neighbors.KNNClassifier(), "bool", r"write engine=neighbors.LazySearch\(\)"),
        (lambda: compose.FuncTransformer(lambda x: x) | logistic(), "bool", "use named functions"),
        (lambda: anomaly.GaussianScorer(), "bool", "scores a row together with its label"),
        (baselines.Majority, "f64", r"write baseline.Prior\(\)"),
        (baselines.Prior, None, "the pipeline has none; give label= or leave it out"),
    ],
)  # fmt: skip
def test_a_wrong_model_fails_when_it_is_defined(make, kind, says):
    with pytest.raises(DefinitionError, match=says):
        opened(make, kind)


def test_weights_reach_the_model():
    weighted, plain = (opened(logistic, "bool", weighted=True) for _ in range(2))
    twin = logistic()
    for x, y in datasets.Phishing().take(100):
        weighted.learn(x, y, 3.0 if y else 1.0)
        plain.learn(x, y)
        twin.learn_one(x, y, w=3.0 if y else 1.0)
    assert weighted.predict(x).score == twin.predict_proba_one(x)[True] != plain.predict(x).score
    assert opened(baselines.Prior, "bool", weighted=True).learn({}, True, 2.0)


def test_weights_reach_the_last_step_of_a_pipeline_or_are_refused():
    if not pipelines_pass_weights():
        with pytest.raises(DefinitionError, match=r"drop sample weights.*newer River"):
            opened(lambda: scaler() | logistic(), "bool", weighted=True)
        return
    one, twin = opened(lambda: scaler() | logistic(), "bool", weighted=True), scaler() | logistic()
    for x, y in datasets.Phishing().take(100):
        one.learn(x, y, 3.0 if y else 1.0)
        twin["StandardScaler"].learn_one(x)
        twin["LogisticRegression"].learn_one(twin["StandardScaler"].transform_one(x), y, w=3.0 if y else 1.0)
    assert one.predict(x).score == twin.predict_proba_one(x)[True]


@pytest.mark.parametrize("make", [linear_model.PAClassifier, OwnClassifier])
def test_a_model_that_cannot_take_weights_is_refused(make):
    for model in (make, lambda: scaler() | make()):
        with pytest.raises(DefinitionError, match="takes no sample weights"):
            opened(model, "bool", weighted=True)


def test_an_anomaly_detector_has_no_use_for_weights():
    assert opened(ANOMALY["half-space trees"], None, weighted=True).task == "anomaly"


class Unruly(base.Regressor):
    """A user's model that raises, or leaves the numbers, as its input says."""

    def learn_one(self, x, y):
        if x.get("learn"):
            raise RuntimeError("no")

    def predict_one(self, x):
        return x["score"] / x.get("divisor", 1.0)


@pytest.mark.parametrize(
    "x", [{"score": float("nan")}, {"score": float("inf")}, {"score": -1e101}, {"score": 1.0, "divisor": 0.0}, {}]
)
def test_a_model_that_fails_is_counted_and_served_as_degraded(x):
    one = opened(Unruly, "f64")
    assert one.predict(x) == (None, None, True)
    assert one.predict({"score": 2.0}) == (2.0, None, False)
    assert (one.failures, one.learned) == (1, 0)
    assert not one.learn({"learn": 1.0}, 1.0)
    assert one.learn({}, 1.0)
    assert (one.failures, one.learned) == (2, 1)
    second = opened(Unruly, "f64")
    second.restore(one.state())
    assert (second.failures, second.learned) == (2, 1)


class Evil:
    """Pickled, it is a call."""

    def __init__(self, call, *arguments):
        self.call = (call, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "evil",
    [
        Evil(os.system, "true"),
        Evil(subprocess.Popen, ["true"]),
        Evil(eval, "1"),
        Evil(getattr, logistic(), "__class__"),
        Evil(getattr, logistic(), "loss"),
        Evil(__import__, "os"),
        Evil(functools.partial(os.system, "true")),
        [{"deep": (Evil(exec, "1"),)}],
        datasets.Phishing(),
    ],
    ids=lambda evil: type(evil).__name__,
)
def test_a_saved_model_that_would_call_anything_else_is_refused(evil):
    one = opened(BINARY["scaled logistic"], "bool")
    packed = snapshot.unpack(one.state()) | {"model": pickle.dumps(evil)}
    with pytest.raises(SnapshotError, match="refused"):
        one.restore(snapshot.pack(packed))
    assert one.predict({"a": 1.0, "b": 1.0}).score == 0.5


@pytest.mark.parametrize("asked", [b"criver.base.base\nsys\n.", b"criver.datasets.base\nshutil.rmtree\n."])
def test_what_rivers_modules_import_is_no_part_of_river(asked):
    with pytest.raises(SnapshotError, match="refused"):
        pickles.load(asked)


def test_a_users_own_class_is_admitted_where_the_definition_has_it_and_nowhere_else():
    state = opened(OwnClassifier, "bool").state()
    opened(OwnClassifier, "bool").restore(state)
    with pytest.raises(SnapshotError, match=r"OwnClassifier.*refused"):
        pickles.load(snapshot.unpack(state)["model"])


def test_state_of_another_version_or_kind_is_refused():
    one, other = opened(logistic, "bool"), opened(lambda: logistic(l2=0.1), "bool")
    prior = opened(baselines.Prior, "bool")
    with pytest.raises(SnapshotError, match="this state is of version"):
        one.restore(other.state())
    with pytest.raises(SnapshotError, match="this state is of version"):
        prior.restore(opened(baselines.NoChange, "bool").state())
    with pytest.raises(SnapshotError, match="counters and model expected"):
        one.restore(prior.state())
    with pytest.raises(SnapshotError, match="state of a baseline expected"):
        prior.restore(one.state())
    with pytest.raises(SnapshotError, match="cannot be read"):
        one.restore(snapshot.pack(snapshot.unpack(one.state()) | {"model": b"\x80\x05K"}))
