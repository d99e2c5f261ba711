"""From the values in a mask file to label ids."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SampleError
from hodata.labels import Label


def single_channel(mask: NDArray[np.uint8], where: str) -> NDArray[np.uint8]:
    """The ids [H, W] of a mask that may repeat them in three channels [H, W, 3].

    Raises:
        SampleError: the channels differ: the file is a picture, not ids.
    """
    if mask.ndim == 2:
        return mask
    if not (mask == mask[..., :1]).all():
        raise SampleError(
            where,
            "is a colour image whose channels differ; a mask holds one id per pixel "
            "(grayscale, palette, or three equal channels): export it as a label map",
        )
    return np.ascontiguousarray(mask[..., 0])


def map_values(mask: NDArray[np.uint8], labels: Mapping[int, Label], where: str, table: str) -> NDArray[np.uint8]:
    """Turn stored values into label ids.

    Args:
        mask: uint8 [H, W].
        labels: value -> label.
        where: how error messages call the file.
        table: where a person would add a value, for the error message.

    Returns:
        uint8 [H, W] of label ids.

    Raises:
        SampleError: values without a label; the message names each with its pixel count.
    """
    counts = np.bincount(mask.ravel(), minlength=256)
    unknown = [int(value) for value in np.flatnonzero(counts) if int(value) not in labels]
    if unknown:
        listed = ", ".join(f"{value} ({counts[value]:,} px)" for value in unknown[:8])
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        lossy = "; many values usually mean a lossy or resized mask" if len(unknown) > 8 else ""
        known = ", ".join(str(value) for value in sorted(labels))
        raise SampleError(where, f"holds unknown ids {listed}{more}; {table} knows {known}{lossy}")
    lookup = np.zeros(256, dtype=np.uint8)
    for value, label in labels.items():
        lookup[value] = label
    return lookup[mask]
