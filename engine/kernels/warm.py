"""Compiling every kernel before it is needed, with progress: the first start on a machine takes a while."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from thalweg.engine.kernels import join, metrics
from thalweg.engine.kernels.arrays import Int64
from thalweg.engine.kernels.gate import NO_TIME, Arrivals, Rules, gate
from thalweg.engine.kernels.learners import Model, State, Steps
from thalweg.engine.kernels.learners_bayes import run_bayes
from thalweg.engine.kernels.learners_linear import run_linear
from thalweg.engine.kernels.learners_passive import run_passive
from thalweg.engine.kernels.rings import CODE_HEAD, RECORD, Rows
from thalweg.engine.kernels.rowwise import cosine, logarithm, sine
from thalweg.engine.kernels.text import find_doubtful, placed, read_times, vector_hashes, write_rows
from thalweg.engine.kernels.windows import advance, by_slot, compact


def warm(progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Calls each kernel once on nothing; instant when the disk cache holds it.

    >>> warm()
    """
    for done, step in enumerate(STEPS.values()):
        progress(done, len(STEPS))
        step()
    progress(len(STEPS), len(STEPS))


def _join() -> None:
    whole, acts, none = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int8), np.zeros(0, dtype=np.bool_)
    gate(NO_TIME, Arrivals(whole, whole, none, whole), Rules(0, 0, 0), whole, acts, whole)

    def rows(width: int) -> Int64:
        return np.zeros((0, width), dtype=np.int64)

    numbers, counts = np.zeros(join.NUMBERS, dtype=np.int64), np.zeros(join.COUNTS_WIDTH, dtype=np.int64)
    state = join.Join(rows(join.ID_WIDTH), rows(join.SERVED_WIDTH), rows(3), rows(3), whole, numbers, counts)
    used = np.zeros(join.USED, dtype=np.int64)
    out = join.Decided(rows(join.STEP_WIDTH), rows(join.TELL_WIDTH), whole, whole, rows(join.COUNTS_WIDTH + 1), used)
    events = join.Events(acts, whole, none, whole, whole, none, whole, whole, none)
    labels = join.Labels(whole, whole, whole, none)
    join.decide(0, acts, events, labels, 0, join.JoinRules(0, 0, 1, 0, 0, 0, 1, 0), state, out)
    join.sweep(state, whole)
    join.tidy(state)


def _learners() -> None:
    whole, none = np.empty(0, dtype=np.int64), np.empty(0)
    steps = Steps(np.empty(0, dtype=np.int8), whole, np.empty((0, 0)), none, none)
    state = State(np.empty((0, 4, 0)), np.empty((0, 0)), none, np.empty((2, 0), dtype=np.int64))
    for function in (run_linear, run_passive, run_bayes):
        function(steps, Model(whole, 0, whole, none, whole, none), state, np.empty((3, 0)), none)


def _rowwise() -> None:
    for function in (logarithm, sine, cosine):
        function(np.empty(0))


def _metrics() -> None:
    some, which, marks = np.empty(0), np.empty(0, dtype=np.int8), np.array([0, 0, 0, 0, -1], dtype=np.int64)
    numbers, entries = np.empty(0, dtype=np.int64), np.zeros((1, metrics.FIELDS))
    total, buckets = (
        metrics.Tally(np.zeros((n, metrics.WIDTH)), np.zeros((n, 2), dtype=np.int16), np.zeros((n, 2, 2)))
        for n in (1, 3)
    )
    steps = metrics.Steps(which, numbers, some, some, some, which, some, some)
    metrics.measure(True, steps, total, buckets, entries, np.zeros(1, dtype=np.int8), marks, 1, 2.0)
    metrics.enter_all(True, some, some, which, some, 2.0, entries[:0])
    metrics.post(True, entries[:0], numbers, total)
    metrics.trapezoids(total.used[0], total.bins[0], np.empty(metrics.N_THRESHOLDS - 1))


def _text() -> None:
    text, places = placed([[]])
    vector_hashes(np.empty((0, 1)), np.ones(1, dtype=np.int8), text, places)
    pieces, whole, nothing = np.empty((0, 4), dtype=np.int64), np.empty(0, dtype=np.int64), b""
    constants = np.frombuffer(nothing, dtype=np.uint8)
    write_rows(pieces, constants, constants, np.empty((0, 0), dtype=np.int64), 0, whole, text.copy(), whole)
    read_times(constants, whole, whole)
    find_doubtful(constants, whole, np.empty(0, dtype=np.bool_))


def _windows() -> None:
    """A program of nothing over no rows: the types of the arguments are what counts."""
    whole, code, words = np.zeros(0, dtype=np.int64), np.zeros(CODE_HEAD, dtype=np.int64), np.zeros(64, dtype=np.int64)
    code[RECORD] = len(words)
    acts, reset = np.zeros(0, dtype=np.int8), np.zeros(0, dtype=np.bool_)
    rows = Rows(whole, whole, whole, whole, np.zeros((0, 0)), acts, reset, whole)
    reals = words.view(np.float64)
    advance(0, whole, rows, words, reals, words, reals, code, np.zeros((0, 0)))
    by_slot(whole, whole, whole)
    compact(words, reals, words, reals, code, 0, words)


STEPS: dict[str, Callable[[], object]] = {
    "windows": _windows,
    "learners": _learners,
    "join": _join,
    "metrics": _metrics,
    "text": _text,
    "rowwise": _rowwise,
}
"""By name, the longest first: they can be compiled side by side."""
