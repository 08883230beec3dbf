"""What all benchmarks share: timing in turns, medians and spreads, resources, the machine, and results as JSON."""

from __future__ import annotations

import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("thalweg", "bytewax", "confluent-kafka", "msgspec", "numba", "numpy", "orjson", "pyarrow", "river")
POLL_S = 0.02
READY = "ready"
STARTED = time.perf_counter()


@dataclass(frozen=True, slots=True)
class Timed:
    """Several runs of one contestant: ``events`` in each, ``seconds`` float of each, after the warm-up."""

    events: int
    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """The median of the runs."""
        return statistics.median(self.seconds)

    @property
    def events_per_second(self) -> float:
        """At the median."""
        return self.events / self.median_s

    @property
    def us(self) -> float:
        """Microseconds per event, at the median."""
        return 1e6 * self.median_s / self.events

    @property
    def spread(self) -> float:
        """(max - min) / median of the runs."""
        return spread(self.seconds)


def spread(values: Sequence[float]) -> float:
    """(max - min) / median.

    >>> spread([9.0, 10.0, 12.0])
    0.3
    """
    return (max(values) - min(values)) / statistics.median(values)


def in_turns(
    contestants: Mapping[str, Callable[[], object]],
    events: int | Mapping[str, int],
    *,
    runs: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timed]:
    """Times every contestant ``runs`` times, one after the other in each round, so that noise hits all of them.

    ``events`` is what one call handles, per contestant or the same for all; ``warm_up`` rounds do not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(warm_up + runs):
        for name, contestant in contestants.items():
            start = clock()
            contestant()
            taken = clock() - start
            if round_ >= warm_up:
                seconds[name].append(taken)
    counts = events if isinstance(events, Mapping) else dict.fromkeys(contestants, events)
    return {name: Timed(counts[name], tuple(times)) for name, times in seconds.items()}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of rates over median of rates, three digits.

    >>> ratio([10.0, 12.0, 11.0], [4.0, 5.0, 6.0])
    2.2
    """
    return digits(statistics.median(ours) / statistics.median(theirs))


def digits(value: float, count: int = 3) -> float:
    """Rounded to so many significant digits.

    >>> digits(123456.0), digits(0.0123456)
    (123000.0, 0.0123)
    """
    return float(f"{value:.{count}g}")


def say(text: str) -> None:
    """Progress, on stderr, with the seconds since the start."""
    sys.stderr.write(f"{time.perf_counter() - STARTED:6.1f} s  {text}\n")
    sys.stderr.flush()


def machine() -> dict[str, Any]:
    """Where this ran."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else model
    return {"cpu": model, "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"}


def versions(*more: str) -> dict[str, str]:
    """Python, our libraries and ``more`` distributions; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in (*LIBRARIES, *more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def resources() -> dict[str, float]:
    """CPU seconds of this process and of its children that have ended, and this one's largest resident memory."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu_seconds": digits(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime),
        "rss_mb": _megabytes(own.ru_maxrss),
    }


def recorded(benchmark: Callable[[bool], Any], quick: bool) -> Any:
    """Runs a benchmark; where its result is an object, machine, versions and resources stand in it."""
    start = time.perf_counter()
    result = benchmark(quick)
    if not isinstance(result, dict):
        return result
    common = {"machine": machine(), "versions": versions(), "resources": resources(), "quick": quick}
    common["seconds"] = digits(time.perf_counter() - start)
    return result | {name: value for name, value in common.items() if name not in result}


def save(name: str, result: Any, folder: Path = RESULTS) -> Path:
    """Writes ``<folder>/<name>.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path


class Failed(RuntimeError):
    """A contestant ended with an error; the message holds its last lines."""


@dataclass(slots=True)
class Process:
    """A contestant in a process of its own: what it said, and what it used."""

    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    rss_mb: float = 0.0
    output: str = ""
    stopped: bool = False
    gated: bool = False  # says that it is ready once it has imported what it needs, and begins when told to
    _process: subprocess.Popen[str] | None = None

    def start(self, over: Callable[[], bool] | None = None) -> Process:
        """Lets it begin. ``over`` is for :class:`Here`."""
        self.prepare()
        if self.gated:
            self.ready()
            self.say("")
        return self

    def ready(self) -> None:
        """Waits until a gated one has said that it is."""
        while READY not in self.output.splitlines():
            self.line()

    def prepare(self) -> Process:
        """Starts it, a gated one up to its gate; stdout and stderr are kept."""
        if self._process is not None:
            return self
        # Compiled modules are kept, as they are where a pipeline runs: reading them anew takes half a second.
        given = {"PYTHONPATH": _python_path(), "PYTHONDONTWRITEBYTECODE": ""}
        environment = {**os.environ, **given, **self.environment}
        self._process = subprocess.Popen(
            self.command,
            env=environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self

    @property
    def pid(self) -> int | None:
        """While it runs."""
        return self._process.pid if self._process else None

    def line(self) -> str:
        """The next line that it writes."""
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        self.output += line
        if not line:
            self.wait()
            raise Failed(f"{' '.join(self.command)} ended too soon:\n{self.output[-2000:]}")
        return line.strip()

    def say(self, line: str) -> None:
        """Writes a line to it."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """SIGTERM."""
        if self._process is not None and self._process.returncode is None:
            self.stopped = True
            self._process.terminate()

    def running(self, interval_s: float) -> bool:
        """Waits so long, notes the memory; False once it has ended."""
        assert self._process is not None
        time.sleep(interval_s)
        # Not ru_maxrss: that begins at the memory of the process that started this one.
        self.rss_mb = max(self.rss_mb, peak_mb_of(self._process.pid))
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended is None

    def wait(self) -> Process:
        """Until it has ended; CPU seconds and peak memory are known then.

        Raises:
            Failed: its exit code was not 0, and it was not stopped.
        """
        process = self._process
        assert process is not None and process.stdout is not None
        while process.returncode is None and self.running(POLL_S):
            pass
        if process.returncode is None:
            self.output += process.stdout.read()
            process.stdout.close()
            if process.stdin is not None:
                process.stdin.close()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu_seconds = used.ru_utime + used.ru_stime
        if process.returncode and not (self.stopped and process.returncode == -signal.SIGTERM):
            raise Failed(f"{' '.join(self.command)} ended with {process.returncode}:\n{self.output[-2000:]}")
        return self


class Here:
    """A contestant in this process, to be used as :class:`Process`."""

    def prepare(self) -> Here:
        """It is."""
        return self

    def __init__(self, work: Callable[[Callable[[], bool]], object]) -> None:
        self.cpu_seconds, self.rss_mb, self.stopped = 0.0, 0.0, True  # the work may end itself early
        self._work = work

    def start(self, over: Callable[[], bool]) -> Here:
        """Does all of it, or ends once ``over``."""
        before = resource.getrusage(resource.RUSAGE_SELF)
        self._work(over)
        after = resource.getrusage(resource.RUSAGE_SELF)
        self.cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.rss_mb = _megabytes(after.ru_maxrss)
        return self

    def running(self, interval_s: float) -> bool:
        """It has ended."""
        return False

    def stop(self) -> None:
        """It has ended."""

    def wait(self) -> Here:
        """Nothing is left to do."""
        return self


def python(*arguments: str, environment: Mapping[str, str] | None = None, gated: bool = False) -> Process:
    """``python -m ...`` as a :class:`Process`, not started yet; ``gated`` where it calls :func:`await_word`."""
    return Process([sys.executable, "-m", *arguments], environment or {}, gated=gated)


def behind_gate(ahead: Sequence[str], *arguments: str, environment: Mapping[str, str] | None = None) -> Process:
    """As :func:`python`, but it imports the modules ``ahead`` and waits to be told before it does anything else."""
    return python("benchmarks.gate", ",".join(ahead), *arguments, environment=environment, gated=True)


def await_word() -> None:
    """Within a gated process: says that it is ready, returns when it is told to begin."""
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    sys.stdin.readline()


def cpu_seconds_of(pid: int | None) -> float:
    """CPU seconds of a running process so far; NaN where the system does not tell."""
    stat = Path(f"/proc/{pid}/stat")
    if pid is None or not stat.is_file():
        return float("nan")
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb_of(pid: int) -> float:
    """The largest resident memory of a running process so far; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((digits(int(line.split()[1]) / 1024) for line in lines if line.startswith("VmHWM")), 0.0)


def _megabytes(maxrss: int) -> float:
    return digits(maxrss / (1024 if sys.platform.startswith("linux") else 1024 * 1024))


def _python_path() -> str:
    """This repository, then what was given."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
