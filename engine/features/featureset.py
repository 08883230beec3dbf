"""A class of expressions is a set of features: names, types and a fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from thalweg.engine.errors import DefinitionError
from thalweg.engine.features.evaluate import type_of
from thalweg.engine.features.expressions import Agg, Call, Expr, Many
from thalweg.engine.features.stream import Stream, StreamSpec
from thalweg.engine.features.windows import Entity
from thalweg.engine.features.zones import database_version


@dataclass(frozen=True, slots=True)
class Feature:
    """One place of the vector: ``is_text`` tells whether it holds text or a number."""

    name: str
    expr: Expr
    is_text: bool


@dataclass(frozen=True)
class FeatureSetSpec:
    """A feature set as it was checked."""

    name: str
    doc: str
    version: int
    source: StreamSpec
    features: tuple[Feature, ...]

    @cached_property
    def names(self) -> list[str]:
        return [feature.name for feature in self.features]

    @cached_property
    def aggregates(self) -> list[Agg]:
        """Every aggregate once, in order of first use."""
        nodes = (node for feature in self.features for node in feature.expr.walk())
        return list({node.canonical: node for node in nodes if isinstance(node, Agg)}.values())

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change iff the meaning of the vector changes."""
        lines = [self.source.canonical, f"version {self.version}"]
        lines += [f"{feature.name} = {feature.expr.canonical}" for feature in self.features]
        if any(isinstance(node, Call) and node.op == "cyclic" for f in self.features for node in f.expr.walk()):
            lines.append(f"tzdata {database_version()}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


class FeatureSet:
    """Features of the rows of a stream, in class order.

    Every attribute that is an expression is a feature of that name; one that stands for several
    (``one_hot``, ``cyc``, ``grid``) gives ``name_suffix``. Names that begin with ``_`` and entities
    (``agg.by(...)``) are only there to be used by others.

    >>> from thalweg.engine.features.expressions import col
    >>> from thalweg.engine.features.windows import agg
    >>> class Payment(Stream):
    ...     "Card payments."
    ...     topic, key, time = "payments", "card", col.at
    ...     schema = dict(card="str", at="timestamp[us, UTC]", amount="f64")
    >>> class Habits(FeatureSet, source=Payment):
    ...     "What this card has been doing."
    ...     card = agg.by("card")
    ...     spent_1h = card.sum(col.amount, "1h")
    ...     usual = col.amount / card.mean(col.amount, "30d")
    >>> Habits.spec().names
    ['spent_1h', 'usual']
    """

    _spec: ClassVar[FeatureSetSpec]

    def __init_subclass__(cls, source: type[Stream] | None = None, version: int = 1, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not (isinstance(source, type) and issubclass(source, Stream)):
            raise DefinitionError(f"{cls.__name__}: write class {cls.__name__}(FeatureSet, source=YourStream)")
        features = tuple(_features(cls, source.spec()))
        if not features:
            raise DefinitionError(f"{cls.__name__} has no feature; write name = expression")
        cls._spec = FeatureSetSpec(cls.__name__, (cls.__doc__ or "").strip(), version, source.spec(), features)

    @classmethod
    def spec(cls) -> FeatureSetSpec:
        """The feature set as it was checked."""
        return cls._spec


def _features(cls: type, source: StreamSpec) -> list[Feature]:
    result: list[Feature] = []
    for name, value in vars(cls).items():
        if name.startswith("_") or isinstance(value, Entity):
            continue
        if isinstance(value, Many):
            result += [
                _feature(f"{name}_{suffix}", expr, source, cls.__name__)
                for suffix, expr in zip(value.suffixes, value.exprs, strict=True)
            ]
        elif isinstance(value, Expr):
            result.append(_feature(name, value, source, cls.__name__))
        else:
            raise DefinitionError(
                f"{cls.__name__}.{name} = {value!r} is no feature; write an expression, or _{name} if it is a helper"
            )
    names = [feature.name for feature in result]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DefinitionError(f"{cls.__name__}: two features are called {', '.join(twice)}")
    return result


def _feature(name: str, expr: Expr, source: StreamSpec, where: str) -> Feature:
    place = f"{where}.{name}"
    kind = type_of(expr, source.schema, place)
    if kind == "timestamp":
        raise DefinitionError(f"{place} is a time; write a difference of times, or cyc.hour(...), cyc.weekday(...)")
    return Feature(name, expr, kind == "str")
