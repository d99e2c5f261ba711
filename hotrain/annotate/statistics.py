"""What is known of a frame's answer without any truth: the lines of frames.jsonl, and which frames to look at first.

Areas are pixels, confidences 0..1 with 3 decimals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Task
from hotrain.annotate.components import bounding_box, components, worth_counting

LOW_PERCENTILE = 5
_UNSURE = 0.75  # mean confidence of a hand below which a person should look
_JUMP = 0.5  # IoU with both neighbours below which a mask has jumped
_DISAGREES = 0.3  # share of the foreground on which the mirrored picture disagrees
_PARTS = 3  # of hands: two and a speck are common, more are fragments


def kind_masks(classes: NDArray[np.uint8], task: Task) -> dict[str, NDArray[np.bool_]]:
    """bool [H, W] of `hand` and, where the task has it, `object`, from public classes uint8 [H, W]."""
    masks = {}
    for kind in ("hand", "object"):
        members = [c for c in range(task.public) if task.kind_of(c) == kind]
        if members:  # comparing is many times faster than a table of so few classes
            masks[kind] = np.logical_or.reduce([classes == c for c in members])
    return masks


def frame_statistics(
    masks: Mapping[str, NDArray[np.bool_]], confidence: NDArray[np.uint8], disagreement: float | None
) -> dict[str, Any]:
    """The figures of one frame alone.

    Args:
        masks: of `kind_masks`.
        confidence: uint8 [H, W], 255 = sure.
        disagreement: with the mirrored picture, None where it was not asked.

    Returns:
        {hand: {...}, object: {...}, flip_disagreement?}; each kind has area, components, box [x, y, w, h],
        confidence_mean, confidence_p05 and touches_border. Where nothing was found, area is 0 and the confidences
        are those of the whole frame: how sure it is that there is nothing.
    """
    found: dict[str, Any] = {kind: _of_kind(mask, confidence) for kind, mask in masks.items()}
    if disagreement is not None:
        found["flip_disagreement"] = round(disagreement, 3)
    return found


def _of_kind(mask: NDArray[np.bool_], confidence: NDArray[np.uint8]) -> dict[str, Any]:
    height, width = mask.shape
    box = bounding_box(mask)
    if box is None:
        mean, low = _confidences(confidence)
        return {
            "area": 0,
            "components": 0,
            "box": [0, 0, 0, 0],
            "confidence_mean": mean,
            "confidence_p05": low,
            "touches_border": False,
        }
    top, left, bottom, right = box
    parts = components(mask)
    mean, low = _confidences(confidence[top:bottom, left:right][mask[top:bottom, left:right]])
    return {
        "area": int(parts.areas.sum()),
        "components": worth_counting(parts, height * width) or 1,
        "box": [left, top, right - left, bottom - top],
        "confidence_mean": mean,
        "confidence_p05": low,
        "touches_border": top == 0 or left == 0 or bottom == height or right == width,
    }


def _confidences(values: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean and low percentile from the 256 counts: exact, whatever the order of the pixels."""
    counts = np.bincount(values.ravel(), minlength=256)
    total = int(counts.sum())
    mean = float((counts * np.arange(256)).sum() / (255 * total))
    low = int(np.searchsorted(np.cumsum(counts), total * LOW_PERCENTILE / 100))
    return round(mean, 3), round(low / 255, 3)


def neighbour_iou(one: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
    """IoU of two frames' hands and objects together, from their RLE; None where the sizes differ or both are empty."""
    from pycocotools import mask as rle

    pairs = [(one[kind], other[kind]) for kind in one if kind in other]
    if not pairs or any(a["size"] != b["size"] for a, b in pairs):
        return None
    union, common = 0.0, 0.0
    for a, b in pairs:
        union += float(rle.area(rle.merge([a, b])))
        common += float(rle.area(rle.merge([a, b], intersect=True)))
    return round(common / union, 3) if union else None


def add_neighbours(rows: Sequence[dict[str, Any]], masks: Sequence[Mapping[str, Any] | None]) -> None:
    """Put `iou_previous`, `iou_next`, `flags` and `quality` into the rows of all frames, in order.

    Args:
        rows: as `frame_statistics` with `recording` and `status`.
        masks: RLE of each kind, None for a broken or rejected frame.
    """
    following: list[float | None] = [None] * len(rows)
    for place in range(len(rows) - 1):
        this, after = masks[place], masks[place + 1]
        if this is not None and after is not None and rows[place]["recording"] == rows[place + 1]["recording"]:
            following[place] = neighbour_iou(this, after)
    for place, row in enumerate(rows):
        if row["status"] != "ok":
            row["flags"], row["quality"] = [row["status"]], 0.0
            continue
        row["iou_previous"] = following[place - 1] if place else None
        row["iou_next"] = following[place]
        row["flags"] = _flags(row)
        row["quality"] = _quality(row)


def _flags(row: Mapping[str, Any]) -> list[str]:
    hand, thing = row["hand"], row.get("object")
    neighbours = [row[name] for name in ("iou_previous", "iou_next") if row[name] is not None]
    tests = {
        "no-hand": hand["area"] == 0,
        "no-object": thing is not None and thing["area"] == 0,
        "unsure": hand["confidence_mean"] < _UNSURE,
        "fragments": hand["components"] > _PARTS,
        "border": hand["touches_border"],
        "jump": bool(neighbours) and max(neighbours) < _JUMP,
        "flip": row.get("flip_disagreement", 0) > _DISAGREES,
    }
    return [name for name, holds in tests.items() if holds]


def _quality(row: Mapping[str, Any]) -> float:
    """0..1, low: look here first. The factors that are known, multiplied; a guide for people, not a probability."""
    neighbours = [row[name] for name in ("iou_previous", "iou_next") if row[name] is not None]
    quality = float(row["hand"]["confidence_mean"])
    quality *= max(neighbours) if neighbours else 1.0
    quality *= 1 - row.get("flip_disagreement", 0.0)
    quality /= max(row["hand"]["components"] - _PARTS + 1, 1)
    return round(quality * (0.5 if row["hand"]["area"] == 0 else 1.0), 3)
