"""Runs a module as ``python -m`` does, once it is told to: ``python -m benchmarks.gate IMPORTED,AHEAD MODULE ...``.

Starting up is no part of any rate; contestants start while topics are filled, and wait.
"""

from __future__ import annotations

import runpy
import sys
from importlib import import_module

from benchmarks.harness import await_word


def main() -> None:
    """See the module."""
    ahead, module, *arguments = sys.argv[1:]
    for name in filter(None, ahead.split(",")):
        import_module(name)
    await_word()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
