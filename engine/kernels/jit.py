"""How a kernel is made: the only place that calls Numba's compiler.

A kernel is a function of a module in this folder. It is compiled on its first call, without the
interpreter lock, and kept on disk. Never ``parallel`` (its thread pool aborts under the threads of a
worker) and never ``fastmath`` (it promises the compiler that there is no NaN, and null is NaN here).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_WITHOUT_ENTRY: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_registered: list[Callable[..., Any]] = []


def kernel(function: Function) -> Function:
    """Compile ``function`` with Numba, and list it in :func:`kernels`.

    Division by zero gives an infinity or NaN as in NumPy, not an exception. Where nothing can be
    written, neither beside the source nor in a cache folder of the user, the kernel is compiled anew in
    each process.

    >>> import numpy as np
    >>> @kernel
    ... def add(a, b, out):
    ...     for i in range(len(out)):
    ...         out[i] = a[i] + b[i]
    >>> out = np.empty(2)
    >>> add(np.array([1.0, 2.0]), np.array([10.0, 20.0]), out)
    >>> out
    array([11., 22.])
    >>> _ = _registered.pop()
    """
    compiled = _compiled(function, _OPTIONS)
    _registered.append(compiled)
    return compiled


def inlined(function: Function) -> Function:
    """A kernel that is a part of others: its code stands in theirs.

    A call hands over every word of the description of every array; with ten arrays that takes 20 to 40 ns. Worth it
    for parts that one loop calls in every round, and paid for in compile time.
    """
    return _compiled(function, {**_OPTIONS, "forceinline": True})


def part(function: Function) -> Function:
    """A part of a kernel that only kernels call: compiled with them and called, without an entry for Python. Entries
    of the parts of windows took 12 of 37 seconds of compile time (one run, Numba 0.68)."""
    return numba.njit(**_OPTIONS, **_WITHOUT_ENTRY)(function)  # type: ignore[no-any-return]


def inlined_part(function: Function) -> Function:
    """A :func:`part` whose code stands in that of its callers."""
    return numba.njit(**_OPTIONS, **_WITHOUT_ENTRY, forceinline=True)(function)  # type: ignore[no-any-return]


def kernels() -> tuple[Callable[..., Any], ...]:
    """Every kernel of the modules imported so far, in the order of definition."""
    return tuple(_registered)


def _compiled(function: Function, options: dict[str, Any]) -> Function:
    try:
        compiled = numba.njit(cache=True, **options)(function)
        _stamp_with_all_sources(compiled)
    except RuntimeError as error:
        if "cannot cache function" not in str(error):
            raise
        compiled = numba.njit(**options)(function)
    return compiled  # type: ignore[no-any-return]


def _hash_of_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


_SOURCES = _hash_of_sources()


def _stamp_with_all_sources(compiled: Any) -> None:
    """Make the disk cache notice an edit of any kernel.

    Numba's cache knows the file of the function itself, but not the files of the kernels it calls, and
    would go on running their old code. Where a version of Numba hides the stamp, that is what happens.
    """
    cache_file = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if cache_file is not None and hasattr(cache_file, "_source_stamp"):
        cache_file._source_stamp = (cache_file._source_stamp, _SOURCES)
