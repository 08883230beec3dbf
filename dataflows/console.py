"""What a person sees on the terminal: progress on stderr, tables on stdout, one message for an error."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from thalweg.engine.errors import ThalwegError

EVERY_S = 5.0  # between two lines of progress where no bar can be drawn

Progress = Callable[[str, int, int], None]
"""Stage, how much of it is done, how much there is (0: not known)."""


@contextmanager
def progress(*, shown: bool = True) -> Iterator[Progress]:
    """A bar per stage on stderr; lines now and then where that is no terminal."""
    if not shown:
        yield lambda stage, done, total: None
    elif sys.stderr.isatty():
        yield from _bars()
    else:
        yield _Lines()


def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total or None)
            bars.update(tasks[stage], completed=done, total=total or None)

        yield report


class _Lines:
    """A line when a stage begins, when it is complete, and every few seconds between."""

    def __init__(self) -> None:
        self._stage = ""
        self._told = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        new, complete = stage != self._stage, bool(total) and done >= total
        if new or complete or now - self._told >= EVERY_S:
            self._stage, self._told = stage, now
            click.echo(f"{stage}: {done:,}" + (f" of {total:,}" if total else ""), err=True)


def facts(title: str, values: Mapping[str, Any]) -> None:
    """Names and values, one a line; nested tables follow indented."""
    click.echo(title)
    _facts(values, "  ")


def _facts(values: Mapping[str, Any], indent: str) -> None:
    width = max((len(name) for name, value in values.items() if not isinstance(value, Mapping)), default=0)
    for name, value in values.items():
        if isinstance(value, Mapping):
            if value:
                click.echo(f"{indent}{name}")
                _facts(value, indent + "  ")
        else:
            click.echo(f"{indent}{name:<{width}}  {_text(value)}")


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Aligned columns; numbers to the right."""
    texts = [[_text(value) for value in row] for row in rows]
    right = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(headings))]
    widths = [max(map(len, column)) for column in zip(headings, *texts, strict=True)]
    for line in [list(headings), *texts]:
        cells = (cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True))
        click.echo("  ".join(cells).rstrip())


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def told(error: Exception) -> tuple[str, int]:
    """The message for an error and the exit code: 2 for what was given wrongly, 1 for what went wrong.

    What we raise on purpose is told as it is. A ValueError among it says that something given was wrong.
    """
    if isinstance(error, ThalwegError):
        return str(error), 2 if isinstance(error, ValueError) else 1
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", 1
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{type(error).__name__}: {error} (at {frame.filename}:{frame.lineno}). "
        "This was not foreseen; `thalweg --debug ...` shows the whole trace"
    ), 1
