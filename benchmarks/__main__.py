"""``python -m benchmarks [NAME] [--quick] [--json]``: runs one benchmark, or all."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import stages

BENCHMARKS: dict[str, Callable[[bool], dict[str, Any]]] = {"stages": stages.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=sorted(BENCHMARKS), help="default: all of them")
    parser.add_argument("--quick", action="store_true", help="fewer rows and runs")
    parser.add_argument("--json", action="store_true", help="the last line on stdout is the result as JSON")
    arguments = parser.parse_args()
    names = [arguments.name] if arguments.name else sorted(BENCHMARKS)
    results = {name: BENCHMARKS[name](arguments.quick) for name in names}
    if arguments.json:
        sys.stdout.write(json.dumps(results) + "\n")
        return
    for name, result in results.items():
        sys.stdout.write(f"{name}\n")
        for key, value in result.items():
            sys.stdout.write(f"  {key:<24} {value}\n")


if __name__ == "__main__":
    main()
