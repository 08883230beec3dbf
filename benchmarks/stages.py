"""Where does a message's time go in the chain? Decoding, features, models and measuring, on real flights.

Microseconds of CPU time per message, the median of several runs after a warm-up; the same messages in each run, the
stages in turns. Nothing here touches Kafka.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.harness import digits, in_turns
from thalweg.connectors.codecs import Form, reading_of
from thalweg.dataflows.flights import flow, producer
from thalweg.engine.batch import Log, Raw
from thalweg.engine.reading import Reading
from thalweg.engine.shard import Shard

SEED = 7
DAYS, DAYS_FULL = 2, 10
RUNS, RUNS_FULL = 2, 7
BATCH = 4096


def run(quick: bool) -> dict[str, Any]:
    """The medians, their spread, and how many messages were timed."""
    raws = messages(DAYS if quick else DAYS_FULL)
    reading = read(raws)
    bare = replace(flow.definition, models=(), drift=(), cost=None, vector=False)
    stages: dict[str, Callable[[], object]] = {
        "decode": lambda: read(raws),
        "features_and_join": lambda: push(Shard(bare), reading),
        "whole_chain": lambda: push(Shard(flow.definition), reading),
    }
    timed = in_turns(stages, sum(map(len, raws)), runs=RUNS if quick else RUNS_FULL, clock=time.process_time)
    result: dict[str, Any] = {"messages_timed": sum(map(len, raws)), "runs": RUNS if quick else RUNS_FULL}
    for name, one in timed.items():
        result |= {f"{name}_us": digits(one.us), f"{name}_spread": digits(one.spread, 2)}
    return result


def messages(days: int) -> list[Raw]:
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


def read(raws: list[Raw]) -> Reading:
    """Decoded, as the shard reads them."""
    return reading_of(raws, {topic: Form.of(flow.definition, topic) for topic in flow.definition.topics})


def push(shard: Shard, reading: Reading) -> Shard:
    """Through the chain, a live batch at a time."""
    for piece in reading.pieces(BATCH):
        shard.push(piece)
    return shard
