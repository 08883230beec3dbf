"""Small numbers for things that have names: an id or a key gets a slot, arrays hold what is known of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from thalweg.engine.kernels.arrays import Int64

NONE = -1


class Slots:
    """Names and their slots; a slot that was released is given out again.

    >>> slots = Slots()
    >>> slots.place(["a", None, "b", "a"]).tolist()
    [0, -1, 1, 0]
    """

    def __init__(self) -> None:
        self._slots: dict[Any, int] = {}
        self._names: npt.NDArray[Any] = np.empty(0, dtype=object)
        self._free: list[int] = []

    def __len__(self) -> int:
        """How many slots there are, taken and free: what arrays by slot need."""
        return len(self._names)

    @property
    def taken(self) -> int:
        """How many names have a slot."""
        return len(self._slots)

    def place(self, names: Sequence[Hashable | None]) -> Int64:
        """The slot of each name, int64[n], ``NONE`` for None; a name that is new takes one."""
        found = self._find(names)
        missing = np.flatnonzero(found == NONE)
        if len(missing):
            of_missing = names if len(missing) == len(names) else [names[i] for i in missing.tolist()]
            self._take(dict.fromkeys(of_missing))
            found[missing] = self._find(of_missing)
        return found

    def _find(self, names: Sequence[Hashable | None]) -> Int64:
        return np.fromiter(map(self._slots.get, names, repeat(NONE)), dtype=np.int64, count=len(names))

    def release(self, slots: Int64) -> None:
        """Forgets the names of these slots, each given once; one that is free stays so."""
        names = self._names[slots]
        taken = np.flatnonzero(names != None)  # noqa: E711 - of each element
        deque(map(self._slots.pop, names[taken].tolist()), maxlen=0)
        self._names[slots] = None
        self._free += slots[taken].tolist()

    def _take(self, new: dict[Any, None]) -> None:
        new.pop(None, None)
        more = len(new) - len(self._free)
        if more > 0:
            held = len(self._names)
            more = max(more, held)
            self._free += range(held + more - 1, held - 1, -1)
            self._names = np.concatenate([self._names, np.full(more, None, dtype=object)])
        slots = self._free[len(self._free) - len(new) :][::-1]
        del self._free[len(self._free) - len(new) :]
        self._slots.update(zip(new, slots, strict=True))
        self._names[slots] = np.fromiter(new, dtype=object, count=len(new))

    def to_json(self) -> list[Any]:
        """What :meth:`from_json` takes back."""
        return self._names.tolist()  # type: ignore[no-any-return]

    def from_json(self, names: list[Any]) -> None:
        self._names = np.fromiter(names, dtype=object, count=len(names))
        self._slots = {name: slot for slot, name in enumerate(names) if name is not None}
        self._free = [slot for slot, name in enumerate(names) if name is None]
