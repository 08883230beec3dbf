"""The law of the lowered models: they predict and learn as the River that is installed does, to 1e-12."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import compose, datasets, linear_model, naive_bayes, optim, preprocessing
from river.optim import initializers, losses, schedulers

from thalweg.connectors.codecs import Form
from thalweg.connectors.parquet import write_archive
from thalweg.dataflows.backfill import backfill
from thalweg.dataflows.flights import flow, producer
from thalweg.dataflows.pipeline import Pipeline
from thalweg.engine.batch import Log, Raw
from thalweg.engine.errors import SnapshotError
from thalweg.engine.kernels.learners_powers import POWERS, inverse, root, square
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
    with np.errstate(all="ignore"):
        _each(model, data, kinds, rows, w, out)
    return out


def _each(model: Any, data: Stream, kinds: Array, rows: Array, w: Array | None, out: Array) -> None:
    for k, (kind, r) in enumerate(zip(kinds.tolist(), rows.tolist(), strict=True)):
        weight = {} if w is None else {"w": float(w[k])}
        try:
            out[k] = _learn(model, data, r, weight) if kind == LEARN else _predict(model, data, r)
        except (ArithmeticError, KeyError):
            continue


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
    if model.nan_is_none:  # what failed is infinite there
        out[np.isinf(out)] = math.nan
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


def check(model: Any, data: Stream, delay: int = 0, w: Array | None = None) -> None:
    """River and the kernel, the same rows in the same order."""
    kinds, rows = in_order(len(data.y), delay)
    kernel = lowered(model, data.names)
    assert_same(by_river(copy.deepcopy(model), data, kinds, rows, w), by_kernel(kernel, data, kinds, rows, w))


SCALERS: dict[str, Callable[[], Any]] = {
    "standard": preprocessing.StandardScaler,
    "centre": lambda: preprocessing.StandardScaler(with_std=False),
    "min max": preprocessing.MinMaxScaler,
    "max abs": preprocessing.MaxAbsScaler,
    "1-norm": lambda: preprocessing.Normalizer(order=1),
    "standard, 2-norm": lambda: preprocessing.StandardScaler() | preprocessing.Normalizer(),
}
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "SGD": lambda: optim.SGD(0.01),
    "SGD, scaling": lambda: optim.SGD(schedulers.InverseScaling(0.1)),
    "SGD, optimal": lambda: optim.SGD(schedulers.Optimal(losses.Hinge(), alpha=0.5)),
    "Momentum": lambda: optim.Momentum(0.001),
    "Nesterov": lambda: optim.NesterovMomentum(0.001),
    "AdaGrad": optim.AdaGrad,
    "AdaDelta": optim.AdaDelta,
    "AdaMax": optim.AdaMax,
    "Adam": optim.Adam,
    "Adam, scaling": lambda: optim.Adam(schedulers.InverseScaling(0.1, power=0.7)),
    "AMSGrad": optim.AMSGrad,
    "AMSGrad, biased": lambda: optim.AMSGrad(correct_bias=False),
    "Nadam": optim.Nadam,
    "RMSProp": lambda: optim.RMSProp(0.01),
    "AdaBound": optim.AdaBound,
    "AdaBound, scaling": lambda: optim.AdaBound(schedulers.InverseScaling(0.1)),
    "FTRL": optim.FTRLProximal,
    "FTRL, sparse": lambda: optim.FTRLProximal(alpha=0.1, beta=0.5, l1=0.3, l2=0.0),
}
# Before River 0.26, Adam and RMSProp decay what they keep of absent features and AdaBound divides by its schedule: both
# are left to River. What is left out on such a River is told by the test at the end.
OLD = [name for name, make in OPTIMIZERS.items() if why_not(linear_model.LinearRegression(make())) is not None]
OPTIMIZERS = {name: make for name, make in OPTIMIZERS.items() if name not in OLD}
BAYES = why_not(naive_bayes.GaussianNB()) is None  # River 0.23 forgets classes that it has seen without features
LOSSES: dict[str, Any] = {
    "Log": lambda: losses.Log(weight_pos=2.0, weight_neg=0.5),
    "Hinge": lambda: losses.Hinge(0.3),
    "BinaryFocalLoss": losses.BinaryFocalLoss,
    "Squared": losses.Squared,
    "Absolute": losses.Absolute,
    "Cauchy": losses.Cauchy,
    "EpsilonInsensitiveHinge": losses.EpsilonInsensitiveHinge,
    "Huber": losses.Huber,
    "Quantile": lambda: losses.Quantile(0.2),
    "Poisson": losses.Poisson,
}
TWO_CLASSES = ("Log", "Hinge", "BinaryFocalLoss")
REGULARIZED: dict[str, dict[str, Any]] = {
    "l1": {"l1": 0.01},
    "l2": {"l2": 0.05, "intercept_lr": schedulers.InverseScaling(0.3)},
    "start": {"initializer": initializers.Constant(0.3), "intercept_init": 2.0, "clip_gradient": 0.5},
    "no intercept": {"intercept_lr": 0.0},
}
STREAMS = ("Phishing", "Bananas", "TrumpApproval")


def linear(data: Stream, **parameters: Any) -> Any:
    kind = linear_model.LogisticRegression if data.binary else linear_model.LinearRegression
    return kind(**parameters)


def passive(data: Stream, **parameters: Any) -> Any:
    return (linear_model.PAClassifier if data.binary else linear_model.PARegressor)(**parameters)


def heads(data: Stream) -> dict[str, Any]:
    """A model of each kind for these labels."""
    found = {f"linear, {name}": linear(data, optimizer=make()) for name, make in OPTIMIZERS.items()}
    found |= {f"linear, {name}": linear(data, **copy.deepcopy(more)) for name, more in REGULARIZED.items()}
    found |= {
        f"linear, {name}": linear(data, optimizer=optim.SGD(0.001), loss=make(), intercept_lr=0.001)
        for name, make in LOSSES.items()
        if (name in TWO_CLASSES) == data.binary
    }
    found |= {f"passive, {mode}": passive(data, C=0.1, mode=mode) for mode in (0, 1, 2)}
    found |= {"passive, no intercept": passive(data, learn_intercept=False)}
    return found | ({"Gaussian": naive_bayes.GaussianNB()} if data.binary and BAYES else {})


HEADS = sorted({name for data in ("Phishing", "TrumpApproval") for name in heads(stream(data))})


def models(data: Stream) -> list[Any]:
    return [preprocessing.StandardScaler() | head for head in heads(data).values()]


@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize("name", STREAMS)
def test_scalers_equal_river(name: str, scaler: str) -> None:
    data = stream(name)
    check(SCALERS[scaler]() | linear(data, optimizer=optim.SGD(0.01)), data.with_absences(0.1))


@pytest.mark.parametrize("head", HEADS)
def test_models_equal_river(head: str) -> None:
    for name in STREAMS:
        data = stream(name)
        if head in heads(data):
            check(preprocessing.StandardScaler() | heads(data)[head], data)
            check(preprocessing.StandardScaler() | heads(data)[head], data.with_absences(0.2))


def test_models_alone_and_after_other_scalers_equal_river() -> None:
    data = stream("Phishing").with_absences(0.1)
    for head in {"linear, SGD", "linear, AdaGrad", "passive, 1", "Gaussian"} & heads(data).keys():
        check(heads(data)[head], data)
        check(preprocessing.MinMaxScaler() | heads(data)[head], data)
        check(preprocessing.MaxAbsScaler() | preprocessing.StandardScaler() | heads(data)[head], data)


def test_labels_that_come_later_equal_river() -> None:
    for name in ("Phishing", "TrumpApproval"):
        data = stream(name).with_absences(0.1)
        for model in models(data):
            check(model, data, delay=50)


def test_choices_of_features_equal_river() -> None:
    data = stream("Phishing")
    chosen, rest = data.names[2:7], data.names[:4]
    for head in {"linear, SGD", "passive, 1", "Gaussian"} & heads(data).keys():
        model = compose.Select(*chosen) | preprocessing.StandardScaler() | heads(data)[head]
        check(model, data)
        check(model, data.with_absences(0.02))  # River raises where a chosen feature is absent
        check(compose.Discard(*rest) | preprocessing.StandardScaler() | heads(data)[head], data.with_absences(0.1))


def test_sample_weights_equal_river() -> None:
    data = stream("Bananas").with_absences(0.1)
    w = np.random.default_rng(3).choice([0.0, 0.5, 1.0, 3.0], 2 * len(data.y))
    for name in ("SGD", "AdaMax", "FTRL"):
        check(linear(data, optimizer=OPTIMIZERS[name]()), data, w=w)
        check(preprocessing.StandardScaler() | linear(data, optimizer=OPTIMIZERS[name]()), data, w=w)


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """The vectors of two days of the demo's flights, nulls as absences; labels in the order of the departures."""
    folder = tmp_path_factory.mktemp("flights")
    records = list(producer.records(2, 7))
    for topic in flow.definition.topics:
        of = [record for record in records if record.topic == topic]
        times = np.array([record.timestamp_us for record in of], dtype=np.int64)
        raw = Raw(Log(topic, 0), np.arange(len(of)), times, times, [r.key for r in of], [r.value for r in of])
        write_archive(folder / f"{topic}.parquet", [raw], Form.of(flow.definition, topic))
    plain = Pipeline(replace(flow.definition, models=(), drift=(), cost=None), flow.topics)
    events, labels = flow.definition.topics
    backfill(plain, [folder / f"{events}.parquet"], [folder / f"{labels}.parquet"], folder / "out.parquet")
    table = pq.read_table(folder / "out.parquet")
    names = list(flow.definition.features.names)
    x = np.column_stack([table.column(name).to_numpy().astype(np.float64) for name in names])
    known = np.array([label is not None for label in table.column("label").to_pylist()])
    y = np.array([bool(label) for label in table.column("label").to_pylist()], dtype=np.float64)
    assert np.isnan(x).any() and 0 < y[known].mean() < 1
    return Stream(names, x[known], y[known], binary=True)


def test_flights_equal_river(flights: Stream) -> None:
    for model in models(flights):
        check(model, flights, delay=100)


@pytest.mark.parametrize("name", ["Phishing", "TrumpApproval"])
def test_what_is_raised_goes_on_in_river(name: str) -> None:
    """raise_() gives a River model that goes on as the kernel does; compiled again, it goes on with the same bits."""
    data = stream(name).with_absences(0.1)
    kinds, rows = in_order(len(data.y))
    half = len(kinds) // 2
    for model in [
        *models(data),
        preprocessing.MinMaxScaler() | linear(data),
        preprocessing.MaxAbsScaler() | linear(data),
    ]:
        kernel = lowered(model, data.names)
        by_kernel(kernel, data, kinds[:half], rows[:half])
        river = kernel.raise_()
        again = lowered(river, data.names)
        rest = by_kernel(kernel, data, kinds[half:], rows[half:])
        assert np.array_equal(by_kernel(again, data, kinds[half:], rows[half:]), rest, equal_nan=True), model
        assert_same(by_river(river, data, kinds[half:], rows[half:]), rest)


@pytest.mark.parametrize("name", ["Phishing", "TrumpApproval"])
def test_a_warm_river_model_stays_warm(name: str) -> None:
    data = stream(name).with_absences(0.1)
    kinds, rows = in_order(len(data.y))
    for model in models(data):
        by_river(model, data, kinds[:800], rows[:800])
        kernel = lowered(model, data.names)
        assert_same(by_river(model, data, kinds[800:], rows[800:]), by_kernel(kernel, data, kinds[800:], rows[800:]))


@pytest.mark.parametrize("name", ["Phishing", "TrumpApproval"])
def test_state_is_restored_to_the_bit(name: str) -> None:
    data = stream(name).with_absences(0.1)
    kinds, rows = in_order(len(data.y))
    for model in models(data):
        one, other = lowered(model, data.names), lowered(model, data.names)
        by_kernel(one, data, kinds[:700], rows[:700])
        state = one.state()
        rest = by_kernel(one, data, kinds[700:], rows[700:])
        other.restore(state)
        assert np.array_equal(by_kernel(other, data, kinds[700:], rows[700:]), rest, equal_nan=True)
        assert all(np.array_equal(one.state()[part], other.state()[part], equal_nan=True) for part in state)


def test_cuts_do_not_matter() -> None:
    data = stream("Phishing").with_absences(0.1)
    kinds, rows = in_order(len(data.y), delay=3)
    for model in models(data):
        whole = by_kernel(lowered(model, data.names), data, kinds, rows)
        kernel = lowered(model, data.names)
        cuts = [0, 1, 2, 50, 51, 700, len(kinds)]
        parts = [by_kernel(kernel, data, kinds[a:b], rows[a:b]) for a, b in itertools.pairwise(cuts)]
        assert np.array_equal(np.concatenate(parts), whole, equal_nan=True)


def test_state_of_another_model_is_refused() -> None:
    model = lowered(preprocessing.StandardScaler() | linear_model.LinearRegression(), ["a", "b"])
    other = lowered(preprocessing.StandardScaler() | linear_model.LinearRegression(), ["a"])
    with pytest.raises(SnapshotError, match=r"scales: float64\[1, 4, 2\] expected in a lowered model, got float64"):
        model.restore(other.state())


# Where numbers end


def explosion(scale: float, binary: bool) -> Stream:
    draw = np.random.default_rng(5)
    x = draw.normal(size=(200, 3)) * scale
    return Stream(["a", "b", "c"], x, (x[:, 0] > 0).astype(float) if binary else x @ [1.0, 2.0, 3.0], binary)


UNBOUND = {"clip_gradient": 1e300}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_explodes_explodes_as_in_river(name: str) -> None:
    """Overflow to infinity, NaN, and the exceptions of Python's ``**``, with what was learned before them."""
    for scale in (1.0, 1e60, 1e150):
        data = explosion(scale, binary=False)
        check(linear_model.LinearRegression(optimizer=OPTIMIZERS[name](), **UNBOUND), data)
        check(linear_model.LinearRegression(optimizer=OPTIMIZERS[name](), loss=losses.Cauchy(1e-9), **UNBOUND), data)
        check(linear_model.LinearRegression(optimizer=OPTIMIZERS[name](), loss=losses.Poisson(), **UNBOUND), data)
        check(preprocessing.StandardScaler() | linear_model.LinearRegression(OPTIMIZERS[name](), l2=1e10), data)


@pytest.mark.parametrize("optimizer", [optim.AdaGrad, optim.Adam, optim.AMSGrad, optim.AdaDelta, optim.RMSProp])
def test_divisions_by_zero_are_rivers(optimizer: Any) -> None:
    """Without eps, a gradient of zero divides by zero; River raises in the middle of a row."""
    data = stream("Phishing").with_absences(0.1)
    if why_not(linear_model.LogisticRegression(optimizer())) is not None:
        pytest.skip("left to this River, see OLD")
    loss = losses.Hinge(0.1)
    check(linear_model.LogisticRegression(optimizer(eps=0.0), loss=loss), data)
    check(linear_model.LogisticRegression(optimizer(eps=0.0), loss=loss, l2=0.1), data)


def test_passive_models_explode_as_in_river() -> None:
    for scale in (1e-200, 1e100, 1e200):
        for mode in (0, 1, 2):
            check(linear_model.PARegressor(mode=mode, C=10.0), explosion(scale, binary=False))
            check(linear_model.PAClassifier(mode=mode, C=10.0), explosion(scale, binary=True))


@pytest.mark.skipif(not BAYES, reason="naive Bayes is left to this River")
def test_nothing_learned_is_nan_and_what_fails_in_bayes_is_infinite() -> None:
    """River's empty answer, apart from a number that is none."""
    kernel = lowered(compose.Select("a") | naive_bayes.GaussianNB(), ["a"])
    x, out = np.array([[1.0], [math.nan]]), np.empty(5)
    kinds, rows = np.array([PREDICT, PREDICT, LEARN, LEARN, PREDICT], dtype=np.int8), np.array([0, 1, 0, 1, 0])
    kernel.run(kinds, rows, x, np.ones(5), np.ones(5), out)
    assert kernel.nan_is_none
    assert np.array_equal(out, [math.nan, math.inf, 0.0, math.nan, 1.0], equal_nan=True)


def test_powers_are_pythons() -> None:
    draw = np.random.default_rng(1)
    for exponent in draw.uniform(-280, 280, 20000).tolist() + draw.uniform(-2, 2, 20000).tolist():
        x = 10.0**exponent
        assert root(x, POWERS) == x**0.5 and inverse(x, POWERS) == x**-1
        assert exponent > 154 or square(x, POWERS) == x**2
    assert root(0.0, POWERS) == 0.0 and math.isinf(square(1e200, POWERS))


# Models and rows that nobody thought of


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    names = ["a", "b", "c", "d"][: draw(st.integers(1, 4))]
    values = st.one_of(st.sampled_from([math.nan, 0.0, 1.0, -1.0, 3.0]), st.floats(-100.0, 100.0))
    n, binary = draw(st.integers(1, 12)), draw(st.booleans())
    x = np.array(draw(st.lists(st.lists(values, min_size=len(names), max_size=len(names)), min_size=n, max_size=n)))
    labels = st.booleans() if binary else st.floats(-50.0, 50.0)
    return Stream(names, x, np.array(draw(st.lists(labels, min_size=n, max_size=n)), dtype=np.float64), binary)


rates = st.one_of(
    st.floats(1e-4, 0.02),
    st.builds(schedulers.InverseScaling, st.floats(1e-4, 0.02), st.floats(0.1, 2.0)),
    st.builds(schedulers.Optimal, st.just(losses.Squared()), st.floats(1.0, 10.0)),
)
betas, epss = st.floats(0.0, 0.999), st.sampled_from([1e-8, 1e-3, 1.0])
optimizers = st.one_of(
    st.builds(optim.SGD, rates),
    st.builds(optim.Momentum, rates, betas),
    st.builds(optim.NesterovMomentum, rates, betas),
    st.builds(optim.AdaGrad, rates, epss),
    st.builds(optim.AdaDelta, betas, epss),
    st.builds(optim.AdaMax, rates, betas, betas, epss),
    st.builds(optim.Adam, rates, betas, betas, epss),
    st.builds(optim.AMSGrad, rates, betas, betas, epss, st.booleans()),
    st.builds(optim.Nadam, rates, betas, betas, epss),
    st.builds(optim.RMSProp, rates, betas, epss),
    st.builds(optim.AdaBound, st.floats(1e-4, 0.02), betas, betas, epss, st.floats(1e-3, 0.1), st.floats(0.01, 0.5)),
    st.builds(optim.FTRLProximal, st.floats(0.01, 0.5), st.floats(0.0, 2.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
).filter(lambda optimizer: why_not(linear_model.LinearRegression(optimizer)) is None)


@st.composite
def any_models(draw: st.DrawFn, data: Stream) -> Any:
    model = draw(st.sampled_from([*SCALERS.values(), lambda: None]))()
    kind = draw(st.sampled_from(["linear", "linear", "linear", "passive", "bayes"]))
    if kind == "passive":
        head = passive(data, C=draw(st.floats(0.01, 10.0)), mode=draw(st.integers(0, 2)))
    elif kind == "bayes" and data.binary and BAYES:
        head = naive_bayes.GaussianNB()
    else:
        optimizer = draw(optimizers)
        penalties = ["l1", "l2"] if not isinstance(optimizer, optim.FTRLProximal) else ["l2"]
        more: dict[str, Any] = {draw(st.sampled_from(penalties)): draw(st.sampled_from([0.0, 0.001, 0.1]))}
        suiting = [make for name, make in LOSSES.items() if (name in TWO_CLASSES) == data.binary]
        more |= {"loss": draw(st.sampled_from(suiting))(), "clip_gradient": draw(st.sampled_from([0.5, 100.0]))}
        more |= {"intercept_lr": draw(rates), "initializer": initializers.Constant(draw(st.sampled_from([0.0, 0.5])))}
        head = linear(data, optimizer=optimizer, **more)
    return head if model is None else model | head


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_model_on_any_rows_equals_river(data: st.DataObject) -> None:
    rows = data.draw(streams())
    model = data.draw(any_models(rows))
    steps = data.draw(st.lists(st.tuples(st.integers(0, 1), st.integers(0, len(rows.y) - 1)), max_size=30))
    kinds = np.array([kind for kind, _ in steps], dtype=np.int8)
    which = np.array([r for _, r in steps], dtype=np.int64)
    kernel = lowered(model, rows.names)
    assert_same(by_river(model, rows, kinds, which), by_kernel(kernel, rows, kinds, which), 1e-11)


# What is left to River


class Own(linear_model.LogisticRegression):
    "A subclass may do anything."


class OwnLoss(losses.Squared):
    "So may a loss."


def _with(obj: Any, **attributes: Any) -> Any:
    vars(obj).update(attributes)
    return obj


def _learned(model: Any, *rows: dict[str, float]) -> Any:
    for row in rows:
        model.learn_one(row, True)
    return model


LEFT_TO_RIVER: dict[str, Any] = {
    "test_lowered.Own is not among the models": Own(),
    "BernoulliNB is not among the models": naive_bayes.BernoulliNB(),
    "MinMaxScaler is not among the models": preprocessing.StandardScaler() | preprocessing.MinMaxScaler(),
    "RobustScaler is not among the transformers": preprocessing.RobustScaler() | linear_model.LogisticRegression(),
    "TransformerUnion is not among the transformers": (preprocessing.StandardScaler() + preprocessing.MinMaxScaler())
    | linear_model.LogisticRegression(),
    "Select is not among the transformers": preprocessing.StandardScaler()
    | compose.Select("a")
    | linear_model.LogisticRegression(),
    "LinearRegression with the loss OwnLoss": linear_model.LinearRegression(loss=OwnLoss()),
    "LogisticRegression with the loss Squared": linear_model.LogisticRegression(loss=losses.Squared()),
    "the optimizer Averager": linear_model.LogisticRegression(optim.Averager(optim.SGD())),
    "weights that start from Normal": linear_model.LogisticRegression(initializer=initializers.Normal(seed=1)),
    "an attribute secret": _with(linear_model.LogisticRegression(), secret=1),
    "an attribute predict_one": _with(preprocessing.StandardScaler(), predict_one=1) | linear_model.PAClassifier(),
    "Normalizer.order is 3": preprocessing.Normalizer(order=3) | linear_model.LogisticRegression(),
    "SGD has an attribute own": linear_model.LogisticRegression(_with(optim.SGD(), own=1)),
    "clip_gradient is -1": linear_model.LogisticRegression(clip_gradient=-1),
    "l2 is '1', a plain number is expected": linear_model.LogisticRegression(l2="1"),
    "AMSGrad.beta_1 is 1.0": linear_model.LogisticRegression(optim.AMSGrad(beta_1=1.0)),
    "FTRLProximal has no learning rate": linear_model.LogisticRegression(optim.FTRLProximal(), l1=0.1),
    "PAClassifier.C is 0": linear_model.PAClassifier(C=0),
    "PAClassifier.mode is": _with(linear_model.PAClassifier(), mode=7),
    "PAClassifier with a loss": _with(linear_model.PAClassifier(), loss=losses.Log()),
    "a class 'x'": _with(naive_bayes.GaussianNB(), class_counts={"x": 1}),
    "an empty pipeline": compose.Pipeline(),
}


@pytest.mark.parametrize("reason", LEFT_TO_RIVER)
def test_anything_else_is_left_to_river(reason: str) -> None:
    model = LEFT_TO_RIVER[reason]
    assert compile(model, ["a", "b"]) is None
    assert reason in str(why_not(model))


def test_a_feature_that_will_not_come_is_a_reason() -> None:
    model = _learned(linear_model.LogisticRegression(), {"a": 1.0, "z": 2.0})
    assert compile(model, ["a", "b"]) is None
    assert "a feature 'z'" in str(why_not(model, ["a", "b"]))
    assert why_not(model) is None and why_not(model, ["z", "a"]) is None
    assert "window_size" not in vars(preprocessing.StandardScaler()) or "forgets by window_size=9" in str(
        why_not(preprocessing.StandardScaler(window_size=9) | linear_model.LogisticRegression())
    )


def test_this_river_lowers_every_optimizer() -> None:
    if tuple(map(int, metadata.version("river").split(".")[:2])) < (0, 26):
        pytest.skip(f"left to River {metadata.version('river')}: {', '.join(OLD)}")
    assert not OLD
