"""Run records: what ran, with which code and settings, over which data, and what came out.

One JSON file a run, ``<state>/runs/<started>-<id>.json``, written when the run starts and again when it ends, so
that a killed run leaves one, too (its outcome is "running").
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import secrets
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from thalweg.dataflows.pipeline import Pipeline
from thalweg.dataflows.settings import Settings
from thalweg.engine.batch import NO_TIME, Log, Raw
from thalweg.engine.errors import ThalwegError
from thalweg.engine.table import iso_times

LIBRARIES = "bytewax confluent-kafka river numpy numba pyarrow orjson tzdata xxhash".split()
FOLDER = "runs"


class RunError(ThalwegError, ValueError):
    """There is no such run record, or it cannot be read."""


@dataclass
class RunRecord:
    """One run's record. Times are ISO 8601 text in UTC; secrets are masked in ``settings``.

    Attributes:
        configuration: hash of fingerprint and settings: runs with the same one should give the same results
            from the same data.
        data: per log what :class:`Seen` tells.
        metrics, counters: as the runner tells them.
        outcome: running, ended, interrupted, or "failed: why".
    """

    id: str
    command: str
    started: str
    pipeline: str
    fingerprint: str
    configuration: str
    settings: dict[str, Any]
    code: dict[str, Any]
    libraries: dict[str, str]
    machine: dict[str, str]
    ended: str | None = None
    outcome: str = "running"
    data: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)

    def take(self, result: Mapping[str, Any]) -> None:
        """What a runner returned: ``data``, ``metrics`` and ``counters`` where they are, the rest as ``result``."""
        self.data = list(result.get("data", self.data))
        self.metrics = dict(result.get("metrics", self.metrics))
        self.counters = dict(result.get("counters", self.counters))
        self.result = {n: v for n, v in result.items() if n not in ("data", "metrics", "counters")}


class Seen:
    """Per log, the first and the last offset and record timestamp that a run read."""

    def __init__(self) -> None:
        self._logs: dict[Log, dict[str, Any]] = {}

    def add(self, raws: Iterable[Raw]) -> None:
        """These messages were read."""
        for raw in raws:
            known = raw.times[raw.times != NO_TIME]
            times = (int(known.min()), int(known.max())) if len(known) else (None, None)
            first, last = int(raw.offsets[0]), int(raw.offsets[-1])
            one = self._logs.setdefault(
                raw.log, {"rows": 0, "first_offset": first, "first_time": times[0], "last_time": times[1]}
            )
            one["rows"] += len(raw)
            one["last_offset"] = last
            one["first_time"] = min((t for t in (one["first_time"], times[0]) if t is not None), default=None)
            one["last_time"] = max((t for t in (one["last_time"], times[1]) if t is not None), default=None)

    def data(self) -> list[dict[str, Any]]:
        """One entry a log, times as ISO 8601 text."""
        return [
            {"topic": log.topic, "partition": log.partition}
            | {name: _iso(value) if name.endswith("time") else value for name, value in one.items()}
            for log, one in sorted(self._logs.items())
        ]


@contextlib.contextmanager
def recording(folder: str | Path, command: str, pipeline: Pipeline, settings: Settings) -> Iterator[RunRecord]:
    """A run that leaves its record in ``folder``, whatever becomes of it."""
    run = begin(command, pipeline, settings)
    write_run(folder, run)
    try:
        yield run
        run.outcome = "ended"
    except KeyboardInterrupt:
        run.outcome = "interrupted"
        raise
    except BaseException as error:
        run.outcome = f"failed: {type(error).__name__}: {error}"
        raise
    finally:
        run.ended = _now()
        write_run(folder, run)


def begin(command: str, pipeline: Pipeline, settings: Settings) -> RunRecord:
    """The record of a run that starts now."""
    definition, public = pipeline.definition, settings.public()
    configuration = orjson.dumps([definition.fingerprint, public], option=orjson.OPT_SORT_KEYS)
    return RunRecord(
        id=secrets.token_hex(4),
        command=command,
        started=_now(),
        pipeline=definition.name,
        fingerprint=definition.fingerprint,
        configuration=hashlib.sha256(configuration).hexdigest()[:16],
        settings=public,
        code={"thalweg": _version("thalweg")} | _revision(_folder(pipeline)),
        libraries={name: found for name in LIBRARIES if (found := _version(name))},
        machine={"python": platform.python_version(), "system": platform.system(), "cpu": platform.machine()},
    )


def write_run(folder: str | Path, run: RunRecord) -> Path:
    """Writes the record, or replaces it; a reader never sees half of one."""
    place = Path(folder) / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    started = run.started.replace("-", "").replace(":", "").partition(".")[0]
    path = place / f"{started}Z-{run.id}.json"
    half = path.with_suffix(".half")
    half.write_bytes(orjson.dumps(asdict(run), option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
    os.replace(half, path)
    return path


def list_runs(folder: str | Path) -> list[dict[str, Any]]:
    """All records, the newest first.

    Raises:
        RunError: a file there is no record.
    """
    return [_read(path) for path in sorted((Path(folder) / FOLDER).glob("*.json"), reverse=True)]


def find_run(folder: str | Path, prefix: str) -> dict[str, Any]:
    """The record whose id begins with ``prefix``.

    Raises:
        RunError: there is none, or several.
    """
    runs = list_runs(folder)
    found = [run for run in runs if run["id"].startswith(prefix)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(run["id"] for run in (found or runs)[:5]) or "none"
    what = "several runs begin with" if found else "there is no run"
    raise RunError(f"{what} {prefix!r} in {Path(folder) / FOLDER}; there: {known}")


def _read(path: Path) -> dict[str, Any]:
    try:
        record = orjson.loads(path.read_bytes())
        if {"id", "command", "started", "outcome"} <= set(record):
            return dict(record)
        why = "fields are missing"
    except (orjson.JSONDecodeError, TypeError) as error:
        why = str(error)
    raise RunError(f"{path} is no run record: {why}; remove it")


def _folder(pipeline: Pipeline) -> Path:
    """Where the module stands that holds the pipeline."""
    for module in list(sys.modules.values()):
        if any(value is pipeline for value in list(vars(module).values())) and getattr(module, "__file__", None):
            return Path(str(module.__file__)).parent
    return Path.cwd()


def _revision(folder: Path) -> dict[str, Any]:
    """The Git revision of the user's code, and whether files differ from it; nothing outside of a repository."""
    revision = _git(folder, "rev-parse", "HEAD")
    if revision is None:
        return {}
    return {"revision": revision, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _iso(time_us: int | None) -> str | None:
    return None if time_us is None else iso_times(np.array([time_us]))[0]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
