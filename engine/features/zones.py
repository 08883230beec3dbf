"""Local time from the pinned time-zone database (the ``tzdata`` package), never the machine's own."""

from __future__ import annotations

from functools import cache
from importlib import metadata, resources
from zoneinfo import ZoneInfo

import numpy as np

from thalweg.engine.errors import DefinitionError
from thalweg.engine.kernels.arrays import Int64

_SECOND_US = 1_000_000


class Zone:
    """A named zone.

    >>> zone("America/New_York").local(np.array([1_357_016_400_000_000])) // 3_600_000_000 % 24
    array([0])
    """

    def __init__(self, name: str, info: ZoneInfo) -> None:
        self.name = name
        self._info = info

    def local(self, times: Int64) -> Int64:
        """Microseconds of the local clock since its 1970; int64[n] to int64[n]."""
        seconds, places = np.unique(times // _SECOND_US, return_inverse=True)
        offsets = np.fromiter((self._offset_us(s) for s in seconds.tolist()), np.int64, len(seconds))
        return times + offsets[places]

    def _offset_us(self, second: int) -> int:
        from datetime import UTC, datetime, timedelta

        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
        offset = moment.astimezone(self._info).utcoffset()
        assert offset is not None, moment
        return offset // timedelta(microseconds=1)


@cache
def zone(name: str) -> Zone:
    """The zone ``name``, such as ``"America/New_York"``.

    Raises:
        DefinitionError: the database has no such zone.
    """
    parts = name.split("/")
    file = resources.files("tzdata").joinpath("zoneinfo", *parts)
    if not name or ".." in parts or not file.is_file():
        raise DefinitionError(f"tz={name!r} is no time zone; write one such as 'Europe/Berlin' or 'UTC'")
    with file.open("rb") as data:
        return Zone(name, ZoneInfo.from_file(data, key=name))


@cache
def database_version() -> str:
    """The version of the time-zone database, part of every fingerprint that uses a zone."""
    return metadata.version("tzdata")
