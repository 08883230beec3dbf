"""Compiling the kernels in several processes at once, which halves the time on two cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed

from thalweg.engine.kernels.warm import STEPS


def warm_in_parallel(progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Fills the disk cache that every later process loads from."""
    progress(0, len(STEPS))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(STEPS)), mp_context=spawn) as pool:
        for done, step in enumerate(as_completed([pool.submit(_compile, name) for name in STEPS]), 1):
            step.result()
            progress(done, len(STEPS))


def _compile(name: str) -> None:
    STEPS[name]()
