"""Run a command where the only network is loopback: `python tests/isolation.py COMMAND ...`.

Linux only, with the namespaces of the kernel, no tools and no rights needed. Tests call :func:`isolated`
and skip with the reason of :func:`why_not`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1


def isolated(command: list[str]) -> list[str]:
    """The command that runs ``command`` with loopback alone."""
    return [sys.executable, str(Path(__file__).resolve()), *command]


def why_not() -> str | None:
    """Why this machine cannot isolate a command; None where it can."""
    if not sys.platform.startswith("linux"):
        return f"network namespaces need Linux, this is {sys.platform}"
    trial = subprocess.run(isolated([sys.executable, "-c", ""]), capture_output=True, text=True)
    return trial.stderr.strip().splitlines()[-1] if trial.returncode else None


def enter() -> None:
    """Move this process into a network namespace of its own. OSError where the kernel refuses."""
    user, group = os.getuid(), os.getgid()
    try:
        _unshare(CLONE_NEWNET)
    except PermissionError:
        _unshare(CLONE_NEWUSER | CLONE_NEWNET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _raise_loopback()


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"the kernel refuses a network namespace: {os.strerror(code)}")


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(control, SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


if __name__ == "__main__":
    enter()
    os.execvp(sys.argv[1], sys.argv[1:])
