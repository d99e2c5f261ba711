"""The wrist: where the hand model is cut open, hand and arm cannot be told apart to the pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hodata.kernels import njit
from hodata.pose.arguments import NEAR
from hodata.pose.camera import project
from hodata.pose.zbuffer import for_kernel

BAND = 0.25  # half width of the undecided band, in wrist widths
# A surface in the band that lies farther than this from the loop, in wrist widths and in space, is another part of
# the hand that passes in front.
NEAR_LOOP = 0.6
# How many times wider than at its median depth a loop may count in the picture. From 10 cm on, loops are seen up to 1.2
# times wider; nearer ones have corners at the camera's plane, which project to anywhere.
WIDEST = 1.5


def wrist_band(
    loop: ArrayLike, K: ArrayLike, depth: NDArray[np.float32], hand: NDArray[np.bool_], band: float = BAND
) -> NDArray[np.bool_]:
    """Pixels near the open boundary of a hand: hand or nothing is drawn there, and which it is nobody can tell.

    Args:
        loop: [L, 3] the boundary in order, camera frame, metres.
        K: [3, 3] intrinsics.
        depth: float32 [H, W] of everything drawn, metres, inf where nothing is.
        hand: bool [H, W], where the hand is seen.
        band: in wrist widths; the width is the largest distance between two points of the loop.

    Returns:
        bool [H, W]: within the band round the projected loop or inside of it, pixels where nothing is drawn, hand
        pixels whose surface is near the loop, and those seen through the opening. Never a thing, and never a finger
        that passes in front. What of the loop is nearer than NEAR is cut off, as it is where the hand is drawn.
    """
    loop = for_kernel(loop, np.float64)
    K = for_kernel(K, np.float64)
    out = np.zeros(depth.shape, dtype=np.bool_)
    kept = _cut_near(loop)
    if not len(kept):
        return out
    pixels = project(kept, K)
    size = _width(loop)
    reach = band * min(_width(pixels), WIDEST * size * float(K[0, 0]) / float(np.median(kept[:, 2])))
    height, width = depth.shape
    low, high = np.floor(pixels.min(axis=0) - reach), np.ceil(pixels.max(axis=0) + reach)
    # As floats: a loop far beside the picture may not fit into an integer.
    x0, y0 = (int(max(value, 0)) for value in low)
    x1, y1 = (int(min(value, side - 1)) for value, side in zip(high, (width, height), strict=True))
    if x0 <= x1 and y0 <= y1:
        _mark(pixels, kept, np.linalg.inv(K), depth, hand, reach, NEAR_LOOP * size, x0, y0, x1, y1, out)
    return out


def _width(points: NDArray[np.float64]) -> float:
    """The largest distance between two of some points [L, D]."""
    return float(np.linalg.norm(points[:, None] - points[None], axis=-1).max())


def _cut_near(loop: NDArray[np.float64]) -> NDArray[np.float64]:
    """What of a closed loop [L, 3] is not nearer than NEAR, closed along that plane: the loop itself where all is."""
    kept = []
    for p, q in zip(loop, np.roll(loop, -1, axis=0), strict=True):
        if p[2] >= NEAR:
            kept.append(p)
        if (p[2] >= NEAR) != (q[2] >= NEAR):
            kept.append(p + (NEAR - p[2]) / (q[2] - p[2]) * (q - p))
    return np.array(kept).reshape(-1, 3)


@njit()
def _mark(pixels, loop, K_inverse, depth, hand, reach, near, x0, y0, x1, y1, out):  # type: ignore[no-untyped-def]
    count = len(pixels)
    rim = loop[:, 2].min()
    for y in range(y0, y1 + 1):
        for x in range(x0, x1 + 1):
            empty = depth[y, x] == np.inf
            if not (empty or hand[y, x]):
                continue
            inside, nearest = False, np.inf
            for k in range(count):
                ax, ay = pixels[k, 0], pixels[k, 1]
                bx, by = pixels[(k + 1) % count, 0], pixels[(k + 1) % count, 1]
                if (ay > y) != (by > y) and x < ax + (y - ay) / (by - ay) * (bx - ax):
                    inside = not inside
                dx, dy = bx - ax, by - ay
                length = dx * dx + dy * dy
                t = 0.0
                if length > 0:
                    t = min(max(((x - ax) * dx + (y - ay) * dy) / length, 0.0), 1.0)
                nearest = min(nearest, (x - ax - t * dx) ** 2 + (y - ay - t * dy) ** 2)
            if not inside and nearest > reach * reach:
                continue
            # What is seen through the opening, behind its rim, is the inside of the model: an arm hides it.
            if not empty and not (inside and depth[y, x] > rim):
                z = depth[y, x]
                px = (K_inverse[0, 0] * x + K_inverse[0, 1] * y + K_inverse[0, 2]) * z
                py = (K_inverse[1, 1] * y + K_inverse[1, 2]) * z
                closest = np.inf
                for k in range(count):
                    d = (px - loop[k, 0]) ** 2 + (py - loop[k, 1]) ** 2 + (z - loop[k, 2]) ** 2
                    closest = min(closest, d)
                if closest > near * near:
                    continue
            out[y, x] = True
