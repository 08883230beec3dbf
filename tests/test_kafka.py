"""Source, sink and journal on a real broker, driven by Bytewax, with a chain whose result depends on the order."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

from tests.kafka_fixture import CountingChain, Kafka, bootstrap_fixture, kafka_fixture, now_ms
from thalweg.connectors.broker import BrokerError, EmbeddedBroker
from thalweg.connectors.codecs import encode
from thalweg.connectors.journal import JournalError
from thalweg.connectors.kafka_config import ConnectionFailed, LogError, SettingsError, TopicError, client_config
from thalweg.connectors.kafka_read import Reader, read_topic, subscribe
from thalweg.connectors.kafka_sink import DeliveryError, Writer
from thalweg.connectors.merged import Merged
from thalweg.dataflows.live import Counts, LiveError, repair, run_live
from thalweg.engine.batch import Log, Row
from thalweg.engine.records import Block, Left
from thalweg.engine.table import Constant, Flag, Hex, Numbered, Table, Times, dicts

__all__ = ["bootstrap_fixture", "kafka_fixture"]  # pytest finds them here
pytestmark = pytest.mark.broker


def some(count: int, start: int = 0) -> list[bytes]:
    return [b'{"n": %d}' % n for n in range(start, start + count)]


def test_every_row_gives_one_output_with_its_key_and_partition(kafka: Kafka, tmp_path: Path) -> None:
    job = kafka.job(kafka.topic(partitions=2))
    for partition in (0, 1):
        kafka.write(job.stream, some(500), partition)
    told: list[Counts] = []
    counts = kafka.run(replace(job, batch_rows=100), tmp_path, progress=told.append)
    assert counts.read == {job.stream: 1000} and counts.written == {"predictions": 1000} and told[-1] == counts
    for partition in (0, 1):
        found = kafka.values(job.topic("predictions"), partition)
        assert [row["id"] for row in found] == [f"{job.stream}/{partition}/{n}" for n in range(500)]
        assert [row["row"] for row in found] == list(range(1, 501))
        first, *others = kafka.journal(job, partition)
        assert first.start == {(job.stream, partition): 0} and [record.number for record in others] == list(
            range(1, len(others) + 1)
        )
        assert others[-1].counters == {"read": 500} and others[-1].reads[-1].last == 499
    raw = next(read_topic(kafka.settings, job.topic("predictions"), [0]))
    assert set(raw.keys) == {b"k"}


def test_a_stop_and_a_start_lose_and_repeat_nothing(kafka: Kafka, tmp_path: Path) -> None:
    stop = threading.Event()

    def after_some(counts: Counts) -> None:
        stop.set()

    job = kafka.job(kafka.topic(), batch_rows=50, until_end=False)
    kafka.write(job.stream, some(2000))
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    first = kafka.run(job, tmp_path, stop=stop, progress=after_some)
    timer.join()
    kafka.write(job.stream, some(100, 2000))
    second = kafka.run(replace(job, until_end=True), tmp_path)
    assert first.read[job.stream] + second.read[job.stream] == 2100 and second.followed == 0
    found = kafka.values(job.topic("predictions"))
    assert [row["row"] for row in found] == list(range(1, 2101))
    assert [record.number for record in kafka.journal(job)] == list(range(len(kafka.journal(job))))


def test_without_its_state_a_pipeline_follows_the_journal_to_the_same_outputs(kafka: Kafka, tmp_path: Path) -> None:
    events, labels = kafka.topic(prefix="a"), kafka.topic(prefix="b")
    job = kafka.job(events, labels=(labels,), batch_rows=37)
    kafka.write(events, some(300), time_ms=now_ms())
    kafka.run(job, tmp_path / "one")
    kafka.write(labels, some(200), time_ms=now_ms() - 5000)
    kafka.write(events, some(100, 300), time_ms=now_ms() - 2500)
    kafka.run(job, tmp_path / "one")
    served = kafka.values(job.topic("predictions"))
    journal = kafka.journal(job)
    kafka.write(events, some(5, 400))
    counts = kafka.run(replace(job, batch_rows=11), tmp_path / "two")
    assert counts.followed == 600 and counts.read == {events: 405, labels: 200}
    again = kafka.values(job.topic("predictions"))[600:]
    assert again[:600] == served and [row["id"] for row in again[600:]] == [f"{events}/0/{n}" for n in range(400, 405)]
    assert kafka.journal(job)[: len(journal)] == journal


@pytest.mark.parametrize("shards", ["each", "one"])
def test_catching_up_keeps_the_logs_of_a_shard_together(kafka: Kafka, tmp_path: Path, shards: str) -> None:
    """A long and a short log over the same time are merged by their records' time, not one after the other."""
    events, labels = kafka.topic(2), kafka.topic(2)
    start, producer = now_ms() - 10_000, kafka.producer()
    for n in range(2000):
        producer.produce(events, b"{}", b"k", n % 2, timestamp=start + n)
        if n % 10 == 0:
            producer.produce(labels, b"{}", b"k", n // 10 % 2, timestamp=start + n)
    producer.flush()
    job = kafka.job(events, labels=(labels,), shards=shards, batch_rows=200)
    assert sum(kafka.run(job, tmp_path).read.values()) == 2200
    for shard in range(2 if shards == "each" else 1):
        times = {
            (raw.log, int(o)): int(t)
            for topic in (events, labels)
            for raw in read_topic(kafka.settings, topic)
            for o, t in zip(raw.offsets, raw.times, strict=True)
        }
        reads = [extent for record in kafka.journal(job, shard) for extent in record.reads]
        sequence = [times[e.log, o] for e in reads for o in range(e.first, e.last + 1)]
        assert sequence == sorted(sequence)


def test_labels_in_another_number_of_partitions_are_refused_unless_one_shard_reads_all(
    kafka: Kafka, tmp_path: Path
) -> None:
    job = kafka.job(kafka.topic(2), labels=(kafka.topic(1),))
    with pytest.raises(TopicError, match=r"has 1 partitions, .* has 2: .*shards=\"one\""):
        kafka.run(job, tmp_path)
    kafka.write(job.stream, some(3), 1)
    kafka.write(job.labels[0], some(4))
    assert sum(kafka.run(replace(job, shards="one"), tmp_path).written.values()) == 7


def test_aborted_rows_are_skipped_and_the_end_lies_behind_the_markers(kafka: Kafka, tmp_path: Path) -> None:
    job = kafka.job(kafka.topic())
    producer = kafka.producer(**{"transactional.id": job.stream})
    producer.init_transactions(5)
    for values, keep in ((some(3), True), (some(4), False), (some(2), True), (some(5), False)):
        producer.begin_transaction()
        for value in values:
            producer.produce(job.stream, value, b"k", 0)
        producer.commit_transaction(5) if keep else producer.abort_transaction(5)
    assert kafka.run(job, tmp_path).read[job.stream] == 5
    assert kafka.run(job, tmp_path).read[job.stream] == 0
    assert [e.first for r in kafka.journal(job) for e in r.reads] == [0]
    reader = Consumer({**kafka.settings, "group.id": f"thalweg.{job.name}"})
    (committed,) = reader.committed([TopicPartition(job.stream, 0)], timeout=5)
    assert committed.offset == reader.get_watermark_offsets(TopicPartition(job.stream, 0), timeout=5)[1]  # no lag
    reader.close()


@pytest.mark.parametrize(("start", "expected"), [("earliest", 20), ("latest", 0), ("time", 10)])
def test_a_first_start_begins_where_it_is_told(kafka: Kafka, tmp_path: Path, start: str, expected: int) -> None:
    job, now = kafka.job(kafka.topic()), now_ms()
    kafka.write(job.stream, some(10), time_ms=now - 60_000)
    kafka.write(job.stream, some(10, 10), time_ms=now)
    job = replace(job, start=(now - 30_000) * 1000 if start == "time" else start)
    assert kafka.run(job, tmp_path).read[job.stream] == expected
    kafka.write(job.stream, some(2))
    assert kafka.run(job, tmp_path).read[job.stream] == 2  # later starts resume


def test_the_append_time_is_the_brokers_or_that_of_first_reading(kafka: Kafka, tmp_path: Path) -> None:
    for config, of_broker in (({"message.timestamp.type": "LogAppendTime"}, True), ({}, False)):
        job, long_ago = kafka.job(kafka.topic(config=config)), now_ms() - 10**7
        before = now_ms()
        kafka.write(job.stream, some(1), time_ms=long_ago)
        time.sleep(0.01)
        kafka.run(job, tmp_path / job.name)
        (row,), (raw,) = kafka.values(job.topic("predictions")), read_topic(kafka.settings, job.stream)
        read_at = kafka.journal(job)[-1].read_at
        assert row["append"] == (int(raw.times[0]) if of_broker else read_at) >= before * 1000


def test_an_offset_that_is_gone_is_an_error(kafka: Kafka, tmp_path: Path) -> None:
    job = kafka.job(kafka.topic())
    kafka.write(job.stream, some(5))
    kafka.run(job, tmp_path)
    kafka.write(job.stream, some(5))
    _delete_until(kafka, job.stream, 8)
    with pytest.raises(LogError, match=r"offset 5 of t\d+\[0\] is not there: the log holds 8 to 9; .*retention"):
        kafka.run(job, tmp_path)


def test_a_topic_that_was_created_anew_is_an_error(kafka: Kafka, tmp_path: Path) -> None:
    job = kafka.job(kafka.topic())
    kafka.write(job.stream, some(5))
    kafka.run(job, tmp_path)
    anew = replace(job, stream=kafka.topic())
    with pytest.raises(JournalError, match=r"was started with the logs t\d+\[0\], now it reads t\d+\[0\]"):
        kafka.run(anew, tmp_path)
    kafka.cluster._admin.delete_topics([job.stream])[job.stream].result(5)
    kafka.cluster.create_topics({job.stream: 1})
    with pytest.raises(LogError, match=r"offset 5 of .* holds 0 to -1; the topic was created anew"):
        kafka.run(job, tmp_path)


def test_an_offset_that_goes_while_reading_is_an_error(kafka: Kafka) -> None:
    topic = kafka.topic()
    kafka.write(topic, some(5))
    with Reader(kafka.settings, "g") as reader:
        reader.assign({Log(topic, 0): 0})
        while reader.position(Log(topic, 0)) < 5:
            reader.poll(10, 0.1)
        reader._consumer.seek(TopicPartition(topic, 0, 77))  # as after a log lost its end
        with pytest.raises(LogError, match=r"is not there: the log holds 0 to 4"):
            [reader.poll(10, 0.1) for _ in range(50)]


def test_inputs_that_have_grown_are_refused(kafka: Kafka, tmp_path: Path) -> None:
    job = kafka.job(kafka.topic())
    kafka.run(job, tmp_path)
    futures = kafka.cluster._admin.create_partitions([NewPartitions(job.stream, 2)])
    futures[job.stream].result(5)
    with pytest.raises(TopicError, match=r"exists with 1 partitions, 2 are needed.*these have grown, .*new pipeline"):
        kafka.run(job, tmp_path)


def test_a_broker_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    stop = threading.Event()
    counts: list[Counts] = []
    with EmbeddedBroker(tmp_path / "data") as first:
        kafka = Kafka(first.bootstrap)
        job = kafka.job(kafka.topic(), until_end=False)
        kafka.write(job.stream, some(10))
        arguments = (job, tmp_path / "state")
        options = {"stop": stop, "progress": counts.append}
        runner = threading.Thread(target=kafka.run, args=arguments, kwargs=options)
        runner.start()
        _until(lambda: kafka.written(job) == 10)
    time.sleep(0.2)
    with EmbeddedBroker(tmp_path / "data", first.port):
        kafka.write(job.stream, some(10, 10))
        _until(lambda: kafka.written(job) == 20)
        stop.set()
        runner.join(10)
    assert not runner.is_alive() and counts[-1].read[job.stream] == 20


def test_snapshots_of_an_epoch_that_never_committed_are_deleted(kafka: Kafka, tmp_path: Path) -> None:
    job = kafka.job(kafka.topic())
    kafka.write(job.stream, some(5))
    kafka.run(job, tmp_path)
    store = tmp_path / "recovery"
    (part,) = store.glob("part-*.sqlite3")
    with closing(sqlite3.connect(part)) as database, database:
        key = database.execute("SELECT step_id, state_key FROM snaps WHERE step_id LIKE '%chain%'").fetchone()
        half_done = (*key, 10**6, b"not what the next start shall load")
        database.execute(
            "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change) VALUES (?, ?, ?, ?)", half_done
        )
    assert repair(store) == 1 and repair(store) == 0
    kafka.write(job.stream, some(1))
    kafka.run(job, tmp_path)
    assert [row["row"] for row in kafka.values(job.topic("predictions"))] == [1, 2, 3, 4, 5, 6]


def test_a_journal_that_is_gone_is_an_error(kafka: Kafka, tmp_path: Path) -> None:
    job = kafka.job(kafka.topic())
    kafka.write(job.stream, some(5))
    kafka.run(job, tmp_path)
    other = replace(job, topics={"journal": kafka.topic()})
    with pytest.raises(JournalError, match=r"goes on at record 2, the journal 't\d+' ends with None"):
        kafka.run(other, tmp_path)
    _delete_until(kafka, job.topic("journal"), 1)
    with pytest.raises(JournalError, match=r"no saved state, and the journal of shard 0 begins with .*/1"):
        kafka.run(job, tmp_path / "new")


def test_no_broker_is_an_error_in_time(tmp_path: Path) -> None:
    kafka = Kafka("127.0.0.1:9")
    with pytest.raises(ConnectionFailed, match=r"no broker answered at 127.0.0.1:9 within 0.5 s: .*refused"):
        type(kafka.cluster)(kafka.settings, timeout_s=0.5).topics()


def test_a_topic_that_is_missing_is_named_with_its_like(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.topic(prefix="departures")
    with pytest.raises(TopicError, match=f"'{topic}x' does not exist on .* Spelled alike: '{topic}'.* Create it"):
        kafka.run(kafka.job(topic + "x"), tmp_path)


class Large(CountingChain):
    """Answers with more than a topic takes, and compressing it does not help."""

    def push(self, raws: Merged) -> Left:
        return Left([], [Row("predictions", 0, None, np.random.default_rng(7).bytes(1_500_000)) for _ in raws])


class Huge(Large):
    """Answers with more than the client takes."""

    def push(self, raws: Merged) -> Left:
        return Left([], [Row("predictions", 0, None, b"x" * 17_000_000) for _ in raws])


@pytest.mark.parametrize("chain", [Large, Huge])
def test_a_row_that_is_not_delivered_stops_the_pipeline(
    kafka: Kafka, tmp_path: Path, chain: type[CountingChain]
) -> None:
    job = kafka.job(kafka.topic())
    kafka.write(job.stream, some(1))
    with pytest.raises(DeliveryError, match=r"predictions\[0\] did not take a record: .*too large.*max.message.bytes"):
        run_live(job, chain, kafka.settings, tmp_path)


class Broken(CountingChain):
    def push(self, raws: Merged) -> Left:
        raise ZeroDivisionError("at row 7")


def test_a_chain_that_raises_is_named(kafka: Kafka, tmp_path: Path) -> None:
    job = kafka.job(kafka.topic())
    kafka.write(job.stream, some(1))
    with pytest.raises(LiveError, match=r"ZeroDivisionError\('at row 7'\)"):
        run_live(job, Broken, kafka.settings, tmp_path)


def test_one_process_per_state_folder(kafka: Kafka, tmp_path: Path) -> None:
    seen: list[str] = []

    class Second(CountingChain):
        def push(self, raws: Merged) -> Left:
            with pytest.raises(LiveError, match="in use by another process") as error:
                kafka.run(job, tmp_path)
            seen.append(str(error.value))
            return Left([], [])

    job = kafka.job(kafka.topic())
    kafka.write(job.stream, some(1))
    run_live(job, Second, kafka.settings, tmp_path)
    assert len(seen) == 1


def test_a_full_queue_is_waited_for_and_keeps_the_order(kafka: Kafka) -> None:
    topic = kafka.topic(2)
    writer = Writer(kafka.settings | {"queue.buffering.max.messages": "7"})
    writer.send_rows(topic, 1, [Row("x", 1, None, {"n": n}) for n in range(1200)])
    headed = [Row("x", 1, None, {"n": n}, [("trace", b"t")]) for n in range(1200, 1220)]
    writer.send_rows(topic, 1, headed)
    writer.flush()
    raws = list(read_topic(kafka.settings, topic))
    assert {raw.log.partition for raw in raws} == {1} and raws[-1].headers is not None
    assert raws[-1].headers[-1] == [("trace", b"t")]
    assert [row["n"] for row in kafka.values(topic)] == list(range(1220))


@pytest.mark.parametrize("queue", ["7", "100000"])
def test_a_block_keeps_its_keys_and_values(kafka: Kafka, queue: str) -> None:
    topic = kafka.topic(2)
    writer = Writer(kafka.settings | {"queue.buffering.max.messages": queue})
    keys, values = [b"a", None, b"", b"b"] * 600, [b"1", b"2", None, b""] * 600
    writer.send_block(topic, 1, keys, values)
    writer.send_block(topic, 0, [], [])
    writer.flush()
    raws = list(read_topic(kafka.settings, topic))
    assert {raw.log.partition for raw in raws} == {1}
    assert [value for raw in raws for value in raw.values] == values
    assert [key for raw in raws for key in raw.keys] == keys


def test_subscribers_get_dicts(kafka: Kafka) -> None:
    topic = kafka.topic()
    kafka.write(topic, [b'{"score": 0.5}', b"\xff not json", None])
    brokers = kafka.settings["bootstrap.servers"]
    first, second, third = subscribe(brokers, topic, start="earliest", until_end=True)
    assert first == {"score": 0.5} and second["value"] == "\\xff not json" and third["value"] is None
    assert second["key"] == "k" and second["offset"] == 1


def test_subscribers_get_the_rows_of_arrow_messages_as_those_of_json(kafka: Kafka) -> None:
    table = Table(
        3,
        {
            "id": Numbered("p/", np.array([7, 8, 9])),
            "time": Times(np.array([0, 1_500_000_000_000_001, 0]), np.array([True, True, False])),
            "score": np.array([0.1, np.nan, 1.0]),
            "chances": [{"a": 0.5}, {"a": 0.25, "b": 0.75}, None],
            "decision": [None, True, False],
            "version": Constant("v1"),
            "threshold": Constant(None),
            "hash": Hex(np.array([1, 2, 2**64 - 1], dtype=np.uint64)),
            "cold": np.array([True, False, False]),
            "late": Flag(np.array([False, True, False])),
            "vector": Table(3, {"n": np.array([1, 2, 3]), "x": np.array([np.nan, 0.5, -1e-300])}),
            "carry": Table(3, {"at": Times(np.array([1, 2, 3])), "who": ["é", None, '"']}),
        },
    )
    block = Block("predictions", 0, [b"k"] * 3, table, np.arange(3))
    by_json, by_arrow = kafka.topic(), kafka.topic()
    kafka.write(by_json, list(encode(block, "json")[1]))
    kafka.write(by_arrow, [*encode(block, "arrow")[1], b"\xff\xff\xff\xff none"])
    brokers = kafka.settings["bootstrap.servers"]
    *rows, broken = subscribe(brokers, by_arrow, start="earliest", until_end=True)
    assert rows == list(subscribe(brokers, by_json, start="earliest", until_end=True))
    assert [list(row) for row in rows] == [list(row) for row in dicts(table)]
    assert rows[1]["time"] == "2017-07-14T02:40:00.000001Z"
    assert broken["value"] == "\\xff\\xff\\xff\\xff none" and broken["offset"] == 1


PROGRAM = """
import sys
from pathlib import Path
from tests.kafka_fixture import CountingChain, Kafka
from thalweg.dataflows.live import Job, run_live
brokers, stream, name, state = sys.argv[1:]
run_live(Job(name, stream, epoch_s=0.3, batch_rows=20), CountingChain, Kafka(brokers).settings, Path(state))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_told_to_stop_drains_and_one_that_is_killed_loses_nothing(
    kafka: Kafka, tmp_path: Path, number: signal.Signals
) -> None:
    job = kafka.job(kafka.topic())
    kafka.write(job.stream, some(500))
    arguments = [kafka.settings["bootstrap.servers"], job.stream, job.name, str(tmp_path)]
    with subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], cwd=Path(__file__).parent.parent) as process:
        while kafka.written(job) < 500:
            kafka.write(job.stream, some(20))
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(10) == (0 if number != signal.SIGKILL else -signal.SIGKILL)
    kafka.run(job, tmp_path)
    found = kafka.values(job.topic("predictions"))
    unique = {row["id"]: row for row in found}
    assert [row["row"] for row in unique.values()] == list(range(1, len(unique) + 1))
    assert all(row == unique[row["id"]] for row in found)  # what was written twice is the same
    total = sum(len(raw) for raw in read_topic(kafka.settings, job.stream))
    assert len(unique) == total and (number == signal.SIGKILL or len(found) == total)


def test_the_broker_explains_itself_and_dies_with_its_parent(kafka: Kafka, tmp_path: Path) -> None:
    port = int(kafka.settings["bootstrap.servers"].split(":")[1])
    with pytest.raises(BrokerError, match=rf"ended with exit code 1 on 127.0.0.1:{port}.*\n(.*\n)*.*already in use"):
        EmbeddedBroker(port=port).start()
    program = "from thalweg.connectors.broker import EmbeddedBroker; b = EmbeddedBroker(); b.start(); print(b.pid, "
    program += "flush=True); import time; time.sleep(60)"
    here = os.environ | {"TMPDIR": str(tmp_path)}  # killed, it cannot clear up
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=here) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 5
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(child)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bootstrap.server": "x"}, "'bootstrap.server' is not one that may pass through; the nearest is 'bootstrap.s"),
        ({"plugin.library.paths": "/x.so"}, "loads a library"),
        ({"sasl.kerberos.kinit.cmd": "rm"}, "runs a command"),
        ({"sasl.jaas.config": "x"}, "Java"),
        ({"enable.ssl.certificate.verification": "false"}, "turns off the check"),
        ({}, "bootstrap.servers is missing"),
    ],
)
def test_settings_pass_an_allow_list(settings: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        client_config(settings)


def test_secrets_are_masked_and_still_work() -> None:
    config = client_config({"bootstrap.servers": "x:1", "sasl.password": "hunter2", "ssl.key.pem": "-----"})
    assert "hunter2" not in repr(config) and "-----" not in repr(config) and config["sasl.password"] == "hunter2"


def _until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def _delete_until(kafka: Kafka, topic: str, offset: int) -> None:
    futures = kafka.cluster._admin.delete_records([TopicPartition(topic, 0, offset)])
    for future in futures.values():
        future.result(5)


def _runs(pid: int) -> bool:
    """False also for a process that has ended and that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z" if os.path.isdir("/proc") else _alive(pid)
    except FileNotFoundError:
        return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
