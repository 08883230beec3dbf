"""Labels as words: whole numbers that are equal when the labels are, for the join."""

from __future__ import annotations

from typing import Any

import numpy as np

from thalweg.engine.batch import Column
from thalweg.engine.kernels.arrays import Bool, Float64, Int64
from thalweg.engine.learning.member import Label, LabelType
from thalweg.engine.schema import column_of

OUTCOMES = ("joined", "duplicate", "corrected", "early", "unmatched", "rejected")


class Words:
    """The words of labels of one type; texts are numbered in the order in which they were first seen.

    >>> from thalweg.engine.schema import column_of
    >>> words = Words("str")
    >>> words.encode(column_of("str", ["late", "early", "late"])).tolist(), words.labels(np.array([1]))
    ([0, 1, 0], ['early'])
    """

    def __init__(self, kind: LabelType) -> None:
        self._kind = kind
        self._texts: dict[str, int] = {}

    def encode(self, labels: Column) -> Int64:
        """int64[n]; of what is null, anything."""
        values = labels.values
        if self._kind == "f64":
            return np.ascontiguousarray(values, dtype=np.float64).view(np.int64)
        if self._kind == "str":
            known = self._texts
            texts = [text if text is None else known.setdefault(text, len(known)) for text in labels.tolist()]
            return np.array([0 if word is None else word for word in texts], dtype=np.int64)
        return values.astype(np.int64)

    def word(self, label: Label) -> int:
        """The word of one label."""
        return int(self.encode(column_of(self._kind, [label]))[0])

    def labels(self, words: Int64, known: Bool | None = None) -> list[Any]:
        """The labels of n words, None where not ``known``."""
        if self._kind == "str":
            texts = list(self._texts)
            result: list[Any] = [texts[word] if word < len(texts) else None for word in words.tolist()]
        elif self._kind == "f64":
            result = self.numbers(words).tolist()
        else:
            result = (words != 0).tolist() if self._kind == "bool" else words.tolist()
        return result if known is None else [one if k else None for one, k in zip(result, known.tolist(), strict=True)]

    def numbers(self, words: Int64) -> Float64:
        """Labels as numbers, float64[n]: a condition as 1.0 or 0.0; of texts, the word."""
        return words.view(np.float64) if self._kind == "f64" else words.astype(np.float64)

    def to_json(self) -> list[str]:
        """What :meth:`from_json` takes back."""
        return list(self._texts)

    def from_json(self, texts: list[str]) -> None:
        self._texts = {text: word for word, text in enumerate(texts)}
