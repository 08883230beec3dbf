"""Card payments and their labels as JSON: the events of the end-to-end benchmarks, a function of seed and end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

CARDS = 10_000
SPACING_US = 100_000  # a payment every 0.1 s: a card pays every 1000 s
DELAY_US = 600_000_000  # after which the outcome is told, where it is told on a topic of its own
LONGEST_US = 10_800_000_000  # the longest window
STEADY = LONGEST_US // SPACING_US  # after so many payments it is full
SEED = 7
FIXED = {"currency": "EUR", "country": "DE", "channel": "web"}


@dataclass(frozen=True, slots=True)
class Payments:
    """Columns of n payments in the order in which they happened; ``times_us`` int64[n], strictly increasing."""

    times_us: npt.NDArray[np.int64]
    cards: npt.NDArray[np.int64]
    amounts: npt.NDArray[np.float64]
    merchants: npt.NDArray[np.int64]
    frauds: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.times_us)

    def first(self, n: int) -> Payments:
        """The first ``n``."""
        return Payments(*(getattr(self, field.name)[:n] for field in fields(self)))

    def last(self, n: int) -> Payments:
        """The last ``n``."""
        return Payments(*(getattr(self, field.name)[len(self) - n :] for field in fields(self)))

    def values(self, *, told: bool = True, first: int = 0) -> Iterator[bytes]:
        """One JSON object a payment, about 177 bytes; ``told`` says whether the label stands in it, ``first`` is the
        number of the first."""
        labels = (',"fraud":false', ',"fraud":true') if told else (',"trace":"000"',) * 2
        columns = (self.times_us // 1000, self.cards, self.amounts, self.merchants, self.frauds)
        for i, (at, card, amount, merchant, fraud) in enumerate(
            zip(*map(np.ndarray.tolist, columns), strict=True), first
        ):
            yield (
                f'{{"id":"p{i:011d}","card":"c{card:06d}","at":{at},"amount":{amount:.2f},"merchant":"m{merchant:05d}"'
                f',"currency":"EUR","country":"DE","channel":"web","terminal":"t{merchant % 997:07d}"{labels[fraud]}}}'
            ).encode()

    def messages(self, rows: int) -> list[bytes]:
        """The same as Arrow IPC streams of so many payments each."""
        import pyarrow as pa

        def named(form: str, numbers: npt.NDArray[np.int64]) -> pa.Array:
            names = pa.array([form.format(number) for number in range(int(numbers.max(initial=0)) + 1)])
            return names.take(pa.array(numbers))

        columns = {
            "id": pa.array([f"p{number:011d}" for number in range(len(self))]),
            "card": named("c{:06d}", self.cards),
            "at": pa.array(self.times_us // 1000, pa.timestamp("ms", "UTC")),
            "amount": pa.array(self.amounts),
            "merchant": named("m{:05d}", self.merchants),
            **{name: pa.repeat(value, len(self)) for name, value in FIXED.items()},
            "terminal": named("t{:07d}", self.merchants % 997),
            "fraud": pa.array(self.frauds),
        }
        values = []
        for batch in pa.table(columns).to_batches(max_chunksize=rows):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
            values.append(sink.getvalue().to_pybytes())
        return values

    def keys(self) -> list[bytes]:
        """The record keys."""
        names = [f"c{card:06d}".encode() for card in range(int(self.cards.max(initial=0)) + 1)]
        return [names[card] for card in self.cards.tolist()]

    def outcomes(self) -> Iterator[bytes]:
        """The labels, told later, one JSON object a payment."""
        known = (self.times_us + DELAY_US) // 1000
        for i, (at, fraud) in enumerate(zip(known.tolist(), self.frauds.tolist(), strict=True)):
            yield f'{{"id":"p{i:011d}","known_at":{at},"fraud":{"true" if fraud else "false"}}}'.encode()


def payments(n: int, *, cards: int = CARDS, end_us: int, spacing_us: int = SPACING_US, seed: int = SEED) -> Payments:
    """``n`` payments, the last one at ``end_us`` (microseconds, cut to milliseconds)."""
    random = np.random.default_rng(seed)
    amounts = np.round(random.lognormal(3.0, 1.0, n).clip(0.01, 9_999), 2)
    frauds = random.random(n) < 0.02 + 0.2 * (amounts > 60)
    times = end_us // 1000 * 1000 - np.arange(n - 1, -1, -1) * spacing_us
    return Payments(times, random.integers(0, cards, n), amounts, random.integers(0, 20_000, n), frauds)
