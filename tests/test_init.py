"""``thalweg init``: what it makes runs, its tests pass, and its commands are real."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from thalweg.connectors.broker import EmbeddedBroker
from thalweg.dataflows.init import InitError, init, sample
from thalweg.dataflows.settings import RunSettings, Settings

ROOT = Path(__file__).parent.parent


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in the folder that was made, as a user would; fails when it fails."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return init("card-fraud", tmp_path_factory.mktemp("init") / "new")


def test_the_tests_that_are_made_pass_without_a_warning(made: Path) -> None:
    done = command(made, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider")
    assert re.search(r"^5 passed", done.stdout, re.MULTILINE), done.stdout


def test_what_is_made_can_be_explained_and_is_well_formed(made: Path) -> None:
    assert "pipeline card-fraud" in command(made, "-m", "thalweg", "explain", "pipeline.py").stdout
    config = ROOT / "pyproject.toml"
    for check in (["format", "--check"], ["check"]):
        command(made, "-m", "ruff", *check, "--config", str(config), "--no-cache", ".")
    left = [path for path in made.rglob("*") if path.is_file() and "{{" in path.read_text()]
    assert left == []


def test_the_settings_that_are_made_are_the_defaults(made: Path) -> None:
    settings = Settings.load(made / "thalweg.toml", environment={})
    assert settings.run == RunSettings()
    assert settings.client() == {"bootstrap.servers": "127.0.0.1:9092"}


def test_every_setting_is_in_the_file(made: Path) -> None:
    text = (made / "thalweg.toml").read_text()
    assert [name for name in RunSettings.__dataclass_fields__ if f"\n{name} = " not in text] == []
    (made / "all.toml").write_text(re.sub("^# s", "s", text, flags=re.MULTILINE))
    settings = Settings.load(made / "all.toml", environment={"KAFKA_PASSWORD": "x"})
    assert settings.client()["security.protocol"] == "SASL_SSL"
    (made / "all.toml").unlink()


def test_the_sample_is_the_same_every_time_and_small() -> None:
    payments, reports = sample()
    assert (payments, reports) == sample()
    assert 500 < len(payments) < 1500
    assert 30 < len(reports) < len(payments) / 5


@pytest.mark.parametrize("name", ["", "1fraud", "a b", "../x", "a.b", "é", "x" * 101])
def test_a_name_that_names_no_topic_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InitError, match="for example: fraud"):
        init(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InitError, match="not empty"):
        init("fraud", tmp_path)
    with pytest.raises(InitError, match="not empty"):
        init("fraud", tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.broker
def test_the_readme_runs_live_from_the_first_line_to_the_last(tmp_path: Path) -> None:
    folder = init("fraud", tmp_path / "fraud")
    blocks = re.findall(r"```bash\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    live = [line.partition("#")[0].strip() for line in blocks[1].splitlines()]
    assert live[0] == "thalweg broker --port 9092 &"
    with EmbeddedBroker() as broker:
        said = {}
        for line in live[1:]:
            program, *arguments = shlex.split(line.replace("127.0.0.1:9092", broker.bootstrap))
            start = ["-m", "thalweg"] if program == "thalweg" else []
            said[arguments[0]] = command(folder, *start, *arguments, THALWEG_BROKERS=broker.bootstrap).stdout
    assert re.search(r"^(\d+) of \1 rows written", said["produce.py"])
    payments = len((folder / "data" / "payments.jsonl").read_text().splitlines())
    assert re.search(rf"scored +{payments}\n", said["run"])
    assert len(said["subscribe"].splitlines()) == payments
    assert re.search(rf"compared +{payments}\n +mismatches +0\n", said["verify"])
    assert said["runs"].count(" ended") == 2
