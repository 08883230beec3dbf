"""The table of figures in README.md, between two marker comments, out of the results of full runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, ROOT

BEGIN = "<!-- figures: written by `python -m benchmarks readme` -->"
END = "<!-- end of figures -->"
ABSENT = "No full run has been saved yet: `make bench`."

Result = Any


def write(readme: Path = ROOT / "README.md", results: Path = RESULTS) -> str:
    """Puts the table between the markers; gives a line that says what was done.

    Raises:
        ValueError: a marker is missing.
    """
    before = readme.read_text(encoding="utf-8")
    after = between(before, table(results))
    if after == before:
        return f"{readme.name} is as the results say"
    readme.write_text(after, encoding="utf-8")
    return f"{readme.name} now has the figures of {results}"


def between(text: str, new: str) -> str:
    """``text`` with ``new`` between the markers.

    >>> between(f"a{BEGIN}old{END}z", "new") == f"a{BEGIN}\\n\\nnew\\n\\n{END}z"
    True
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md needs the lines {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{new}\n\n{END}{tail}"


def table(results: Path = RESULTS) -> str:
    """Markdown: one row a figure, and on which machine; a benchmark without a result has no row."""
    rows = list(figures(results))
    if not rows:
        return ABSENT
    lines = ["| what | figure | command |", "|---|---|---|"]
    lines += [f"| {what} | {figure} | `python -m benchmarks {name}` |" for name, what, figure in rows]
    return "\n".join([*lines, "", machine(results)])


def figures(results: Path) -> Iterator[tuple[str, str, str]]:
    """(benchmark, what, figure) of every result that is there."""
    for name, tell in TOLD.items():
        path = results / f"{name}.json"
        if path.is_file():
            yield from ((name, what, figure) for what, figure in tell(json.loads(path.read_text(encoding="utf-8"))))


def machine(results: Path) -> str:
    """Where the figures come from."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    told = {
        f"{one['machine']['cpu']}, {one['machine']['cores']} cores, {one['machine']['system']}, "
        f"Python {one['versions']['python']}"
        for one in found
        if isinstance(one, dict) and "machine" in one
    }
    return f"Measured on {'; '.join(sorted(told))}; the broker runs on the same cores. Ratios are of one run."


def _e2e(one: Result) -> Iterator[tuple[str, str]]:
    yield (
        "JSON on Kafka, 15 windowed features, a model that predicts and learns, a prediction an event on Kafka",
        f"{_count(one['events_per_second'])} events/s, {one['ratio_passthrough']:.2f} × copying the bytes",
    )
    saving = one["handwritten_snapshot_seconds"]
    text = f"{one['ratio_handwritten']:.3g} × with state saved every {saving:g} s"
    if "ratio_handwritten_defaults" in one:
        theirs, own = one["handwritten_default_snapshot_seconds"], one["snapshot_seconds"]
        text += f", {one['ratio_handwritten_defaults']:.3g} × with theirs every {theirs:g} s, ours every {own:g} s"
    yield "the same against stock Bytewax operators, running sums and River", text
    if "ratio_arrow" in one:
        yield "the same with Arrow batches in and out", f"{one['ratio_arrow']:.3g} × JSON"
    later = one["labels_later"]
    yield (
        "the same with labels ten minutes later on a topic of their own",
        f"{_count(later['events_per_second'])} events/s, {_count(later['pending_bytes'])} bytes of waiting predictions",
    )
    rate, every = _count(one["latency_events_per_second"]), one["latency_snapshot_seconds"]
    yield (
        f"latency at {rate} events/s, state saved every {every:g} s, {one['delivery']}",
        f"p50 {one['latency_p50_ms']:g} ms, p99 {one['latency_p99_ms']:g} ms",
    )
    if "latency_exactly_once_p99_ms" in one:
        yield "the same, exactly once", f"p99 {one['latency_exactly_once_p99_ms']:g} ms"


def _windows(one: Result) -> Iterator[tuple[str, str]]:
    yield (
        "windowed features over files",
        f"{one['ratio_polars']:.3g} × Polars, {one['ratio_duckdb']:.3g} × DuckDB",
    )
    rate, ratios = _count(one["stream_events_per_second"]), (one["ratio_reference"], one["ratio_disordered"])
    yield "windowed features in arrival order", f"{rate} events/s, {ratios[0]:.3g} × a plain Numba loop"
    yield "the same with disorder, nulls and ties", f"{ratios[1]:.3g} × that loop, which has none of them"
    yield "an event with 10⁶ keys against 10⁴", f"{one['growth_keys']:.3g} × the time"


def _learners(rows: Result) -> Iterator[tuple[str, str]]:
    for one in rows:
        yield one["model"], f"{_count(one['events_per_second'])} events/s, {one['ratio_river']:.3g} × River"


def _codec(one: Result) -> Iterator[tuple[str, str]]:
    yield (
        "Arrow against JSON on the wire",
        f"{one['ratio_bytes']:.2g} × smaller, {one['ratio_decode']:.3g} × faster to decode",
    )


def _scaling(one: Result) -> Iterator[tuple[str, str]]:
    yield "two shards in two processes, against one after the other", f"{one['chain']['ratio_processes']:.2f} ×"
    yield "the same in two threads", f"{one['chain']['ratio_threads']:.2f} ×"
    if "ratio_workers" in one:
        yield "two Bytewax workers on Kafka, an ensemble through River, against one", f"{one['ratio_workers']:.2f} ×"


TOLD: dict[str, Callable[[Result], Iterator[tuple[str, str]]]] = {
    "e2e": _e2e,
    "windows": _windows,
    "learners": _learners,
    "codec": _codec,
    "scaling": _scaling,
}


def _count(value: float) -> str:
    """
    >>> _count(1234567.0), _count(950)
    ('1,230,000', '950')
    """
    return f"{float(f'{value:.3g}'):,.0f}"
