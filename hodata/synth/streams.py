"""Random numbers that depend on names only: the same picture on every run, in any order, in any process."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, *path: int | str) -> np.random.Generator:
    """A generator of its own for every path, such as `("ego", recording, "person")`."""
    text = "/".join(map(str, (seed, *path)))
    words = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype="<u4")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words.tolist())))
