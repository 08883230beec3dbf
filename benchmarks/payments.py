"""The end-to-end work: card payments as JSON, 15 windowed features, a scaler and a logistic regression.

``flow`` learns from a label in the payment itself, right after its prediction; ``later`` from labels that come ten
minutes (event time) later on a topic of their own; ``explained`` is ``flow`` with its features in the record,
``unlabelled`` has neither labels nor model. Topic and name come from the environment: each run has its own.
"""

from __future__ import annotations

import os

from river.linear_model import LogisticRegression
from river.preprocessing import StandardScaler

from thalweg import FeatureSet, Label, Stream, agg, col, pipeline

NAME = os.environ.get("PAYMENTS_NAME", "payments_bench")
TOPIC = os.environ.get("PAYMENTS_TOPIC", "payments")
TOLD_TOPIC = f"{TOPIC}.outcomes"
WINDOWS = ("1h", "6h", "1d")


class Payment(Stream):
    "Card payments, keyed by card."

    topic, key, time = TOPIC, "card", col.at
    schema = {"id": "str", "card": "str", "at": "timestamp[ms, UTC]", "amount": "f64", "fraud": "bool?"}


class Fraud(Label):
    "Whether it was fraud: a field of the payment, told right after its prediction."

    of, on = Payment, "id"
    where = ~col.fraud.is_null()
    value, horizon = col.fraud, "30m"


class FraudLater(Label):
    "The same, ten minutes later and on a topic of its own."

    of, on, topic = Payment, "id", TOLD_TOPIC
    schema = {"id": "str", "known_at": "timestamp[ms, UTC]", "fraud": "bool"}
    value, available, horizon = col.fraud, col.known_at, "30m"


class Habits(FeatureSet, source=Payment):
    "What the card has been doing, the payment itself included."

    _card = agg.by("card")
    recent = _card.grid(["count", "sum", "mean", "max"], col.amount, WINDOWS)
    std_1h = _card.std(col.amount, "1h").fill(0.0)
    std_6h = _card.std(col.amount, "6h").fill(0.0)
    std_1d = _card.std(col.amount, "1d").fill(0.0)


flow = pipeline(Habits, name=NAME, label=Fraud, models={"logistic": StandardScaler() | LogisticRegression()})
later = pipeline(Habits, name=NAME, label=FraudLater, models={"logistic": StandardScaler() | LogisticRegression()})
unlabelled = pipeline(Habits, name=NAME)
explained = pipeline(
    Habits, name=NAME, label=Fraud, models={"logistic": StandardScaler() | LogisticRegression()}, vector=True
)
