"""How fast is it? ``python -m benchmarks [NAME] [--quick] [--json] [--slo P99_MS]``: runs one benchmark, or all."""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness

HERE = Path(__file__).parent
NAMES = ("codec", "e2e", "growth", "latency", "learners", "members", "scaling", "stages", "windows")
WITH_LATENCY = ("e2e", "latency")
README = "readme"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for; the exit code is 1 where ``--slo`` is not met."""
    given = _parser().parse_args(arguments)
    if given.name == README:
        from benchmarks import readme

        sys.stdout.write(f"{readme.write()}\n")
        return 0
    results = {}
    for name in _asked(given.name, given.slo):
        harness.say(f"{name}: {question(name)}")
        results[name] = run(name, given.quick)
    _tell(results, given.json, alone=given.name is not None)
    return _within(results, given.slo)


def run(name: str, quick: bool) -> Any:
    """One benchmark's result; that of a full run is kept under ``benchmarks/results``."""
    result = harness.recorded(importlib.import_module(f"benchmarks.{name}").run, quick)
    if not quick:
        harness.save(name, result)
    return result


def names() -> list[str]:
    """The benchmarks that there are."""
    return [name for name in NAMES if (HERE / f"{name}.py").is_file()]


def question(name: str) -> str:
    """The first line of its docstring, without importing it."""
    return (ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8"))) or "").partition("\n")[0]


def _parser() -> argparse.ArgumentParser:
    asks = "\n".join(f"  {name:<10} {question(name)}" for name in names())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=f"benchmarks:\n{asks}\n  {README:<10} Writes the table of figures in README.md from the saved results.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", type=_known, help="default: all of them")
    parser.add_argument("--quick", action="store_true", help="fewer rows and runs, within 45 s each; nothing is saved")
    parser.add_argument("--json", action="store_true", help="the last line on stdout is the result as JSON")
    parser.add_argument("--slo", type=float, metavar="P99_MS", help="exit with 1 when p99 is above; default NAME: e2e")
    return parser


def _known(name: str) -> str:
    known = [*names(), README]
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    raise argparse.ArgumentTypeError(f"there is no benchmark {name!r}.{meant} There are: {', '.join(known)}")


def _asked(name: str | None, slo: float | None) -> list[str]:
    if slo is not None and name not in (None, *WITH_LATENCY):
        raise SystemExit(f"--slo is about latency: write {' or '.join(WITH_LATENCY)}, not {name}")
    if name is not None:
        return [name]
    return names() if slo is None else ["e2e"]


def _tell(results: dict[str, Any], as_json: bool, *, alone: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(next(iter(results.values())) if alone else results) + "\n")
        return
    for name, result in results.items():
        sys.stdout.write(f"{name}\n")
        for row in result if isinstance(result, list) else [result]:
            _tell_row(row)


def _tell_row(row: dict[str, Any], indent: str = "  ") -> None:
    for key, value in row.items():
        if isinstance(value, dict):
            sys.stdout.write(f"{indent}{key}\n")
            _tell_row(value, indent + "  ")
        else:
            sys.stdout.write(f"{indent}{key:<28} {value}\n")


def _within(results: dict[str, Any], slo_ms: float | None) -> int:
    if slo_ms is None:
        return 0
    (name, result), *_ = results.items()
    p99 = result["latency_p99_ms"]
    harness.say(f"{name}: p99 {p99} ms, the objective is {slo_ms:g} ms")
    return int(p99 > slo_ms)


if __name__ == "__main__":
    sys.exit(main())
