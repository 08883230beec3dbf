"""``explain``: what a definition computes, in words and numbers that a person can check."""

from __future__ import annotations

from collections.abc import Iterator

from thalweg.engine.definition import Definition
from thalweg.engine.durations import format_us
from thalweg.engine.features.groups import Group


def explain(definition: Definition) -> str:
    """Features, the nodes behind them, the state that is kept per key and per row, the models."""
    return "\n".join(_lines(definition))


def _lines(definition: Definition) -> Iterator[str]:
    stream, spec = definition.stream, definition.features
    yield f"pipeline {definition.name}  fingerprint {definition.fingerprint}"
    yield f"stream   {stream.topic}, key {stream.key}, time {stream.time}, " + _limits(definition)
    if stream.score is not None:
        yield f"score    where {stream.score.canonical}"
    if definition.label is not None:
        label = definition.label
        source = f"topic {label.topic}" if label.own_topic else "rows of the stream"
        waits = f"horizon {format_us(label.horizon_us)}, timeout {label.timeout}"
        yield f"label    {label.name}: {label.value.canonical} ({label.value_type}) on {label.on}, {source}, {waits}"
    yield ""
    yield f"features {spec.name} version {spec.version}  fingerprint {spec.fingerprint}"
    for feature in spec.features:
        yield f"  {feature.name}{' (text)' if feature.is_text else ''} = {feature.expr.canonical}"
    yield ""
    yield "state"
    for group in definition.plan.groups:
        yield from _group(group)
    yield ""
    yield "models"
    for i, member in enumerate(definition.open_members()):
        yield f"  {'serves' if i == 0 else 'beside'}  {member.name}  version {member.version}  {member.task}"
        yield f"          {member.runs}"
    if not definition.models:
        yield "  none: vectors are written"
    for detector in definition.drift:
        yield f"  watches the served error: {detector.name}"


def _limits(definition: Definition) -> str:
    stream = definition.stream
    dedupe = "" if stream.dedupe is None else f", dedupe {stream.dedupe.canonical} for {format_us(stream.dedupe_us)}"
    shards = "one shard" if definition.shards == "one" else "a shard a partition"
    return (
        f"disorder {format_us(stream.disorder_us)}, future {format_us(stream.future_us)}, "
        f"late {stream.late}{dedupe}, {shards}"
    )


def _group(group: Group) -> Iterator[str]:
    kept = [format_us(group.program.keep_us)] if group.program.keep_us >= 0 else []
    kept += [f"the last {group.program.keep_rows} rows"] if group.program.keep_rows else []
    rows = f"rows of {' and '.join(kept)} behind the watermark" if kept else "rows ahead of the watermark"
    yield f"  {group.text}"
    yield f"    {group.bytes_per_key} bytes per key and its text; {group.bytes_per_row} bytes per row, {rows}"
    for expr in group.values:
        yield f"    column {expr.canonical}"
    for aggregate in group.aggregates:
        value = "" if aggregate.value is None else aggregate.value.canonical
        current = "" if aggregate.include_current else ", without the current row"
        yield f"    {aggregate.op}({value}) over {aggregate.window.text}{current}"
