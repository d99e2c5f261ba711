"""The order of a run a second time: plain Python integers, no NumPy, from the docs and the paper on Philox.

Slow, and independent of `hotrain.order` down to the random words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction

PLACES = 4096
MASK = 2**64 - 1


def philox(key: int, counter: int) -> list[int]:
    """Four words of Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

    Args:
        key: 128 bits.
        counter: 256 bits.
    """
    words = [counter >> 64 * n & MASK for n in range(4)]
    keys = [key & MASK, key >> 64 & MASK]
    for turn in range(10):
        if turn:
            keys = [(keys[0] + 0x9E3779B97F4A7C15) & MASK, (keys[1] + 0xBB67AE8584CAA73B) & MASK]
        first, second = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [
            second >> 64 ^ words[1] ^ keys[0],
            second & MASK,
            first >> 64 ^ words[3] ^ keys[1],
            first & MASK,
        ]
    return words


def words(key: int, count: int, counter: int = 0) -> list[int]:
    """`count` words of a stream; the counter is raised before each four, as NumPy does."""
    found: list[int] = []
    while len(found) < count:
        counter += 1
        found += philox(key, counter)
    return found[:count]


def stream_words(use: str, seed: int, epoch: int, source: str, count: int) -> list[int]:
    digest = hashlib.sha256(f"{use}/1/{seed}/{epoch}/{source}".encode()).digest()
    return words(int.from_bytes(digest[:16], "little"), count)


def epoch_order(size: int, seed: int, epoch: int, source: str, shards: Sequence[int] | None) -> list[int]:
    """The sample numbers of one epoch of a source."""
    draws = stream_words("order", seed, epoch, source, size)
    block_of = [0] * size
    if shards is not None:
        turns = stream_words("shards", seed, epoch, source, len(shards))
        in_turn = sorted(range(len(shards)), key=lambda shard: turns[shard])
        block_of = [in_turn.index(shard) // 8 for shard, count in enumerate(shards) for _ in range(count)]
    return sorted(range(size), key=lambda sample: (block_of[sample], draws[sample]))


def pattern(shares: Mapping[str, float]) -> list[str]:
    """The source of each of the 4,096 places."""
    names, total = sorted(shares), sum(shares[name] for name in sorted(shares))
    exact = {name: shares[name] / total * PLACES for name in names}
    counts = {name: max(int(exact[name]), 1) for name in names}
    while (spare := PLACES - sum(counts.values())) > 0:
        for name in sorted(names, key=lambda name: counts[name] - exact[name])[:spare]:
            counts[name] += 1
    while sum(counts.values()) > PLACES:
        name = min((name for name in names if counts[name] > 1), key=lambda name: exact[name] - counts[name])
        counts[name] -= 1
    wishes = [(Fraction(2 * j + 1, 2 * counts[name]), name) for name in names for j in range(counts[name])]
    return [name for _, name in sorted(wishes)]


def samples(
    sizes: Mapping[str, int],
    seed: int,
    weights: Mapping[str, float],
    positions: Sequence[int],
    shards: Mapping[str, Sequence[int]] | None = None,
) -> list[tuple[str, int]]:
    """(source, sample number) at each position: the next one of its source's endless stream."""
    places = pattern({name: weights.get(name, size) for name, size in sizes.items()})
    count = {name: places.count(name) for name in sizes}
    epochs: dict[tuple[str, int], list[int]] = {}
    found = []
    for position in positions:
        block, place = divmod(position, PLACES)
        name = places[place]
        number = block * count[name] + places[:place].count(name)
        epoch, offset = divmod(number, sizes[name])
        if (name, epoch) not in epochs:
            own = None if shards is None else shards[name]
            epochs[name, epoch] = epoch_order(sizes[name], seed, epoch, name, own)
        found.append((name, epochs[name, epoch][offset]))
    return found
