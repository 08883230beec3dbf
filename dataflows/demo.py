"""``thalweg demo``: a year of flights through Kafka, predicted live, then recomputed and compared."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from thalweg.connectors.broker import EmbeddedBroker
from thalweg.connectors.kafka_config import Cluster
from thalweg.connectors.kafka_sink import Writer
from thalweg.connectors.merged import Merged
from thalweg.dataflows.flights import flow, producer
from thalweg.dataflows.live import run_live
from thalweg.dataflows.serve import LiveChain, job_of
from thalweg.dataflows.verify import archive_topics, served, verify_archive
from thalweg.engine.errors import ThalwegError
from thalweg.engine.kernels.warm import warm
from thalweg.engine.learning.columns import metrics_of
from thalweg.engine.records import Left

PARTITIONS = 2
BASELINES = ("prior", "majority", "no change")
PACED_SECONDS = 15.0

Report = Callable[[str, int, int], None]  # stage, done, total


class DemoError(ThalwegError):
    """The demo cannot run on this broker."""


def demo(
    days: int = 31,
    seed: int = 7,
    brokers: str | None = None,
    *,
    paced: bool = False,
    report: Report = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Runs the flights pipeline on a broker and returns what happened.

    Args:
        days: how many days of 2013, from the first of January.
        seed: of the disorder, repeats and faults that the producer plants.
        brokers: ``host:port``; None starts the embedded broker for the time of the demo.
        paced: spread the run over some fifteen seconds, for people who watch.
        report: told about progress: (stage, done, total).

    Returns:
        Counts, metrics, and how many predictions of the backfill differ from the live ones (none should).
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thalweg-demo-")))
        warm(lambda done, total: report("compile", done, total))
        if brokers is None:
            brokers = stack.enter_context(EmbeddedBroker()).bootstrap
        settings = {"bootstrap.servers": brokers}
        planted = _produce(days, seed, settings, report)
        chain, seconds = _run(settings, folder / "state", planted, PACED_SECONDS if paced else 0.0, report)
        report("archive", 0, 1)
        files = archive_topics(flow, settings, folder)
        report("archive", 1, 1)
        parity = verify_archive(flow, settings, files, lambda done, total: report("verify", done, total))
        result = _summary(chain, planted, seconds)
        result |= {"parity_compared": parity.compared, "parity_mismatches": parity.faults}
        return result | {"months": _months(settings, files)}


def _produce(days: int, seed: int, settings: Mapping[str, str], report: Report) -> dict[str, int]:
    """Writes the flights in the order in which things became known, stamped with that time."""
    records = producer.records(days, seed)
    topics = {producer.EVENTS: PARTITIONS, producer.LANDINGS: PARTITIONS}
    cluster = Cluster(settings)
    there = sorted(topics.keys() & cluster.topics().keys())
    if there:
        raise DemoError(
            f"the broker has a topic {there[0]!r}: the demo was run on it before, or it is yours; delete the topics "
            f"{', '.join(topics)} and {flow.name}.*, or leave --brokers out"
        )
    cluster.create_topics(topics)
    writer = Writer(settings)
    for done, record in enumerate(records):
        writer.send(
            record.topic, crc32(record.key) % PARTITIONS, record.key, record.value, None, record.timestamp_us // 1000
        )
        if done % 2000 == 0:
            report("produce", done, len(records))
    writer.flush()
    report("produce", len(records), len(records))
    return {**records.summary, "messages": len(records)}


class _Paced(LiveChain):
    """A chain that takes its time, so that a run can be watched."""

    def __init__(self, messages: int, seconds: float) -> None:
        super().__init__(flow)
        self._seconds_per_message = seconds / messages

    def push(self, raws: Merged) -> Left:
        until = time.monotonic() + self._seconds_per_message * len(raws)
        left = super().push(raws)
        time.sleep(max(0.0, until - time.monotonic()))
        return left


def _run(
    settings: Mapping[str, str], state: Path, planted: Mapping[str, int], seconds: float, report: Report
) -> tuple[LiveChain, float]:
    """Runs the pipeline to the end of the topics; returns its chain and how long it took."""
    messages = planted["messages"]
    chains: list[LiveChain] = []

    def make_chain(_: int) -> LiveChain:
        chains.append(_Paced(messages, seconds) if seconds else LiveChain(flow))
        return chains[-1]

    job = job_of(flow, until_end=True, batch_rows=max(256, messages // 200) if seconds else 4096)
    started, stop = time.monotonic(), threading.Event()
    run_live(
        job,
        make_chain,
        settings,
        state,
        stop=stop,
        progress=lambda counts: report("predict", counts.read.total(), messages),
    )
    if stop.is_set():  # by Ctrl-C, which a live run takes as the wish to end well
        raise KeyboardInterrupt
    return chains[0], time.monotonic() - started


def _summary(chain: LiveChain, planted: Mapping[str, int], seconds: float) -> dict[str, Any]:
    counters = chain.shard.counters()
    panel = chain.shard.panel
    metrics = {summary["model"]: summary["cumulative"] for summary in panel.summaries()}
    losses = [metrics[name]["log_loss"] for name in BASELINES if metrics[name]["log_loss"] is not None]
    return {
        "events": counters["read"],
        "predictions": counters["scored"],
        **{name: counters[name] for name in ("folded", "duplicate", "late", "quarantined", "rejected")},
        "labels_joined": counters["predictions_joined"],
        "labels_timed_out": counters["predictions_timed_out"],
        "labels_pending": counters["predictions_pending"],
        "roc_auc": metrics["windows"]["roc_auc"],
        "static_roc_auc": metrics["own columns"]["roc_auc"],
        "log_loss": metrics["windows"]["log_loss"],
        "static_log_loss": metrics["own columns"]["log_loss"],
        "baseline_log_loss": min(losses, default=None),
        "alarms": counters["alarms"],
        "seconds": round(seconds, 3),
        "events_per_second": round(counters["read"] / seconds),
        "planted": dict(planted),
    }


def _months(settings: Mapping[str, str], files: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Month by month, how well the served scores rank, with windows and with the row's own columns only."""
    import pyarrow.parquet as pq

    told = pq.read_table(files[producer.LANDINGS], columns=["flight_id", "arr_delay"]).drop_null()
    late = dict(zip(told.column(0).to_pylist(), np.asarray(told.column(1)) > 15, strict=True))
    months: dict[str, list[tuple[bool, float | None, float | None]]] = {}
    for record in served(flow, settings):
        if record["event_id"] in late:
            month = record["event_id"][:7]  # of the local day on which the flight was scheduled
            scores = record["score"], record["others"]["own columns"]
            months.setdefault(month, []).append((late[record["event_id"]], *scores))
    return [_month(month, *np.array(rows, dtype=np.float64).T) for month, rows in sorted(months.items())]


def _month(month: str, labels: Any, windows: Any, own: Any) -> dict[str, Any]:
    """Labels and both models' scores, float64[n] each (a score that was not given is NaN)."""
    both = [metrics_of("binary", labels, scores)["roc_auc"] for scores in (windows, own)]
    return {"month": month, "labels": len(labels), "roc_auc": both[0], "static_roc_auc": both[1]}


def told(days: int, result: Mapping[str, Any]) -> str:
    """What happened, for a person to read.

    >>> print(told(2, EXAMPLE).splitlines()[0])
    2 days of flights out of New York, from 2013-01-01, through Kafka in 1.2 seconds
    """
    r = result
    turned_away = r["late"] + r["quarantined"] + r["rejected"]
    differ = r["parity_mismatches"]
    same = "all the same, bit for bit" if differ == 0 else f"{differ:,} DIFFER"
    lines = [
        f"{days} days of flights out of New York, from 2013-01-01, through Kafka in {r['seconds']:.1f} seconds",
        "",
        f"  {r['events']:>9,} events: {r['predictions']:,} asked for a prediction, {r['folded']:,} moved state only,",
        f"            {r['duplicate']:,} repeats were dropped, {turned_away:,} went to the dead-letter topic",
        f"            ({r['late']} late, {r['quarantined']} from the future, {r['rejected']} malformed)",
        f"  {r['labels_joined']:>9,} flights landed and taught the models; {r['labels_timed_out']:,} never told",
        f"            (cancelled, diverted), {r['labels_pending']:,} were still waited for",
        f"  {r['alarms']:>9,} alarms: the error of the model that serves had shifted",
        f"  {r['parity_compared']:>9,} predictions were recomputed from an archive: {same}",
        "",
        "Will it land more than 15 minutes late?       ROC AUC   log loss",
        _model("with what has happened by now (windows)", r["roc_auc"], r["log_loss"]),
        _model("the same model on the row's own columns", r["static_roc_auc"], r["static_log_loss"]),
        _model("the best baseline", None, r["baseline_log_loss"]),
    ]
    if len(r["months"]) > 1:
        lines += ["", "  month      landings   ROC AUC with windows   own columns     gain"]
    for month in r["months"] if len(r["months"]) > 1 else []:
        windows, own = month["roc_auc"], month["static_roc_auc"]
        gain = "" if windows is None or own is None else f"{windows - own:+.3f}"
        lines.append(
            f"  {month['month']}  {month['labels']:>9,}   {_figure(windows):>20}   {_figure(own):>11}   {gain:>6}"
        )
    lines += [
        "",
        "Next: thalweg explain thalweg.dataflows.flights   what is computed, and the state it keeps",
        "      thalweg init fraud                          a pipeline of your own to start from",
    ]
    return "\n".join(lines)


def _model(what: str, roc_auc: float | None, log_loss: float | None) -> str:
    return f"  {what:<43} {_figure(roc_auc):>7}   {_figure(log_loss):>8}"


def _figure(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"


EXAMPLE: dict[str, Any] = {
    **dict.fromkeys(("events", "predictions", "folded", "duplicate", "late", "quarantined", "rejected"), 1),
    **dict.fromkeys(("labels_joined", "labels_timed_out", "labels_pending", "alarms", "parity_compared"), 1),
    **dict.fromkeys(("roc_auc", "static_roc_auc", "log_loss", "static_log_loss", "baseline_log_loss"), 0.5),
    "seconds": 1.2,
    "parity_mismatches": 0,
    "months": [],
}
