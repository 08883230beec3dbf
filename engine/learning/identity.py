"""The identity of a user's model or detector: what its constructor was given, as a stable hash."""

import functools
import inspect
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import orjson
import xxhash

from thalweg.engine.errors import DefinitionError

_DEPTH = 40
_SEEDS = ("seed", "random_state")


def version_of(obj: object, *, fingerprint: str, executor: str) -> str:
    """16 hex digits: hash of the class, the parameters (seed included), the feature set's fingerprint and the
    executor.

    >>> version_of(range, fingerprint="f", executor="e") == version_of(range, fingerprint="f", executor="e")
    True
    """
    return xxhash.xxh64(orjson.dumps([describe(obj), fingerprint, executor])).hexdigest()


def executor_of(library: str) -> str:
    """The library that runs a model, with the version that is imported, such as ``river 0.26.1``."""
    return f"{library} {getattr(sys.modules.get(library), '__version__', 'unknown')}"


def describe(obj: Any, depth: int = 0) -> Any:
    """``obj`` as nested lists of text that depend on values only: no address, no hash order, no learned
    weights.
    """
    if depth > _DEPTH:
        raise DefinitionError(
            f"{type(obj).__name__} nests deeper than {_DEPTH} levels; write a model whose parameters end"
        )
    down: Callable[[Any], Any] = functools.partial(describe, depth=depth + 1)
    if isinstance(obj, np.generic):
        obj = obj.item()
    if obj is None or isinstance(obj, bool | int | float | str | bytes):
        return [type(obj).__name__, repr(obj)]
    if isinstance(obj, Mapping):
        return ["map", sorted(([down(key), down(value)] for key, value in obj.items()), key=orjson.dumps)]
    if isinstance(obj, set | frozenset):
        return ["set", sorted(map(down, obj), key=orjson.dumps)]
    if isinstance(obj, Iterable) and _is_plain_sequence(obj):
        return ["list", [down(item) for item in obj]]
    return _describe_object(obj, down)


def unseeded(obj: Any, path: str = "", depth: int = 0) -> str | None:
    """Where a seed is None inside ``obj``, e.g. ``ARFClassifier.seed``; None when every seed is set."""
    if depth > _DEPTH:
        return None
    if isinstance(obj, list | tuple | set | frozenset):
        return _first(unseeded(item, path, depth + 1) for item in obj)
    if isinstance(obj, Mapping):
        return _first(unseeded(value, path, depth + 1) for value in obj.values())
    if isinstance(obj, functools.partial):
        return unseeded([*obj.args, obj.keywords, obj.func], path, depth + 1)
    if not _is_configured(obj):
        return None
    here = path or type(obj).__name__
    return _first(
        f"{here}.{name}" if name in _SEEDS and value is None else unseeded(value, f"{here}.{name}", depth + 1)
        for name, value in parameters(obj).items()
    )


def refuse_unseeded(obj: object) -> None:
    """Raise DefinitionError when ``obj`` draws random numbers that a replay could not draw again."""
    where = unseeded(obj)
    if where is not None:
        raise DefinitionError(
            f"{where} is None, so a replay would give other results; write a number there, e.g. "
            f"{where.rsplit('.', 1)[1]}=42"
        )


def parameters(obj: object) -> dict[str, Any]:
    """What the constructor of ``obj`` was given, read from the attributes of the same names (River's
    convention).
    """
    found: dict[str, Any] = {}
    for name, parameter in _signature(type(obj)).items():
        if parameter.kind is parameter.VAR_KEYWORD:
            found.update(getattr(obj, name, {}))
        elif hasattr(obj, name):
            found[name] = getattr(obj, name)
    return found


def qualified(thing: Any) -> str:
    """The dotted name of a class or function."""
    return f"{thing.__module__}.{thing.__qualname__}"


def _describe_object(obj: Any, down: Callable[[Any], Any]) -> Any:
    if isinstance(obj, np.ndarray):
        return ["array", obj.dtype.str, list(obj.shape), down(obj.tolist())]
    if isinstance(obj, functools.partial):
        return ["partial", down(obj.func), down(obj.args), down(obj.keywords)]
    if type(obj).__module__ == "datetime":
        return ["time", repr(obj)]
    if isinstance(obj, random.Random):
        return ["random", xxhash.xxh64(repr(obj.getstate()).encode()).hexdigest()]
    if inspect.ismethod(obj):
        return ["method", qualified(obj.__func__), down(obj.__self__)]
    if inspect.isclass(obj) or inspect.isroutine(obj):
        return ["name", qualified(obj)]
    if _is_configured(obj):
        steps = getattr(obj, "steps", None)
        ordered = [list(steps)] if isinstance(steps, Mapping) else []  # a mapping is described in sorted order
        return ["object", qualified(type(obj)), *ordered, down(parameters(obj))]
    raise DefinitionError(
        f"a parameter of type {type(obj).__name__} has no stable identity; use numbers, text, "
        "lists, dicts or named functions"
    )


def _signature(kind: type) -> dict[str, inspect.Parameter]:
    try:
        return dict(list(inspect.signature(kind.__init__).parameters.items())[1:])  # type: ignore[misc]
    except (TypeError, ValueError):  # a compiled class without a signature
        return {}


def _is_plain_sequence(obj: object) -> bool:
    return isinstance(obj, list | tuple) or type(obj).__module__ == "collections"


def _is_configured(obj: object) -> bool:
    return (hasattr(obj, "__dict__") or hasattr(type(obj), "__slots__")) and not (
        inspect.isclass(obj) or inspect.isroutine(obj) or inspect.ismodule(obj)
    )


def _first(paths: Iterable[str | None]) -> str | None:
    return next((path for path in paths if path is not None), None)
