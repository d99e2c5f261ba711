"""What lies below a folder: each file once, whatever links lead to it."""

from __future__ import annotations

import os
from pathlib import Path

from hodata.errors import SourceError

_SYSTEM = {"lost+found", "System Volume Information", "$RECYCLE.BIN"}  # of disks, closed to people


def files_below(folder: Path, suffixes: tuple[str, ...], without: Path | None = None) -> list[Path]:
    """Files in `folder` and its subfolders with one of the suffixes, sorted.

    Hidden files and folders, and those of the disk itself, are skipped.

    Links to folders are followed. Each folder is listed once: by its own name, or by a link's where it lies elsewhere.
    A link to a file that is gone counts as a file, so that whoever reads it can say so.

    Args:
        folder: where to look.
        suffixes: in lower case, with the dot; files may write them in upper case.
        without: a subfolder to leave out, by whatever name it is met.

    Raises:
        SourceError: a subfolder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise SourceError(f"{error.filename}: cannot be read ({error.strerror}); what lies in it would be missing")

    found: list[Path] = []
    barred = without.resolve() if without is not None else None
    seen: set[Path] = set()
    links = [folder] if folder.is_dir() else []
    while links:
        for here, folders, files in os.walk(links.pop(0), onerror=refuse):
            place = Path(here).resolve()
            if place in seen or (barred is not None and place.is_relative_to(barred)):
                folders.clear()
                continue
            seen.add(place)
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SYSTEM)
            links += [Path(here) / name for name in folders if (Path(here) / name).is_symlink()]
            paths = (Path(here) / name for name in files if not name.startswith("."))
            found += [path for path in paths if path.suffix.lower() in suffixes and _is_file(path)]
    return sorted(found)


def _is_file(path: Path) -> bool:
    """Not a pipe or a device, which could be read for ever."""
    return path.is_file() or (path.is_symlink() and not path.exists())
