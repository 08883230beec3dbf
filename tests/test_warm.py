"""What is warmed is all that a start needs: nothing is compiled behind it."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
from datetime import timedelta
from river import linear_model, preprocessing, tree
from thalweg import FeatureSet, Label, Stream, agg, baseline, col, cyc, enc, lifetime, pipeline, rows
from thalweg.engine.kernels.jit import kernels
from thalweg.engine.kernels.warm import warm

class Payment(Stream):
    "Card payments."
    topic, key, time = "payments", "card", col.at
    schema = dict(id="str", card="str", at="timestamp[s, UTC]", amount="f64?", fraud="bool?", cents="f64")
    dedupe = ("id", "1h")

class Fraud(Label):
    of, on, where = Payment, "id", ~col.fraud.is_null()
    value, horizon, timeout = col.fraud, "10m", False

class Cents(Label):
    of, on, topic = Payment, "id", "cents"
    schema = dict(id="str", at="timestamp[s, UTC]", cents="f64")
    value, available, horizon = col.cents, col.at, "10m"

class Habits(FeatureSet, source=Payment):
    "Everything there is."
    _card = agg.by("card")
    grid = _card.grid("count sum mean var std min max first last".split(), col.amount, ["1h", rows(3)])
    ever = _card.mean(col.amount, lifetime(ttl="1d"))
    decayed = _card.decayed_sum(col.amount, "1h")
    since = _card.since_last("1h")
    hour = cyc.hour(col.at, tz="UTC")
    logged = col.amount.log()
    rate = enc.target(col.card, Fraud, "1h", prior=1)

class Plain(FeatureSet, source=Payment):
    "Numbers."
    spent = agg.by("card").sum(col.amount, "1h")

scaler, models = preprocessing.StandardScaler, linear_model
flows = [
    pipeline(Habits, label=Fraud, metrics_every=5, cost=(1, 4), models=[scaler() | models.LogisticRegression(),
        models.PAClassifier(), baseline.Prior(), tree.HoeffdingTreeClassifier()]),
    pipeline(Plain, label=Cents, metrics_every=5, models=[scaler() | models.LinearRegression(), baseline.NoChange()]),
]
data = [dict(id=str(i), card="ab"[i % 2], at=60 * (i - 3 * (i % 7 == 6)), amount=None if i % 5 == 0 else i / 4,
             fraud=[None, True, False][i % 3], cents=float(i)) for i in range(60)]
told = [dict(id=row["id"], at=row["at"] + 120, cents=row["cents"]) for row in data]

warm()
before = {kernel: len(kernel.signatures) for kernel in kernels()}
flows[0].replay(data)
flows[0].replay(data, batch_rows=7)
results = flows[1].replay(data, told)
assert results.metrics and results.counters["predictions_joined"]
late = {kernel.__name__: kernel.signatures[before[kernel]:] for kernel in kernels()}
assert not any(late.values()), late
"""


def test_nothing_is_compiled_after_warming() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
