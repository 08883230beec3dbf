"""The running sums that metrics are read from: weighted, revertible, mergeable; River's arithmetic in River's
order.

All have the same verbs: ``update(..., undo=False)``, ``add`` (another shard's sums), ``to_json`` and
``from_json``. Undoing restores counts exactly and means to rounding; when nothing is left, everything is
exactly zero.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.engine.learning.member import Label


class Mean:
    """A running weighted mean (West 1979), as ``river.stats.Mean``; a weight of zero changes nothing."""

    def __init__(self) -> None:
        self.samples, self.n, self.mean = 0, 0.0, 0.0

    def update(self, x: float, weight: float, undo: bool = False) -> None:
        """Take in ``x``, or take it out."""
        self.samples += -1 if undo else 1
        self.n += -weight if undo else weight
        if undo and (not self.samples or self.n <= 0.0):
            self.n, self.mean = 0.0, 0.0
        elif undo:
            self.mean -= (weight / self.n) * (x - self.mean)
        elif self.n:
            self.mean += (weight / self.n) * (x - self.mean)

    def add(self, other: "Mean") -> None:
        """The mean of both."""
        self.samples += other.samples
        n = self.n + other.n
        if n:
            self.mean = (self.n * self.mean + other.n * other.mean) / n
        self.n = n

    def read(self) -> float | None:
        """The mean, None without samples."""
        return self.mean if self.samples else None

    def to_json(self) -> list[Any]:
        """The sums as a list."""
        return [self.samples, self.n, self.mean]

    def from_json(self, fields: list[Any]) -> None:
        """Continue from ``to_json``."""
        self.samples, self.n, self.mean = fields


class Confusion:
    """Weights by (label, decided class), with the sums by row, by column and on the diagonal that River keeps
    beside them.
    """

    def __init__(self) -> None:
        self.samples, self.total, self.diagonal = 0, 0.0, 0.0
        self.cells: dict[tuple[Label, Label], float] = {}
        self.rows: dict[Label, float] = {}
        self.columns: dict[Label, float] = {}

    def update(self, y: Label, decided: Label, weight: float, undo: bool = False) -> None:
        """Count ``decided`` where ``y`` was right, or take it back."""
        self.samples += -1 if undo else 1
        self._shift(y, decided, -weight if undo else weight)
        if not self.samples:
            self.from_json(Confusion().to_json())

    def add(self, other: "Confusion") -> None:
        """The counts of both."""
        self.samples += other.samples
        for (y, decided), weight in other.cells.items():
            self._shift(y, decided, weight)

    def classes(self) -> list[Label]:
        """The classes with weight, sorted (River walks a set, whose order changes with the process)."""
        seen = {label for sums in (self.rows, self.columns) for label, weight in sums.items() if weight}
        return sorted(seen, key=lambda label: (type(label).__name__, label))

    def to_json(self) -> list[Any]:
        """The sums as lists."""
        cells = [[y, decided, weight] for (y, decided), weight in self.cells.items()]
        sums = [[[label, weight] for label, weight in side.items()] for side in (self.rows, self.columns)]
        return [self.samples, self.total, self.diagonal, cells, *sums]

    def from_json(self, fields: list[Any]) -> None:
        """Continue from ``to_json``."""
        self.samples, self.total, self.diagonal, cells, rows, columns = fields
        self.cells = {(y, decided): weight for y, decided, weight in cells}
        self.rows, self.columns = (dict(side) for side in (rows, columns))

    def _shift(self, y: Label, decided: Label, weight: float) -> None:
        self.cells[y, decided] = self.cells.get((y, decided), 0.0) + weight
        self.rows[y] = self.rows.get(y, 0.0) + weight
        self.columns[decided] = self.columns.get(decided, 0.0) + weight
        self.total += weight
        if y == decided:
            self.diagonal += weight


class Ranks:
    """Weights of positives and negatives by bin of the score: the ROC curve, with one point for every edge
    between bins.

    River updates one confusion matrix per threshold and label; here ``bin_of`` finds one bin (O(log
    thresholds)), and the bins are summed up when read. The curve and its trapezoids are the same; weights
    that do not add exactly round in another order.
    """

    def __init__(self, bin_of: Callable[[float], int]) -> None:
        self._bin_of = bin_of
        self.samples = 0
        self.bins: dict[int, list[float]] = {}

    def update(self, y: bool, score: float, weight: float, undo: bool = False) -> None:
        """Count ``score`` on the side of ``y``, or take it back."""
        self.samples += -1 if undo else 1
        self.bins.setdefault(self._bin_of(score), [0.0, 0.0])[0 if y else 1] += -weight if undo else weight
        if not self.samples:
            self.bins.clear()

    def add(self, other: "Ranks") -> None:
        """The counts of both."""
        self.samples += other.samples
        for at, (positive, negative) in other.bins.items():
            mine = self.bins.setdefault(at, [0.0, 0.0])
            mine[0] += positive
            mine[1] += negative

    def area(self, edges: NDArray[np.int64]) -> float | None:
        """The area under the curve through ``edges``, ascending; a score is above an edge when its bin is
        larger than it.
        """
        if not self.samples:
            return None
        bins = np.array(sorted(self.bins), dtype=np.int64)
        counts = np.array([self.bins[at] for at in bins.tolist()], dtype=np.float64)
        from_here_on = np.cumsum(counts[::-1], axis=0)[::-1]
        above = np.vstack([from_here_on, np.zeros((1, 2))])
        curve = above[np.searchsorted(bins, edges, side="right")]
        rates = np.divide(curve, above[0], out=np.zeros_like(curve), where=above[0] > 0.0)
        tpr, fpr = np.ascontiguousarray(rates[:, 0]), np.ascontiguousarray(rates[:, 1])
        return 0.0 - float(np.sum((fpr[1:] - fpr[:-1]) * (tpr[1:] + tpr[:-1]) / 2.0))

    def to_json(self) -> list[Any]:
        """The counts as lists."""
        return [self.samples, [[at, positive, negative] for at, (positive, negative) in self.bins.items()]]

    def from_json(self, fields: list[Any]) -> None:
        """Continue from ``to_json``."""
        self.samples, bins = fields
        self.bins = {at: [positive, negative] for at, positive, negative in bins}


class ScaleFreeRanks(Ranks):
    """Ranks of scores without a scale: 1024 bins to each power of two between 2^-32 and 2^32, of either sign
    (0.1 % wide or less).

    Scores in one bin count as equal, half a success each; so do those beyond the range on one side.
    """

    def __init__(self) -> None:
        super().__init__(_scale_free_bin)

    def read(self) -> float | None:
        """The area, None without scores."""
        bins = sorted(self.bins)
        return self.area(np.array([bins[0] - 1, *bins], dtype=np.int64)) if bins else None


def cross_entropy(y: Label, score: dict[Label, float]) -> float:
    """Minus the logarithm of the probability given to ``y``, clamped; 0 for a class that was not in the
    prediction, as in River.
    """
    return -math.log(_clamped(score[y])) if y in score else 0.0


def ratio(part: float, whole: float) -> float:
    """``part / whole``, 0 of nothing, as in River."""
    return part / whole if whole else 0.0


def _clamped(p: float) -> float:
    return max(min(p, 1 - 1e-15), 1e-15)


def _scale_free_bin(score: float) -> int:
    """A bin that does not fall as ``score`` grows: sign, power of two, and ten bits of the fraction."""
    if score == 0.0:
        return 0
    fraction, power = math.frexp(abs(score))
    if abs(power) > 32:
        power, fraction = (33, 0.5) if power > 0 else (-33, 0.5)
    at = 1 + (power + 33) * 1024 + int((fraction - 0.5) * 2048)
    return at if score > 0.0 else -at
