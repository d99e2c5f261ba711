"""The files of an annotation: each appears whole or not at all, and one process at a time writes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hodata.files import replacing
from hodata.lock import only_one
from hotrain.errors import AnnotateError


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file, which appears when complete; folders are made.

    Raises:
        AnnotateError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise AnnotateError(f"{path}: cannot be written ({error.strerror or error})") from error


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
