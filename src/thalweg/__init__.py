"""Thalweg: a real-time machine-learning engine on Kafka.

Features, online learning and drift alarms from one definition, run live on Kafka topics, as a backfill
over Parquet, and in a test, with the same bits.
"""

from typing import Any

from thalweg.dataflows.pipeline import Pipeline, Results, pipeline
from thalweg.engine.drift.detectors import on_error
from thalweg.engine.errors import DefinitionError, ThalwegError
from thalweg.engine.features.encoders import cyc, enc
from thalweg.engine.features.expressions import col
from thalweg.engine.features.featureset import FeatureSet
from thalweg.engine.features.stream import Label, Stream
from thalweg.engine.features.windows import agg, lifetime, rows
from thalweg.engine.learning import baselines as baseline

__all__ = [
    "DefinitionError",
    "FeatureSet",
    "Label",
    "Pipeline",
    "Results",
    "Stream",
    "ThalwegError",
    "agg",
    "baseline",
    "col",
    "cyc",
    "enc",
    "lifetime",
    "on_error",
    "pipeline",
    "rows",
    "subscribe",
]


def __getattr__(name: str) -> Any:
    """``subscribe`` needs the Kafka client, which a backfill or a test does not."""
    if name == "subscribe":
        from thalweg.connectors.kafka_read import subscribe

        return subscribe
    raise AttributeError(f"module 'thalweg' has no attribute {name!r}")
