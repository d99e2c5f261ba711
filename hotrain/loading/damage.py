"""Samples whose bytes are not those that were written: left out only when asked, counted on all ranks, named.

A damaged training sample becomes an empty one: grey, every pixel void. It costs nothing and is not counted, and no
other sample is seen twice in its place, so the order and every position stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hotrain.distributed import all_gather
from hotrain.errors import TrainingError


@dataclass(frozen=True)
class Damaged:
    """A sample that cannot be read: its key, and what is wrong, with shard and offset."""

    key: str
    what: str


class Tally:
    """The damaged samples of a run, each once: the same on every rank.

    Args:
        limit: more of them end the run.
        before: key -> what, of those that the run knew when it was interrupted.
    """

    def __init__(self, limit: int, before: Mapping[str, str] | None = None) -> None:
        self._limit = limit
        self.found: dict[str, str] = dict(before or {})

    def add(self, damaged: list[Damaged]) -> list[Damaged]:
        """Join what the ranks have found; all of them must call it.

        Returns:
            those that were not known before, by key.

        Raises:
            TrainingError: more than the limit; on every rank.
        """
        joined = {item.key: item for part in all_gather(damaged) for item in part}
        new = [item for key, item in sorted(joined.items()) if key not in self.found]
        self.refuse_more(new)
        self.found |= {item.key: item.what for item in new}
        return new

    def refuse_more(self, damaged: list[Damaged]) -> None:
        """Raise TrainingError if these would make more than the limit."""
        new = {item.key: item.what for item in damaged if item.key not in self.found}
        if len(self.found) + len(new) > self._limit:
            raise TrainingError(
                f"{len(self.found) + len(new)} samples are damaged, more than --max-corrupt {self._limit}; the last: "
                f"{[*new.values()][-1]}"
            )
