"""Reading meshes and posing them: vertices and faces, nothing else. OBJ is read here, other formats through trimesh."""

from __future__ import annotations

import hashlib
import io
import re
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


def read_mesh(path: Path | str) -> Mesh:
    """Read a mesh file as it is: no centring, scaling or merging of vertices; an unchanged file is read once.

    Vertices are those of the file in its order, also where an OBJ has several materials or texture coordinates. Faces
    of more than three corners are cut into a fan round their first corner.

    Args:
        path: OBJ (`f a/b/c` as in YCB-Video's `textured_simple.obj`), PLY, STL or OFF. Materials and textures are
            not opened.

    Returns:
        the mesh; its arrays are shared by all who read the file, and read-only.

    Raises:
        SourceError: missing, too large, no triangle mesh, or coordinates that are not finite; of OBJ also faces that
            count vertices from the end or from 0, and faces that are no fan round their first corner (concave ones).
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise SourceError(f"{path}: is no mesh file of a known kind ({', '.join(SUFFIXES)})")
    try:
        facts = path.stat()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    if facts.st_size > MAX_BYTES:
        raise SourceError(f"{path}: is {facts.st_size:,} bytes long, over the limit of {MAX_BYTES:,}")
    return _read(path.absolute(), facts.st_mtime_ns)


@lru_cache(maxsize=64)
def _read(path: Path, changed: int) -> Mesh:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        vertices, faces = _parse_obj(data) if path.suffix.lower() == ".obj" else _parse_other(data, path.suffix)
    except _Ambiguous as error:
        raise SourceError(f"{path}: {error}") from error
    except Exception as error:  # trimesh raises many kinds on damaged files
        raise SourceError(f"{path}: cannot be read as a mesh ({error}); copy or download it again") from error
    if vertices.ndim != 2 or vertices.shape[1:] != (3,) or faces.ndim != 2 or faces.shape[1:] != (3,) or not len(faces):
        raise SourceError(f"{path}: holds no triangles")
    if not np.isfinite(vertices).all():
        raise SourceError(f"{path}: holds coordinates that are not finite")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise SourceError(f"{path}: its faces name vertices up to {faces.max()}, there are {len(vertices)}")
    mesh = Mesh(vertices, faces.astype(np.int32), hashlib.sha256(data).hexdigest())
    for array in (mesh.vertices, mesh.faces):  # whoever wrote into them would change what the next one reads
        array.setflags(write=False)
    return mesh


class _Ambiguous(Exception):
    """A sound file that would be read as another mesh than its author's."""


def _parse_other(data: bytes, suffix: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    import trimesh

    # From memory and without a resolver: a mesh file may name others, which nobody asked to open.
    found: Any = trimesh.load_mesh(
        io.BytesIO(data), file_type=suffix.lower().lstrip("."), process=False, maintain_order=True, skip_materials=True
    )
    return np.array(found.vertices, dtype=np.float64), np.array(found.faces, dtype=np.int64)


def _parse_obj(data: bytes) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices [V, 3] of the `v` lines, and faces [F, 3] of the `f` lines, which count from 0 here.

    Trimesh would make a vertex of each pair of `v` and `vt`, in another order, and read -1 and 0 as other vertices
    than the file means.
    """
    data = re.sub(rb"\\\r?\n", b" ", data).replace(b"\r", b"\n")  # a backslash continues a line
    places, joined = (
        b"\n".join(re.findall(rb"(?m)^[ \t]*" + kind + rb"[ \t]([^#\n]*)", data)) for kind in (b"v", b"f")
    )
    vertices = np.array([line.split()[:3] for line in places.splitlines()], dtype=np.float64)
    # A corner is `vertex`, `vertex/texture`, `vertex//normal` or all three.
    corners = [c for c in map(bytes.split, re.sub(rb"/\S*", b"", joined).splitlines()) if len(c) >= 3]
    faces = np.array([(c[0], c[k], c[k + 1]) for c in corners for k in range(1, len(c) - 1)], dtype=np.int64) - 1
    counts = np.array([len(c) for c in corners], dtype=np.int64)
    if faces.size and faces.min() < 0:
        raise _Ambiguous(
            f"its faces name vertex {faces.min() + 1}; write it with vertices that count from 1 and not from the end "
            "(any mesh program does when it exports OBJ)"
        )
    if faces.size and faces.max() < len(vertices):
        _require_fans(vertices[faces], counts - 2)
    return vertices, faces


def _require_fans(corners: NDArray[np.float64], triangles: NDArray[np.int64]) -> None:
    """Raise where a fan of so many triangles, out of corners [F, 3, 3], folds back over its polygon."""
    polygon = np.repeat(np.arange(len(triangles)), triangles)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    whole = np.zeros((len(triangles), 3))
    np.add.at(whole, polygon, normals)
    whole = whole[polygon]
    # A corner on a straight edge, rounded in the file, folds back by a sliver.
    folded = (normals * whole).sum(axis=1) < -1e-3 * (whole * whole).sum(axis=1)
    if folded.any():
        first = polygon[np.argmax(folded)]
        raise _Ambiguous(
            f"its face {first + 1} has {triangles[first] + 2} corners and is concave, so that it cannot be cut into "
            "triangles round its first corner; triangulate the mesh before it is exported"
        )
