"""How far a hand is from a thing: distances from points to a mesh's surface, fast enough for every frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hodata.kernels import njit
from hodata.pose.mesh import Mesh
from hodata.pose.zbuffer import for_kernel

Array = NDArray[np.float64]

SPACING = 0.002  # metres between samples of a surface
MAX_SAMPLES = 1_000_000  # or twice the corners of all faces, if that is more: the large faces of a fine mesh need some
_RADII = (0.002, 0.006, 0.02, 0.06, 0.2)  # metres


@dataclass(frozen=True)
class Surface:
    """A mesh prepared for many queries; make it once with `surface_of`.

    Args:
        tree: scipy's cKDTree over samples of the surface.
        sample_faces: int64 [S], the face that each sample lies on.
        corners: float64 [F, 3, 3].
        spacing: metres; no point of the surface is farther from a sample.
    """

    tree: Any
    sample_faces: NDArray[np.int64]
    corners: Array
    spacing: float

    def distances(self, points: ArrayLike) -> Array:
        """Distances [N] in metres from points [N, 3], in the mesh's own frame, to its surface; never negative.

        Exact to the nearest sample's face: at most `spacing` too large where another face is nearer.
        """
        points = for_kernel(points, np.float64)
        _, nearest = self.tree.query(points)
        return _to_triangles(points, self.corners[self.sample_faces[nearest]])

    def nearest(self, points: ArrayLike) -> float:
        """The smallest of the distances: what a hand of points [N, 3] is away from the thing, in metres.

        Much faster than all distances: the search is cut off at a radius that grows until something lies within. At
        most `spacing` too large, as they are.
        """
        points = for_kernel(points, np.float64)
        for radius in (*_RADII, np.inf):
            if radius == np.inf:
                middle = int(np.argmin(np.linalg.norm(points - self.corners.mean(axis=(0, 1)), axis=1)))
                radius = 1.001 * float(self.tree.query(points[middle])[0])
            distance, sample = self.tree.query(points, distance_upper_bound=radius)
            near = np.isfinite(distance)
            if near.any():
                return float(_to_triangles(points[near], self.corners[self.sample_faces[sample[near]]]).min())
        raise ValueError("nearest: no points, or some that are not finite")


def surface_of(mesh: Mesh, spacing: float = SPACING) -> Surface:
    """Sample a mesh so that no point of its surface is farther than `spacing` (metres) from a sample.

    Where that takes more than `MAX_SAMPLES`, the spacing is made larger; the one used is in the result.
    """
    from scipy.spatial import cKDTree

    corners = mesh.vertices[mesh.faces]
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    splits = np.maximum(np.ceil(edges / spacing), 1).astype(np.int64)  # of each edge
    total = int(((splits + 1) * (splits + 2) // 2).sum())
    limit = max(MAX_SAMPLES, 6 * len(corners))  # every face has three samples at least
    if total > limit:  # a mesh in other units, or a huge one: coarser samples, still exact on their faces
        return surface_of(mesh, spacing * 1.5 * (total / limit) ** 0.5)
    samples, faces = [], []
    for count in np.unique(splits):
        own = np.flatnonzero(splits == count)
        i, j = (grid.ravel() for grid in np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij"))
        inside = i + j <= count
        weights = np.stack([i[inside], j[inside], count - i[inside] - j[inside]], axis=1) / count
        samples.append(np.einsum("wk,fkx->fwx", weights, corners[own]).reshape(-1, 3))
        faces.append(np.repeat(own, len(weights)))
    return Surface(cKDTree(np.concatenate(samples)), np.concatenate(faces), corners, spacing)


@njit()
def _to_triangles(points, triangles):  # type: ignore[no-untyped-def]
    """Distance of each point [N, 3] to its own triangle [N, 3, 3] (Ericson, Real-Time Collision Detection, 5.1.5)."""
    out = np.empty(len(points))
    for n in range(len(points)):
        p, a, b, c = points[n], triangles[n, 0], triangles[n, 1], triangles[n, 2]
        ab, ac, ap = b - a, c - a, p - a
        d1, d2 = np.dot(ab, ap), np.dot(ac, ap)
        bp, cp = p - b, p - c
        d3, d4 = np.dot(ab, bp), np.dot(ac, bp)
        d5, d6 = np.dot(ab, cp), np.dot(ac, cp)
        va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
        if d1 <= 0 and d2 <= 0:
            q = a
        elif d3 >= 0 and d4 <= d3:
            q = b
        elif d6 >= 0 and d5 <= d6:
            q = c
        elif vc <= 0 and d1 >= 0 and d3 <= 0:
            q = a + ab * (d1 / (d1 - d3))
        elif vb <= 0 and d2 >= 0 and d6 <= 0:
            q = a + ac * (d2 / (d2 - d6))
        elif va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0:
            q = b + (c - b) * ((d4 - d3) / ((d4 - d3) + (d5 - d6)))
        else:
            q = a + ab * (vb / (va + vb + vc)) + ac * (vc / (va + vb + vc))
        out[n] = np.sqrt(np.sum((p - q) ** 2))
    return out
