"""Which worker has a shard's chain: the one that reads its logs and writes its outputs.

Bytewax gives the parts of a source and of a sink to its workers in turns, but a stateful step to the worker that the
hash of the key names. Chains of two shards then stand on one worker as often as not: the other worker has nothing to
compute, reads far ahead instead (nothing holds it back), and all of that goes through the chain as one piece.
"""

from __future__ import annotations

from functools import cache

from thalweg.connectors.kafka_source import shard_key

WORKERS = 24  # with as many workers as divide this, every chain is in its place; others work, with more between them
_MASK = (1 << 64) - 1


@cache
def chain_key(number: int) -> str:
    """The key of a shard's chain: its name, and a number such that the hash of both goes where the shard's part goes.

    >>> chain_key(0), chain_key(1)
    ('shard-0000~8', 'shard-0001~6')
    >>> [hash_of(chain_key(n)) % 3 for n in range(6)]
    [0, 1, 2, 0, 1, 2]
    """
    salt, wanted = 0, number % WORKERS
    while hash_of(key := f"{shard_key(number)}~{salt}") % WORKERS != wanted:
        salt += 1
    return key


def hash_of(key: str) -> int:
    """As Rust hashes a string: SipHash-1-3 (Aumasson and Bernstein 2012), keys 0, of the text and a byte 0xff."""
    data = key.encode() + b"\xff"
    state = [0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573]
    whole = len(data) // 8 * 8
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, whole, 8)]
    for word in [*words, int.from_bytes(data[whole:], "little") | (len(data) & 255) << 56]:
        state[3] ^= word
        _mix(state)
        state[0] ^= word
    state[2] ^= 255
    for _ in range(3):
        _mix(state)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _mix(state: list[int]) -> None:
    a, b, c, d = state
    a = (a + b) & _MASK
    b = _turned(b, 13) ^ a
    a = _turned(a, 32)
    c = (c + d) & _MASK
    d = _turned(d, 16) ^ c
    a = (a + d) & _MASK
    d = _turned(d, 21) ^ a
    c = (c + b) & _MASK
    state[:] = a, _turned(b, 17) ^ c, _turned(c, 32), d


def _turned(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & _MASK
