"""After set-up nothing goes to the network: the demo runs where there is none but loopback."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.isolation import isolated, why_not

NO_NAMESPACE = why_not()
needs_namespace = pytest.mark.skipif(NO_NAMESPACE is not None, reason=f"network isolation: {NO_NAMESPACE}")


@needs_namespace
def test_isolation_cuts_the_network_and_leaves_loopback() -> None:
    code = (
        "import socket\n"
        "with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "    socket.create_connection(server.getsockname(), 5).close()\n"
        "try:\n"
        "    socket.create_connection(('192.0.2.1', 9), 5)\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(isolated([sys.executable, "-c", code]), capture_output=True, text=True, timeout=60)
    assert "unreachable" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.broker
@needs_namespace
def test_no_network_after_setup(tmp_path) -> None:
    command = [sys.executable, "-m", "thalweg", "demo", "--days", "2", "--json"]
    done = subprocess.run(isolated(command), capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["predictions"] > 0
