"""What may be said to librdkafka, topics and their partition counts, and errors that a user can act on."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from thalweg.engine.batch import Log
from thalweg.engine.errors import ThalwegError

logger = logging.getLogger("thalweg.kafka")
logger.addHandler(logging.NullHandler())

TIMEOUT_S = 10.0

COMMON = frozenset(
    """bootstrap.servers client.id client.rack broker.address.family security.protocol
    sasl.mechanism sasl.mechanisms sasl.username sasl.password sasl.oauthbearer.method
    sasl.oauthbearer.client.id sasl.oauthbearer.client.secret sasl.oauthbearer.scope
    sasl.oauthbearer.extensions sasl.oauthbearer.token.endpoint.url
    ssl.ca.location ssl.ca.pem ssl.certificate.location ssl.certificate.pem ssl.key.location
    ssl.key.pem ssl.key.password ssl.cipher.suites ssl.endpoint.identification.algorithm
    enable.ssl.certificate.verification socket.timeout.ms socket.connection.setup.timeout.ms
    socket.keepalive.enable connections.max.idle.ms metadata.max.age.ms reconnect.backoff.ms
    reconnect.backoff.max.ms retry.backoff.ms message.max.bytes receive.message.max.bytes""".split()
)
CONSUMER = frozenset(
    """fetch.wait.max.ms fetch.min.bytes fetch.max.bytes max.partition.fetch.bytes
    queued.max.messages.kbytes fetch.queue.backoff.ms""".split()
)
PRODUCER = frozenset(
    """linger.ms compression.type compression.level message.timeout.ms request.timeout.ms
    queue.buffering.max.messages batch.size""".split()
)
ALLOWED = COMMON | CONSUMER | PRODUCER

RUNS_CODE = "it runs a command or loads a library in this process"
REFUSED: dict[str, str] = {
    "plugin.library.paths": RUNS_CODE,
    "ssl.engine.": RUNS_CODE,
    "ssl.providers": RUNS_CODE,
    "sasl.kerberos.": RUNS_CODE + "; use SCRAM, OAUTHBEARER or TLS certificates",
    "sasl.jaas": "it is a setting of Java clients; use sasl.username and sasl.password",
    "ssl.keystore.": "use PEM files: ssl.certificate.location and ssl.key.location",
    "ssl.truststore.": "use a PEM file: ssl.ca.location",
}
UNSAFE_VALUES: dict[str, frozenset[str]] = {
    "enable.ssl.certificate.verification": frozenset({"false", "0", "no"}),
    "ssl.endpoint.identification.algorithm": frozenset({"none", ""}),
}
SECRET_ENDINGS = ("password", "secret", "key.pem")


class SettingsError(ThalwegError, ValueError):
    """A Kafka setting that is unknown or refused; the message names it and what to write instead."""


class ConnectionFailed(ThalwegError):
    """No broker answered in time; the message says where and what the client saw last."""


class TopicError(ThalwegError):
    """A topic is missing or has the wrong shape; the message says how to make it right."""


class LogError(ThalwegError):
    """A log does not hold what it must, or its broker refuses to read it out."""


class Secret(str):
    """A text whose ``repr`` hides it.

    >>> {"sasl.password": Secret("hunter2")}
    {'sasl.password': '***'}
    """

    def __repr__(self) -> str:
        return "'***'"


def client_config(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings that go to librdkafka, checked against the allow-list; secrets masked in ``repr``.

    >>> client_config({"bootstrap.servers": "localhost:9092", "sasl.password": "x"})
    {'bootstrap.servers': 'localhost:9092', 'sasl.password': '***'}

    Raises :class:`SettingsError` for a setting that is unknown, runs code or turns off verification.
    """
    for name, value in settings.items():
        _check_setting(name, str(value))
    if not settings.get("bootstrap.servers"):
        raise SettingsError('bootstrap.servers is missing; write for example "localhost:9092"')
    return {name: Secret(value) if name.endswith(SECRET_ENDINGS) else str(value) for name, value in settings.items()}


def _check_setting(name: str, value: str) -> None:
    for prefix, why in REFUSED.items():
        if name.startswith(prefix):
            raise SettingsError(f"the Kafka setting {name!r} is refused: {why}")
    if name not in ALLOWED:
        near = difflib.get_close_matches(name, sorted(ALLOWED), n=1, cutoff=0.0)[0]
        raise SettingsError(f"the Kafka setting {name!r} is not one that may pass through; the nearest is {near!r}")
    if value.strip().lower() in UNSAFE_VALUES.get(name, frozenset()):
        raise SettingsError(
            f"{name}={value} turns off the check of the broker's certificate; "
            "give the authority's certificate in ssl.ca.location instead"
        )


def consumer_config(settings: Mapping[str, str], group: str) -> dict[str, Any]:
    """For a reader that assigns its logs itself: committed rows only, a lost offset is an error."""
    return _without(client_config(settings), PRODUCER) | {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "allow.auto.create.topics": False,
        "logger": logger,
    }


def producer_config(settings: Mapping[str, str]) -> dict[str, Any]:
    """For an idempotent writer that hears of a delivery only when it failed.

    ``message.max.bytes`` is the client's bound (16 MB unless set); the topic's own decides.
    """
    config: dict[str, Any] = {"message.max.bytes": "16000000", "queue.buffering.max.kbytes": 262_144}
    return (
        config
        | _without(client_config(settings), CONSUMER)
        | {
            "enable.idempotence": True,
            "acks": "all",
            "delivery.report.only.error": True,
            "logger": logger,
        }
    )


def _without(config: dict[str, str], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in names}


class Cluster:
    """The administrator's view of a cluster: which topics there are, and how many partitions each has.

    Raises :class:`ConnectionFailed` from any method when no broker answers within ``timeout_s``.
    """

    def __init__(self, settings: Mapping[str, str], *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._servers = settings.get("bootstrap.servers", "")
        self._last = ""
        config = _without(client_config(settings), CONSUMER | PRODUCER)
        self._admin = AdminClient(config | {"error_cb": self._on_error, "logger": logger})

    def _on_error(self, error: KafkaError) -> None:
        # "All brokers down" says less than the connection error that came before it.
        if error.code() != KafkaError._ALL_BROKERS_DOWN or not self._last:
            self._last = error.str()

    def topics(self) -> dict[str, int]:
        """Partition counts of every topic."""
        try:
            found = self._admin.list_topics(timeout=self._timeout_s).topics
        except KafkaException as error:
            self._admin.poll(0)
            raise self._failed(error) from None
        return {name: len(topic.partitions) for name, topic in found.items()}

    def partition_counts(self, names: Iterable[str]) -> dict[str, int]:
        """Partition counts of these topics.

        Raises :class:`TopicError` when one is missing, naming those that are spelled alike.
        """
        found = self.topics()
        counts = {name: found.get(name, 0) for name in names}
        for name, count in counts.items():
            if count == 0:
                raise TopicError(self._missing(name, found))
        return counts

    def create_topics(self, counts: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
        """Create what is missing, with retention.ms=-1 unless ``config`` says otherwise.

        Raises :class:`TopicError` when a topic exists with another number of partitions.
        """
        found = self.topics()
        for name, count in counts.items():
            if found.get(name, count) != count:
                raise TopicError(
                    f"topic {name!r} exists with {found[name]} partitions, {count} are needed: take another name"
                )
        options = {"retention.ms": "-1"} | dict(config or {})
        new = [
            NewTopic(name, num_partitions=count, config=options) for name, count in counts.items() if name not in found
        ]
        futures = self._admin.create_topics(new, request_timeout=self._timeout_s) if new else {}
        for name, future in futures.items():
            try:
                future.result(self._timeout_s)
            except KafkaException as error:
                raise TopicError(f"topic {name!r} was not created: {error.args[0].str()}") from None

    def timestamp_type(self, topic: str) -> str:
        """``CreateTime`` (the producer's clock) or ``LogAppendTime`` (the broker's)."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        futures = self._admin.describe_configs([resource], request_timeout=self._timeout_s)
        try:
            entries = next(iter(futures.values())).result(self._timeout_s)
        except KafkaException as error:
            raise self._failed(error) from None
        entry = entries.get("message.timestamp.type")
        return str(entry.value) if entry is not None else "CreateTime"

    def _missing(self, name: str, found: Mapping[str, int]) -> str:
        near = difflib.get_close_matches(name, list(found), n=3)
        alike = f" Spelled alike: {', '.join(map(repr, near))}." if near else ""
        return (
            f"topic {name!r} does not exist on {self._servers}.{alike} Create it: kafka-topics.sh "
            f"--bootstrap-server {self._servers} --create --topic {name} --partitions N"
        )

    def _failed(self, error: KafkaException) -> ConnectionFailed:
        seen = self._last or error.args[0].str()
        return ConnectionFailed(
            f"no broker answered at {self._servers} within {self._timeout_s:g} s: {seen}. "
            "Is it running, and do security.protocol and the credentials fit?"
        )


def watermarks(consumer: Consumer, log: Log, timeout_s: float = TIMEOUT_S) -> tuple[int, int]:
    """First offset and end of a log; for a reader of committed rows the end stops at open transactions."""
    with _asking(log):
        found = consumer.get_watermark_offsets(TopicPartition(*log), timeout=timeout_s)
        if found is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return found


def offset_at(consumer: Consumer, log: Log, time_us: int, timeout_s: float = TIMEOUT_S) -> int | None:
    """The first offset whose record is not older than ``time_us``; None where there is none."""
    with _asking(log):
        asked = TopicPartition(*log, -(-time_us // 1000))
        found = consumer.offsets_for_times([asked], timeout=timeout_s)[0]
        if found.error:
            raise KafkaException(found.error)
        return int(found.offset) if found.offset >= 0 else None


@contextmanager
def _asking(log: Log) -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        reason = error.args[0].str()
        raise LogError(f"{log.topic}[{log.partition}] cannot be read: {reason}") from None
