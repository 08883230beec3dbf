"""What does each model of the demo cost? Bytes of state, microseconds a prediction and a label, on real flights.

The chain runs with several copies of one model of the flights pipeline; what it takes without any is subtracted. A
prediction's cost is had without labels, a label's is what the labels add, metrics included, in CPU time. What is below
a microsecond drowns in the noise of the whole: the spread of the runs stands beside it.
"""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.harness import digits, in_turns
from benchmarks.stages import messages, push, read
from thalweg.dataflows.flights import flow
from thalweg.engine.reading import Reading
from thalweg.engine.shard import Shard

DAYS, DAYS_FULL = 1, 10
RUNS, RUNS_FULL = 3, 7
COPIES = 5
BARE = ""


def run(quick: bool) -> dict[str, Any]:
    """Per model: ``state_bytes, us_per_predict, us_per_learn``."""
    raws = messages(DAYS if quick else DAYS_FULL)
    readings = {False: read([raw for raw in raws if raw.log.topic == flow.definition.stream.topic]), True: read(raws)}
    whole = replace(flow.definition, drift=(), cost=None, vector=False)
    definitions = {str(name): replace(whole, models=copies(model)) for name, model in whole.models}
    definitions[BARE] = replace(whole, models=())
    contestants = {
        (name, told): partial(_pushed, definition, reading)
        for name, definition in definitions.items()
        for told, reading in readings.items()
    }
    shards = {name: _pushed(definition, readings[True]) for name, definition in definitions.items()}
    counters = shards[BARE].counters()
    predictions, labels = counters["scored"], counters["predictions_joined"]
    named = {f"{name}/{told}": contestant for (name, told), contestant in contestants.items()}
    timed = in_turns(named, predictions, runs=RUNS if quick else RUNS_FULL, clock=time.process_time)
    chain = {told: timed[f"{BARE}/{told}"] for told in (False, True)}
    members = {}
    for name in definitions:
        if name == BARE:
            continue
        untold, told = (1e6 * (timed[f"{name}/{t}"].median_s - chain[t].median_s) / COPIES for t in (False, True))
        members[name] = {
            "state_bytes": len(shards[name].panel.members[0].state()),
            "us_per_predict": digits(untold / predictions),
            "us_per_learn": digits((told - untold) / labels),
            "spread": digits(timed[f"{name}/True"].spread, 2),
        }
    return {
        "events_timed": {"predictions": predictions, "labels": labels},
        "copies": COPIES,
        "chain_us_per_event": digits(chain[True].us),
        "members": members,
    }


def copies(model: object) -> tuple[tuple[str, object], ...]:
    """The model several times, by different names: a small cost is measured as the sum of several."""
    return tuple((f"copy {i}", deepcopy(model)) for i in range(COPIES))


def _pushed(definition: Any, reading: Reading) -> Shard:
    return push(Shard(definition), reading)
