"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hodata.lock import only_one
from hotrain.errors import AnnotateError


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file under a temporary name beside it and rename it.

    Raises:
        AnnotateError: it cannot be written.
    """
    with replaced_when_complete(path) as partial:
        partial.write_bytes(data)


@contextmanager
def only_here(out: Path) -> Iterator[None]:
    """For as long as files are written to an output folder, which is made if missing: two processes would rename each
    other's half-written files.

    Raises:
        AnnotateError: another process writes there, or it cannot be written.
    """
    busy = AnnotateError(f"{out}: another `hotrain annotate` is writing here; wait for it, or give another --out")
    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(only_one(out / ".annotate.lock", busy))
        except OSError as error:
            raise AnnotateError(f"{out}: cannot be written ({error.strerror or error})") from error
        yield


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
