"""Prequential metrics of classes and numbers: the sums that they are read from, updated step by step.

The arithmetic is River's in River's order: weighted means (West, Communications of the ACM 22, 1979) and
their undoing, one confusion matrix, and for the ROC curve the weights by bin of the score. Steps are first
turned into entries of a ledger (which label, into or out of which bucket), then posted: everything so far,
the window and the buckets do not depend on each other. Order matters, so the loops are sequential. Naive
twin: ``tests/naive_metrics.py``.

``math.log`` and a power with an exponent that the compiler does not know call the C library, as CPython does:
the same bits. (``x ** 2.0`` written out would be ``x * x``, which differs from CPython's ``x**2`` in the last
bit of one value in a thousand.)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thalweg.engine.kernels.arrays import Float64, Int8, Int64
from thalweg.engine.kernels.jit import kernel
from thalweg.engine.kernels.steps import GIVE_UP, REVISE

Int16 = npt.NDArray[np.int16]

# An entry: a label against its prediction. SIGN is 1 to take it in, -1 to take it back, 0 to close a bucket; SCORE
# is NaN, RANK (the bin of the score) -1 and DECIDED -1 where there is none; FIRST and SECOND are the log loss and
# nothing, or the absolute and the squared error.
SIGN, Y, SCORE, DECIDED, WEIGHT, RANK, FIRST, SECOND = range(8)
FIELDS = 8

# The sums of a tally. LABELS counts all labels, SAMPLES those of a prediction that had a score; N is their weight.
LABELS, SAMPLES, N = range(3)
# Binary: the mean loss; what was decided (DECISIONS counts it): the weight of all, of those decided right, by
# (label, decision) in four cells, of the labels True and of the decisions True.
LOSS, DECISIONS, TOTAL, DIAGONAL, CELLS, POSITIVES, ALARMS = 3, 4, 5, 6, 7, 11, 12
# Regression: the mean error, its mean square, the mean label; the scatter of labels and of residuals (R2).
ABSOLUTE, SQUARED, MEAN, SCATTER, RESIDUAL = range(3, 8)
WIDTH = 13

# Marks: where the window starts and how many labels it holds; the prediction up to which each is resolved; one
# more than the highest that is; the bucket that closed last, -1 before.
HEAD, LENGTH, SETTLED, TOP, CLOSED = range(5)

N_THRESHOLDS = 1001
"""Thresholds of ``roc_auc``: steps of 0.001 in P(True). River's default of 10 is too coarse for rare classes."""

BINS = N_THRESHOLDS + 1
_THRESHOLDS = np.array([-1e-7, *(i / (N_THRESHOLDS - 1) for i in range(1, N_THRESHOLDS - 1)), 1.0 + 1e-7])


class Steps(NamedTuple):
    """Input, k steps in order: kinds int8[k], numbers int64[k] (of the prediction), labels float64[k], before
    float64[k] (the label that is replaced, NaN = none), scores float64[k] (NaN = none), decided int8[k] (-1 =
    none), weights and weights_before float64[k]."""

    kinds: Int8
    numbers: Int64
    labels: Float64
    before: Float64
    scores: Float64
    decided: Int8
    weights: Float64
    weights_before: Float64


class Tally(NamedTuple):
    """State, one row a set of labels: sums float64[rows, WIDTH]; binary, a table from the bin of a score to the
    weights of positives and negatives, bins float64[rows, cells, 2], with used int16[rows, cells] (bin + 1, 0 =
    free). ``cells`` is a power of two, at least twice the scores of a row, or above BINS; 0 in regression."""

    sums: Float64
    used: Int16
    bins: Float64


class Ledger(NamedTuple):
    """Entries float64[m, FIELDS], and where each belongs, rows int64[2, m]: in the total (0, or -1: nowhere),
    and among the buckets (likewise)."""

    entries: Float64
    rows: Int64


@kernel
def measure(
    binary: bool,
    steps: Steps,
    total: Tally,
    buckets: Tally,
    window: Float64,
    resolved: Int8,
    marks: Int64,
    size: int,
    two: float,
) -> int:
    """Carries out ``steps`` on the metrics by arrival and by prediction; all but ``steps`` is read and written.

    ``total``: row 0 is everything so far. ``window`` float64[w, FIELDS], a ring of the last labels. ``buckets``:
    row 0 is the bucket of ``size`` predictions that closed last, the open ones follow as a ring; ``resolved``
    int8[capacity] is the ring of the predictions from ``marks[SETTLED]`` on. Both rings have a capacity that is a
    power of two and spans the numbers in ``steps``. ``marks`` int64[5]. ``two`` is 2.0. Returns how many steps
    were done: fewer than given where a prediction is resolved twice. Cost: two entries a step (and a search of
    the window where a label is replaced).
    """
    most = 2 * len(steps.kinds) + len(buckets.sums)
    ledger = Ledger(np.empty((most, FIELDS)), np.empty((2, most), dtype=np.int64))
    done, m = _write(binary, steps, len(buckets.sums) - 2, window, resolved, marks, size, two, ledger)
    post(binary, ledger.entries[:m], ledger.rows[0][:m], total)
    post(binary, ledger.entries[:m], ledger.rows[1][:m], buckets)
    return done


@kernel
def enter(
    binary: bool, y: float, score: float, decided: int, weight: float, sign: float, two: float, out: Float64
) -> None:
    """Fills one entry, out float64[FIELDS]."""
    out[SIGN], out[Y], out[SCORE], out[WEIGHT] = sign, y, score, weight
    out[DECIDED] = decided if binary else -1
    out[RANK], out[FIRST], out[SECOND] = -1.0, 0.0, 0.0
    if math.isnan(score):
        return
    if binary:
        p = max(min(score, 1 - 1e-15), 1e-15)
        out[RANK] = _rank(score)
        out[FIRST] = -math.log(p if y > 0.0 else 1 - p)
    else:
        out[RANK] = 0.0
        out[FIRST] = abs(y - score)
        out[SECOND] = (y - score) ** two


@kernel
def enter_all(
    binary: bool, labels: Float64, scores: Float64, decided: Int8, weights: Float64, two: float, out: Float64
) -> None:
    """Entries that take in n labels, out float64[n, FIELDS]."""
    for i in range(len(labels)):
        enter(binary, labels[i], scores[i], decided[i], weights[i], 1.0, two, out[i])


@kernel
def post(binary: bool, entries: Float64, rows: Int64, tally: Tally) -> None:
    """Posts entries float64[m, FIELDS] to the rows int64[m] of the tally, in order; -1: to none."""
    sums, used, bins = tally.sums, tally.used, tally.bins
    mask = used.shape[1] - 1
    for i in range(len(entries)):
        row = rows[i]
        if row < 0:
            continue
        sign, y, weight = entries[i, SIGN], entries[i, Y], entries[i, WEIGHT]
        if sign == 0.0:
            _close(tally, row)
            continue
        sums[row, LABELS] += sign
        label, decided, rank = int(y > 0.0), int(entries[i, DECIDED]), int(entries[i, RANK])
        if decided >= 0:
            sums[row, DECISIONS] += sign
            sums[row, CELLS + 2 * label + decided] += sign * weight
            sums[row, TOTAL] += sign * weight
            sums[row, DIAGONAL] += sign * weight * (1 - abs(label - decided))
            sums[row, POSITIVES] += sign * weight * label
            sums[row, ALARMS] += sign * weight * decided
            if sums[row, DECISIONS] == 0.0:
                for at in range(DECISIONS, WIDTH):
                    sums[row, at] = 0.0
        if rank < 0:
            continue
        samples, n = sums[row, SAMPLES] + sign, sums[row, N] + sign * weight
        anew = sign < 0.0 and (samples == 0.0 or n <= 0.0)
        n = 0.0 if anew else n
        sums[row, SAMPLES], sums[row, N] = samples, n
        step = sign * (weight / n) if n != 0.0 else 0.0
        if binary:
            sums[row, LOSS] = 0.0 if anew else _moved(sums[row, LOSS], entries[i, FIRST], step)
            if samples == 0.0:
                _clear(used, bins, row)
                continue
            cell = rank & mask  # linear probing; a prediction keeps its score, so the table is half full at most
            for _ in range(mask):
                if used[row, cell] == 0 or used[row, cell] == rank + 1:
                    break
                cell = (cell + 1) & mask
            used[row, cell] = rank + 1
            bins[row, cell, 1 - label] += sign * weight
        else:
            first, before = entries[i, FIRST], sums[row, MEAN]
            mean = 0.0 if anew else _moved(before, y, step)
            sums[row, ABSOLUTE] = 0.0 if anew else _moved(sums[row, ABSOLUTE], first, step)
            sums[row, SQUARED] = 0.0 if anew else _moved(sums[row, SQUARED], entries[i, SECOND], step)
            sums[row, MEAN] = mean
            sums[row, SCATTER] += sign * (weight * (y - before) * (y - mean))
            sums[row, RESIDUAL] += sign * (first * first * weight)
            if samples == 0.0:
                sums[row, SCATTER], sums[row, RESIDUAL] = 0.0, 0.0


@kernel
def trapezoids(used: Int16, bins: Float64, out: Float64) -> None:
    """The areas between neighbouring thresholds under the ROC curve; their sum is minus the area under it.

    used int16[cells] and bins float64[cells, 2] of one row of a tally; out float64[N_THRESHOLDS - 1] is
    written. A score is above threshold e when its bin is larger than e.
    """
    above = np.zeros((BINS, 2))
    for cell in range(len(used)):
        if used[cell] > 0:
            above[used[cell] - 1] = bins[cell]
    for at in range(BINS - 2, -1, -1):
        above[at, 0] += above[at + 1, 0]
        above[at, 1] += above[at + 1, 1]
    positives, negatives = above[0, 0], above[0, 1]
    tpr = above[1, 0] / positives if positives > 0.0 else 0.0
    fpr = above[1, 1] / negatives if negatives > 0.0 else 0.0
    for edge in range(1, N_THRESHOLDS):
        tpr_next = above[edge + 1, 0] / positives if positives > 0.0 else 0.0
        fpr_next = above[edge + 1, 1] / negatives if negatives > 0.0 else 0.0
        out[edge - 1] = (fpr_next - fpr) * (tpr_next + tpr) / 2.0
        tpr, fpr = tpr_next, fpr_next


@kernel
def _moved(mean: float, x: float, step: float) -> float:
    return mean + step * (x - mean)


@kernel
def _rank(score: float) -> int:
    """How many thresholds are below ``score``: a guess by arithmetic, put right by comparison."""
    at = int(min(max(score * (N_THRESHOLDS - 1), 0.0), float(N_THRESHOLDS)))
    while at > 0 and _THRESHOLDS[at - 1] >= score:
        at -= 1
    while at < N_THRESHOLDS and _THRESHOLDS[at] < score:
        at += 1
    return at


@kernel
def _write(
    binary: bool,
    steps: Steps,
    mask: int,
    window: Float64,
    resolved: Int8,
    marks: Int64,
    size: int,
    two: float,
    ledger: Ledger,
) -> tuple[int, int]:
    """Writes the entries of ``steps`` and keeps the window; returns how many steps were done, and entries written."""
    entries, rows = ledger.entries, ledger.rows
    m = 0
    for i in range(len(steps.kinds)):
        kind, number = steps.kinds[i], steps.numbers[i]
        bucket = number // size
        done = number < marks[SETTLED] or resolved[number & (len(resolved) - 1)] != 0
        if kind != REVISE and done:
            return i, m
        final = kind == REVISE and not (done and bucket >= marks[SETTLED] // size)
        row = -1 if final else 1 + (bucket & mask)
        score, decided = steps.scores[i], steps.decided[i]
        if kind == REVISE and not math.isnan(steps.before[i]):
            enter(binary, steps.before[i], score, decided, steps.weights_before[i], -1.0, two, entries[m])
            _drop(window, marks, entries[m])
            rows[0, m], rows[1, m] = 0, row
            m += 1
        if kind != GIVE_UP:
            enter(binary, steps.labels[i], score, decided, steps.weights[i], 1.0, two, entries[m])
            _append(window, marks, entries[m])
            rows[0, m], rows[1, m] = 0, row
            m += 1
        if kind != REVISE:
            m = _resolve(number, mask, resolved, marks, size, m, ledger)
    return len(steps.kinds), m


@kernel
def _resolve(number: int, mask: int, resolved: Int8, marks: Int64, size: int, m: int, ledger: Ledger) -> int:
    """Prediction ``number`` waits for nothing more: writes which buckets close; returns how many entries there are."""
    last = len(resolved) - 1
    resolved[number & last] = 1
    marks[TOP] = max(marks[TOP], number + 1)
    while resolved[marks[SETTLED] & last] != 0:
        resolved[marks[SETTLED] & last] = 0
        marks[SETTLED] += 1
        if marks[SETTLED] % size == 0:
            marks[CLOSED] = marks[SETTLED] // size - 1
            ledger.entries[m, SIGN] = 0.0
            ledger.rows[0, m], ledger.rows[1, m] = -1, 1 + (marks[CLOSED] & mask)
            m += 1
    return m


@kernel
def _append(window: Float64, marks: Int64, entry: Float64) -> None:
    at = _around(marks[HEAD] + marks[LENGTH], len(window))
    for field in range(FIELDS):
        window[at, field] = entry[field]
    if marks[LENGTH] < len(window):
        marks[LENGTH] += 1
    else:
        marks[HEAD] = _around(at + 1, len(window))


@kernel
def _drop(window: Float64, marks: Int64, entry: Float64) -> None:
    """Takes the newest label that equals ``entry`` out of the window, if there is one."""
    y, score, decided, weight = entry[Y], entry[SCORE], entry[DECIDED], entry[WEIGHT]
    nothing = math.isnan(score)
    for back in range(marks[LENGTH] - 1, -1, -1):
        at = _around(marks[HEAD] + back, len(window))
        if window[at, SCORE] != score and not (nothing and math.isnan(window[at, SCORE])):
            continue
        if window[at, Y] == y and window[at, DECIDED] == decided and window[at, WEIGHT] == weight:
            _close_up(window, marks, at, marks[LENGTH] - back - 1)
            return


@kernel
def _close_up(window: Float64, marks: Int64, at: int, later: int) -> None:
    """Moves the ``later`` labels behind row ``at`` of the window one row forward."""
    for _ in range(later):
        following = _around(at + 1, len(window))
        for field in range(FIELDS):
            window[at, field] = window[following, field]
        at = following
    marks[LENGTH] -= 1


@kernel
def _around(at: int, size: int) -> int:
    """A place in a ring of ``size``, for one that is less than twice as far."""
    return at if at < size else at - size


@kernel
def _close(tally: Tally, row: int) -> None:
    tally.sums[0] = tally.sums[row]
    tally.used[0] = tally.used[row]
    tally.bins[0] = tally.bins[row]
    tally.sums[row] = 0.0
    _clear(tally.used, tally.bins, row)


@kernel
def _clear(used: Int16, bins: Float64, row: int) -> None:
    used[row] = 0
    bins[row] = 0.0
