"""What was served and may be asked for again: vectors, weights and the answers of each member, by entry.

Rule 7 of the contract: learning, metrics and detectors use what was served, never fresh ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from thalweg.engine.features.plan import Vectors
from thalweg.engine.kernels.arrays import Float64, Int64
from thalweg.engine.learning.member import Prediction, Task
from thalweg.engine.learning.work import Answers
from thalweg.engine.snapshot import pack_json, unpack_json


class Served:
    """Columns by entry; entries are given out by the label join (:class:`thalweg.engine.decide.Decider`)."""

    def __init__(self, names: Sequence[str], texts: Sequence[int], tasks: Sequence[Task]) -> None:
        self._vectors = Vectors(names, np.zeros((0, len(names))), {at: _objects(0) for at in texts})
        self.weights: Float64 = np.zeros(0)
        self.scores: list[Float64] = [np.zeros(0) for _ in tasks]
        self.decided = [np.zeros(0, dtype=np.int8) for _ in tasks]
        self.predictions: list[npt.NDArray[Any] | None] = [_objects(0) if t == "multiclass" else None for t in tasks]

    def ensure(self, entries: int) -> None:
        """Makes room for so many entries."""
        more = entries - len(self.weights)
        if more <= 0:
            return
        old = self._vectors
        grown = {at: np.concatenate([texts, _objects(more)]) for at, texts in old.texts.items()}
        self._vectors = Vectors(old.names, np.concatenate([old.numbers, np.zeros((more, len(old.names)))]), grown)
        self.weights = np.concatenate([self.weights, np.zeros(more)])
        self.scores = [np.concatenate([scores, np.zeros(more)]) for scores in self.scores]
        self.decided = [np.concatenate([decided, np.zeros(more, dtype=np.int8)]) for decided in self.decided]
        self.predictions = [p if p is None else np.concatenate([p, _objects(more)]) for p in self.predictions]

    def keep(self, entries: Int64, vectors: Vectors, weights: Float64) -> None:
        """Vectors and weights of n rows, before anything is learned from them."""
        self._vectors.numbers[entries] = vectors.numbers
        for at, texts in self._vectors.texts.items():
            texts[entries] = vectors.texts[at]
        self.weights[entries] = weights

    def answer(self, member: int, entries: Int64, answers: Answers) -> None:
        """What a member said of these rows."""
        self.scores[member][entries] = answers.scores
        self.decided[member][entries] = answers.decided
        own = self.predictions[member]
        if own is not None:
            own[entries] = answers.predictions

    def vectors(self, entries: Int64) -> Vectors:
        """The vectors that were served."""
        return self._vectors.take(entries)

    def said(self, member: int, entries: Int64) -> list[Prediction]:
        """What a member said of these rows."""
        whole = self.predictions[member]
        if whole is not None:
            return whole[entries].tolist()  # type: ignore[no-any-return]
        said = zip(self.scores[member][entries].tolist(), self.decided[member][entries].tolist(), strict=True)
        return [Prediction(None if x != x else x, None if label < 0 else bool(label)) for x, label in said]

    def state(self) -> dict[str, Any]:
        """Arrays and bytes by name; :meth:`restore` takes them back."""
        texts = {str(at): texts.tolist() for at, texts in self._vectors.texts.items()}
        said = [None if p is None else [_plain(one) for one in p.tolist()] for p in self.predictions]
        result = {"vectors": self._vectors.numbers, "weights": self.weights, "rest": pack_json([texts, said])}
        for i, (scores, decided) in enumerate(zip(self.scores, self.decided, strict=True)):
            result |= {f"scores/{i}": scores, f"decided/{i}": decided}
        return result

    def restore(self, state: Mapping[str, Any]) -> None:
        texts, said = unpack_json(bytes(state["rest"]))
        of_text = {int(at): _array(values) for at, values in texts.items()}
        self._vectors = Vectors(self._vectors.names, np.array(state["vectors"]), of_text)
        self.weights = np.array(state["weights"])
        self.scores = [np.array(state[f"scores/{i}"]) for i in range(len(self.scores))]
        self.decided = [np.array(state[f"decided/{i}"]) for i in range(len(self.decided))]
        self.predictions = [None if p is None else _array([_prediction(one) for one in p]) for p in said]


def _objects(n: int) -> npt.NDArray[Any]:
    return np.full(n, None, dtype=object)


def _array(values: Sequence[Any]) -> npt.NDArray[Any]:
    return np.fromiter(values, dtype=object, count=len(values))


def _plain(one: Prediction | None) -> Any:
    if one is None:
        return None
    score = list(one.score.items()) if isinstance(one.score, dict) else one.score
    return [score, one.label, one.degraded]


def _prediction(plain: Any) -> Prediction | None:
    if plain is None:
        return None
    score, label, degraded = plain
    return Prediction(dict(score) if isinstance(score, list) else score, label, degraded)
