"""The command line: help that teaches, MODULE, errors and exit codes, run records."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import orjson
import pytest
from click.testing import CliRunner, Result

from thalweg.dataflows import console
from thalweg.dataflows.cli import cli
from thalweg.dataflows.load import LoadError, load
from thalweg.dataflows.runs import Seen, find_run, list_runs
from thalweg.engine.errors import DefinitionError, ThalwegError

FLOW = """
from thalweg import FeatureSet, Stream, agg, col, pipeline

class Payment(Stream):
    "Card payments."
    topic, key, time = "payments", "card", col.at
    schema = dict(card="str", at="timestamp[s, UTC]", amount="f64")

class Habits(FeatureSet, source=Payment):
    "What this card has been doing."
    spent_1h = agg.by("card").sum(col.amount, "1h")

flow = pipeline(Habits)
"""
FAILS = ["backfill", "mine.py", "--from", "mine.py", "--out", "out.parquet", "--journal", "journal.jsonl"]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module into an empty working folder; what was imported from there is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def file(name: str, content: str = FLOW) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content))
        return path

    yield file
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
        if any(str(place).startswith(str(tmp_path)) for place in places):
            del sys.modules[name]


def thalweg(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), prog_name="thalweg")


def every_command(
    group: click.Group = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = list(every_command())
EXAMPLES = sorted(
    {
        re.split(r"\s{2,}| > ", line.strip())[0]
        for _, command in COMMANDS
        for line in (command.help or "").splitlines()
        if line.strip().startswith("thalweg ")
    }
)


# Help


def test_there_are_the_commands_and_examples_of_most() -> None:
    names = "demo run backfill archive verify subscribe explain asyncapi warm init broker runs".split()
    assert list(cli.commands) == names
    assert {example.split()[1] for example in EXAMPLES} == set(names)


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=["-".join(path) or "thalweg" for path, _ in COMMANDS])
def test_help_says_what_it_does_and_every_option_is_explained(path: tuple[str, ...], command: click.Command) -> None:
    result = thalweg(*path, "--help")
    assert result.exit_code == 0, result.output
    assert command.get_short_help_str(100).endswith((".", "?"))
    assert [one.name for one in command.params if isinstance(one, click.Option) and not one.help] == []


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_in_help_are_real(example: str) -> None:
    command: click.Command = cli
    context, arguments = None, shlex.split(example)
    while True:
        context = command.make_context(arguments[0], arguments[1:], parent=context)
        if not isinstance(command, click.Group) or not context._protected_args:
            return
        arguments = [*context._protected_args, *context.args]
        command = command.commands[arguments[0]]


def test_help_loads_no_heavy_library_beside_those_of_the_package_itself() -> None:
    heavy = "bytewax confluent_kafka river numpy numba pyarrow rich pyarrow.parquet"
    code = f"""
import sys, thalweg
before = set(sys.modules)
from thalweg.dataflows.cli import cli
cli(["--help"], standalone_mode=False)
added = set(sys.modules) - before
print([name for name in {heavy.split()} if name in added])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_python_m_thalweg_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "thalweg", "--version"], capture_output=True, text=True)
    assert re.fullmatch(r"thalweg \d+\.\d+\.\d+\n", done.stdout), done.stderr


# MODULE


@pytest.mark.parametrize(
    "module", ["mine.py", "mine.py:flow", "mine", "mine:flow", "pack.mine", "pack.mine:flow", "./mine.py"]
)
def test_a_module_is_a_dotted_name_a_name_and_an_attribute_or_a_path(write: Write, module: str) -> None:
    write("mine.py")
    write("pack/mine.py")
    assert load(module).name == "habits"


def test_an_absolute_path_and_a_file_beside_it(write: Write, tmp_path: Path) -> None:
    write("elsewhere/parts.py")
    path = write("elsewhere/whole.py", "from parts import flow as made\n")
    assert load(str(path)).name == "habits"


def test_flow_wins_else_the_only_pipeline(write: Write) -> None:
    write("two.py", FLOW + 'other = pipeline(Habits, name="other")\n')
    write("only.py", FLOW.replace("flow =", "mine = again ="))
    write("none.py", "x = 1")
    write("unclear.py", FLOW.replace("flow =", "a =") + 'b = pipeline(Habits, name="b")\n')
    assert load("two.py").name == "habits"
    assert load("two.py:other").name == "other"
    assert load("only.py").name == "habits"
    says = {
        "two.py:othr": r"two\.py has no 'othr'; it holds flow, other: write two\.py:flow",
        "two.py:Habits": r"two\.py:Habits is a type, no Pipeline",
        "unclear.py": r"no Pipeline called 'flow'; it holds a, b: write unclear\.py:a",
        "none.py": r"it holds none: write flow = pipeline\(\.\.\.\)",
    }
    for module, message in says.items():
        with pytest.raises(LoadError, match=message):
            load(module)


def test_what_is_not_there_is_told_with_where_was_looked_and_what_is_alike(write: Write, tmp_path: Path) -> None:
    write("payments.py")
    write("pack/__init__.py", "")
    write("pack/payments.py")
    says = {
        "payment.py": rf"there is no file payment\.py; looked in {tmp_path}. Did you mean payments\.py\?",
        "payment": rf"no module 'payment'; looked in {tmp_path} .* Did you mean payments\?",
        "pack.payment": r"no module 'pack\.payment'; pack has no such module\. Did you mean pack\.payments\?",
        "pack/": r"pack/ is a folder; write the file",
        "": "write a dotted name",
    }
    for module, message in says.items():
        with pytest.raises(LoadError, match=message):
            load(module)


def test_a_wrong_definition_is_told_with_file_and_line(write: Write) -> None:
    write("wrong.py", FLOW.replace('col.amount, "1h"', 'col.amuont, "1h"'))
    line = 1 + FLOW.splitlines().index("class Habits(FeatureSet, source=Payment):")
    with pytest.raises(DefinitionError, match=rf"/wrong\.py:{line}: .*amuont"):
        load("wrong.py")
    write("uses.py", "import wrong\nflow = wrong.flow")
    with pytest.raises(DefinitionError, match=rf"/wrong\.py:{line}: "):
        load("uses")


def test_other_errors_of_a_module_are_told_with_file_and_line(write: Write) -> None:
    write("syntax.py", "x = 1\ndef f(:\n")
    write("name.py", "\nflow = pipelin()\n")
    write("needs.py", "import not_installed_anywhere\n")
    write("pack/relative.py", "from . import other\n")
    says = {
        "syntax.py": r"syntax\.py:2: invalid syntax",
        "name.py": r"name\.py:2: NameError: name 'pipelin' is not defined",
        "needs": r"needs\.py:1: ModuleNotFoundError: No module named 'not_installed_anywhere'; install it",
        "pack/relative.py": r"dotted name, such as pack\.relative",
    }
    for module, message in says.items():
        with pytest.raises(LoadError, match=message):
            load(module)


def test_a_file_may_not_take_the_name_of_a_module_that_is_in_use(write: Write) -> None:
    write("json.py")
    with pytest.raises(LoadError, match="'json' is loaded already"):
        load("json.py")
    assert json.loads("1") == 1


# Errors and exit codes


def test_what_is_given_wrongly_is_one_message_and_code_2(write: Write) -> None:
    write("wrong.py", FLOW.replace("col.amount", "col.amuont"))
    write("mine.py")
    for arguments in (
        ["explain", "nowhere.py"],
        ["explain", "wrong.py"],
        ["explain"],
        ["explian", "mine.py"],
        ["run", "mine.py"],
        ["run", "mine.py", "--brokers", "kafka:9092"],
        ["run", "mine.py", "--brokers", "localhost:1", "--from", "yesterday"],
        ["run", "mine.py", "--brokers", "localhost:1", "--config", "none.toml"],
        ["backfill", "mine.py", "--from", "none.parquet", "--out", "x.parquet"],
        ["init", "no name"],
        ["runs", "show", "abc"],
    ):
        result = thalweg(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert "Traceback" not in result.output
        assert "Error: " in result.stderr
        assert result.stdout == ""


def test_what_goes_wrong_is_one_message_and_code_1(write: Write) -> None:
    write("mine.py")
    write("journal.jsonl", "no journal")
    result = thalweg(*FAILS)
    assert result.exit_code == 1
    assert "Error: this is no journal record" in result.stderr
    assert "Traceback" not in result.output


def test_debug_shows_the_trace(write: Write) -> None:
    result = thalweg("--debug", "explain", "nowhere.py")
    assert isinstance(result.exception, LoadError)


def test_ctrl_c_is_code_130_without_a_trace(write: Write) -> None:
    write("slow.py", "raise KeyboardInterrupt")
    result = thalweg("explain", "slow.py")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_errors_that_nobody_foresaw_say_where_and_how_to_see_more() -> None:
    def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        fails()
    message, code = console.told(caught.value)
    assert code == 1
    assert re.match(r"KeyError: 'x' \(at .*test_cli\.py:\d+\)\. This was not foreseen; `thalweg --debug", message)
    assert console.told(ThalwegError("a")) == ("a", 1)
    assert console.told(DefinitionError("b")) == ("b", 2)
    assert console.told(PermissionError(13, "Permission denied", "f")) == ("f: Permission denied", 1)


# Commands


def test_explain_and_asyncapi_print(write: Write) -> None:
    write("mine.py")
    assert "spent_1h = sum(col(amount)) over 1h" in thalweg("explain", "mine.py").stdout
    assert json.loads(thalweg("asyncapi", "mine.py").stdout)["channels"]["events"]["address"] == "payments"


def test_backfill_takes_many_files_as_a_shell_gives_them_and_leaves_a_record(write: Write, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write("mine.py")
    for i in range(3):
        rows = pa.table({"card": ["a"], "at": [i * 60], "amount": [1.0]})
        pq.write_table(
            rows.cast(pa.schema([("card", pa.string()), ("at", pa.int64()), ("amount", pa.float64())])), f"{i}.parquet"
        )
    shell = ["backfill", "mine.py", "--from", "0.parquet", "1.parquet", "2.parquet", "--out", "out.parquet"]
    quoted = ["backfill", "mine.py", "--from", "?.parquet", "--out", "out.parquet"]
    repeated = [
        "backfill",
        "--from=0.parquet",
        "--from",
        "1.parquet",
        "--from",
        "2.parquet",
        "--out",
        "out.parquet",
        "mine.py",
    ]
    for arguments in (shell, quoted, repeated):
        result = thalweg(*arguments)
        assert result.exit_code == 0, result.output
        assert pq.read_table("out.parquet").column("spent_1h").to_pylist() == [1.0, 2.0, 3.0]
    records = list_runs(".thalweg")
    assert len(records) == 3
    assert {(one["command"], one["outcome"], one["result"]["rows"]) for one in records} == {("backfill", "ended", 3)}
    assert len({one["configuration"] for one in records}) == 1
    listed = thalweg("runs").stdout.splitlines()
    assert listed[0].split() == ["id", "started", "command", "pipeline", "configuration", "outcome"]
    assert records[0]["id"] in listed[1]
    assert json.loads(thalweg("runs", "show", records[0]["id"]).stdout) == records[0]


def test_a_run_that_fails_leaves_a_record_without_secrets(write: Write) -> None:
    write("mine.py")
    write("thalweg.toml", '[kafka]\nsasl.password = "${env:PASSWORD}"\n[run]\nstate = "kept"')
    write("journal.jsonl", "no journal")
    result = CliRunner().invoke(cli, FAILS, env={"PASSWORD": "hunter2"})
    assert result.exit_code == 1, result.output
    [record] = list_runs("kept")
    assert record["outcome"].startswith("failed: JournalError: this is no journal record")
    assert record["settings"]["kafka"]["sasl.password"] == "***"
    assert "hunter2" not in json.dumps(record)
    assert record["code"]["thalweg"]
    assert {"river", "numba", "bytewax"} <= set(record["libraries"])
    assert record["started"] <= record["ended"]


def test_a_record_is_found_by_the_beginning_of_its_id(write: Write, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for name in ("ab1", "ab2"):
        record = {"id": name, "command": "run", "started": "2026", "outcome": "ended"}
        (runs / f"{name}.json").write_bytes(orjson.dumps(record))
    assert find_run(tmp_path, "ab2")["id"] == "ab2"
    with pytest.raises(ThalwegError, match=r"several runs begin with 'ab'.*ab2, ab1"):
        find_run(tmp_path, "ab")
    with pytest.raises(ThalwegError, match=r"there is no run 'c'.*ab2, ab1"):
        find_run(tmp_path, "c")
    (runs / "broken.json").write_text("{")
    with pytest.raises(ThalwegError, match=r"broken\.json is no run record"):
        list_runs(tmp_path)


def test_what_was_seen_of_logs() -> None:
    import numpy as np

    from thalweg.engine.batch import NO_TIME, Log, Raw

    def raw(offsets: list[int], times: list[int]) -> Raw:
        nothing: list[bytes | None] = [None] * len(offsets)
        stamps = np.array(times)
        return Raw(Log("t", 0), np.array(offsets), stamps, stamps, nothing, nothing, None)

    seen = Seen()
    seen.add([raw([3, 5], [NO_TIME, NO_TIME])])
    seen.add([raw([6, 9], [2_000_000, 1_000_000])])
    [entry] = seen.data()
    assert (entry["topic"], entry["partition"], entry["rows"]) == ("t", 0, 4)
    assert (entry["first_offset"], entry["last_offset"]) == (3, 9)
    assert (entry["first_time"], entry["last_time"]) == ("1970-01-01T00:00:01.000000Z", "1970-01-01T00:00:02.000000Z")


def test_progress_in_lines_tells_stages_and_their_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress() as report:
        for done in range(0, 1001, 10):
            report("read", done, 1000)
        report("rows", 5, 0)
    assert capsys.readouterr().err.splitlines() == ["read: 0 of 1,000", "read: 1,000 of 1,000", "rows: 5"]


@pytest.mark.broker
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_broker_says_where_it_is_and_stops_when_told(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "thalweg", "broker", "--data", str(tmp_path / "data")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("brokers: ").strip()
        assert re.fullmatch(r"127\.0\.0\.1:\d+", address), process.communicate()[1]
        assert thalweg("subscribe", "--brokers", address, "--topic", "none").exit_code == 1
        process.send_signal(number)
        assert process.communicate(timeout=20) == ("", "stopped\n")
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
