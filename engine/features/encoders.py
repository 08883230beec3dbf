"""Encoders: categories and times as numbers.

A *category* is text, a whole number or a condition. ``cross``, ``hash`` and ``bucket`` give categories,
``one_hot`` and ``target`` turn a category into features.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from thalweg.engine.durations import Duration
from thalweg.engine.errors import DefinitionError
from thalweg.engine.features.expressions import Agg, Call, Expr, LabelValue, Many, Scalar, call
from thalweg.engine.features.operators import CYCLES
from thalweg.engine.features.stream import Label
from thalweg.engine.features.windows import CAPACITY, as_window
from thalweg.engine.features.zones import zone

MAX_ONE_HOT = 1024


class _Encoders:
    """``enc.one_hot(...)``, ``enc.hash(...)``, ``enc.cross(...)``, ``enc.bucket(...)``, ``enc.target(...)``."""

    def one_hot(self, category: Expr, values: Sequence[Scalar] | None = None) -> Many:
        """One feature a value: 1 where the category is that value, else 0 (null and the unseen: all 0).

        ``values`` may be left out for :func:`hash` and :func:`bucket`, whose values are known.

        >>> from thalweg.engine.features.expressions import col
        >>> enc.one_hot(col.origin, ["EWR", "JFK"]).suffixes
        ('EWR', 'JFK')
        """
        known = _known_values(category) if values is None else list(values)
        if not known or len(known) > MAX_ONE_HOT or len(set(known)) != len(known):
            raise DefinitionError(
                f"one_hot({category.canonical}): write values=[...] with 1 to {MAX_ONE_HOT} different values, "
                "or one_hot(enc.hash(..., buckets=32))"
            )
        return Many(
            tuple(str(value) for value in known),
            tuple(call("fill", (category == value), False) for value in known),
        )

    def hash(self, category: Expr, buckets: int, seed: int = 0) -> Expr:
        """A bucket from 0 to ``buckets - 1``: XXH64 of the text with a seed; the same in every process."""
        if not 2 <= buckets <= 2**31:
            raise DefinitionError(f"hash(..., buckets={buckets}): write at least 2")
        return call("hash", category, options=(int(buckets), int(seed)))

    def cross(self, *categories: Expr) -> Expr:
        """The combination of categories, itself a category; null if one is null."""
        if len(categories) < 2:
            raise DefinitionError("cross(...): write at least two categories")
        return call("cross", *categories)

    def bucket(self, value: Expr, edges: Sequence[float]) -> Expr:
        """Which interval the number falls into: 0 below ``edges[0]``, 1 from there to below ``edges[1]``, ..."""
        if not edges or any(a >= b for a, b in pairwise(edges)):
            raise DefinitionError(f"bucket(..., edges={list(edges)}): write rising numbers")
        return call("bucket", value, options=tuple(float(edge) for edge in edges))

    def target(
        self,
        category: Expr,
        label: type[Label],
        window: Duration,
        prior: float = 20.0,
        capacity: int = CAPACITY,
    ) -> Expr:
        """The mean label of the category over ``window``, drawn towards the mean of all by ``prior`` labels.

        ``(sum + prior * overall) / (count + prior)`` over the labels that were read before the row and
        whose ``available`` time is in ``(e.time - window, e.time]``: no label is seen early. Null until
        there is a label. ``overall`` is of the shard's labels, as its models are. Micci-Barreca, SIGKDD
        Explorations 3(1), 2001, section 3, with fixed weights.
        """
        if not (isinstance(label, type) and issubclass(label, Label)):
            raise DefinitionError(f"target(..., {label!r}): write the Label class, such as LandsLate")
        if not prior > 0:
            raise DefinitionError(f"target(..., prior={prior}): write how many labels the prior weighs, above 0")
        length = as_window(window)
        if length.kind != "sliding":
            raise DefinitionError("target(...): write the window as a length of time, such as '30d'")

        def labels(op: str, by: tuple[Expr, ...]) -> Agg:
            name = label.__name__
            return Agg(by, op, LabelValue(name), length, None, True, 0, capacity, fed_by=name)

        overall = labels("mean", ())
        own = (category,)
        return (labels("sum", own).fill(0.0) + prior * overall) / (labels("count", own) + prior)


def _known_values(category: Expr) -> list[Scalar]:
    if isinstance(category, Call) and category.op == "hash":
        return list(range(category.options[0]))
    if isinstance(category, Call) and category.op == "bucket":
        return list(range(len(category.options) + 1))
    return []


class _Cycles:
    """``cyc.hour(col.time, tz="Europe/Berlin")``: sine and cosine of a cycle of the local clock."""

    def __getattr__(self, unit: str) -> Any:
        if unit not in CYCLES:
            raise AttributeError(f"cyc.{unit}: known are {', '.join('cyc.' + c for c in CYCLES)}")

        def cycle(time: Expr, tz: str = "UTC") -> Many:
            zone(tz)
            return Many(("sin", "cos"), tuple(call("cyclic", time, options=(unit, f, tz)) for f in ("sin", "cos")))

        return cycle


enc = _Encoders()
cyc = _Cycles()
