"""Lengths of time as people write them: ``"90s"``, ``"10m"``, ``"36h"``, ``"30d"``, ``"2w"``."""

from __future__ import annotations

import re
from datetime import timedelta

from thalweg.engine.errors import DefinitionError

_UNITS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)")

Duration = str | timedelta


def duration_us(length: Duration, *, what: str = "a length of time") -> int:
    """The length in whole microseconds.

    >>> duration_us("36h"), duration_us("1.5s"), duration_us(timedelta(minutes=1))
    (129600000000, 1500000, 60000000)

    Raises:
        DefinitionError: the text is no length, or is negative.
    """
    if isinstance(length, timedelta):
        result = length // timedelta(microseconds=1)
    else:
        match = _PATTERN.fullmatch(length) if isinstance(length, str) else None
        if match is None:
            raise DefinitionError(
                f"{what} is {length!r}; write a number and a unit such as '90s', '10m', '36h' or '30d'"
            )
        result = round(float(match[1]) * _UNITS[match[2]])
    if result < 0:
        raise DefinitionError(f"{what} is {length!r}; a length of time is not negative")
    return result


def format_us(length_us: int) -> str:
    """The shortest text that :func:`duration_us` reads back.

    >>> format_us(5_400_000_000), format_us(0)
    ('90m', '0s')
    """
    if length_us == 0:
        return "0s"
    for unit in ("w", "d", "h", "m", "s", "ms"):
        if length_us % _UNITS[unit] == 0 and (unit != "w" or length_us >= 4 * _UNITS["w"]):
            return f"{length_us // _UNITS[unit]}{unit}"
    return f"{length_us}us"
