"""Settings of a run: the command line over the environment over ``thalweg.toml`` over defaults.

.. code-block:: toml

    [kafka]
    brokers = "kafka-1:9093,kafka-2:9093"
    security.protocol = "SASL_SSL"          # librdkafka's names, those on the allow-list
    sasl.mechanism = "SCRAM-SHA-512"
    sasl.username = "thalweg"
    sasl.password = "${env:KAFKA_PASSWORD}" # or "${file:/run/secrets/kafka}"; never the password itself

    [run]
    state = "state"

In the environment the same are ``THALWEG_BROKERS``, ``THALWEG_KAFKA__SASL_PASSWORD``, ``THALWEG_RUN__STATE``.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from thalweg.connectors.kafka_config import ALLOWED, REFUSED, SECRET_ENDINGS, Secret, SettingsError, client_config

FILE = "thalweg.toml"
PREFIX = "THALWEG_"
SERVERS = "bootstrap.servers"
LOOPBACK = re.compile(r"(\w+://)?(localhost|127(\.\d+){3}|\[?::1\]?)(:\d+)?", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")
# Kubernetes puts THALWEG_PORT and the like into every container beside a service called "thalweg".
_KUBERNETES = re.compile(r"_SERVICE_(HOST|PORT)|_PORT(_|$)")


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run goes, the ``[run]`` table; none of it can change a result.

    Attributes:
        state: the folder of saved state and of run records.
        epoch_seconds: how often state is saved.
        batch_rows: how many rows a shard takes in one go, at most.
    """

    state: str = ".thalweg"
    epoch_seconds: float = 30.0
    batch_rows: int = 4096


class Given(NamedTuple):
    """A value and where it stands, such as ``thalweg.toml [kafka]``."""

    value: Any
    where: str
    base: Path | None  # what ${file:...} is relative to; None where a secret may stand literally


@dataclass(frozen=True, slots=True)
class Settings:
    """What was given, checked; ``kafka`` holds librdkafka's names, its secrets are masked in ``repr``."""

    kafka: Mapping[str, str] = field(default_factory=dict)
    run: RunSettings = field(default_factory=RunSettings)

    @classmethod
    def load(
        cls,
        config: str | Path | None = None,
        *,
        environment: Mapping[str, str] = os.environ,
        brokers: str | None = None,
        **run: Any,
    ) -> Settings:
        """Reads ``config`` (default: thalweg.toml in the working folder, if there); arguments go above all.

        ``run`` are fields of :class:`RunSettings`; None means not given.

        Raises:
            SettingsError: a setting is unknown, has the wrong type, or is a secret in the open.
        """
        tables: dict[str, dict[str, Given]] = {"kafka": {}, "run": {}}
        for table, name, given in [*_of_file(config), *_of_environment(environment)]:
            tables[table][name] = given
        tables["run"] |= {
            name: Given(value, "the command line", None) for name, value in run.items() if value is not None
        }
        if brokers is not None:
            tables["kafka"]["brokers"] = Given(brokers, "--brokers", None)
        kafka = {
            SERVERS if name == "brokers" else name: _kafka(name, given, environment)
            for name, given in tables["kafka"].items()
        }
        return cls(kafka, RunSettings(**{name: _run(name, given) for name, given in tables["run"].items()}))

    def client(self) -> dict[str, str]:
        """What connectors take to reach the brokers.

        Raises:
            SettingsError: there are no brokers, or rows would go over the network in the open without a word.
        """
        servers = self.kafka.get(SERVERS)
        if not servers:
            raise SettingsError(
                f'no brokers: write --brokers host:port, or brokers = "host:port" in [kafka] of {FILE}, or set '
                f"{PREFIX}BROKERS; `thalweg broker` starts one on this machine"
            )
        if "security.protocol" not in self.kafka and not _on_this_machine(servers):
            raise SettingsError(
                f"brokers {servers}: they are on other machines and security.protocol is not stated. Write "
                f'security.protocol = "SASL_SSL" or "SSL" in [kafka] of {FILE}; where the network may read '
                f'everything, "PLAINTEXT" (or {PREFIX}KAFKA__SECURITY_PROTOCOL=PLAINTEXT)'
            )
        return client_config(self.kafka)

    def warnings(self) -> list[str]:
        """What should be said at each start."""
        protocol = self.kafka.get("security.protocol", "PLAINTEXT").upper()
        if _on_this_machine(self.kafka.get(SERVERS, "localhost")) or protocol.endswith("SSL"):
            return []
        return [f"security.protocol is {protocol}: what goes to {self.kafka[SERVERS]} can be read on the way"]

    def public(self) -> dict[str, Any]:
        """Without secrets, for run records."""
        kafka = {name: "***" if name.endswith(SECRET_ENDINGS) else str(value) for name, value in self.kafka.items()}
        return {"kafka": kafka, "run": asdict(self.run)}


_RUN_TYPES = {f.name: type(getattr(RunSettings(), f.name)) for f in fields(RunSettings)}
_KNOWN = {"kafka": ["brokers", *sorted(ALLOWED - {SERVERS})], "run": list(_RUN_TYPES)}


def _of_file(config: str | Path | None) -> Iterator[tuple[str, str, Given]]:
    path = Path(config or FILE)
    if not path.is_file():
        if config is not None:
            raise SettingsError(f"--config {config}: there is no such file in {path.parent.resolve()}")
        return
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None
    for table, settings in content.items():
        if table not in _KNOWN or not isinstance(settings, dict):
            known = " and ".join(f"[{name}]" for name in _KNOWN)
            raise SettingsError(f"{path}: {table!r} is no table of settings; there are {known}")
        for name, value in _flat(settings):
            where = f"{path} [{table}]"
            _check_known(table, name, where)
            yield table, name, Given(value, where, path.parent)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """TOML reads ``sasl.password = "x"`` as a table in a table."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _of_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, str, Given]]:
    for variable in sorted(name for name in environment if name.startswith(PREFIX)):
        given = Given(environment[variable], variable, None)
        if variable == f"{PREFIX}BROKERS":
            yield "kafka", "brokers", given
            continue
        table, separator, name = variable.removeprefix(PREFIX).lower().partition("__")
        if separator and table in _KNOWN:
            name = name.replace("_", ".") if table == "kafka" else name
            _check_known(table, name, variable)
            yield table, name, given
        elif not _KUBERNETES.search(variable):
            known = [f"{PREFIX}BROKERS", *(_variable(table, name) for table in _KNOWN for name in _KNOWN[table])]
            raise SettingsError(
                f"{variable} in the environment is no setting; the nearest is {_nearest(variable, known)}"
            )


def _variable(table: str, name: str) -> str:
    return f"{PREFIX}{table}__{name.replace('.', '_')}".upper()


def _check_known(table: str, name: str, where: str) -> None:
    for prefix, why in REFUSED.items():
        if table == "kafka" and name.startswith(prefix):
            raise SettingsError(f"{where}: {name} is refused: {why}")
    if name not in _KNOWN[table]:
        nearest = "brokers" if name == SERVERS else _nearest(name, _KNOWN[table])
        raise SettingsError(f"{where}: {name} is no setting; the nearest is {nearest}")


def _nearest(name: str, names: list[str]) -> str:
    return difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]


def _kafka(name: str, given: Given, environment: Mapping[str, str]) -> str:
    secret = name.endswith(SECRET_ENDINGS)
    if not isinstance(given.value, str | int | float | bool):
        raise SettingsError(f"{given.where}: {name} is a {type(given.value).__name__}; write text, a number or true")
    text = str(given.value).lower() if isinstance(given.value, bool) else str(given.value)
    reference = _REFERENCE.fullmatch(text)
    if reference is not None:
        text = _resolve(reference, f"{given.where}: {name}", given.base, secret, environment)
    elif secret and given.base is not None:
        raise SettingsError(
            f'{given.where}: {name} is a secret in the open; write {name} = "${{env:NAME}}" or '
            f'"${{file:/path}}", or set {_variable("kafka", name)}'
        )
    elif "${" in text and not secret:
        raise SettingsError(f"{given.where}: {name}: write the whole value as ${{env:NAME}} or ${{file:/path}}")
    try:
        client_config({SERVERS: "checked later"} | {SERVERS if name == "brokers" else name: text})
    except SettingsError as error:
        raise SettingsError(f"{given.where}: {error}") from None
    return Secret(text) if secret else text


def _resolve(
    reference: re.Match[str], what: str, base: Path | None, secret: bool, environment: Mapping[str, str]
) -> str:
    kind, name = reference.groups()
    if kind == "env":
        if name not in environment:
            raise SettingsError(f"{what} comes from the environment variable {name}, which is not set")
        return environment[name]
    path = (base or Path()) / name
    try:
        if secret:
            _check_mode(path, what)
        return path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{what} comes from {path}, which cannot be read: {why}") from None


def _check_mode(path: Path, what: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o027:
        raise SettingsError(
            f"{what} comes from {path}, which has mode {mode:04o}: others may read or change it; "
            f"chmod 440 {path} (in Kubernetes: defaultMode: 0440)"
        )


def _run(name: str, given: Given) -> Any:
    kind = _RUN_TYPES.get(name)
    assert kind is not None, name
    value = given.value
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        result = kind(value)
        if kind is int and isinstance(value, float) and result != value:
            raise ValueError
    except ValueError:
        expected = {str: "text", float: "a number of seconds", int: "a whole number"}[kind]
        raise SettingsError(f"{given.where}: {name} = {value!r}; write {expected}") from None
    if result == "" or (kind is not str and not 0 < result < 1e9):
        raise SettingsError(
            f"{given.where}: {name} = {value!r}; write {'a folder' if kind is str else 'a value above 0'}"
        )
    return result


def _on_this_machine(servers: str) -> bool:
    return all(LOOPBACK.fullmatch(server.strip()) for server in servers.split(","))
