"""The worst samples first: by what a source measured of its own annotation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hodata.errors import HodataError
from hodata.labels import Label
from hodata.report.draw import Tile, decode_image, grid, legend_of, overlay, resize_mask, save_png

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex

_ASPECT = 1.25
_NOT_MEASURED = -1.0


@dataclass(frozen=True)
class Measure:
    """A column of the index that says how well a sample agrees with its own annotation."""

    column: str
    unit: str
    title: str
    larger_is_worse: bool


MEASURES = {
    "joints": Measure("residual_joints_mm", " mm", "distance of hand joints from the annotation", True),
    "corners": Measure("residual_corners_mm", " mm", "distance of object corners from the annotation", True),
    "silhouette": Measure("iou_silhouette", " IoU", "rendered hand against the shipped mask", False),
    "seg": Measure("iou_seg", " IoU", "rendering against the shipped segmentation", False),
}


def worst_rows(
    index: ShardIndex, by: str, count: int, rows: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The rows that agree least with their annotation, worst first, equal ones in the order of their keys.

    Args:
        index: the shards.
        by: one of `MEASURES`.
        count: at most so many.
        rows: int64 [N], ascending, to choose from; None: all.

    Returns:
        rows int64 [<= count] and their values float64 [<= count].

    Raises:
        HodataError: no sample has that measure.
    """
    measure = MEASURES[by]
    values = index.column(measure.column).astype(np.float64)
    measured = np.flatnonzero(values != _NOT_MEASURED)
    if rows is not None:
        measured = np.intersect1d(measured, rows)
    if not len(measured):
        raise HodataError(
            f"--by {by}: no sample of this selection has {measure.column}; HO-3D and FreiHAND have it where their "
            "annotation and MANO were at hand when the shards were built"
        )
    keys = index.column("key")[measured].astype(str)
    badness = values[measured] if measure.larger_is_worse else -values[measured]
    worst = measured[np.lexsort((keys, -badness))][:count]
    return worst, values[worst]


def worst_sheet(
    index: ShardIndex,
    by: str,
    count: int,
    path: Path,
    *,
    rows: NDArray[np.int64] | None = None,
    columns: int = 6,
    width: int = 240,
) -> None:
    """Write a PNG of the worst samples with their masks, each with its value.

    Args:
        index: the shards.
        by: one of `MEASURES`.
        count: at most so many.
        path: the PNG file.
        rows: as of `worst_rows`.
        columns: pictures in a row.
        width: of one picture, in pixels.

    Raises:
        HodataError: as `worst_rows`, or the file cannot be written.
        ShardError: a shown sample is damaged.
    """
    measure = MEASURES[by]
    worst, values = worst_rows(index, by, count, rows)
    facts, reader = index.table.take(worst).to_pylist(), index.reader()
    tiles: list[Tile] = []
    present = np.zeros(256, dtype=bool)
    for row, fact, value in zip(worst.tolist(), facts, values.tolist(), strict=True):
        image = decode_image(reader.image(row), (width, round(_ASPECT * width)))
        mask = reader.mask(row)
        present[np.unique(mask)] = True
        small = resize_mask(mask, (image.shape[1], image.shape[0]))
        tiles.append(Tile(overlay(image, small), (fact["key"], f"{value:.3g}{measure.unit} - {fact['split']}")))
    lines: list[str | list[Tile]] = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    picture = grid(
        lines,
        box=(width, round(_ASPECT * width)),
        title=f"The worst {len(worst)} by {by}",
        subtitle=f"{measure.title}; worst first",
        legend=legend_of([label for label in Label if present[label]]),
    )
    save_png(path, picture)
