"""The end-to-end work: card payments as JSON, 15 windowed features, a scaler and a logistic regression.

``flow`` learns from a label in the payment itself, right after its prediction; ``later`` from labels that come ten
minutes (event time) later on a topic of their own; ``explained`` is ``flow`` with its features in the record,
``unlabelled`` has neither labels nor model, ``bagged`` an ensemble that goes through River, which takes most of its
time. Topic, name and codec (payments and predictions as JSON, one a message, or
as Arrow IPC messages of many) come from the environment: each run has its own. The longest window is such that it is
full soon: after 108,000 payments, with 11 a card.
"""

from __future__ import annotations

import os
from typing import Any

from river.ensemble import BaggingClassifier
from river.linear_model import LogisticRegression
from river.preprocessing import StandardScaler

from thalweg import FeatureSet, Label, Stream, agg, col, pipeline

NAME = os.environ.get("PAYMENTS_NAME", "payments_bench")
TOPIC = os.environ.get("PAYMENTS_TOPIC", "payments")
TOLD_TOPIC = f"{TOPIC}.outcomes"
CODEC: Any = os.environ.get("PAYMENTS_CODEC", "json")
WINDOWS = ("10m", "1h", "3h")


class Payment(Stream):
    "Card payments, keyed by card."

    topic, key, time, codec = TOPIC, "card", col.at, CODEC
    key_check = "reject" if CODEC == "json" else "ignore"  # a message of many cards has no key
    schema = {"id": "str", "card": "str", "at": "timestamp[ms, UTC]", "amount": "f64", "fraud": "bool?"}


class Fraud(Label):
    "Whether it was fraud: a field of the payment, told right after its prediction and not waited for."

    of, on = Payment, "id"
    where = ~col.fraud.is_null()
    value, horizon = col.fraud, "1m"


class FraudLater(Label):
    "The same, ten minutes later and on a topic of its own."

    of, on, topic = Payment, "id", TOLD_TOPIC
    schema = {"id": "str", "known_at": "timestamp[ms, UTC]", "fraud": "bool"}
    value, available, horizon = col.fraud, col.known_at, "30m"


class Habits(FeatureSet, source=Payment):
    "What the card has been doing, the payment itself included."

    _card = agg.by("card")
    recent = _card.grid(["count", "sum", "mean", "max"], col.amount, WINDOWS)
    std_10m = _card.std(col.amount, "10m").fill(0.0)
    std_1h = _card.std(col.amount, "1h").fill(0.0)
    std_3h = _card.std(col.amount, "3h").fill(0.0)


MODELS = {"logistic": StandardScaler() | LogisticRegression()}
flow = pipeline(Habits, name=NAME, label=Fraud, models=MODELS, codec=CODEC)
later = pipeline(Habits, name=NAME, label=FraudLater, models=MODELS)
unlabelled = pipeline(Habits, name=NAME)
BAGGED = StandardScaler() | BaggingClassifier(LogisticRegression(), n_models=3, seed=7)
bagged = pipeline(Habits, name=NAME, label=Fraud, models={"bagging": BAGGED})
explained = pipeline(Habits, name=NAME, label=Fraud, models=MODELS, vector=True)
