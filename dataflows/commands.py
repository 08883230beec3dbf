"""How the command line behaves: order of commands, errors, options with several values, times and files."""

from __future__ import annotations

import errno
import glob
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thalweg.dataflows import console

if TYPE_CHECKING:
    from thalweg.connectors.kafka_read import Start


class Commands(click.Group):
    """Commands in the order of their definition; an error is one message, not a trace."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            broken_pipe = isinstance(error, OSError) and error.errno == errno.EPIPE
            if broken_pipe or ctx.params.get("debug"):
                raise
            message, code = console.told(error)
            click.echo(f"Error: {message}", err=True)
            ctx.exit(code)


class SpreadCommand(click.Command):
    """Options that take several values in a row, so that ``--from lake/*.parquet`` works as a shell expands it."""

    several = ("--from", "--labels")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        option = ""
        for i, arg in enumerate(args):
            if arg.startswith("-"):
                option = arg if arg in self.several else ""
            if option and i > 0 and not arg.startswith("-") and args[i - 1] not in self.several:
                spread.append(option)
            spread.append(arg)
        return super().parse_args(ctx, spread)


def start_of(text: str) -> Start:
    """Where reading starts: earliest, latest, or a time as microseconds."""
    from thalweg.engine.schema import BadValue, to_time

    if text in ("earliest", "latest"):
        return text
    try:
        return to_time(text)
    except BadValue as bad:
        raise click.BadParameter(f"write earliest, latest or a time; {bad.args[1]}", param_hint="--from") from None


def files_of(option: str, given: Iterable[str]) -> list[str]:
    """Patterns that the shell left alone are filled in; what is not there is an error now, not after the work."""
    found: list[str] = []
    for text in given:
        paths = [text] if Path(text).exists() else sorted(glob.glob(text, recursive=True))
        if not paths:
            raise click.BadParameter(f"there is no {text}; looked in {Path.cwd()}", param_hint=option)
        found += paths
    return found
