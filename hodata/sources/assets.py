"""Where the files are that datasets need besides their own: MANO's models and the YCB meshes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hodata.errors import SourceError


def find_mano(given: Path | None, dataset: Path) -> Path:
    """MANO_RIGHT.pkl: the file given, or in a folder, its `models/`, or one level down.

    Args:
        given: what `--mano` names; None: the places of `default_places`.
        dataset: the root of the dataset that needs it.

    Raises:
        SourceError: not found; the message says where it looked, and what to download.
    """
    places = default_places("mano", given, dataset)
    file = "MANO_RIGHT.pkl"
    for place in places:
        if place.is_file():
            return place
        for found in (place / file, place / "models" / file, *sorted(place.glob(f"*/{file}"))):
            if found.is_file():
                return found
        deeper = sorted(place.glob(f"*/models/{file}"))
        if deeper:
            return deeper[0]
    raise SourceError(
        f"{file} was not found in {_listed(places)}; register at https://mano.is.tue.mpg.de, unpack the models, and "
        f"give their folder with --mano DIR or put them into {places[-1]}"
    )


def find_ycb(given: Path | None, dataset: Path) -> Path:
    """The folder that holds `<object>/textured_simple.obj`: the folder given, its `models/`, or one level down.

    Args:
        given: what `--ycb` names; None: the places of `default_places`.
        dataset: the root of the dataset that needs it.

    Raises:
        SourceError: not found; the message says where it looked, and what to download.
    """
    places = default_places("ycb", given, dataset)
    for place in places:
        for folder in (place, place / "models", *(sorted(place.glob("*/models")))):
            if next(folder.glob("*/textured_simple.obj"), None) is not None:
                return folder
    raise SourceError(
        f'the YCB meshes (<object>/textured_simple.obj) were not found in {_listed(places)}; download "The YCB-Video '
        '3D Models" from the page of PoseCNN, unpack them, and give their folder with --ycb DIR or put them into '
        f"{places[-1]}"
    )


def default_places(kind: str, given: Path | None, dataset: Path) -> list[Path]:
    """Where a folder `kind` is looked for: the one given, else $HODATA_ROOT, beside the dataset, and ./datasets."""
    if given is not None:
        return [given]
    home = os.environ.get("HODATA_ROOT", "")
    places = [Path(home) / kind] if home else []
    return [*places, dataset.resolve().parent / kind, Path("datasets") / kind]


def _listed(places: Sequence[Path]) -> str:
    return " or ".join(map(str, places))
