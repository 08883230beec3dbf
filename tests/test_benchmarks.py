"""The benchmarks' own arithmetic and shape, and that their opponents compute what ours does. No figure is judged."""

from __future__ import annotations

import doctest
import importlib
import json
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from benchmarks import __main__ as command
from benchmarks import codec, e2e, events, growth, harness, kafka, latency, payments, readme
from benchmarks.events import Payments
from benchmarks.kafka import Topics

NOW_US = 1_700_000_000_000_000
MODULES = ("e2e", "events", "growth", "harness", "kafka", "opponents", "readme")


def some(count: int, **options: Any) -> Payments:
    return events.payments(count, end_us=NOW_US, **options)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"benchmarks.{name}")).failed == 0


def test_contestants_take_turns_and_the_warm_up_does_not_count() -> None:
    ticks, calls = iter([0.0, 9.0, 10.0, 19.0, 20.0, 21.0, 30.0, 34.0, 40.0, 43.0, 50.0, 52.0]), []
    timed = harness.in_turns(
        {name: lambda name=name: calls.append(name) for name in "ab"}, 100, runs=2, clock=lambda: next(ticks)
    )
    assert "".join(calls) == "ababab"
    assert timed["a"].seconds == (1.0, 3.0)
    assert timed["b"].seconds == (4.0, 2.0)
    assert timed["a"].events_per_second == 50.0
    assert timed["b"].us == 30_000.0
    assert timed["a"].spread == 1.0


def test_a_rate_needs_two_bursts() -> None:
    assert kafka.rate_of([(0.0, 1), (5.0, 11)]) == (2.0, 10)
    bursts = [(t + 0.01 * look, 4096 * t + 1024 * (look + 1)) for t in range(5) for look in range(4)]
    assert kafka.rate_of(bursts) == (pytest.approx(4096.0), 4 * 4096)
    with pytest.raises(ValueError, match="at once"):
        kafka.rate_of([(0.0, 4096)])


def test_a_payment_is_178_bytes_or_so_and_a_function_of_the_seed() -> None:
    values = list(some(500).values())
    assert values == list(some(500).values())
    assert values != list(some(500, seed=8).values())
    assert 170 < np.mean([len(value) for value in values]) < 186
    parsed = [orjson.loads(value) for value in values]
    assert all(a["at"] < b["at"] for a, b in pairwise(parsed))
    assert "fraud" not in orjson.loads(next(some(1).values(told=False)))
    assert [payment["card"].encode() for payment in parsed] == some(500).keys()
    assert list(some(500).first(7).values()) == values[:7]


def test_ours_and_the_handwritten_flow_compute_the_same() -> None:
    assert e2e.agreement(600) <= e2e.TOLERANCE


def test_labels_that_are_waited_for_take_memory() -> None:
    found = e2e.pending(200)
    assert found["pending_bytes"] == pytest.approx(found["pending"] * found["bytes_per_pending"], rel=0.01)
    assert found["bytes_per_pending"] > 8


def test_formats_decode_to_the_same_columns() -> None:
    schema = payments.Payment.spec().schema
    rows = [orjson.loads(value) for value in some(300).values()]
    table = codec.pa.Table.from_pylist(rows)
    form = codec.Form(schema)
    expected = codec.columns(codec.raws_of([orjson.dumps(row) for row in rows], 300), form)
    messages = codec.arrow(table, 64)
    assert len(messages) == 5
    assert codec.columns(codec.raws_of(messages, 300), codec.Form(schema, "arrow")) == expected


def test_curves_are_drawn_the_same_each_time(tmp_path: Path) -> None:
    result = {"keys": [[10, 5.0], [100, 6.0]], "events": [[10, 5.0], [100, 6.0]], "unit": "µs"}
    first, second = (growth.plot(result, tmp_path / f"{name}.svg").read_bytes() for name in "ab")
    assert first == second
    assert b"<svg" in first


def test_growth_measures_every_curve() -> None:
    batch = growth.BATCH
    assert len(growth.history(8 * batch)) == 8
    assert growth.keys(50, batch) > 0
    assert growth.features(2, batch) > 0
    assert growth.window_rows(20, batch) > 0
    assert growth.pending(batch, batch) > 0


@pytest.mark.parametrize("name", command.names())
def test_every_benchmark_says_what_it_asks(name: str) -> None:
    assert len(command.question(name)) > 20
    assert callable(importlib.import_module(f"benchmarks.{name}").run)


def test_help_and_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    assert command.question("e2e") in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["e2"])
    assert "Did you mean e2e?" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="latency"):
        command.main(["codec", "--slo", "25"])


def test_the_objective_decides_the_exit_code() -> None:
    results = {"latency": {"latency_p99_ms": 24.0}}
    assert command._within(results, 25.0) == 0
    assert command._within(results, 23.0) == 1
    assert command._within({}, None) == 0


def test_json_is_the_last_line_and_the_result_itself(capsys: pytest.CaptureFixture[str]) -> None:
    command._tell({"learners": [{"model": "PAClassifier"}]}, True, alone=True)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == [{"model": "PAClassifier"}]
    command._tell({"a": {"x": 1}, "b": {}}, True, alone=False)
    assert json.loads(capsys.readouterr().out) == {"a": {"x": 1}, "b": {}}


def test_a_result_says_where_and_with_what(tmp_path: Path) -> None:
    result = harness.recorded(lambda quick: {"figure": 1.0, "versions": {"own": "1"}}, True)
    assert result["figure"] == 1.0
    assert result["versions"] == {"own": "1"}
    assert result["quick"] is True
    assert {"cpu", "cores", "system"} <= result["machine"].keys()
    assert {"cpu_seconds", "rss_mb"} <= result["resources"].keys()
    assert "numpy" in harness.versions()
    assert json.loads(harness.save("one", result, tmp_path).read_text()) == result


def test_the_table_in_the_readme_is_written_once(tmp_path: Path) -> None:
    machine = {"machine": {"cpu": "x", "cores": 2, "system": "Linux"}, "versions": {"python": "3.11"}}
    sizes = {"ratio_bytes": 2.06, "ratio_decode": 18.7, "ratio_encode": 190.0}
    harness.save("codec", sizes | machine, tmp_path)
    harness.save(
        "learners", [{"model": "PAClassifier", "events_per_second": 1_234_567.0, "ratio_river": 99.0}], tmp_path
    )
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n\n{readme.BEGIN}\nold\n{readme.END}\nrest\n")
    readme.write(path, tmp_path)
    once = path.read_text()
    assert "| PAClassifier | 1,230,000 events/s, 99 × River | `python -m benchmarks learners` |" in once
    assert "2 cores" in once
    assert once.endswith(f"{readme.END}\nrest\n")
    assert "old" not in once
    readme.write(path, tmp_path)
    assert path.read_text() == once


def test_the_readme_has_the_figures_of_the_saved_results() -> None:
    text = (harness.ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.between(text, readme.table()) == text, "python -m benchmarks readme"


def test_a_readme_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="end of figures"):
        readme.between("# Title", "new")


@pytest.fixture(name="topics", scope="module")
def topics_fixture() -> Iterator[Topics]:
    with kafka.topics() as found:
        yield found


@pytest.fixture(name="arena")
def arena_fixture(topics: Topics) -> Iterator[e2e.Arena]:
    with tempfile.TemporaryDirectory() as folder:
        yield e2e.Arena(topics, Path(folder))


@pytest.mark.slow
@pytest.mark.broker
def test_contestants_on_kafka_write_the_same(arena: e2e.Arena) -> None:
    rows = some(60_000)
    work = arena.fill(rows)
    arena.passthrough(arena.fill(some(100_000)))()  # fewer come at once, and no rate can be told
    for contestant in (
        arena.ours(work, 30.0, warm=3_000),
        arena.ours_saving(work, 30.0, warm=3_000),
        arena.ours_arrow(arena.fill(rows, arrow=True), warm=3_000),
        arena.plain_loop(work, 30.0, warm=3_000),
        arena.handwritten(work, 2.0, 1.0, "handwritten_saving", warm=3_000),
    ):
        contestant.prepare()()
    assert e2e.written_alike(arena) <= e2e.TOLERANCE
    assert all(one.rates[0] > 0 and one.timed[0] > 0 for one in arena.measured.values())
    assert arena.measured["ours"].told()["rss_mb"] > 50
    assert not [name for name in arena.kafka.names() if ".predictions" in name]


def test_arrow_messages_hold_the_same_payments() -> None:
    rows = some(300)
    found = [row for message in rows.messages(64) for row in pa.ipc.open_stream(message).read_all().to_pylist()]
    for row in found:
        row["at"] = round(row["at"].timestamp() * 1000)
    assert found == [orjson.loads(value) for value in rows.values()]
    assert list(rows.last(100).values(first=200)) == list(rows.values())[200:]


@pytest.mark.slow
@pytest.mark.broker
def test_latency_and_its_stages(arena: e2e.Arena) -> None:
    ends = latency.measure(arena.kafka, arena.state, 200.0, 3.0, 1.0)
    assert len(ends.sent) == 480 and ends.snapshots >= 2
    assert (ends.milliseconds() > 0).all()
    found = latency.told(ends)
    assert found["latency_p50_ms"] <= found["latency_p99_ms"] <= found["latency_max_ms"]
    stages = latency.stages(arena.kafka, ends)
    assert sum(stage["share"] for stage in stages.values()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.slow
@pytest.mark.broker
def test_labels_on_a_topic_of_their_own(arena: e2e.Arena) -> None:
    work = arena.fill(some(13_000), later=True)
    arena.labels_later(work, 30.0)()
    assert arena.rates("labels_later")[0] > 0
