"""Files that appear whole or not at all: written beside their place, then renamed into it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST_NAME = 255  # bytes, on the usual file systems


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary path for the block to write: renamed to `path` at its end, removed where it raises.

    What a link leads to is replaced, not the link; a pipe or a device is written to as it is. The temporary name is the
    same every time, so what a killed process left is written over by the next one.

    Args:
        path: the file, in a folder that is there; what it was is replaced.
        durable: bring it to the disk first, so that a power failure leaves the old file or the new one.

    Raises:
        OSError: it cannot be renamed, or as the block does; whoever writes knows what it was for.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        yield path
        return
    name = f".{path.name}.tmp"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.tmp"
    temporary = path.with_name(name)
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
