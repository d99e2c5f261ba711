"""A contact sheet: pictures of every source, split and many groups with their masks over them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Label
from hodata.report.draw import Tile, decode_image, grid, legend_of, overlay, resize_mask, save_png
from hodata.report.pick import spread_rows

if TYPE_CHECKING:
    from hodata.shards.reader import SampleReader, ShardIndex

_MAX_ASPECT = 1.25  # an upright picture is shrunk until it is no higher than this times the width


def contact_sheet(
    index: ShardIndex,
    rows: NDArray[np.int64] | None,
    path: Path,
    *,
    count: int = 36,
    columns: int = 6,
    width: int = 240,
) -> NDArray[np.int64]:
    """Write a PNG of samples with their masks: tint, outline, caption (key, split, group) and legend.

    Args:
        index: the shards.
        rows: int64 [N], rows to choose from; None: all.
        path: the PNG file.
        count: at most so many pictures; they are spread over sources, splits and groups, the same every time.
        columns: pictures in a row.
        width: of one picture, in pixels.

    Returns:
        int64 [<= count]: the rows shown.

    Raises:
        ShardError: a shown sample is damaged.
        HodataError: the file cannot be written.
    """
    shown = spread_rows(index, count, rows)
    box = (width, round(_MAX_ASPECT * width))
    facts, reader = index.table.take(shown).to_pylist(), index.reader()
    lines: list[str | list[Tile]] = []
    present = np.zeros(256, dtype=bool)
    for source, members in groupby(zip(shown.tolist(), facts, strict=True), key=lambda pair: str(pair[1]["source"])):
        lines.append(_heading(index, source, rows))
        tiles = [_tile(reader, row, fact, box, present) for row, fact in members]
        lines += [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    drawn = [label for label in Label if present[label]]
    total = len(index) if rows is None else len(rows)
    subtitle = f"{len(shown)} of {total:,} samples, spread over sources, splits and groups"
    save_png(path, grid(lines, box=box, title="Contact sheet", subtitle=subtitle, legend=legend_of(drawn)))
    return shown


def _tile(
    reader: SampleReader, row: int, fact: Mapping[str, Any], box: tuple[int, int], present: NDArray[np.bool_]
) -> Tile:
    image = decode_image(reader.image(row), box)
    mask = reader.mask(row)
    present[np.unique(mask)] = True
    small = resize_mask(mask, (image.shape[1], image.shape[0]))
    return Tile(overlay(image, small), (fact["key"], f"{fact['split']} - {fact['group']}"))


def _heading(index: ShardIndex, source: str, rows: NDArray[np.int64] | None) -> str:
    own = index.select(source=source)
    own = own if rows is None else np.intersect1d(own, rows)
    meanings = sorted(set(index.column("meaning")[own]))
    origins = sorted(set(index.column("mask_origin")[own]))
    return f"{source}: {len(own):,} samples, meaning {', '.join(meanings)}, masks {', '.join(origins)}"
