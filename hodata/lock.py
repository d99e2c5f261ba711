"""One process at a time where several would write the same files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from weakref import WeakSet

from hodata.errors import HodataError

_held: WeakSet[IO[str]] = WeakSet()


def _let_go() -> None:
    """In a forked child, which would hold its parent's locks on for a while when that is killed."""
    for file in list(_held):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def only_one(path: Path, refusal: HodataError) -> Iterator[None]:
    """Hold a lock while the block runs; its file is removed at the end.

    File systems without locks (some network disks), and Windows, keep nobody out.

    Args:
        path: of the lock's file, in a folder that is there.
        refusal: raised where another process holds it.
    """
    with path.open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder removes the file: a lock on a removed one keeps nobody out.
            held = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
            _held.add(file)
        except (BlockingIOError, FileNotFoundError):
            held = False
        except (OSError, ModuleNotFoundError):
            held = True
        if not held:
            raise refusal
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):  # not one that came in its place
                    path.unlink()
