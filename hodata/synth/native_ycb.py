"""Stand-in YCB meshes in the folders of "The YCB-Video 3D Models": models/<object>/{textured_simple.obj, points.xyz}.

Metres, in each mesh's own frame, which is not centred; `v`, `vt`, `vn` and `f a/b/c` lines as in the real files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hodata.synth.streams import stream
from hodata.synth.ycb_shapes import EXTENTS, Stand, stand_in

NAME = "ycb"
POINTS = 2620  # lines of points.xyz


def plan(frames: int, seed: int) -> list[str]:
    """One job for each object; neither number changes anything."""
    return list(EXTENTS)


def pictures(job: str) -> int:
    """Pictures in a job: none."""
    return 0


def write(name: str, folder: Path, seed: int) -> None:
    """Write the mesh and points of one object."""
    stand = stand_in(name)
    target = folder / "models" / name
    target.mkdir(parents=True, exist_ok=True)
    (target / "textured_simple.obj").write_text(_obj(stand))
    pick = stream(0, NAME, name).permutation(len(stand.surface.vertices))[:POINTS]
    lines = ("{:.6f} {:.6f} {:.6f}".format(*point) for point in stand.surface.vertices[np.sort(pick)])
    (target / "points.xyz").write_text("\n".join(lines) + "\n")


def finish(folder: Path, jobs: list[str], results: list[None]) -> None:
    """Nothing is left to write."""


def _obj(stand: Stand) -> str:
    """Wavefront text: positions once each, texture coordinates seen along y, normals with their own numbers."""
    surface = stand.surface
    low, high = surface.vertices.min(axis=0), surface.vertices.max(axis=0)
    uv = ((surface.vertices - low) / (high - low))[:, [0, 2]]
    flat = surface.corner_normals().reshape(-1, 3).round(4) + 0.0
    normals, number = np.unique(flat, axis=0, return_inverse=True)
    corners = np.column_stack([surface.faces.ravel(), surface.faces.ravel(), number.ravel()]) + 1
    lines = [f"# stand-in for {stand.name}, drawn by a program", f"o {stand.name}"]
    lines += ["v {:.7f} {:.7f} {:.7f}".format(*v) for v in surface.vertices]
    lines += ["vt {:.5f} {:.5f}".format(*t) for t in uv]
    lines += ["vn {:.4f} {:.4f} {:.4f}".format(*n) for n in normals]
    words = ["{}/{}/{}".format(*c) for c in corners]
    lines += [" ".join(("f", *words[k : k + 3])) for k in range(0, len(words), 3)]
    return "\n".join(lines) + "\n"
