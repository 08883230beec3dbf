"""Whole pipelines in memory: every kind of task, what serves beside what, and River's own figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from river import anomaly, datasets, drift, evaluate, linear_model, metrics, naive_bayes, preprocessing, tree
from river.compose import Select

import thalweg
from thalweg import DefinitionError, FeatureSet, Label, Stream, agg, baseline, col, enc, on_error, pipeline, rows
from thalweg.dataflows.serve import LiveChain
from thalweg.engine.batch import Log, Raw
from thalweg.engine.snapshot import unpack


def columns_as_features(name: str, x: dict[str, Any], label_type: str) -> Any:
    """A pipeline whose features are the columns of a data set and whose label stands in the same row."""

    class Rows(Stream):
        "One row a second."

        topic, key, time = name, "id", col.at
        schema = {
            "id": "str",
            "at": "timestamp[s, UTC]",
            "y": label_type,
            **dict.fromkeys(x, "f64"),
        }

    class Truth(Label):
        of, on, where, value, horizon = Rows, "id", ~col.id.is_null(), col.y, "1h"

    features = type("Columns", (FeatureSet,), {column: col[column] for column in x}, source=Rows)
    return features, Truth


def as_rows(dataset: Any) -> list[dict[str, Any]]:
    return [{"id": str(i), "at": i, "y": y, **x} for i, (x, y) in enumerate(dataset)]


CLASSIFIED = [datasets.Phishing, datasets.Bananas]


@pytest.mark.parametrize("dataset", CLASSIFIED, ids=lambda d: d.__name__)
def test_prequential_equals_river_on_classification(dataset: Any) -> None:
    data = as_rows(dataset())
    x = {name: v for name, v in data[0].items() if name not in ("id", "at", "y")}
    features, truth = columns_as_features(dataset.__name__, x, "bool")
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    flow = pipeline(features, label=truth, models=[model])
    ours = final(flow, data)
    for name, metric in {
        "accuracy": metrics.Accuracy(),
        "precision": metrics.Precision(),
        "recall": metrics.Recall(),
        "f1": metrics.F1(),
        "log_loss": metrics.LogLoss(),
        "roc_auc": metrics.ROCAUC(n_thresholds=1001),
    }.items():
        assert evaluate.progressive_val_score(dataset(), model.clone(), metric).get() == ours[name], name
    assert ours["labels"] == len(data)


def final(flow: Any, data: list[dict[str, Any]]) -> dict[str, Any]:
    """The metrics after the last label."""
    shard = flow.open()
    shard.push(flow.reading(data))
    result: dict[str, Any] = shard.panel.summaries()[0]["cumulative"]
    return result


def test_prequential_equals_river_on_regression() -> None:
    data = as_rows(datasets.TrumpApproval())
    x = {name: v for name, v in data[0].items() if name not in ("id", "at", "y")}
    features, truth = columns_as_features("TrumpApproval", x, "f64")
    model = preprocessing.StandardScaler() | linear_model.LinearRegression()
    flow = pipeline(features, label=truth, models=[model])
    ours = final(flow, data)
    for name, metric in {"mae": metrics.MAE(), "rmse": metrics.RMSE(), "r2": metrics.R2()}.items():
        assert evaluate.progressive_val_score(datasets.TrumpApproval(), model.clone(), metric).get() == ours[name], name


class Payment(Stream):
    "Card payments; some rows only tell."

    topic, key, time = "payments", "card", col.at
    schema = {"id": "str", "card": "str", "at": "timestamp[us, UTC]", "kind": "str", "amount": "f64?", "shop": "str?"}
    score = col.kind == "ask"
    disorder = "10s"
    dedupe = ("id", "1h")


class Fraud(Label):
    of, on, topic = Payment, "id", "chargebacks"
    schema = {"id": "str", "at": "timestamp[us, UTC]", "fraud": "bool"}
    value, available, horizon = col.fraud, col.at, "2m"


class Kind(Label):
    of, on, topic = Payment, "id", "kinds"
    schema = {"id": "str", "at": "timestamp[us, UTC]", "what": "str"}
    value, available, horizon = col.what, col.at, "1h"


class Habits(FeatureSet, source=Payment):
    "What this card has been doing."

    card = agg.by("card")
    amount = col.amount.fill(0.0)
    spent = card.sum(col.amount, "10m").fill(0.0)
    usual = card.mean(col.amount, rows(5)).fill(0.0)
    shop_fraud = enc.target(col.shop, Fraud, "1d", prior=5).fill(0.1)


class Plain(FeatureSet, source=Payment):
    "Without labels."

    amount = col.amount.fill(0.0)
    spent = agg.by("card").sum(col.amount, "10m").fill(0.0)


class Texts(FeatureSet, source=Payment):
    "A category as it is."

    shop = col.shop.fill("none")


def payments(n: int = 400, seed: int = 3) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    draw = np.random.default_rng(seed)
    events, labels = [], []
    for i in range(n):
        at = 1_500_000_000_000_000 + i * 1_000_000
        amount, shop = float(draw.gamma(2, 20)), str(draw.choice(["a", "b", "c"]))
        kind = "ask" if draw.random() < 0.8 else "tell"
        events.append({"id": f"e{i}", "card": f"c{i % 7}", "at": at, "kind": kind, "amount": amount, "shop": shop})
        if draw.random() < 0.9:
            fraud = bool(draw.random() < (0.5 if shop == "a" else 0.05))
            labels.append({"id": f"e{i}", "at": at + 30_000_000, "fraud": fraud})
    return events, labels


def test_binary_with_baselines_beside_it() -> None:
    events, labels = payments()
    flow = pipeline(
        Habits,
        shards="one",
        label=Fraud,
        models={"first": naive_bayes.GaussianNB(), "prior": baseline.Prior(), "last": baseline.NoChange()},
        carry=["shop"],
        cost=(1, 4),
        metrics_every=50,
    )
    results = flow.replay(events, labels)
    record = results.predictions[-1]
    assert (
        record["model"] == "first" and set(record["others"]) == {"prior", "last"} and record["carry"]["shop"] in "abc"
    )
    assert record["threshold"] == 0.2 and record["decision"] == (record["score"] > 0.2)
    assert {m["model"] for m in results.metrics} == {"first", "prior", "last"}
    last = {m["model"]: m for m in results.metrics[-3:]}
    assert last["first"]["by_prediction"]["labels"] > 0 and last["first"]["window"]["labels"] > 0
    assert last["first"]["cumulative"]["log_loss"] < last["last"]["cumulative"]["log_loss"]
    counts = results.counters
    asked = sum(event["kind"] == "ask" for event in events)
    assert counts["scored"] == asked and counts["folded"] == len(events) - asked
    fates = [counts[f"predictions_{fate}"] for fate in ("joined", "timed_out", "evicted", "pending")]
    assert sum(fates) == counts["scored"]


def test_multiclass_serves_a_score_per_class() -> None:
    events, labels = payments()
    kinds = [{"id": label["id"], "at": label["at"], "what": "bad" if label["fraud"] else "good"} for label in labels]
    flow = pipeline(Plain, label=Kind, models=[naive_bayes.GaussianNB(), baseline.Majority()])
    record = flow.run(events, kinds)[-1]
    assert set(record["score"]) == {"bad", "good"} and record["decision"] in ("bad", "good")
    assert sum(record["score"].values()) == pytest.approx(1.0)


def test_anomaly_detector_scores_then_learns_without_labels() -> None:
    events, _ = payments()
    model = anomaly.HalfSpaceTrees(seed=1, n_trees=5, height=4, window_size=50)
    flow = pipeline(Plain, models=[preprocessing.MinMaxScaler() | model])
    shard = flow.open()
    out = [row.value for row in shard.push(flow.reading(events)) if row.kind == "predictions"]
    expected = preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=1, n_trees=5, height=4, window_size=50)
    names = Plain.spec().names
    vectors = [r["vector"] for r in pipeline(Plain, vector=True).run(events)]
    for record, vector in zip(out, vectors, strict=True):
        x = {name: vector[name] for name in names}
        assert record["score"] == expected.score_one(x)
        expected.learn_one(x)


def test_features_only_writes_vectors() -> None:
    events, _ = payments(20)
    records = pipeline(Plain).run(events)
    assert list(records[0]["vector"]) == ["amount", "spent"] and "score" not in records[0]


def test_arrow_in_arrow_out_is_the_same() -> None:
    events, labels = payments(60)
    flow = pipeline(Habits, shards="one", label=Fraud, models=[naive_bayes.GaussianNB()], vector=True)
    table = flow.run(pa.Table.from_pylist(events), pa.Table.from_pylist(labels))
    assert isinstance(table, pa.Table)
    assert table.column("vector_hash").to_pylist() == [r["vector_hash"] for r in flow.run(events, labels)]


def test_weights_reach_learning_and_metrics() -> None:
    class Small(FeatureSet, source=Payment):
        "Of the size that a model without a scaler wants: old pipelines of River drop weights."

        amount = (col.amount / 100).fill(0.0)
        shop_a = enc.one_hot(col.shop, ["a"])

    events, labels = payments()
    model = linear_model.LogisticRegression()

    def metrics_with(weight: Any) -> dict[str, Any]:
        flow = pipeline(Small, label=Fraud, models=[model], weight=weight)
        shard = flow.open()
        shard.push(flow.reading(events, labels))
        result: dict[str, Any] = shard.panel.summaries()[0]["cumulative"]
        return result

    plain, classes = metrics_with(None), metrics_with({True: 10.0, False: 1.0})
    assert classes["confusion"]["tp"] + classes["confusion"]["fn"] == 10 * (
        plain["confusion"]["tp"] + plain["confusion"]["fn"]
    )
    assert classes["recall"] > plain["recall"]
    by_row = metrics_with(col.amount / 100)
    assert by_row["confusion"] != plain["confusion"]


def test_late_rows_are_answered_but_touch_nothing() -> None:
    class Answered(Stream):
        "As Payment, but late rows get an answer."

        topic, key, time = "payments", "card", col.at
        schema = {"card": "str", "at": "timestamp[s, UTC]", "amount": "f64"}
        disorder, late = "10s", "score"

    class Sums(FeatureSet, source=Answered):
        spent = agg.by("card").sum(col.amount, "1h")

    events = [{"card": "a", "at": t, "amount": 1.0} for t in (100, 200, 50, 201)]
    records = pipeline(Sums).run(events)
    assert [r["vector"]["spent"] for r in records] == [1.0, 2.0, 1.0, 3.0]  # as of the watermark, 190
    assert [r.get("late", False) for r in records] == [False, False, True, False]
    counters = pipeline(Sums).replay(events).counters
    assert (counters["late"], counters["scored"]) == (1, 3)


def test_repeats_are_dropped_within_the_horizon_and_counted() -> None:
    events, _ = payments(10)
    repeated = [*events, *events[-3:]]
    results = pipeline(Plain).replay(repeated)
    assert results.counters["duplicate"] == 3 and len(results.predictions) == len(pipeline(Plain).run(events))


def test_alarms_name_the_row_that_caused_them() -> None:
    events, labels = payments(1500)
    turned = [{**label, "fraud": label["fraud"] ^ (i > 700)} for i, label in enumerate(labels)]
    flow = pipeline(Plain, label=Fraud, models=[naive_bayes.GaussianNB()], drift=[on_error(drift.ADWIN())])
    alarms = flow.replay(events, turned).alarms
    assert alarms and alarms[0]["cause"]["topic"] == "chargebacks" and alarms[0]["cause"]["offset"] > 700


def test_state_continues_bit_for_bit() -> None:
    events, labels = payments()
    flow = pipeline(
        Habits,
        shards="one",
        label=Fraud,
        models=[tree.HoeffdingTreeClassifier(grace_period=20), baseline.Prior()],
        drift=[on_error(drift.ADWIN())],
        metrics_every=40,
    )
    reading = flow.reading(events, labels)
    whole = flow.open().push(reading)
    pieces = list(reading.pieces(150))
    shard, rows_out = flow.open(), []
    for piece in pieces:
        rows_out += shard.push(piece)
        again = flow.open()
        again.restore(shard.snapshot())
        shard = again
    for kind in ("predictions", "metrics", "alarms", "dlq"):
        assert [r for r in rows_out if r.kind == kind] == [r for r in whole if r.kind == kind], kind
    assert unpack(shard.snapshot())


def test_static_member_sees_only_its_columns() -> None:
    events, labels = payments()
    only = Select("amount") | preprocessing.StandardScaler() | linear_model.LogisticRegression()
    flow = pipeline(Habits, shards="one", label=Fraud, models={"all": naive_bayes.GaussianNB(), "own": only})
    alone = pipeline(
        type("Own", (FeatureSet,), {"amount": Habits.spec().features[0].expr}, source=Payment),
        label=Fraud,
        models=[preprocessing.StandardScaler() | linear_model.LogisticRegression()],
    )
    assert [r["others"]["own"] for r in flow.run(events, labels)] == [r["score"] for r in alone.run(events, labels)]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: pipeline(Habits, shards="one", models=[baseline.Prior()]), "label=Fraud"),
        (lambda: pipeline(Plain, label=Fraud, models=[tree.HoeffdingTreeRegressor()]), "HoeffdingTreeRegressor"),
        (lambda: pipeline(Plain, label=Fraud, models=[baseline.Prior()], cost=(0, 1)), "false alarm"),
        (lambda: pipeline(Plain, label=Fraud, models=[baseline.Prior()], carry=["amuont"]), "col.amount"),
        (lambda: pipeline(Plain, drift=[on_error(drift.ADWIN())]), "needs a label"),
        (lambda: pipeline(Plain, label=Fraud, topics={"prediction": "x"}), "predictions"),
        (lambda: pipeline(Plain, metrics_every=0), "at least 1"),
        (lambda: pipeline(Plain, name="my pipeline!"), "letters, digits"),
        (lambda: pipeline(Texts, label=Fraud, models=[linear_model.LogisticRegression()]), "OneHotEncoder"),
    ],
)
def test_a_wrong_pipeline_is_refused_with_what_to_write(wrong: Any, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        wrong()


def test_an_aggregate_by_another_key_needs_one_shard() -> None:
    class ByShop(FeatureSet, source=Payment):
        seen = agg.by("shop").count("1h")

    with pytest.raises(DefinitionError, match="shards='one'"):
        pipeline(ByShop)
    events, _ = payments(30)
    assert pipeline(ByShop, shards="one").run(events)[-1]["vector"]["seen"] > 1


def test_a_target_encoding_by_another_key_needs_one_shard() -> None:
    with pytest.raises(DefinitionError, match="shards='one'"):
        pipeline(Habits, label=Fraud, models=[baseline.Prior()])


def test_skill_vs_baseline_is_reported() -> None:
    events, labels = payments()
    flow = pipeline(Plain, label=Fraud, models={"nb": naive_bayes.GaussianNB(), "prior": baseline.Prior()})
    shard = flow.open()
    shard.push(flow.reading(events, labels))
    losses = [shard.panel.summaries()[i]["cumulative"]["log_loss"] for i in (0, 1)]
    assert shard.panel.summaries()[0]["skill_vs_baseline"] == 1.0 - losses[0] / losses[1]
    assert (
        pipeline(Plain, label=Fraud, models=[naive_bayes.GaussianNB()], metrics_every=100)
        .replay(events, labels)
        .metrics[0]["skill_vs_baseline"]
        is None
    )


def test_regression_beats_its_baselines_on_friedman() -> None:
    """Row 2.11: a linear model against the running mean and the last value, Friedman's first function."""
    dataset = datasets.synth.Friedman(seed=1).take(3000)
    data = [{"id": str(i), "at": i, "y": y, **{f"x{k}": v for k, v in x.items()}} for i, (x, y) in enumerate(dataset)]
    names = {name: 0.0 for name in data[0] if name.startswith("x")}
    features, truth = columns_as_features("Friedman", names, "f64")
    linear = preprocessing.StandardScaler() | linear_model.LinearRegression()
    flow = pipeline(features, label=truth, models=[linear, baseline.Prior(), baseline.NoChange()])
    shard = flow.open()
    shard.push(flow.reading(data))
    assert shard.panel.summaries()[0]["skill_vs_baseline"] > 0.3


def test_a_running_mean_fills_what_is_missing() -> None:
    class Filled(FeatureSet, source=Payment):
        _usual = agg.by("card").mean(col.amount, "1h")
        amount = col.amount.fill(_usual).fill(0.0)
        missing = col.amount.is_null()

    events = [
        {"id": f"e{i}", "card": "c", "at": i * 1_000_000, "kind": "ask", "amount": amount}
        for i, amount in enumerate([None, 4.0, 8.0, None])
    ]
    vectors = [record["vector"] for record in pipeline(Filled).run(events)]
    assert [(v["amount"], v["missing"]) for v in vectors] == [(0.0, 1.0), (4.0, 0.0), (8.0, 0.0), (6.0, 1.0)]


def test_the_fingerprint_changes_iff_the_definition_does() -> None:
    def variant(window: str, doc: str = "", name: str = "spent", version: int = 1) -> str:
        attributes = {"__doc__": doc, name: agg.by("card").sum(col.amount, window)}
        made: Any = type("Variant", (FeatureSet,), attributes, source=Payment, version=version)
        return str(made.spec().fingerprint)

    assert variant("10m") == variant("10m", doc="said otherwise") == variant("600s")
    assert len({variant("10m"), variant("11m"), variant("10m", name="other"), variant("10m", version=2)}) == 4


def test_headers_are_passed_on_where_asked_for() -> None:
    flow = pipeline(Plain, headers=["traceparent"])
    row = orjson.dumps({"id": "1", "card": "c", "at": 1_000_000, "kind": "ask", "amount": 2.0})
    headers = [("traceparent", b"00-1-2-01"), ("other", b"x")]
    times = np.array([1_000_000])
    raw = Raw(Log("payments", 0), np.array([5]), times, times, [b"c"], [row], [headers])
    (left,) = LiveChain(flow).push([raw])
    assert left.headers == [("traceparent", b"00-1-2-01")] and left.key == b"c"


def test_every_public_name_is_there() -> None:
    assert set(thalweg.__all__) == set(thalweg._HOME) <= set(dir(thalweg))
    for name in thalweg.__all__:
        assert getattr(thalweg, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = thalweg.nothing


def test_text_features_reach_models_that_take_text() -> None:
    events, labels = payments()
    model = preprocessing.OneHotEncoder() | linear_model.LogisticRegression()
    scores = [record["score"] for record in pipeline(Texts, label=Fraud, models=[model]).run(events, labels)]
    assert len(set(scores[-50:])) > 2


def test_rows_that_do_not_fit_are_told_in_a_warning() -> None:
    events, _ = payments(3)
    with pytest.warns(UserWarning, match="1 of 4 rows do not fit Payment; row 1: type, field 'amount'"):
        assert len(pipeline(Plain, vector=True).run([events[0], events[1] | {"amount": "7"}, *events[1:]])) > 0
    with pytest.raises(DefinitionError, match="list of dicts"):
        pipeline(Plain).run(events[0])  # type: ignore[arg-type]


def test_scalars_of_numpy_are_values() -> None:
    event = {"id": "a", "card": "c", "at": np.int64(5), "kind": "ask", "amount": np.float32(0.5), "shop": np.str_("s")}
    (record,) = pipeline(Plain).run([event])
    assert record["vector"]["amount"] == 0.5
