"""Pickle for River objects only, loaded by a reader that admits nothing but what such objects are made of.

Pickle names classes and functions that its reader then calls; an open reader therefore runs whatever the
bytes say. This one admits the classes of River, the containers they hold, and NumPy's arrays and generators,
each by name. What the *definition* itself uses beyond that (a user's own estimator, a function in a
FuncTransformer) is admitted too, since that code is already trusted: see :func:`names_in`.
"""

import io
import pickle
import types
from collections.abc import Iterator
from typing import Any

from thalweg.engine.errors import SnapshotError

Name = tuple[str, str]

_PROTOCOL = 5
_NUMPY_CORES = ("numpy.core", "numpy._core")
_ADMITTED: frozenset[Name] = frozenset(
    {("builtins", n) for n in ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int")}
    | {("builtins", n) for n in ("iter", "list", "object", "range", "set", "slice", "str", "tuple")}
    | {("collections", n) for n in ("Counter", "OrderedDict", "defaultdict", "deque")}
    | {("datetime", n) for n in ("date", "datetime", "time", "timedelta", "timezone")}
    | {("math", n) for n in ("exp", "log", "sqrt")}
    | {("copy", "deepcopy"), ("functools", "partial"), ("random", "Random"), ("statistics", "NormalDist")}
    | {("numpy", n) for n in ("ndarray", "dtype", "array", "ones", "zeros", "float64", "int64", "bool_")}
    | {(f"{core}.multiarray", n) for core in _NUMPY_CORES for n in ("_reconstruct", "scalar")}
    | {(f"{core}.numeric", "_frombuffer") for core in _NUMPY_CORES}
    | {("numpy.random._pickle", n) for n in ("__bit_generator_ctor", "__randomstate_ctor", "__generator_ctor")}
    | {("numpy.random._mt19937", "MT19937"), ("numpy.random._pcg64", "PCG64")}
    | {("numpy.random.bit_generator", n) for n in ("SeedSequence", "__pyx_unpickle_SeedSequence")}
    | {("river.utils.math", "minkowski_distance")}
    | {("river._river_rust.vectordict", f"euclidean_distance_{kind}") for kind in ("dict", "tuple")}
    | {("river.feature_extraction.vectorize", n) for n in ("strip_accents_unicode", "tokenize_using_regex_pattern")}
)
_REFUSED_IN_RIVER = (
    "river.datasets",
    "river.stream",
    "river.checks",
    "river.evaluate",
    "river.compat",
)  # files, network, foreign models


class StableSet(set[Any]):
    """A set that is walked in sorted order. A plain set of text is walked in an order that changes with every
    process
    (Python's hashes are seeded at start), and with it the order of a River model's floating-point sums.

    >>> list(StableSet({"b", "a"}))
    ['a', 'b']
    """

    def __iter__(self) -> Iterator[Any]:
        items = list(super().__iter__())
        try:
            return iter(sorted(items))
        except TypeError:  # mixed types
            return iter(sorted(items, key=lambda item: (type(item).__name__, repr(item))))


def dump(obj: object) -> bytes:
    """``obj`` as bytes. Raises SnapshotError, with the reason, for what pickle cannot hold (a lambda, a
    generator, an open file).
    """
    try:
        return pickle.dumps(obj, protocol=_PROTOCOL)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError, ValueError) as error:
        raise SnapshotError(f"{type(obj).__name__} cannot be saved: {type(error).__name__}: {error}") from error


def load(data: bytes, extra: frozenset[Name] = frozenset()) -> Any:
    """The object in ``data``, made only of admitted names and those in ``extra``. Raises SnapshotError for
    anything else.
    """
    try:
        return _Reader(data, extra).load()
    except SnapshotError:
        raise
    except Exception as error:  # damaged pickle may raise anything
        raise SnapshotError(f"the saved model cannot be read: {type(error).__name__}: {error}") from error


def names_in(data: bytes) -> frozenset[Name]:
    """The names that ``data`` uses. Only for bytes that this process has just dumped: they are loaded without
    the guard.
    """
    reader = _Recorder(data)
    reader.load()
    return frozenset(reader.names - {("builtins", "getattr")})


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes, extra: frozenset[Name]) -> None:
        super().__init__(io.BytesIO(data))
        self._extra = extra

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _method_of
        if (module, name) in self._extra or (module, name) in _ADMITTED or (module, name) == (__name__, "StableSet"):
            return super().find_class(module, name)
        if module.startswith("river.") and not module.startswith(_REFUSED_IN_RIVER):
            found = super().find_class(module, name)
            if _belongs_to_river(found, name):
                return found
        raise SnapshotError(
            f"a saved model asks for {module}.{name}, which no River model needs: refused, nothing of it was run"
        )


class _Recorder(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.names: set[Name] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.names.add((module, name))
        return super().find_class(module, name)


def _belongs_to_river(found: object, name: str) -> bool:
    """A class defined in River, a function in such a class, or a Cython constructor; not what River's modules
    imported.
    """
    if not str(getattr(found, "__module__", "")).startswith("river."):
        return False
    if isinstance(found, type):
        return True
    in_class = "." in name and isinstance(found, types.FunctionType) and found.__qualname__ == name
    return in_class or name.startswith("__pyx_unpickle_")


def _method_of(owner: object, name: str) -> Any:
    """The stand-in for ``getattr``: pickle writes a bound method as (getattr, owner, name). Nothing but
    River's own methods.
    """
    method = None if name.startswith("__") else getattr(owner, name, None)
    function = getattr(method, "__func__", None)
    if isinstance(method, types.MethodType) and str(getattr(function, "__module__", "")).startswith("river."):
        return method
    raise SnapshotError(
        f"a saved model asks for the attribute {name!r} of {type(owner).__name__}, which is no method of River: refused"
    )
