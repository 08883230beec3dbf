"""What does an event cost as things grow? History, keys, features, rows in a window, and labels waited for.

Microseconds of CPU time per event through decoding and chain (with the model of the end-to-end work), the median over
batches of 1,024 behind a warm-up; each curve changes one thing. A full run also draws them: ``results/growth.svg``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from river.linear_model import LogisticRegression
from river.preprocessing import StandardScaler

from benchmarks import events, harness, payments
from benchmarks.chain import Chain, cut, raw_of
from benchmarks.events import Payments
from benchmarks.harness import digits, say
from thalweg import FeatureSet, Label, agg, col, pipeline
from thalweg.dataflows.pipeline import Pipeline
from thalweg.engine.batch import Raw

BATCH = 1024
TIMED, TIMED_FULL = 8 * BATCH, 64 * BATCH
OPS = ["count", "sum", "mean", "std", "max"]
DAY_US = 86_400_000_000

HISTORY, HISTORY_FULL = 40 * BATCH, 1000 * BATCH
KEYS, KEYS_FULL = (100, 1_000, 10_000), (100, 1_000, 10_000, 100_000, 1_000_000)
FEATURES, FEATURES_FULL = (1, 3, 6), (1, 3, 6, 12)  # windows of five features each
ROWS, ROWS_FULL = (10, 100, 1_000), (10, 100, 1_000, 10_000)
PENDING, PENDING_FULL = (1_000, 10_000), (1_000, 10_000, 100_000)


def run(quick: bool) -> dict[str, Any]:
    """Per curve a list of [how much, microseconds per event]."""
    timed = TIMED if quick else TIMED_FULL
    curves = {
        "events": history(HISTORY if quick else HISTORY_FULL),
        "keys": [(n, keys(n, timed)) for n in (KEYS if quick else KEYS_FULL)],
        "features": [(5 * n, features(n, timed)) for n in (FEATURES if quick else FEATURES_FULL)],
        "window_rows": [(n, window_rows(n, timed)) for n in (ROWS if quick else ROWS_FULL)],
        "pending_labels": [(n, pending(n, timed)) for n in (PENDING if quick else PENDING_FULL)],
    }
    result: dict[str, Any] = {"events_timed": timed, "unit": "microseconds per event"}
    result |= {name: [[x, digits(us)] for x, us in points] for name, points in curves.items()}
    result["growth"] = {name: digits(points[-1][1] / points[0][1]) for name, points in curves.items()}
    if not quick:
        plot(result, harness.RESULTS / "growth.svg")
    return result


def history(count: int) -> list[tuple[int, float]]:
    """The cost along one run: medians of its eighths."""
    costs = _costs(payments.flow, _payments(count))
    eighths = np.array_split(np.array(costs), 8)
    say("growth: events")
    return [(BATCH * len(costs) * (i + 1) // 8, float(np.median(eighth))) for i, eighth in enumerate(eighths)]


def keys(count: int, timed: int) -> float:
    """With so many cards, each of which has been seen once before the clock starts."""
    say(f"growth: {count:,} keys")
    warm = -(-count // BATCH) * BATCH
    rows = _payments(warm + timed, cards=count)
    rows.cards[:count] = np.arange(count)
    return float(np.median(_costs(payments.flow, rows)[warm // BATCH :]))


def features(windows: int, timed: int) -> float:
    """With so many windows of five features each, from 1 to ``windows`` hours."""
    say(f"growth: {5 * windows} features")
    rows = _payments(2 * timed, cards=100)
    return float(np.median(_costs(_flow([f"{hours}h" for hours in range(1, windows + 1)]), rows)[timed // BATCH :]))


def window_rows(count: int, timed: int) -> float:
    """With so many rows of a card in its one window, ten cards."""
    say(f"growth: {count:,} rows in a window")
    warm = -(-10 * count // BATCH) * BATCH
    rows = _payments(warm + timed, cards=10, spacing_us=max(DAY_US // (10 * count), 1000))
    return float(np.median(_costs(_flow(["1d"]), rows)[warm // BATCH :]))


def pending(count: int, timed: int) -> float:
    """With so many predictions that wait: the label of a payment is read that many payments later."""
    say(f"growth: {count:,} labels waited for")
    waiting = -(-count // BATCH) * BATCH
    rows = _payments(waiting + timed)
    asked = raw_of(payments.TOPIC, rows.keys(), list(rows.values(told=False)), rows.times_us)
    known = rows.times_us + waiting * events.SPACING_US
    answers = raw_of(payments.TOLD_TOPIC, rows.keys(), list(_outcomes(rows, known)), known)
    chain = Chain(_waiting(waiting * events.SPACING_US))
    _push(chain, asked, waiting)
    costs = []
    for at in range(0, timed, BATCH):
        start = time.process_time()
        chain.push(cut(answers, at, at + BATCH), cut(asked, waiting + at, waiting + at + BATCH))
        costs.append(1e6 * (time.process_time() - start) / BATCH)
    return float(np.median(costs))


def plot(result: dict[str, Any], path: Path) -> Path:
    """Draws the curves as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "thalweg"
    from matplotlib import pyplot

    names = [name for name, points in result.items() if isinstance(points, list)]
    figure, axes = pyplot.subplots(1, len(names), figsize=(3 * len(names), 3), sharey=True, layout="constrained")
    for axis, name in zip(axes, names, strict=True):
        axis.plot(*zip(*result[name], strict=True), marker="o")
        axis.set(xscale="log", xlabel=name.replace("_", " "), ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("µs per event")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


def _payments(count: int, **options: Any) -> Payments:
    return events.payments(count, end_us=time.time_ns() // 1000, **options)


def _costs(flow: Pipeline, rows: Payments) -> list[float]:
    """Microseconds per event of each batch."""
    raw = raw_of(payments.TOPIC, rows.keys(), list(rows.values()), rows.times_us)
    return _push(Chain(flow), raw, len(raw))


def _push(chain: Chain, raw: Raw, count: int) -> list[float]:
    costs = []
    for at in range(0, count, BATCH):
        start = time.process_time()
        chain.push(cut(raw, at, at + BATCH))
        costs.append(1e6 * (time.process_time() - start) / BATCH)
    return costs


def _outcomes(rows: Payments, known_us: Any) -> list[bytes]:
    """Labels that become known at these times."""
    told = zip((known_us // 1000).tolist(), rows.frauds.tolist(), strict=True)
    return [
        f'{{"id":"p{i:011d}","known_at":{at},"fraud":{"true" if fraud else "false"}}}'.encode()
        for i, (at, fraud) in enumerate(told)
    ]


def _flow(windows: Sequence[str]) -> Pipeline:
    """Five features a window."""

    class Grown(FeatureSet, source=payments.Payment):
        "As many windows as asked for."

        of = agg.by("card").grid(OPS, col.amount, windows)

    return pipeline(Grown, label=payments.Fraud, models=[StandardScaler() | LogisticRegression()])


def _waiting(horizon_us: int) -> Pipeline:
    """Labels on a topic of their own, waited for twice as long as they take."""

    class Waiting(Label):
        "Told much later."

        of, on, topic = payments.Payment, "id", payments.TOLD_TOPIC
        schema = {"id": "str", "known_at": "timestamp[ms, UTC]", "fraud": "bool"}
        value, available, horizon = col.fraud, col.known_at, f"{2 * horizon_us // 1_000_000}s"

    return pipeline(payments.Habits, label=Waiting, models=[StandardScaler() | LogisticRegression()])
