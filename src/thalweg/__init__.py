"""Thalweg: a real-time machine-learning engine on Kafka.

Features, online learning and drift alarms from one definition, run live on Kafka topics, as a backfill
over Parquet, and in a test, with the same bits.

Names are imported when they are first used, so `thalweg --help` is there at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thalweg.connectors.kafka_read import subscribe
    from thalweg.dataflows.pipeline import Pipeline, Results, pipeline
    from thalweg.engine.drift.detectors import on_error
    from thalweg.engine.errors import DefinitionError, ThalwegError
    from thalweg.engine.features.encoders import cyc, enc
    from thalweg.engine.features.expressions import col
    from thalweg.engine.features.featureset import FeatureSet
    from thalweg.engine.features.stream import Label, Stream
    from thalweg.engine.features.windows import agg, lifetime, rows
    from thalweg.engine.learning import baselines as baseline

_HOME = {
    "subscribe": "connectors.kafka_read",
    "Pipeline": "dataflows.pipeline",
    "Results": "dataflows.pipeline",
    "pipeline": "dataflows.pipeline",
    "on_error": "engine.drift.detectors",
    "DefinitionError": "engine.errors",
    "ThalwegError": "engine.errors",
    "cyc": "engine.features.encoders",
    "enc": "engine.features.encoders",
    "col": "engine.features.expressions",
    "FeatureSet": "engine.features.featureset",
    "Label": "engine.features.stream",
    "Stream": "engine.features.stream",
    "agg": "engine.features.windows",
    "lifetime": "engine.features.windows",
    "rows": "engine.features.windows",
    "baseline": "engine.learning",
}

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
    if name not in _HOME:
        raise AttributeError(f"module 'thalweg' has no attribute {name!r}")
    home = import_module(f"thalweg.{_HOME[name]}")
    value = home.baselines if name == "baseline" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
