"""An embedded Kafka broker for the demo, for tests and for a first look: the small ``noida-db`` binary.

It is a development tool: it listens on loopback only, writes its data with a delay (what it took in
the last second is lost when it is killed) and deletes records by their timestamp, so topics are
created with ``retention.ms=-1``. In production give ``--brokers`` instead.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from thalweg.engine.errors import ThalwegError

HOST = "127.0.0.1"
PORT_ATTEMPTS = 3
POLL_S = 0.02
STOP_S = 5.0
PR_SET_PDEATHSIG = 1
# The loader's complaint on a glibc that is older than the binary's; the binary runs all the same.
HARMLESS = "weak version `GLIBC"


class BrokerError(ThalwegError):
    """The embedded broker is not installed or did not start; the message says which, and its last words."""


class EmbeddedBroker:
    """A broker process of our own, as a context manager; ``bootstrap`` is its address.

    Data lives in a temporary folder that goes with it, or in ``data_dir``, which stays. The process
    dies with this one (on Linux also after a SIGKILL; start it from a thread that lives as long as
    the broker shall, because there the kernel watches the starting thread). It has a process group of
    its own, so that Ctrl-C in a terminal reaches the client first, which can still drain.

    Raises :class:`BrokerError` when the extra is missing, or when it is not ready within ``ready_s``.
    """

    def __init__(self, data_dir: str | Path | None = None, port: int | None = None, *, ready_s: float = 20.0) -> None:
        self.port = port or 0
        self._port = port
        self._given = Path(data_dir) if data_dir is not None else None
        self._ready_s = ready_s
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """``host:port``, what ``bootstrap.servers`` takes."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process else None

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and return when it takes connections."""
        if self._process is not None:
            return
        binary = _binary()
        self._folder = Path(tempfile.mkdtemp(prefix="thalweg-broker-"))
        atexit.register(self.stop)
        try:
            for attempt in range(1, PORT_ATTEMPTS + 1):
                self.port = self._port or _free_port()
                self._process = self._spawn(_runnable(binary, self._folder))
                if self._wait_ready():
                    return
                if self._port or attempt == PORT_ATTEMPTS or "already in use" not in self._log():
                    raise BrokerError(self._complaint())
                self._terminate()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the process and remove what was temporary; safe to call twice."""
        self._terminate()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        atexit.unregister(self.stop)

    def _spawn(self, binary: Path) -> subprocess.Popen[bytes]:
        assert self._folder is not None
        data = self._given or self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        command = [str(binary), "start", "--only", "kafka", "--kafka-port", str(self.port)]
        command += ["--host", HOST, "--data-dir", str(data.absolute())]
        with self._log_path().open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=_die_with_parent(),
            )

    def _wait_ready(self) -> bool:
        """True when it takes connections, False when it ended or the time is up."""
        assert self._process is not None
        deadline = time.monotonic() + self._ready_s
        while time.monotonic() < deadline and self._process.poll() is None:
            # Its own words first: on a port that another process holds, connecting proves nothing.
            if self.bootstrap in self._log() and _accepts(self.port):
                return self._process.poll() is None
            time.sleep(POLL_S)
        return False

    def _terminate(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _log_path(self) -> Path:
        assert self._folder is not None
        return self._folder / "broker.log"

    def _log(self) -> str:
        lines = self._log_path().read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if HARMLESS not in line)

    def _complaint(self) -> str:
        assert self._process is not None
        code = self._process.poll()
        what = f"was not ready within {self._ready_s:g} s" if code is None else f"ended with exit code {code}"
        last = "\n".join("  " + line for line in self._log().splitlines()[-8:]) or "  (no output)"
        return (
            f"the embedded broker {what} on {self.bootstrap}. Its last lines:\n{last}\n"
            "Free the port or the data folder, or use a broker of yours with --brokers host:port."
        )


def _binary() -> Path:
    spec = find_spec("noida_db")
    if spec is not None and spec.origin is not None:
        name = "noida-db.exe" if os.name == "nt" else "noida-db"
        path = Path(spec.origin).parent / name
        if path.is_file():
            return path
    raise BrokerError(
        "the embedded broker is not installed: pip install 'thalweg[demo]', or use a broker of yours "
        "with --brokers host:port"
    )


def _runnable(binary: Path, folder: Path) -> Path:
    """The binary itself, or a copy in ``folder``: wheels unpack it without the executable bit."""
    if os.access(binary, os.X_OK):
        return binary
    copy = folder / binary.name
    if not copy.exists():
        shutil.copyfile(binary, copy)
        copy.chmod(0o700)
    return copy


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def _die_with_parent() -> Callable[[], None] | None:
    """What the child runs before exec: ask the kernel (Linux) for SIGTERM when its parent dies."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: the child of a threaded process must not import
    parent = os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return ask
