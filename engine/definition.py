"""A whole pipeline as it was checked: what every runner drives the same chain with."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from thalweg.engine.drift.detectors import ErrorDetector
from thalweg.engine.errors import DefinitionError
from thalweg.engine.features.evaluate import type_of
from thalweg.engine.features.expressions import Agg, Col, Expr
from thalweg.engine.features.featureset import FeatureSet, FeatureSetSpec
from thalweg.engine.features.plan import Plan
from thalweg.engine.features.stream import Label, LabelSpec, StreamSpec
from thalweg.engine.learning import Member, member
from thalweg.engine.schema import Schema

METRICS_EVERY = 1000


@dataclass(frozen=True)
class Definition:
    """A pipeline: stream, features, label, models. ``models`` are (name, the user's object)."""

    name: str
    plan: Plan
    label: LabelSpec | None
    models: tuple[tuple[str | None, object], ...]
    drift: tuple[ErrorDetector, ...]
    carry: tuple[str, ...]
    weight: Expr | Mapping[Any, float] | None
    cost: tuple[float, float] | None
    shards: Literal["partition", "one"]
    vector: bool
    metrics_every: int
    headers: tuple[str, ...] = ()
    codec: Literal["json", "arrow"] = "json"

    @property
    def stream(self) -> StreamSpec:
        return self.plan.spec.source

    @property
    def features(self) -> FeatureSetSpec:
        return self.plan.spec

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of everything that decides what a prediction is, and what state holds."""
        parts = [self.features.fingerprint, self.shards, repr(self.cost), _weight_text(self.weight)]
        parts += ["" if self.label is None else self.label.canonical]
        parts += [f"{m.name} {m.version}" for m in self.open_members()]
        parts += [f"watched by {detector.name}" for detector in self.drift]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    @cached_property
    def threshold(self) -> float | None:
        """A score above it is decided as true: false alarm / (false alarm + miss) (Elkan, IJCAI 2001, section 2)."""
        return None if self.cost is None else self.cost[0] / (self.cost[0] + self.cost[1])

    def schema_of(self, topic: str) -> Schema:
        """The fields of the stream's or the label's topic."""
        if topic == self.stream.topic:
            return self.stream.schema
        assert self.label is not None and topic == self.label.topic, topic
        return self.label.schema

    @property
    def topics(self) -> list[str]:
        """The topics that a shard reads, the stream's first."""
        own = [self.label.topic] if self.label is not None and self.label.own_topic else []
        return [self.stream.topic, *own]

    def open_members(self) -> list[Member]:
        """Fresh members, the one that serves first; names are unique."""
        label_type = None if self.label is None else self.label.value_type
        spec = self.features
        numbers = None if any(feature.is_text for feature in spec.features) else spec.names
        members: list[Member] = []
        for name, model in self.models:
            one = member(
                model,
                name=name,
                fingerprint=spec.fingerprint,
                label_type=label_type,  # type: ignore[arg-type]
                weighted=self.weight is not None,
                numbers=numbers,
            )
            taken = {m.name for m in members}
            if one.name in taken:
                if name is not None:
                    raise DefinitionError(f"two models are called {name!r}; give each its own name")
                one.name = next(f"{one.name} {i}" for i in range(2, 1000) if f"{one.name} {i}" not in taken)
            members.append(one)
        return members


def define(
    features: type[FeatureSet],
    *,
    label: type[Label] | None = None,
    models: Sequence[object] | Mapping[str, object] = (),
    name: str | None = None,
    carry: Sequence[str] = (),
    cost: tuple[float, float] | None = None,
    weight: Expr | Mapping[Any, float] | None = None,
    drift: Sequence[ErrorDetector] = (),
    shards: Literal["partition", "one"] = "partition",
    vector: bool = False,
    metrics_every: int = METRICS_EVERY,
    headers: Sequence[str] = (),
    codec: Literal["json", "arrow"] = "json",
) -> Definition:
    """Checks a pipeline; see :func:`thalweg.pipeline` for the arguments.

    Raises:
        DefinitionError: with one message that says what to write instead.
    """
    if not (isinstance(features, type) and issubclass(features, FeatureSet)):
        raise DefinitionError(f"pipeline({features!r}): write a FeatureSet class first")
    spec = features.spec()
    label_spec = None if label is None else _label(label, spec)
    if shards not in ("partition", "one"):
        raise DefinitionError(f"shards={shards!r}: write 'partition' (one shard a partition) or 'one'")
    if shards == "partition":
        _check_local(spec)
    named = models.items() if isinstance(models, Mapping) else [(None, model) for model in models]
    definition = Definition(
        name=_name(name or _snake(spec.name)),
        plan=Plan.of(spec, label_spec),
        label=label_spec,
        models=tuple(named),
        drift=tuple(drift),
        carry=_carry(carry, spec.source),
        weight=_weight(weight, spec.source),
        cost=_cost(cost),
        shards=shards,
        vector=vector or not models,
        metrics_every=_rows(metrics_every),
        headers=_names(headers),
        codec=_codec(codec, headers),
    )
    _check_models(definition)
    return definition


def _label(label: type[Label], spec: FeatureSetSpec) -> LabelSpec:
    if not (isinstance(label, type) and issubclass(label, Label)):
        raise DefinitionError(f"label={label!r}: write the Label class")
    result = label.spec()
    if result.stream.canonical != spec.source.canonical:  # == of two expressions is an expression
        raise DefinitionError(f"{result.name} labels {result.stream.name}, but {spec.name} is about {spec.source.name}")
    return result


def _check_local(spec: FeatureSetSpec) -> None:
    """With a shard a partition, only keys that contain the partition key are whole (rule 1 and 6)."""
    key = Col(spec.source.key).canonical
    for feature, aggregate in ((f, node) for f in spec.features for node in f.expr.walk() if isinstance(node, Agg)):
        if aggregate.fed_by is not None and not aggregate.by:
            continue  # the overall mean of target encoding: of the shard's own labels, as its models
        fields = {part.canonical for k in aggregate.by for part in (k.walk() if _is_cross(k) else [k])}
        if key not in fields:
            by = ", ".join(k.canonical for k in aggregate.by) or "nothing"
            raise DefinitionError(
                f"{spec.name}.{feature.name} aggregates by {by}, but the topic {spec.source.topic!r} is "
                f"partitioned by {spec.source.key!r}, so each partition would count only its own rows; add "
                f"{spec.source.key!r} to by(...), or write pipeline(..., shards='one')"
            )


def _is_cross(expr: Expr) -> bool:
    return getattr(expr, "op", "") == "cross"


def _carry(carry: Sequence[str], stream: StreamSpec) -> tuple[str, ...]:
    if isinstance(carry, str):
        raise DefinitionError(f"carry={carry!r}: write a list of fields, such as carry=[{carry!r}]")
    for name in carry:
        type_of(Col(name), stream.schema, "carry")
    return tuple(carry)


def _name(name: str) -> str:
    """A name that topics can have: ``<name>.predictions``."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", name):
        raise DefinitionError(f"name={name!r}: topics are named after it; write letters, digits, '.', '_' and '-'")
    return name


def _rows(metrics_every: int) -> int:
    if not isinstance(metrics_every, int) or metrics_every < 1:
        raise DefinitionError(f"metrics_every={metrics_every!r}: write a number of predictions, at least 1")
    return metrics_every


def _names(headers: Sequence[str]) -> tuple[str, ...]:
    if isinstance(headers, str):
        raise DefinitionError(f"headers={headers!r}: write a list of names, such as headers=[{headers!r}]")
    return tuple(headers)


def _codec(codec: Literal["json", "arrow"], headers: Sequence[str]) -> Literal["json", "arrow"]:
    if codec not in ("json", "arrow"):
        raise DefinitionError(f"codec={codec!r}: write 'json' or 'arrow'")
    if codec == "arrow" and headers:
        raise DefinitionError(
            "headers=[...] are passed on with each prediction, and codec='arrow' writes many in one "
            "message; leave one of them out"
        )
    return codec


def _cost(cost: tuple[float, float] | None) -> tuple[float, float] | None:
    if cost is None:
        return None
    if not (isinstance(cost, tuple | list) and len(cost) == 2 and all(c > 0 for c in cost)):
        raise DefinitionError(f"cost={cost!r}: write (cost of a false alarm, cost of a miss), both above 0")
    return float(cost[0]), float(cost[1])


def _weight(weight: Expr | Mapping[Any, float] | None, stream: StreamSpec) -> Expr | Mapping[Any, float] | None:
    if weight is None or isinstance(weight, Mapping):
        if weight is not None and not all(isinstance(w, int | float) and 0 < w <= 1e100 for w in weight.values()):
            raise DefinitionError(f"weight={dict(weight)!r}: write a weight above 0 for each class")
        return weight
    if not isinstance(weight, Expr) or any(isinstance(node, Agg) for node in weight.walk()):
        raise DefinitionError("weight=...: write {class: weight} or an expression over the row's own fields")
    if type_of(weight, stream.schema, "weight") not in ("f64", "i64", "bool"):
        raise DefinitionError(f"weight={weight.canonical}: it must be a number")
    return weight


def _weight_text(weight: Expr | Mapping[Any, float] | None) -> str:
    return weight.canonical if isinstance(weight, Expr) else repr(weight)


def _check_models(definition: Definition) -> None:
    members = definition.open_members()
    binary = bool(members) and members[0].task == "binary"
    if definition.cost is not None and not binary:
        raise DefinitionError("cost=(false alarm, miss) decides a binary label; the model that serves has none")
    if definition.drift and (definition.label is None or not members):
        raise DefinitionError("drift=[on_error(...)] watches the served error; it needs a label and a model")
    if any(feature.is_text for feature in definition.features.features):
        _check_text(definition, members)
    for detector in definition.drift:
        detector.check(members[0].task)
    if isinstance(definition.weight, Mapping) and members and members[0].task not in ("binary", "multiclass"):
        raise DefinitionError("weight={class: weight} needs classes; write an expression for other labels")


def _check_text(definition: Definition, members: list[Member]) -> None:
    """A model that takes numbers only would fail on every row: tried out on copies, before anything runs."""
    label = None if definition.label is None else _EXAMPLES[definition.label.value_type]
    x: dict[str, float | str] = {f.name: "a" if f.is_text else 1.0 for f in definition.features.features}
    texts = ", ".join(f.name for f in definition.features.features if f.is_text)
    for one in members:
        one.predict(x)
        one.learn(x, label)
        one.predict(x)
        if one.failures:
            raise DefinitionError(
                f"{one.name} fails on text ({one.last_failure}), and {texts} of {definition.features.name} is "
                "text; write enc.one_hot(...) or enc.target(...) around it, or a model that begins with OneHotEncoder()"
            )


_EXAMPLES: dict[str, bool | int | float | str] = {"bool": True, "str": "a", "i64": 1, "f64": 1.0}


def _snake(name: str) -> str:
    result = "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
    return result or "pipeline"
