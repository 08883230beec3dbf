"""A pipeline live: the chain behind the wiring of :mod:`thalweg.dataflows.live`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bytewax.dataflow import Dataflow

from thalweg.connectors.codecs import Form, reading_of
from thalweg.connectors.merged import Merged
from thalweg.dataflows.live import Job
from thalweg.dataflows.live import dataflow as wired
from thalweg.dataflows.load import load
from thalweg.dataflows.pipeline import Pipeline
from thalweg.engine.records import Left


class LiveChain:
    """One shard that takes undecoded messages."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.shard = pipeline.open()
        self._forms = {topic: Form.of(pipeline.definition, topic) for topic in pipeline.definition.topics}

    def push(self, raws: Merged) -> Left:
        """What these messages, in this order, make leave."""
        return self.shard.push(reading_of(raws, self._forms))

    def counters(self) -> Mapping[str, int]:
        """Counts since the first row, for the journal."""
        return self.shard.counters()

    def snapshot(self) -> bytes:
        """All state."""
        return self.shard.snapshot()

    def restore(self, data: bytes) -> None:
        """Continues from :meth:`snapshot`."""
        self.shard.restore(data)


def job_of(pipeline: Pipeline, **options: Any) -> Job:
    """The job that runs ``pipeline``; ``options`` are those of :class:`Job` (start, until_end, batch_rows, ...)."""
    definition = pipeline.definition
    return Job(
        name=pipeline.name,
        stream=definition.stream.topic,
        labels=tuple(definition.topics[1:]),
        topics=pipeline.topics,
        shards="one" if definition.shards == "one" else "each",
        codec=definition.codec,
        **options,
    )


def dataflow(module: str, brokers: str) -> Dataflow:
    """For Bytewax's own runner.

    ``python -m bytewax.run "thalweg.dataflows.serve:dataflow('my.module', 'host:9092')"``
    """
    pipeline = load(module)
    return wired(job_of(pipeline), lambda _: LiveChain(pipeline), {"bootstrap.servers": brokers})
