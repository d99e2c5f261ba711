"""Reading meshes and posing them: vertices and faces, nothing else, through trimesh."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hodata.errors import SourceError

MAX_BYTES = 512 << 20
SUFFIXES = (".obj", ".ply", ".stl", ".off")


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in its own frame.

    Args:
        vertices: float64 [V, 3], metres.
        faces: int32 [F, 3].
        sha256: hex, of the file that it was read from; empty if it was made otherwise.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int32]
    sha256: str = ""

    def moved(self, R: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
        """Vertices [V, 3] carried by x -> R x + t."""
        return self.vertices @ np.asarray(R, dtype=np.float64).T + np.asarray(t, dtype=np.float64)

    @property
    def bounds(self) -> NDArray[np.float64]:
        """[2, 3]: smallest and largest coordinates."""
        return np.stack([self.vertices.min(axis=0), self.vertices.max(axis=0)])


@lru_cache(maxsize=64)
def read_mesh(path: Path) -> Mesh:
    """Read a mesh file as it is: no centring, scaling or merging of vertices; cached for each process.

    Args:
        path: OBJ (`f a/b/c` as in YCB-Video's `textured_simple.obj`), PLY, STL or OFF. Materials and textures are
            not opened.

    Raises:
        SourceError: missing, too large, no triangle mesh, or coordinates that are not finite.
    """
    import trimesh

    if path.suffix.lower() not in SUFFIXES:
        raise SourceError(f"{path}: is no mesh file of a known kind ({', '.join(SUFFIXES)})")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SourceError(f"{path}: is {path.stat().st_size:,} bytes long, over the limit of {MAX_BYTES:,}")
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        # From memory and without a resolver: a mesh file may name others, which nobody asked to open.
        found: Any = trimesh.load_mesh(
            io.BytesIO(data),
            file_type=path.suffix.lower().lstrip("."),
            process=False,
            maintain_order=True,
            skip_materials=True,
        )
        vertices = np.array(found.vertices, dtype=np.float64)
        faces = np.array(found.faces, dtype=np.int64)
    except Exception as error:  # trimesh raises many kinds on damaged files
        raise SourceError(f"{path}: cannot be read as a mesh ({error}); copy or download it again") from error
    if vertices.ndim != 2 or vertices.shape[1:] != (3,) or faces.ndim != 2 or faces.shape[1:] != (3,) or not len(faces):
        raise SourceError(f"{path}: holds no triangles")
    if not np.isfinite(vertices).all():
        raise SourceError(f"{path}: holds coordinates that are not finite")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise SourceError(f"{path}: its faces name vertices up to {faces.max()}, there are {len(vertices)}")
    return Mesh(vertices, faces.astype(np.int32), hashlib.sha256(data).hexdigest())
