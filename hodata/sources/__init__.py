"""The registry of dataset sources, and finding a dataset's folder."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from hodata.errors import SourceError
from hodata.sources.base import Detection, Source

# name -> (module, class): imported on use, so that `hodata --help` stays fast.
_REGISTRY = {
    "freihand": ("hodata.sources.freihand", "FreiHand"),
    "ho3d": ("hodata.sources.ho3d", "HO3D"),
    "egohos": ("hodata.sources.egohos", "EgoHOS"),
    "egohands": ("hodata.sources.egohands", "EgoHands"),
    "folder": ("hodata.sources.folder", "Folder"),
    "coco": ("hodata.sources.coco", "Coco"),
}
SOURCE_NAMES = tuple(_REGISTRY)


def source_class(name: str) -> type[Source]:
    """The class of the source called `name`; raises SourceError with all names."""
    try:
        module, attribute = _REGISTRY[name]
    except KeyError:
        raise SourceError(f"unknown source {name!r}; known: {', '.join(SOURCE_NAMES)}") from None
    found: type[Source] = getattr(import_module(module), attribute)
    return found


def detect_all(path: Path) -> dict[str, Detection]:
    """What every source says of a folder."""
    return {name: source_class(name).detect(path) for name in SOURCE_NAMES}


def find_root(name: str, root: Path | None) -> Path:
    """The folder of a dataset: `root`, or one of the default places; one level down is searched.

    Raises:
        SourceError: nothing there is this dataset, or several folders in it are; the message says where it looked
            and what was missed.
    """
    source = source_class(name)
    places = [root] if root is not None else default_places(name)
    looked: list[str] = []
    for place in places:
        if not place.exists():
            looked.append(f"  {place}: does not exist")
            continue
        if not place.is_dir():
            looked.append(f"  {place}: is not a folder")
            continue
        if source.detect(place).matched:
            return place
        below = [folder for folder in folders_in(place) if source.detect(folder).matched]
        if len(below) > 1:
            raise SourceError(f"{place}: holds several; give one of them with --root: {', '.join(map(str, below))}")
        if below:
            return below[0]
        looked.append(f"  {place}: {source.detect(place).reason}")
        looked += [f"    is {other}: try --source {other}" for other in _others(place, name)]
        if source.detect(place.resolve().parent).matched:
            looked.append(f"    the folder above it is the one: --root {place.resolve().parent}")
    if root is None:
        cure = f"give --root DIR, or set HODATA_ROOT to the folder that holds {name}/"
    else:
        cure = f"give the folder that holds these, or ask `hodata detect {places[0]}`"
    raise SourceError(f"{source.title}: not found; looked in\n" + "\n".join(looked) + f"\n{cure}")


def folders_in(place: Path) -> list[Path]:
    """The folders directly in `place` that can be read, sorted; hidden ones skipped."""
    found = (path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(path for path in found if os.access(path, os.R_OK | os.X_OK))  # others: an ext4 disk's lost+found


def default_places(name: str) -> list[Path]:
    """`$HODATA_ROOT/<name>`, then `./datasets/<name>`."""
    home = os.environ.get("HODATA_ROOT", "")
    return [Path(home) / name, Path("datasets") / name] if home else [Path("datasets") / name]


def _others(place: Path, name: str) -> list[str]:
    return [other for other in SOURCE_NAMES if other != name and source_class(other).detect(place).matched]
