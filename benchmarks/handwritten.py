"""The opponent that a good engineer writes in an hour: stock Bytewax operators, deques, running sums, River.

One entity, three windows of (count, sum, mean, std, max), a scaler and a logistic regression that predicts and then
learns, a JSON record a payment. No late rows, no duplicates, no malformed ones, no ids that survive a crash.

``python -m bytewax.run benchmarks.handwritten:flow``; brokers and topics come from the environment.
"""

from __future__ import annotations

import copy
import gc
import os
from collections import deque
from collections.abc import Iterable
from math import sqrt
from typing import Any

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from river.compose import Pipeline
from river.linear_model import LogisticRegression
from river.preprocessing import StandardScaler

WINDOWS_MS = {"10m": 600_000, "1h": 3_600_000, "3h": 10_800_000}


class Window:
    """Running sums, in whole cents, of what is not older than ``length_ms``, and a falling deque for the maximum."""

    def __init__(self, length_ms: int) -> None:
        self.length_ms = length_ms
        self.rows: deque[tuple[int, int]] = deque()
        self.falling: deque[tuple[int, int]] = deque()
        self.sum = 0
        self.squares = 0

    def add(self, at: int, cents: int) -> None:
        """Takes a row in, and drops those that have become too old."""
        oldest, rows, falling = at - self.length_ms, self.rows, self.falling
        while rows and rows[0][0] <= oldest:
            _, gone = rows.popleft()
            self.sum -= gone
            self.squares -= gone * gone
        while falling and falling[0][0] <= oldest:
            falling.popleft()
        rows.append((at, cents))
        self.sum += cents
        self.squares += cents * cents
        while falling and falling[-1][1] <= cents:
            falling.pop()
        falling.append((at, cents))

    def std(self) -> float:
        """Sample standard deviation, 0 below two rows."""
        n = len(self.rows)
        return 0.0 if n < 2 else sqrt((n * self.squares - self.sum * self.sum) / (n * (n - 1))) / 100


class Card:
    """One card's windows."""

    def __init__(self) -> None:
        self.windows = {name: Window(length_ms) for name, length_ms in WINDOWS_MS.items()}

    def features(self, at: int, amount: float) -> dict[str, float]:
        """The 15 features as of this payment, which they include."""
        features: dict[str, float] = {}
        cents = round(amount * 100)
        for name, window in self.windows.items():
            window.add(at, cents)
            n = len(window.rows)
            features[f"recent_count_{name}"] = n
            features[f"recent_sum_{name}"] = window.sum / 100
            features[f"recent_mean_{name}"] = window.sum / n / 100
            features[f"recent_max_{name}"] = window.falling[0][1] / 100
        return features | {f"std_{name}": window.std() for name, window in self.windows.items()}


def model() -> Pipeline:
    """The same model as ours."""
    return StandardScaler() | LogisticRegression()


def parse(value: bytes) -> tuple[str, dict[str, Any]]:
    """A message as (card, payment)."""
    payment = orjson.loads(value)
    return payment["card"], payment


def featurise(card: Card | None, payment: dict[str, Any]) -> tuple[Card, tuple[dict[str, Any], dict[str, float]]]:
    """The state of one card goes on by one payment."""
    card = card or Card()
    return card, (payment, card.features(payment["at"], payment["amount"]))


def predict_and_learn(learner: Pipeline, payment: dict[str, Any], features: dict[str, float]) -> dict[str, Any]:
    """The prediction, then the label."""
    score = learner.predict_proba_one(features).get(True, 0.0)
    if payment["fraud"] is not None:
        learner.learn_one(features, payment["fraud"])
    return {"event_id": payment["id"], "key": payment["card"], "time": payment["at"], "score": score}


class Learner(StatefulBatchLogic[Any, Any, Any]):
    """The one model of all cards. Bytewax hands the rows on card by card, so each batch is put in log order again."""

    def __init__(self, learner: Pipeline) -> None:
        self.learner = learner

    def on_batch(self, values: list[tuple[dict[str, Any], dict[str, float]]]) -> tuple[list[dict[str, Any]], bool]:
        values.sort(key=lambda row: row[0]["id"])
        return [predict_and_learn(self.learner, *row) for row in values], self.RETAIN

    def snapshot(self) -> Pipeline:
        return copy.deepcopy(self.learner)


def record(prediction: dict[str, Any]) -> Any:
    """A prediction as a Kafka message."""
    return KafkaSinkMessage(key=prediction["key"].encode(), value=orjson.dumps(prediction))


def warmed(values: Iterable[bytes]) -> tuple[dict[str, Card], Pipeline]:
    """The state behind these messages, without Bytewax: what a flow that has been running for long holds."""
    cards: dict[str, Card] = {}
    learner = model()
    gc.disable()  # which takes as long as the rest, with that many windows
    for value in values:
        name, payment = parse(value)
        cards[name], (_, features) = featurise(cards.get(name), payment)
        if payment["fraud"] is not None:
            learner.learn_one(features, payment["fraud"])  # predicting changes nothing
    gc.enable()
    return cards, learner


def dataflow(brokers: str, source: str, target: str, start: int, cards: dict[str, Card], learner: Pipeline) -> Dataflow:
    """The flow: read, per card, through the one model, write; from offset ``start`` to the end of the topic."""
    flow = Dataflow("handwritten")
    kafka_source = KafkaSource([brokers], [source], tail=False, starting_offset=start)
    payments = op.map("parse", op.input("read", flow, kafka_source), lambda message: parse(message.value))  # type: ignore[union-attr, arg-type]
    featured = op.stateful_map(
        "features", payments, lambda card, payment: featurise(card or cards.get(payment["card"]), payment)
    )
    rows = op.map("to_the_model", featured, lambda item: ("model", item[1]))
    predictions = op.stateful_batch("model", rows, lambda state: Learner(state or learner))
    records = op.map("record", predictions, lambda item: record(item[1]))
    op.output("write", records, KafkaSink([brokers], target))
    return flow


def flow() -> Dataflow:
    """For Bytewax's runner; the first ``WARM`` records of the topic are gone through before it starts, when told to."""
    from benchmarks import harness, kafka

    brokers, source, warm = os.environ["BROKERS"], os.environ["SOURCE"], int(os.environ.get("WARM", "0"))
    topics = kafka.Topics(brokers)
    state = warmed(topics.values(source, warm))
    harness.await_word()
    return dataflow(brokers, source, os.environ["TARGET"], warm, *state)
