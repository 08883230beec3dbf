"""What is installed: the wheel, the development install, strangers' folders and strangers' accounts."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import thalweg
from tests.house_rules import FOLDERS, ROOT

PACKAGE = Path(thalweg.__file__).parent
FROM_CHECKOUT = PACKAGE == ROOT / "src/thalweg"
NOT_SOURCE = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
IMPORT_EVERYTHING = """
import importlib, pkgutil, thalweg
for module in pkgutil.walk_packages(thalweg.__path__, "thalweg."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def python(code: str, **options: Any) -> str:
    """What ``code`` prints, run by this interpreter in another process."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, f"{code}\n{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The wheel built from the checkout and the wheel built from the source distribution, offline."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("src", *FOLDERS):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=NOT_SOURCE)
    command = [sys.executable, "-m", "build", "--no-isolation", str(source)]
    for options in (["--wheel", "--outdir", str(built / "direct")], ["--outdir", str(built / "via-sdist")]):
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    return sorted(built.glob("*/*.whl"))


def test_both_wheels_hold_every_file_of_the_package_and_nothing_else(wheels: list[Path]) -> None:
    expected = {"thalweg/py.typed", "thalweg/__init__.py"}
    for base in [ROOT / "src/thalweg", *(ROOT / name for name in FOLDERS)]:
        inside = "thalweg" if base.name == "thalweg" else f"thalweg/{base.name}"
        for file in (path for path in base.rglob("*") if path.is_file()):
            relative = file.relative_to(base)
            if "__pycache__" not in relative.parts and not relative.name.startswith("."):
                expected.add(f"{inside}/{relative}")
    assert len(wheels) == 2
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            assert archive.testzip() is None
            names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert names == expected, f"{wheel.parent.name}: missing {expected - names}, extra {names - expected}"


def test_the_wheel_works_without_the_checkout(wheels: list[Path], tmp_path: Path) -> None:
    zipfile.ZipFile(wheels[0]).extractall(tmp_path)
    where = python(IMPORT_EVERYTHING + "print(thalweg.__file__)", cwd=tmp_path)
    assert where == str(tmp_path / "thalweg/__init__.py")


def test_folders_of_the_user_with_our_names_break_nothing(tmp_path: Path) -> None:
    names = [*FOLDERS, "benchmarks", "tests", "docker", "src", "bin"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("mine = True\n")
    assert python(IMPORT_EVERYTHING + f"import {', '.join(names)}\nprint(engine.mine, tests.mine)", cwd=tmp_path)
    for name in names:
        assert python(f"import thalweg, {name}; print({name}.mine)", cwd=tmp_path) == "True"


@pytest.mark.skipif(not FROM_CHECKOUT, reason="not a development install: that new files are seen")
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_development_install_sees_a_new_file_at_once(folder: str, tmp_path: Path) -> None:
    name = f"_new_file_{os.getpid()}"
    file = ROOT / folder / f"{name}.py"
    try:
        file.write_text("seen = True\n")
        assert python(f"from thalweg.{folder}.{name} import seen; print(seen)", cwd=tmp_path) == "True"
    finally:
        file.unlink()


def test_import_starts_no_thread_and_changes_no_signal_handler() -> None:
    code = """
import os, signal, sys, threading
import numpy, numba, pyarrow, river
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD):
    signal.signal(number, signal.SIG_DFL)  # an ignored signal is inherited, and would hide a change
def state():
    native = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0
    return [signal.getsignal(s) for s in sorted(signal.valid_signals())], threading.enumerate(), native
before = state()
import thalweg
print(state() == before)
"""
    assert python(code) == "True"


@pytest.fixture
def read_only_copy(tmp_path: Path) -> Iterator[Path]:
    """The package in a folder that nobody may write, with a kernel added that calls another file's."""
    copy = tmp_path / "site"
    shutil.copytree(PACKAGE, copy / "thalweg", ignore=NOT_SOURCE)
    write_probe_kernels(copy, "a + b")
    folders = [copy, *(path for path in copy.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    for parent in [tmp_path, *tmp_path.parents][:-2]:  # pytest's own folders are closed to other accounts
        if parent.stat().st_uid == os.getuid():
            parent.chmod(parent.stat().st_mode | 0o055)
    yield copy
    for folder in folders:
        folder.chmod(0o755)


CALL_PROBE = """
import numpy as np
from thalweg.engine.kernels import _probe_caller
out = np.empty(1)
_probe_caller.call(np.array([2.0]), np.array([3.0]), out)
print(out[0], _probe_caller.call.stats.cache_hits.total())
"""


def write_probe_kernels(site: Path, expression: str) -> None:
    folder = site / "thalweg/engine/kernels"
    start = "from thalweg.engine.kernels.jit import kernel\n"
    callee = f"@kernel\ndef combine(a, b):\n    return {expression}\n"
    caller = "@kernel\ndef call(a, b, out):\n    for i in range(len(out)):\n        out[i] = combine(a[i], b[i])\n"
    (folder / "_probe_callee.py").write_text(start + callee)
    (folder / "_probe_caller.py").write_text(
        f"{start}from thalweg.engine.kernels._probe_callee import combine\n{caller}"
    )


def test_kernels_load_for_a_stranger_with_read_only_files_and_no_home(read_only_copy: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(read_only_copy), "HOME": "/proc/no-home"}
    code = IMPORT_EVERYTHING + CALL_PROBE + "print(thalweg.__file__)"
    lines = python(code, env=environment, cwd="/", **as_a_stranger()).splitlines()
    assert lines == ["5.0 0", f"{read_only_copy}/thalweg/__init__.py"]
    assert not list(read_only_copy.rglob("__pycache__"))


def test_an_edit_of_a_called_kernel_is_noticed_in_spite_of_the_disk_cache(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "thalweg", ignore=NOT_SOURCE)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    write_probe_kernels(tmp_path, "a + b")
    runs = [python(CALL_PROBE, env=environment, cwd=tmp_path) for _ in range(2)]
    assert runs == ["5.0 0", "5.0 1"], "the second process is served from the disk"
    write_probe_kernels(tmp_path, "a * b")
    assert python(CALL_PROBE, env=environment, cwd=tmp_path) == "6.0 0"


def as_a_stranger() -> dict[str, Any]:
    """Options of `subprocess` for a process that may not write our files.

    For an ordinary account the read-only folders do it. Root runs the process as `nobody`, or, where nobody
    cannot reach the interpreter, as a root without the right to override permissions.
    """
    if os.getuid() != 0:
        return {}
    nobody: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
    try:
        subprocess.run([sys.executable, "-c", "import numpy"], check=True, capture_output=True, **nobody)
    except (OSError, subprocess.CalledProcessError):
        return {"preexec_fn": _without_override()}
    return nobody


def _without_override() -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)
    drop_from_bounding_set, dac_override, dac_read_search, chown = 24, 1, 2, 0

    def drop() -> None:
        for capability in (chown, dac_override, dac_read_search):
            if libc.prctl(drop_from_bounding_set, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl(PR_CAPBSET_DROP)")

    return drop
