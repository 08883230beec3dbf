"""Whole pipelines on a real broker: two shards with labels of their own, stops and starts, and Bytewax's own runner."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.kafka_fixture import Kafka, bootstrap_fixture, kafka_fixture  # noqa: F401
from thalweg import FeatureSet, Label, Pipeline, Stream, agg, baseline, col, enc, on_error, pipeline, subscribe
from thalweg.connectors.kafka_sink import Writer
from thalweg.dataflows.backfill import backfill
from thalweg.dataflows.live import run_live
from thalweg.dataflows.serve import LiveChain, job_of
from thalweg.dataflows.verify import archive_topics, verify

pytestmark = pytest.mark.broker
SHARDS = 2


def payments_pipeline(kafka: Kafka, **options: Any) -> Pipeline:
    """A pipeline over topics of its own, a shard a partition."""

    class Payment(Stream):
        topic, key, time = kafka.topic(SHARDS), "card", col.at
        schema = {"id": "str", "card": "str", "at": "timestamp[us, UTC]", "amount": "f64?", "ask": "bool"}
        score = col.ask
        disorder, dedupe = "5s", ("id", "1h")

    class Fraud(Label):
        of, on, topic = Payment, "id", kafka.topic(SHARDS)
        schema = {"id": "str", "at": "timestamp[us, UTC]", "fraud": "bool"}
        value, available, horizon, timeout = col.fraud, col.at, "2m", False

    class Habits(FeatureSet, source=Payment):
        card = agg.by("card")
        spent = card.sum(col.amount, "1m").fill(0.0)
        often = card.count("10m")
        risky = enc.target(col.card, Fraud, "1h", prior=3)

    from river.drift import ADWIN
    from river.naive_bayes import GaussianNB

    models = {"nb": GaussianNB(), "prior": baseline.Prior()}
    name = f"live{Payment.topic}"
    options |= {"drift": [on_error(ADWIN())], "metrics_every": 50, "cost": (1, 3)}
    return pipeline(Habits, name=name, label=Fraud, models=models, **options)


def produce(kafka: Kafka, flow: Pipeline, first: int, count: int) -> int:
    """Payments and labels from number ``first`` on, as they became known; returns how many payments."""
    draw = np.random.default_rng(first)
    stream, label = flow.definition.stream.topic, flow.definition.topics[1]
    rows: list[tuple[int, str, str, dict[str, Any]]] = []
    for i in range(first, first + count):
        at, card = 1_500_000_000_000_000 + i * 500_000, f"c{i % 5}"
        delay = int(draw.integers(0, 4_000_000)) if draw.random() < 0.1 else 0
        amount = float(draw.gamma(2, 10)) if draw.random() < 0.95 else None
        row = {"id": f"p{i}", "card": card, "at": at, "amount": amount, "ask": bool(draw.random() < 0.8)}
        rows.append((at + delay, stream, card, row))
        if draw.random() < 0.9:
            told = at + int(draw.integers(5_000_000, 60_000_000))
            rows.append((told, label, card, {"id": f"p{i}", "at": told, "fraud": i % 5 == 0}))
    writer = Writer(kafka.settings)
    for known_at, topic, card, row in sorted(rows, key=lambda r: r[0]):
        writer.send(topic, int(card[1]) % SHARDS, card.encode(), json.dumps(row).encode(), None, known_at // 1000)
    writer.flush()
    return count


def run(kafka: Kafka, flow: Pipeline, state: Path, batch_rows: int) -> None:
    job = job_of(flow, until_end=True, batch_rows=batch_rows, epoch_s=0.5)
    run_live(job, lambda _: LiveChain(flow), kafka.settings, state)


def test_kafka_e2e_with_stops_equals_its_replay(kafka: Kafka, tmp_path: Path) -> None:
    """Law 4 on Kafka: two shards, labels on a topic of their own, a stop in between; verify finds every bit again."""
    flow = payments_pipeline(kafka)
    produced = produce(kafka, flow, 0, 300)
    run(kafka, flow, tmp_path, 64)
    half = kafka.values(flow.topics["predictions"])
    produced += produce(kafka, flow, 300, 300)
    run(kafka, flow, tmp_path, 200)
    records = kafka.values(flow.topics["predictions"])
    assert len({record["id"] for record in records}) == len(records) > len(half) > 0
    found = verify(flow, kafka.settings)
    assert (found["compared"], found["mismatches"]) == (len(records), 0), found
    assert (found["missing"], found["unexpected"]) == (0, 0), found
    files = archive_topics(flow, kafka.settings, tmp_path / "lake")
    paths = [[files[topic]] for topic in flow.definition.topics]
    backfill(flow, *paths, tmp_path / "out.parquet", journal=files["journal"], batch_rows=77)
    table = pq.read_table(tmp_path / "out.parquet", columns=["id", "score"]).to_pylist()
    assert {row["id"]: row["score"] for row in table} == {record["id"]: record["score"] for record in records}
    counters: dict[str, int] = {}
    for shard in range(SHARDS):
        raws = kafka.journal(job_of(flow), shard)
        assert raws[-1].counters is not None
        for name, value in raws[-1].counters.items():
            counters[name] = counters.get(name, 0) + value
    assert counters["read"] == produced and counters["scored"] == len(records)
    fates = [counters[f"predictions_{fate}"] for fate in ("joined", "timed_out", "evicted", "pending")]
    assert sum(fates) == counters["scored"] and counters["predictions_timed_out"] > 0
    assert {record["model"] for record in kafka.values(flow.topics["metrics"])} == {"nb", "prior"}


def test_verify_finds_a_record_that_was_tampered_with(kafka: Kafka, tmp_path: Path) -> None:
    flow = payments_pipeline(kafka)
    produce(kafka, flow, 0, 60)
    run(kafka, flow, tmp_path, 64)
    record = kafka.values(flow.topics["predictions"])[7]
    kafka.write(flow.topics["predictions"], [json.dumps(record | {"learned": record["learned"] + 1}).encode()])
    found = verify(flow, kafka.settings)
    assert found["mismatches"] == 1 and "learned" in found["examples"][0]


def test_predictions_as_arrow_are_verified_row_by_row(kafka: Kafka, tmp_path: Path) -> None:
    flow = payments_pipeline(kafka, codec="arrow", vector=True)
    produce(kafka, flow, 0, 200)
    run(kafka, flow, tmp_path, 64)
    topic = flow.topics["predictions"]
    records = list(subscribe(kafka.settings["bootstrap.servers"], topic, start="earliest", until_end=True))
    found = verify(flow, kafka.settings)
    assert (found["compared"], found["mismatches"], found["missing"]) == (len(records), 0, 0), found
    kafka.write(topic, [json.dumps(records[7] | {"learned": -1}).encode(), b"no record"])
    found = verify(flow, kafka.settings)
    assert (found["mismatches"], found["unexpected"]) == (1, 1), found


@pytest.mark.slow
def test_bytewax_run_drives_the_same_pipeline(kafka: Kafka, tmp_path: Path) -> None:
    """``python -m bytewax.run`` on a user's module."""
    stream = kafka.topic(1)
    (tmp_path / "mine.py").write_text(
        "from thalweg import FeatureSet, Stream, agg, col, pipeline\n\n\n"
        "class Clicks(Stream):\n"
        f'    topic, key, time = "{stream}", "user", col.at\n'
        '    schema = {"user": "str", "at": "timestamp[s, UTC]"}\n\n\n'
        "class Busy(FeatureSet, source=Clicks):\n"
        '    often = agg.by("user").count("1h")\n\n\n'
        f'flow = pipeline(Busy, name="{stream}clicks")\n'
    )
    kafka.write(stream, [json.dumps({"user": "k", "at": 1000 + i}).encode() for i in range(20)])
    brokers = kafka.settings["bootstrap.servers"]
    command = f"thalweg.dataflows.serve:dataflow('mine', '{brokers}')"
    process = subprocess.Popen(
        [sys.executable, "-m", "bytewax.run", command], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        expected = [float(i + 1) for i in range(20)]
        deadline = time.monotonic() + 60
        seen: list[float] = []
        while seen != expected and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.5)
            if f"{stream}clicks.predictions" in kafka.cluster.topics():
                records = subscribe(brokers, f"{stream}clicks.predictions", start="earliest", until_end=True)
                seen = [record["vector"]["often"] for record in records]
        assert seen == expected, process.poll()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
