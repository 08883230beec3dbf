"""The command line. What a command needs is imported by the command, so that help is there at once."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from thalweg.dataflows import console
from thalweg.dataflows.commands import Commands, SpreadCommand, files_of, start_of

if TYPE_CHECKING:
    from thalweg.dataflows.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

FIRST_STEPS = """Real-time machine learning on Kafka: features, online learning and drift from one definition.

You write one Python module: a Stream (a topic), a FeatureSet (what its rows have been doing), a Label (the
outcome that comes later) and models. The same module runs live on Kafka, over Parquet files, and in a test.

First steps:

\b
  thalweg demo                       flights through Kafka: predictions, labels, drift; ends by itself
  thalweg init fraud                 a folder with a pipeline to start from, its test and sample data
  thalweg explain fraud/pipeline.py  what it computes, and the state it keeps
  thalweg broker --port 9092         a Kafka broker for development, in a terminal of its own
  python fraud/produce.py            the sample data goes to 127.0.0.1:9092
  thalweg run fraud/pipeline.py --brokers 127.0.0.1:9092

MODULE is a dotted name (my.module), a name and an attribute (my.module:flow) or a file (pipeline.py). Brokers
and other settings may stand in thalweg.toml or in the environment, secrets only in the environment or in files
of their own. Exit codes: 0 done (also a run that was stopped:
it saves its state first), 1 failed, 2 something given is wrong, 130 interrupted."""


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Commands, help=FIRST_STEPS, context_settings=CONTEXT)
@click.version_option(package_name="thalweg", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the whole trace of an error.")
def cli(debug: bool) -> None:
    """See ``FIRST_STEPS``."""


def main() -> None:
    """What ``thalweg`` and ``python -m thalweg`` start; a closed terminal and SIGTERM end it as Ctrl-C does."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    cli(prog_name="thalweg")


def _settings(command: F) -> F:
    """``--config`` and ``--brokers``."""
    command = click.option("--config", metavar="FILE", help="Settings; default: thalweg.toml, if it is there.")(command)
    return click.option("--brokers", metavar="HOST:PORT", help="Kafka brokers, separated by commas.")(command)


@cli.command()
@click.option("--days", type=click.IntRange(1, 365), default=31, show_default=True, help="How many days of 2013.")
@click.option("--seed", type=int, default=7, show_default=True, help="Of the disorder and faults that are planted.")
@click.option("--json", "as_json", is_flag=True, help="Flat out; the last line on stdout is a JSON object.")
@click.option("--brokers", metavar="HOST:PORT", help="A broker of yours; default: one is started for the demo.")
def demo(days: int, seed: int, as_json: bool, brokers: str | None) -> None:
    """Flights out of New York, live: will they land late?

    Streams real flights through Kafka, some of them disturbed, predicts at scheduled departure, learns from the
    landings, then recomputes every prediction from an archive and compares.

    \b
      thalweg demo
      thalweg demo --days 7 --json
    """
    from thalweg.dataflows.demo import demo as run_demo
    from thalweg.dataflows.demo import told

    with console.progress() as report:
        result = run_demo(days, seed, brokers, paced=not as_json and sys.stdout.isatty(), report=report)
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(told(days, result))
    if result["parity_mismatches"]:
        raise click.ClickException(f"{result['parity_mismatches']} predictions differ between live and backfill")


@cli.command()
@click.argument("module")
@_settings
@click.option(
    "--from",
    "start",
    metavar="WHERE",
    default="earliest",
    show_default=True,
    help="First start only: earliest, latest or a time.",
)
@click.option("--until-end", is_flag=True, help="End behind what the topics hold now.")
@click.option("--state", metavar="DIR", help="Folder of saved state and run records; default: .thalweg")
@click.option("--epoch", "epoch_seconds", type=float, metavar="SECONDS", help="How often state is saved; default: 30.")
def run(module: str, start: str, until_end: bool, brokers: str | None, config: str | None, **run_options: Any) -> None:
    """Run a pipeline live on Kafka.

    Reads the stream's topic (and the label's), writes <pipeline>.predictions, .alarms, .metrics, .dlq and
    .journal. A later start goes on where the last one stopped. Ctrl-C and SIGTERM save state, then end it.

    \b
      thalweg run pipeline.py --brokers 127.0.0.1:9092
      thalweg run my.module:flow --brokers 127.0.0.1:9092 --from 2026-01-01T00:00:00Z --until-end
    """
    from thalweg.dataflows.load import load
    from thalweg.dataflows.run import run as run_recorded

    settings = _loaded(config, brokers, **run_options)
    where = start_of(start)
    flow = load(module)
    with console.progress() as report:
        _warm(report)
        result = run_recorded(flow, settings, start=where, until_end=until_end, report=report)
    console.facts(f"pipeline {flow.name}", {name: result[name] for name in ("read", "written", "counters")})
    if result["stopped"]:
        click.echo("stopped; the next start goes on from here", err=True)


@cli.command(cls=SpreadCommand)
@click.argument("module")
@click.option(
    "--from",
    "events",
    multiple=True,
    required=True,
    metavar="F...",
    help="Parquet files or folders of the stream's topic.",
)
@click.option("--labels", multiple=True, metavar="F...", help="Those of the label's topic.")
@click.option("--out", required=True, metavar="G", help="The Parquet file to write.")
@click.option("--journal", metavar="FILE", help="The live run's journal as JSON lines: then the same bits.")
@click.option(
    "--batch-rows", type=click.IntRange(1), default=8192, show_default=True, help="Rows at once; changes no value."
)
@click.option("--config", metavar="FILE", help="Settings; default: thalweg.toml, if it is there.")
def backfill(
    module: str,
    events: Sequence[str],
    labels: Sequence[str],
    out: str,
    journal: str | None,
    batch_rows: int,
    config: str | None,
) -> None:
    """Write a training table from files, by the chain that serves.

    Columns: id, event_id, key, time, the features, score, label, label_known_at, fingerprint. A row's features
    are those that were, or would have been, served: nothing in them comes from later.

    \b
      thalweg backfill pipeline.py --from lake/payments.parquet --out training.parquet
      thalweg backfill pipeline.py --from lake/*.parquet --labels reports/*.parquet --out training.parquet
    """
    from thalweg.dataflows.backfill import backfill as run_backfill
    from thalweg.dataflows.load import load
    from thalweg.dataflows.runs import recording

    settings = _loaded(config, None)
    flow = load(module)
    files, told = files_of("--from", events), files_of("--labels", labels)
    with recording(settings.run.state, "backfill", flow, settings) as record, console.progress() as report:
        _warm(report)
        stage = _stage(report, "backfill")
        result = run_backfill(flow, files, told, out, journal=journal, batch_rows=batch_rows, progress=stage)
        record.take(result | {"from": list(files), "labels_from": list(told)})
    console.facts(f"pipeline {flow.name}", result)


@cli.command()
@click.argument("module")
@_settings
@click.option("--out", required=True, metavar="DIR", help="The folder to write.")
def archive(module: str, out: str, brokers: str | None, config: str | None) -> None:
    """Write the input topics and the journal to files.

    <topic>.parquet holds the messages and where they stood, journal.jsonl what the live run read and in which
    order: what backfill needs to give the live run's bits.

    \b
      thalweg archive pipeline.py --out lake
      thalweg backfill pipeline.py --from lake/payments.parquet --journal lake/journal.jsonl --out training.parquet
    """
    from thalweg.dataflows.load import load
    from thalweg.dataflows.verify import archive_topics

    settings = _loaded(config, brokers)
    flow = load(module)
    files = archive_topics(flow, settings.client(), Path(out))
    console.facts(f"pipeline {flow.name}", {name: str(path) for name, path in files.items()})


@cli.command()
@click.argument("module")
@_settings
def verify(module: str, brokers: str | None, config: str | None) -> None:
    """Recompute what was served, and compare bit for bit.

    Reads the topics and the journal, follows the journal, and compares every field of every prediction. Exit
    code 1 when one differs, is missing, or should not be there.

    \b
      thalweg verify pipeline.py --brokers 127.0.0.1:9092
    """
    from thalweg.dataflows.load import load
    from thalweg.dataflows.runs import recording
    from thalweg.dataflows.verify import verify as run_verify

    settings = _loaded(config, brokers)
    flow = load(module)
    client = settings.client()
    with recording(settings.run.state, "verify", flow, settings) as record, console.progress() as report:
        _warm(report)
        result = run_verify(flow, client, _stage(report, "verify"))
        record.take(result)
    console.facts(f"pipeline {flow.name}", {name: value for name, value in result.items() if name != "examples"})
    for example in result["examples"]:
        click.echo(f"  {example}")
    faults = sum(result[name] for name in ("mismatches", "missing", "unexpected"))
    if faults:
        raise click.ClickException(f"{faults:,} predictions are not what the logs and the journal give")


@cli.command()
@_settings
@click.option("--topic", required=True, help="Such as my_pipeline.predictions.")
@click.option(
    "--from", "start", metavar="WHERE", default="latest", show_default=True, help="earliest, latest or a time."
)
@click.option("--until-end", is_flag=True, help="End behind what the topic holds now.")
def subscribe(topic: str, start: str, until_end: bool, brokers: str | None, config: str | None) -> None:
    """Print the records of a topic as JSON lines, as they come.

    \b
      thalweg subscribe --brokers 127.0.0.1:9092 --topic fraud.predictions
      thalweg subscribe --brokers 127.0.0.1:9092 --topic fraud.alarms --from earliest --until-end

    The same in Python:

    \b
      from thalweg import subscribe
      for record in subscribe("127.0.0.1:9092", "fraud.predictions"):
          print(record["score"])
    """
    from thalweg.connectors.kafka_read import subscribe as records

    client = _loaded(config, brokers).client()
    for record in records(
        client["bootstrap.servers"], topic, start=start_of(start), until_end=until_end, settings=client
    ):
        click.echo(json.dumps(record, ensure_ascii=False))


@cli.command()
@click.argument("module")
def explain(module: str) -> None:
    """Print what a pipeline computes, and the state it keeps.

    Features, nodes, bytes per key, models.

    \b
      thalweg explain thalweg.dataflows.flights
    """
    from thalweg.dataflows.load import load

    click.echo(load(module).explain())


@cli.command()
@click.argument("module")
def asyncapi(module: str) -> None:
    """Print the AsyncAPI document of a pipeline's topics.

    Version 3.0, as JSON, with a JSON Schema of the records of each topic.

    \b
      thalweg asyncapi thalweg.dataflows.flights > asyncapi.json
    """
    from thalweg.dataflows.asyncapi import text
    from thalweg.dataflows.load import load

    click.echo(text(load(module)))


@cli.command()
def warm() -> None:
    """Compile everything now, so that no later start has to.

    The first start on a machine does it otherwise, and takes a minute longer. Example, in a container image:

    \b
      thalweg warm
    """
    from thalweg.dataflows.warm import warm_in_parallel

    with console.progress() as report:
        warm_in_parallel(_stage(report, "compile"))


@cli.command()
@click.argument("name")
@click.option("--dir", "folder", metavar="DIR", help="Where the folder goes; default: ./NAME")
def init(name: str, folder: str | None) -> None:
    """Make a pipeline to start from, with its test and sample data.

    \b
      thalweg init fraud
      thalweg init fraud --dir work/fraud
    """
    from thalweg.dataflows.init import init as make

    made = make(name, folder)
    click.echo(f"made {made}:")
    for path in sorted(path for path in made.rglob("*") if path.is_file()):
        click.echo(f"  {path.relative_to(made)}")
    click.echo(f"Next: cd {made} && {sys.executable} -m pytest; its README.md goes on from there.")


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Default: one that is free.")
@click.option("--data", metavar="DIR", help="Where topics are kept; default: a folder that goes with the broker.")
def broker(port: int | None, data: str | None) -> None:
    """Run a Kafka broker for development.

    It is for this machine only, and stops on Ctrl-C. In production, use a Kafka cluster: this one forgets its last
    second when it is killed.

    \b
      thalweg broker
      thalweg broker --port 9092 --data kafka-data
    """
    from thalweg.connectors.broker import BrokerError, EmbeddedBroker

    ended: list[int] = []
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with EmbeddedBroker(data, port) as server:
            signal.signal(signal.SIGCHLD, lambda number, frame: ended.append(number))
            click.echo(f"brokers: {server.bootstrap}")
            while not ended:
                time.sleep(0.2)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            raise BrokerError(
                f"the broker at {server.bootstrap} ended by itself; start it again, with --data to keep topics"
            )
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@cli.group(invoke_without_command=True)
@click.option("--state", metavar="DIR", help="Folder of saved state and run records; default: .thalweg")
@click.option("--config", metavar="FILE", help="Settings; default: thalweg.toml, if it is there.")
@click.pass_context
def runs(ctx: click.Context, state: str | None, config: str | None) -> None:
    """List the records of runs, or show one.

    A record holds code, settings, libraries, data and metrics.

    \b
      thalweg runs
      thalweg runs show 3f2a
    """
    from thalweg.dataflows.runs import list_runs

    ctx.obj = _loaded(config, None, state=state).run.state
    if ctx.invoked_subcommand is None:
        found = list_runs(ctx.obj)
        if not found:
            click.echo(f"no runs in {ctx.obj}; `thalweg run` and `thalweg backfill` leave records there")
            return
        names = ("id", "started", "command", "pipeline", "configuration", "outcome")
        console.table(names, [[str(one.get(name, ""))[:60] for name in names] for one in found])


@runs.command()
@click.argument("id_", metavar="ID")
@click.pass_obj
def show(state: str, id_: str) -> None:
    """Print the record whose id begins with ID."""
    from thalweg.dataflows.runs import find_run

    click.echo(json.dumps(find_run(state, id_), indent=2, ensure_ascii=False))


def _loaded(config: str | None, brokers: str | None, **run_options: Any) -> Settings:
    from thalweg.dataflows.settings import Settings

    settings = Settings.load(config, brokers=brokers, **run_options)
    for warning in settings.warnings():
        click.echo(f"Warning: {warning}", err=True)
    return settings


def _warm(report: console.Progress) -> None:
    from thalweg.engine.kernels.warm import warm

    warm(_stage(report, "compile"))


def _stage(report: console.Progress, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: report(stage, done, total)
