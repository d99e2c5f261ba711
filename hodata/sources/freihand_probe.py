"""FreiHAND read the way its authors meant it? Rendered hands against shipped masks, before the first shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SourceError
from hodata.pose.camera import project
from hodata.sources.freihand_pose import HandMesh, Mask

Array = NDArray[np.float64]

INSIDE_AT_LEAST = 0.7  # of a rendered hand, in the median: held objects hide the rest, and are not in the masks
ROOM = 1.0  # wrist widths of picture behind the wrist, without which a picture says nothing of arms
ARM_FROM = 0.75  # wrist widths: masks that reach farther behind the wrist hold arms


@dataclass(frozen=True)
class Reach:
    """How far a mask goes on behind the wrist, and how far the picture does, in wrist widths."""

    mask: float
    picture: float


def require_agreement(inside: Sequence[float], problems: Sequence[str], root: Path) -> str:
    """What the shares of rendered hands inside their masks say; a hand that could not be drawn has share 0.

    Returns:
        a note for people.

    Raises:
        SourceError: under 70 % in the median.
    """
    median = float(np.median(inside))
    count = f"{len(inside)} picture{'s' if len(inside) != 1 else ''}"
    if median >= INSIDE_AT_LEAST:
        return (
            f"probe of {count}: {median:.0%} of the rendered hand lies inside the shipped mask in the median "
            f"(at least {INSIDE_AT_LEAST:.0%} is asked for; held objects hide the rest)"
        )
    listed = "".join(f"\n  {problem}" for problem in problems[:3])
    raise SourceError(
        f"{root}: only {median:.0%} of the rendered hand lies inside the shipped mask, in the median of {count}; "
        f"{INSIDE_AT_LEAST:.0%} are needed. Likely causes: the tables are those of FreiHAND v1 or of another subset; "
        "their rows or axes were changed (FreiHAND's are x right, y down, z forward, in metres); the MANO file is not "
        "the original right hand (--mano); the masks are of other pictures; pictures and masks were resized (the "
        f"cameras are those of 224x224 pixels).{listed}"
    )


def reach_behind_wrist(shipped: Mask, vertices: Array, K: Array, knuckle: Array, mesh: HandMesh) -> Reach | None:
    """How far a mask reaches behind the wrist, as long as it stays half a wrist wide.

    Args:
        shipped: bool [H, W].
        vertices: [778, 3], camera frame, metres.
        K: [3, 3] pixels.
        knuckle: [3] of the middle finger: the arm goes on from there through the middle of the wrist loop.
        mesh: MANO's faces and wrist loop.

    Returns:
        None where the arm would point at the camera or away from it, or the wrist is outside the picture or larger.
    """
    loop = vertices[mesh.loop]
    center = loop.mean(axis=0)
    width = float(np.linalg.norm(loop[:, None] - loop, axis=-1).max() * K[0, 0] / center[2])
    start, knuckle_px = project(np.stack([center, knuckle]), K)
    along = start - knuckle_px
    length = float(np.linalg.norm(along))
    straight = float(np.linalg.norm(center - knuckle) * K[0, 0] / center[2])
    if not (np.isfinite(length) and length > 0.5 * straight and 2 <= width <= max(shipped.shape)):
        return None
    along /= length
    # One row of samples for each pixel behind the wrist, half a wrist to either side.
    steps = np.arange(0, int(4 * width) + 1)
    across = np.arange(-int(width / 2), int(width / 2) + 1)
    points = start + steps[:, None, None] * along + across[:, None] * np.array([-along[1], along[0]])
    columns, rows = np.round(points).astype(int).transpose(2, 0, 1)
    height, wide = shipped.shape
    seen = (columns >= 0) & (columns < wide) & (rows >= 0) & (rows < height)
    hand = seen & shipped[np.clip(rows, 0, height - 1), np.clip(columns, 0, wide - 1)]
    if not seen[0].any():
        return None
    return Reach(_run(hand.mean(axis=1) >= 0.5) / width, _run(seen.mean(axis=1) >= 0.75) / width)


def meaning_of(reaches: Sequence[Reach]) -> tuple[str, str]:
    """The meaning of the shipped masks (`hand-wrist` or `hand-arm`), and a note with what decided it."""
    told = [reach.mask for reach in reaches if reach.picture >= ROOM]
    if not told:
        return "hand-wrist", (
            "no probed picture shows a wrist width of room behind the wrist, so it was not measured where the masks "
            "end; they are taken as ending at the wrist"
        )
    median, far = float(np.median(told)), float(np.quantile(told, 0.9))
    arm = median > ARM_FROM
    return ("hand-arm" if arm else "hand-wrist"), (
        f"behind the wrist the masks go on for {median:.2f} wrist widths in the median of {len(told)} pictures "
        f"({far:.2f} in one of ten): they {'hold arms' if arm else 'end at the wrist'}, "
        f"meaning {'hand-arm' if arm else 'hand-wrist'} (the line is drawn at {ARM_FROM})"
    )


def _run(flags: NDArray[np.bool_]) -> int:
    """How many of the first flags are all set."""
    return int(np.argmin(np.append(flags, False)))
