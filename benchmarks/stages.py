"""Where does a message's time go in the chain? Decoding, features, models and measuring, on real flights.

Microseconds per message, the median of several runs after a warm-up; the same messages in each run. Nothing here
touches Kafka.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from itertools import pairwise
from typing import Any

import numpy as np

from thalweg.connectors.codecs import Form, reading_of
from thalweg.dataflows.flights import flow, producer
from thalweg.engine.batch import Log, Raw
from thalweg.engine.reading import Reading
from thalweg.engine.shard import Shard

SEED = 7


def run(quick: bool) -> dict[str, Any]:
    """The medians, their spread, how many messages were timed, and on what."""
    raws = _raws(2 if quick else 10)
    messages = sum(map(len, raws))
    forms = {topic: Form.of(flow.definition, topic) for topic in flow.definition.topics}
    reading = reading_of(raws, forms)
    features_only = replace(flow.definition, models=(), drift=(), cost=None, vector=False)
    stages: dict[str, Callable[[], object]] = {
        "decode": lambda: reading_of(raws, forms),
        "features_and_join": lambda: _push(Shard(features_only), reading),
        "whole_chain": lambda: _push(Shard(flow.definition), reading),
    }
    result: dict[str, Any] = {"messages_timed": messages, "python": platform.python_version()}
    result |= {name: metadata.version(name) for name in ("numpy", "numba", "river")}
    for name, stage in stages.items():
        times = [_seconds(stage) for _ in range(3 if quick else 7)][1:]
        result[f"{name}_us"] = round(1e6 * statistics.median(times) / messages, 2)
        result[f"{name}_spread"] = round((max(times) - min(times)) / statistics.median(times), 2)
    return result


def _raws(days: int) -> list[Raw]:
    """The messages of the demo's producer as runs of one log."""
    records = list(producer.records(days, SEED))
    topics = np.array([record.topic for record in records])
    bounds = [0, *(np.flatnonzero(topics[1:] != topics[:-1]) + 1).tolist(), len(records)]
    offsets = dict.fromkeys(set(topics.tolist()), 0)
    raws = []
    for start, stop in pairwise(bounds):
        run_, topic = records[start:stop], str(topics[start])
        at = np.arange(offsets[topic], offsets[topic] + len(run_))
        offsets[topic] += len(run_)
        times = np.array([record.timestamp_us for record in run_], dtype=np.int64)
        raws.append(Raw(Log(topic, 0), at, times, times, [r.key for r in run_], [r.value for r in run_]))
    return raws


def _push(shard: Shard, reading: Reading) -> None:
    for piece in reading.pieces(4096):
        shard.push(piece)


def _seconds(stage: Callable[[], object]) -> float:
    start = time.perf_counter()
    stage()
    return time.perf_counter() - start
