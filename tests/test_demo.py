"""The demo as a user runs it: one command, real Kafka, one JSON line that adds up; Ctrl-C leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.broker]
DEMO = [sys.executable, "-W", "error", "-m", "thalweg", "demo"]


@pytest.fixture(scope="module")
def january(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = subprocess.run(
        [*DEMO, "--days", "31", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path_factory.mktemp("demo"),
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_every_row_has_one_outcome(january: dict[str, Any]) -> None:
    outcomes = ["predictions", "folded", "duplicate", "late", "quarantined", "rejected"]
    assert sum(january[name] for name in outcomes) == january["events"] == 54_082
    assert all(january[name] > 0 for name in outcomes)


def test_every_planted_fault_is_found(january: dict[str, Any]) -> None:
    planted = january["planted"]
    assert january["predictions"] == planted["scheduled"]
    assert january["folded"] == planted["pushed_back"]
    assert january["duplicate"] == planted["repeated"]
    assert (january["late"], january["quarantined"], january["rejected"]) == (
        planted["late"],
        planted["future"],
        planted["malformed"],
    )


def test_every_prediction_has_one_fate(january: dict[str, Any]) -> None:
    fates = ["labels_joined", "labels_timed_out", "labels_pending"]
    assert january["predictions"] == sum(january[name] for name in fates)
    assert january["labels_timed_out"] > 0  # cancelled and diverted flights never tell


def test_backfill_gives_every_bit_that_was_served(january: dict[str, Any]) -> None:
    assert january["parity_compared"] == january["predictions"]
    assert january["parity_mismatches"] == 0


def test_the_windows_are_worth_it(january: dict[str, Any]) -> None:
    assert january["roc_auc"] >= january["static_roc_auc"] + 0.02
    assert january["log_loss"] < january["baseline_log_loss"]
    assert january["alarms"] >= 0 and january["events_per_second"] > 0


def test_ctrl_c_leaves_no_process_and_no_traceback(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*DEMO, "--days", "31", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
        process_group=0,
    )
    broker = _wait_for_broker(tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (process.returncode, out, err)
    assert "Traceback" not in out + err
    assert not _alive(broker)
    assert not list(tmp_path.glob("thalweg-*")), "temporary folders are left"


def _wait_for_broker(folder: Path, process: subprocess.Popen[str]) -> int:
    """The process id of the demo's broker, which is a child of the demo."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            if b"noida-db" in Path(f"/proc/{child}/cmdline").read_bytes():
                time.sleep(3)  # in the middle of producing or predicting
                return int(child)
        time.sleep(0.05)
    raise AssertionError(f"no broker was started below {folder}: {process.communicate()}")


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
