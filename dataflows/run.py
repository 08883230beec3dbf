"""``thalweg run``: a pipeline live on Kafka, as the settings say, with a record of the run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from thalweg.connectors.kafka_read import Start
from thalweg.connectors.merged import Merged
from thalweg.dataflows.console import Progress
from thalweg.dataflows.live import Counts, run_live
from thalweg.dataflows.pipeline import Pipeline
from thalweg.dataflows.runs import Seen, recording
from thalweg.dataflows.serve import LiveChain, job_of
from thalweg.dataflows.settings import Settings
from thalweg.engine.records import Left


class _RecordedChain(LiveChain):
    """A chain that remembers what it saw."""

    def __init__(self, pipeline: Pipeline, seen: Seen) -> None:
        super().__init__(pipeline)
        self._seen = seen

    def push(self, raws: Merged) -> Left:
        self._seen.add(raws.parts)
        return super().push(raws)


def run(
    pipeline: Pipeline,
    settings: Settings,
    *,
    start: Start = "earliest",
    until_end: bool = False,
    report: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Runs until the end (``until_end``) or a signal; state lives in ``<state>/<pipeline>``.

    Returns:
        rows read by topic, rows written by kind, counters over all shards, metrics by shard and model, data as in
        a run record, and whether it was stopped.

    Raises:
        ThalwegError: as :func:`run_live` and :meth:`Settings.client`.
    """
    client = settings.client()
    chains: dict[int, _RecordedChain] = {}
    seen, stop = Seen(), threading.Event()

    def make_chain(shard: int) -> _RecordedChain:
        chains[shard] = _RecordedChain(pipeline, seen)
        return chains[shard]

    def progress(counts: Counts) -> None:
        report("rows read", counts.read.total(), 0)

    job = job_of(
        pipeline,
        start=start,
        until_end=until_end,
        batch_rows=settings.run.batch_rows,
        epoch_s=settings.run.epoch_seconds,
    )
    folder = Path(settings.run.state)
    with recording(folder, "run", pipeline, settings) as record:
        try:
            counts = run_live(job, make_chain, client, folder / pipeline.name, stop=stop, progress=progress)
        finally:
            record.data, record.counters, record.metrics = seen.data(), _counters(chains), _metrics(chains)
        record.result = {"read": dict(counts.read), "written": dict(counts.written), "stopped": stop.is_set()}
    return {**record.result, "counters": record.counters, "metrics": record.metrics, "data": record.data}


def _counters(chains: dict[int, _RecordedChain]) -> dict[str, int]:
    total: dict[str, int] = {}
    for chain in chains.values():
        for name, count in chain.counters().items():
            total[name] = total.get(name, 0) + count
    return total


def _metrics(chains: dict[int, _RecordedChain]) -> dict[str, Any]:
    panels = {shard: chain.shard.panel for shard, chain in sorted(chains.items())}
    return {
        f"shard {shard}": {summary["model"]: summary for summary in panel.summaries()}
        for shard, panel in panels.items()
    }
