"""Which sample stands at which position of a run: a pure function of (sizes, weights, seed, position).

Every source has an endless stream: its permutation of epoch 0, then of epoch 1, and so on. A pattern of 4,096 places
says which source each position draws from: position q * 4096 + r is sample q * count[s] + rank[s][r] of the stream of
source s = pattern[r]. So every sample of a source is seen exactly once per epoch of that source, at any weight, and
the state of the data is one integer.

Block order changes only what a permutation is: a source's shards are taken in random order, a few at a time, and the
samples of those few are mixed. An object store then serves few files at once, each to its end.

Only raw Philox words are used: NumPy promises that raw streams never change, and promises it of nothing above them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hotrain.errors import SelectionError

ORDER_VERSION = 1
PATTERN = 4096
BLOCK = 8  # shards whose samples are mixed in block order
ORDERS = ("shuffle", "blocks")
_HELD = 2  # epochs of a source whose permutation is kept: the current one, and the next at their border


class Order:
    """The order of a run.

    Args:
        sizes: source name -> number of its samples, each at least 1.
        seed: 0 <= seed < 2**63.
        weights: source name -> share of the positions, relative to the others; without it the sizes are the weights,
            so every sample is seen equally often. A source that is not named keeps its size as its weight.
        shards: source name -> samples in each of its shards, one shard after the other: block order.

    Raises:
        SelectionError: no source, an empty one, an unknown name among the weights, a weight that is not positive, or
            more sources than places.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        seed: int,
        weights: Mapping[str, float] | None = None,
        shards: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.sources = tuple(sorted(sizes))
        self.sizes = np.array([sizes[name] for name in self.sources], dtype=np.int64)
        self.seed = seed
        weights = dict(weights or {})
        _check(sizes, weights)
        shares = np.array([weights.get(name, sizes[name]) for name in self.sources], dtype=np.float64)
        self.counts = place_counts(shares)
        self.pattern = interleave(self.counts)
        self._rank = np.zeros(PATTERN, dtype=np.int64)
        for source, count in enumerate(self.counts):
            self._rank[self.pattern == source] = np.arange(count)
        self._shards = None if shards is None else [tuple(shards[name]) for name in self.sources]
        self._held: list[dict[int, NDArray[np.int64]]] = [{} for _ in self.sources]

    def locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The samples at some positions.

        Args:
            positions: int64 [N], each >= 0.

        Returns:
            source numbers int64 [N] (into `sources`) and sample numbers int64 [N] (each below its source's size).
        """
        block, place = np.divmod(positions, PATTERN)
        source = self.pattern[place].astype(np.int64)
        number = block * self.counts[source] + self._rank[place]
        epoch, offset = np.divmod(number, self.sizes[source])
        sample = np.empty(len(positions), dtype=np.int64)
        for s, e in {(int(s), int(e)) for s, e in zip(source, epoch, strict=True)}:
            chosen = (source == s) & (epoch == e)
            sample[chosen] = self._epoch(s, e)[offset[chosen]]
        return source, sample

    def when(self, source: int, sample: int, epoch: int) -> int:
        """The position at which a sample stands in an epoch of its source: the inverse of `locate`."""
        offset = int(np.flatnonzero(self._epoch(source, epoch) == sample)[0])
        block, rank = divmod(epoch * int(self.sizes[source]) + offset, int(self.counts[source]))
        return block * PATTERN + int(np.flatnonzero(self.pattern == source)[rank])

    def _epoch(self, source: int, epoch: int) -> NDArray[np.int64]:
        held = self._held[source]
        if epoch not in held:
            if len(held) == _HELD:
                del held[min(held)]
            if self._shards is None:
                held[epoch] = permutation(int(self.sizes[source]), self.seed, self.sources[source], epoch)
            else:
                held[epoch] = block_permutation(self._shards[source], self.seed, self.sources[source], epoch)
        return held[epoch]


def permutation(length: int, seed: int, stream: str, epoch: int) -> NDArray[np.int64]:
    """int64 [length]: the order of one epoch of one stream."""
    return np.argsort(_words(length, "order", seed, stream, epoch), kind="stable").astype(np.int64)


def block_permutation(shards: Sequence[int], seed: int, stream: str, epoch: int) -> NDArray[np.int64]:
    """int64 [sum of shards]: one epoch of one stream in block order.

    Args:
        shards: samples in each shard; sample numbers count through them.
    """
    turn = np.argsort(_words(len(shards), "shards", seed, stream, epoch), kind="stable")
    block = np.empty(len(shards), dtype=np.int64)
    block[turn] = np.arange(len(shards)) // BLOCK
    length = int(np.sum(shards))
    return np.lexsort((_words(length, "order", seed, stream, epoch), np.repeat(block, shards))).astype(np.int64)


def _words(count: int, use: str, seed: int, stream: str, epoch: int) -> NDArray[np.uint64]:
    """uint64 [count] of Philox, keyed by what they are for."""
    digest = hashlib.sha256(f"{use}/{ORDER_VERSION}/{seed}/{epoch}/{stream}".encode()).digest()
    return np.asarray(np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count))


def place_counts(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of the 4,096 places each source gets: in proportion, at least one each, 4,096 together.

    Largest remainders (Hamilton's method); ties go to the earlier source.
    """
    exact = shares / shares.sum() * PATTERN
    counts = np.maximum(np.floor(exact).astype(np.int64), 1)
    while (spare := PATTERN - int(counts.sum())) != 0:
        gap = exact - counts
        if spare > 0:
            counts[np.argsort(-gap, kind="stable")[:spare]] += 1
        else:
            counts[np.argmin(np.where(counts > 1, gap, np.inf))] -= 1
    return counts


def interleave(counts: NDArray[np.int64]) -> NDArray[np.int16]:
    """int16 [4096]: the source of each place, every source spread as evenly as the others allow.

    The j-th of n places of a source wants to stand at (j + 1/2) / n of the pattern; all wishes are sorted, ties by
    source.
    """
    wish = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    source = np.repeat(np.arange(len(counts)), counts)
    return source[np.lexsort((source, wish))].astype(np.int16)


def uniforms(seed: int, position: int, purpose: int, count: int) -> NDArray[np.float64]:
    """The random numbers that belong to one position of a run, whoever asks and in whatever order.

    Args:
        seed: of the run.
        position: in the run.
        purpose: keeps uses apart; numbers of two purposes are independent.
        count: how many.

    Returns:
        float64 [count], uniform in [0, 1).
    """
    return np.asarray((raw_words(seed, position, purpose, count) >> np.uint64(11)) * 2.0**-53)


def raw_words(seed: int, position: int, purpose: int, count: int) -> NDArray[np.uint64]:
    """uint64 [count]: the random bits behind `uniforms`, for those who need many."""
    generator = np.random.Philox(key=np.array([seed, position], np.uint64), counter=[0, 0, 0, purpose])
    return np.asarray(generator.random_raw(count))


def _check(sizes: Mapping[str, int], weights: Mapping[str, float]) -> None:
    if not sizes:
        raise SelectionError("no source is selected; there is nothing to train on")
    for name, size in sizes.items():
        if size < 1:
            raise SelectionError(f"source {name!r} has no samples in the selection; leave it out")
    if len(sizes) > PATTERN:
        raise SelectionError(f"{len(sizes)} sources are selected; at most {PATTERN} can be mixed")
    for name, weight in weights.items():
        if name not in sizes:
            raise SelectionError(
                f"--source-weight names {name!r}, which is not among the selected sources: {', '.join(sorted(sizes))}"
            )
        if not (weight > 0 and np.isfinite(weight)):
            raise SelectionError(f"--source-weight {name}={weight}: a weight must be a positive number")
