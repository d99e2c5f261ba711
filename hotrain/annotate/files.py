"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hotrain.errors import AnnotateError


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file under a temporary name beside it and rename it.

    Raises:
        AnnotateError: it cannot be written.
    """
    with replaced_when_complete(path) as partial:
        partial.write_bytes(data)


@contextmanager
def replaced_when_complete(path: Path) -> Iterator[Path]:
    """A temporary path for the block to write; renamed to `path` at its end. The name is the same in every run, so a
    killed run's leftover is overwritten by the next one."""
    partial = path.with_name(f".{hashlib.sha256(path.name.encode(errors='surrogateescape')).hexdigest()[:16]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise AnnotateError(f"{path}: cannot be written ({error.strerror or error})") from error
