"""What can go wrong, in words for the person at the keyboard.

Every message says what, where, why and what to do. `cli.py` prints it and maps the class to an exit code.
"""

from __future__ import annotations


class HodataError(Exception):
    """Anything a user can cause and cure; its text is printed without a traceback (exit 1)."""

    exit_code = 1


class SourceError(HodataError):
    """A dataset folder is missing, is another dataset, or lacks files that nothing works without."""


class SampleError(HodataError):
    """One sample cannot be converted. `--on-error skip` counts and lists it; the others are kept.

    Args:
        where: the file or item, as the dataset names it.
        what: what is wrong, why, and what to do.
    """

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        # The default pickles `args` (one joined string), which a worker process could not rebuild.
        return type(self), (self.where, self.what)


class PlanError(HodataError):
    """The output folder holds something that this build did not write or would have to replace."""


class ShardError(HodataError):
    """A shard, index or manifest is damaged, incomplete or of an unknown format version."""


class WhereError(HodataError):
    """An expression that chooses samples is wrong: its text shows the place (exit 2: wrong usage)."""

    exit_code = 2


class EmptySelectionError(HodataError):
    """No sample is left of a selection; its text says how many each part left."""


class Unannotated(SampleError):
    """A sample that the dataset itself leaves without annotation: counted and listed, and no reason to stop."""
