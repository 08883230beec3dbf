"""Settings: where they come from, which one wins, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from thalweg.connectors.kafka_config import ALLOWED, SettingsError
from thalweg.dataflows.settings import RunSettings, Settings

SECRET = "hunter2-do-not-tell"


def loaded(folder: Path, toml: str = "", environment: dict[str, str] | None = None, **given: object) -> Settings:
    (folder / "thalweg.toml").write_text(toml)
    return Settings.load(folder / "thalweg.toml", environment=environment or {}, **given)  # type: ignore[arg-type]


def refused(folder: Path, toml: str = "", environment: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(folder, toml, environment).client()
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_without_a_file_there_are_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.load(environment={}) == Settings({}, RunSettings())


def test_the_file_of_the_working_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thalweg.toml").write_text('[kafka]\nbrokers = "localhost:1"')
    assert Settings.load(environment={}).client() == {"bootstrap.servers": "localhost:1"}


def test_command_line_over_environment_over_file_over_default(tmp_path: Path) -> None:
    toml = '[kafka]\nbrokers = "localhost:1"\nlinger.ms = 5\n[run]\nbatch_rows = 10\nepoch_seconds = 1\nstate = "a"'
    environment = {"THALWEG_BROKERS": "localhost:2", "THALWEG_RUN__BATCH_ROWS": "20", "THALWEG_RUN__STATE": "b"}
    file = loaded(tmp_path, toml)
    assert (file.kafka["bootstrap.servers"], file.kafka["linger.ms"], file.run) == (
        "localhost:1",
        "5",
        RunSettings("a", 1.0, 10),
    )
    above = loaded(tmp_path, toml, environment)
    assert (above.kafka["bootstrap.servers"], above.run) == ("localhost:2", RunSettings("b", 1.0, 20))
    top = loaded(tmp_path, toml, environment, brokers="localhost:3", state="c", batch_rows=None)
    assert (top.kafka["bootstrap.servers"], top.run) == ("localhost:3", RunSettings("c", 1.0, 20))


def test_dotted_names_quoted_or_not_numbers_and_truth(tmp_path: Path) -> None:
    toml = '[kafka]\nbrokers = "localhost:1"\n"ssl.ca.location" = "/ca"\nsocket.keepalive.enable = true\nlinger.ms = 5'
    assert loaded(tmp_path, toml).client() == {
        "bootstrap.servers": "localhost:1",
        "ssl.ca.location": "/ca",
        "socket.keepalive.enable": "true",
        "linger.ms": "5",
    }


def test_every_allowed_name_can_be_set_from_the_environment(tmp_path: Path) -> None:
    for name in sorted(ALLOWED - {"bootstrap.servers"}):
        variable = f"THALWEG_KAFKA__{name.replace('.', '_').upper()}"
        value = "https" if name == "ssl.endpoint.identification.algorithm" else "true"
        assert loaded(tmp_path, "", {variable: value}).kafka == {name: value}


@pytest.mark.parametrize(
    ("toml", "environment", "says"),
    [
        ("[kafka]\nsasl.pasword = 'x'", {}, "sasl.pasword is no setting; the nearest is sasl.password"),
        ("[kafka]\nbootstrap.servers = 'x'", {}, "the nearest is brokers"),
        ("[run]\nepoch_second = 3", {}, "the nearest is epoch_seconds"),
        ("[runs]\nstate = 'x'", {}, "'runs' is no table of settings; there are [kafka] and [run]"),
        ("brokers = 'localhost:1'", {}, "'brokers' is no table of settings"),
        ("[kafka\n", {}, "line 1"),
        ("[kafka]\nplugin.library.paths = 'x'", {}, "refused: it runs a command or loads a library"),
        ("[kafka]\nenable.ssl.certificate.verification = false", {}, "turns off the check"),
        ("[kafka]\nlinger.ms = [1]", {}, "linger.ms is a list"),
        ("[run]\nbatch_rows = 0", {}, "a value above 0"),
        ("[run]\nbatch_rows = 1.5", {}, "write a whole number"),
        ("[run]\nbatch_rows = true", {}, "write a whole number"),
        ("[run]\nepoch_seconds = 'soon'", {}, "a number of seconds"),
        ("[run]\nepoch_seconds = nan", {}, "a value above 0"),
        ("[run]\nstate = ''", {}, "a folder"),
        ("", {"THALWEG_BROKER": "x"}, "the nearest is THALWEG_BROKERS"),
        ("", {"THALWEG_KAFKA__SASL_PASWORD": "x"}, "the nearest is sasl.password"),
        ("", {"THALWEG_RUN__BATCH_ROWS": "many"}, "write a whole number"),
        ("", {}, "no brokers: write --brokers host:port"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_write(
    tmp_path: Path, toml: str, environment: dict[str, str], says: str
) -> None:
    assert says in refused(tmp_path, toml, environment)


def test_a_config_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"--config nowhere\.toml: there is no such file in /"):
        Settings.load("nowhere.toml", environment={})


def test_variables_that_kubernetes_makes_for_a_service_are_no_settings(tmp_path: Path) -> None:
    service = {"THALWEG_SERVICE_HOST": "10.0.0.1", "THALWEG_PORT": "tcp://10.0.0.1:1", "THALWEG_PORT_1_TCP": "x"}
    assert loaded(tmp_path, "", service) == Settings({}, RunSettings())


@pytest.mark.parametrize("name", ["sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret"])
def test_a_secret_in_the_open_is_refused_and_not_repeated(tmp_path: Path, name: str) -> None:
    message = refused(tmp_path, f'[kafka]\nbrokers = "localhost:1"\n{name} = "{SECRET}"')
    assert f"{name} is a secret in the open" in message
    assert "${env:NAME}" in message


def test_secrets_come_from_environment_or_file_and_are_masked(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o440)
    toml = (
        '[kafka]\nbrokers = "localhost:1"\nsasl.username = "me"\nsasl.password = "${file:password}"\n'
        'ssl.key.password = "${env:KEY}"'
    )
    environment = {"KEY": SECRET + "2", "THALWEG_KAFKA__SASL_OAUTHBEARER_CLIENT_SECRET": SECRET + "3"}
    settings = loaded(tmp_path, toml, environment)
    client = settings.client()
    assert (client["sasl.password"], client["ssl.key.password"]) == (SECRET, SECRET + "2")
    assert client["sasl.oauthbearer.client.secret"] == SECRET + "3"
    for shown in (repr(settings), repr(client), str(settings.public()), f"{settings}"):
        assert SECRET not in shown
    assert settings.public()["kafka"]["sasl.password"] == "***"
    assert settings.public()["kafka"]["sasl.username"] == "me"


def test_what_a_reference_names_must_be_there(tmp_path: Path) -> None:
    kafka = '[kafka]\nbrokers = "localhost:1"\nsasl.password = '
    assert "the environment variable GONE, which is not set" in refused(tmp_path, kafka + '"${env:GONE}"')
    assert "gone, which cannot be read: No such file" in refused(tmp_path, kafka + '"${file:gone}"')
    half = '[kafka]\nbrokers = "localhost:1"\nsasl.username = "a-${env:X}"'
    assert "write the whole value as ${env:NAME}" in refused(tmp_path, half)


@pytest.mark.parametrize("mode", [0o644, 0o404, 0o460])
def test_a_secret_file_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    secret = tmp_path / "password"
    secret.write_text(SECRET)
    secret.chmod(mode)
    message = refused(tmp_path, '[kafka]\nbrokers = "localhost:1"\nsasl.password = "${file:password}"')
    assert f"mode {mode:04o}" in message
    assert "chmod 440" in message


@pytest.mark.parametrize(
    "brokers", ["localhost:1", "127.0.0.1:1,127.1.2.3:2", "[::1]:9092", "PLAINTEXT://localhost:9092", "LOCALHOST"]
)
def test_this_machine_needs_no_protocol(tmp_path: Path, brokers: str) -> None:
    settings = loaded(tmp_path, brokers=brokers)
    assert settings.client() == {"bootstrap.servers": brokers}
    assert settings.warnings() == []


@pytest.mark.parametrize(
    "brokers", ["kafka:9092", "localhost:1,kafka:9092", "localhost.evil.org:1", "127.0.0.1.nip.io"]
)
def test_another_machine_needs_a_stated_protocol_and_plain_text_is_warned_of(tmp_path: Path, brokers: str) -> None:
    with pytest.raises(SettingsError, match=r"security\.protocol is not stated"):
        loaded(tmp_path, brokers=brokers).client()
    stated = loaded(tmp_path, '[kafka]\nsecurity.protocol = "SASL_SSL"', brokers=brokers)
    assert stated.client()["security.protocol"] == "SASL_SSL"
    assert stated.warnings() == []
    for protocol in ("PLAINTEXT", "sasl_plaintext"):
        plain = loaded(tmp_path, "", {"THALWEG_KAFKA__SECURITY_PROTOCOL": protocol}, brokers=brokers)
        assert plain.client()["security.protocol"] == protocol
        assert "can be read on the way" in plain.warnings()[0]
