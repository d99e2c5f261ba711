"""FreiHAND's hands as meshes: the rendered mask, what it says of the shipped one, and the pose part of a sample.

The mesh is `*_verts.json` with MANO's faces. No pose is skinned: the global rotation in `*_mano.json` is slightly off
the camera frame of the vertices (I2L-MeshNet_RELEASE issue 114).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SampleError, SourceError
from hodata.labels import Label
from hodata.pose.camera import project
from hodata.pose.keypoints import in_front
from hodata.sample import Camera, Hand, Instance, encode_rle, instance_of
from hodata.sources.assets import find_mano
from hodata.sources.freihand_tables import Annotation

Mask = NDArray[np.bool_]

CONVENTION = (
    "FreiHAND: mano = 48 axis-angle numbers (3 global, then 45 relative to hands_mean: flat_hand_mean=False, no PCA), "
    "10 shape, 2 root (pixels of key point 9), 1 scale (f / depth of key point 9); "
    "scale = |xyz[9] - xyz[10]| in metres. The mesh is that of the verts table, not of these numbers"
)
_DECIMALS = 3  # of pixels


@dataclass(frozen=True)
class HandMesh:
    """What the vertices alone do not say: MANO's `faces` int32 [1538, 3] and its open wrist `loop` int32 [16]."""

    faces: NDArray[np.int32]
    loop: NDArray[np.int32]


@dataclass(frozen=True)
class Drawn:
    """A rendered hand: its silhouette bool [H, W] and depth float32 [H, W] (metres, inf where it is not)."""

    hand: Mask
    depth: NDArray[np.float32]


def find_hand_mesh(mano: Path | None, dataset: Path, required: bool) -> HandMesh | None:
    """MANO's right hand from `mano` or the default places; None where there is none and none is required.

    Raises:
        SourceError: none was found but one is required, or the file is no MANO model of a right hand.
    """
    from hodata.pose.mano import load_mano

    try:
        path = find_mano(mano, dataset)
    except SourceError:
        if required:
            raise
        return None
    model = load_mano(path, "right")
    return HandMesh(model.faces, model.loop)


def draw_hand(annotation: Annotation, mesh: HandMesh, size: tuple[int, int], where: str) -> Drawn:
    """Render the annotated hand; `annotation` has K and vertices, `size` is (width, height).

    Raises:
        SampleError: NaN, a camera of zeros, or a hand that is behind the camera or beside the picture.
    """
    from hodata.pose.render import PosedMesh, render  # numba

    assert annotation.K is not None and annotation.vertices is not None
    try:
        rendering = render([PosedMesh(annotation.vertices, mesh.faces, int(Label.RIGHT_HAND))], annotation.K, size)
    except ValueError as error:
        raise SampleError(where, f"its row in the tables of cameras and vertices cannot be drawn ({error})") from error
    if not rendering.amodal[0].any():
        raise SampleError(where, "its annotated hand lies beside the picture; is the camera of another picture's row?")
    return Drawn(rendering.amodal[0], rendering.depth)


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks bool [H, W]; 0 where both are empty."""
    return int((a & b).sum()) / max(int((a | b).sum()), 1)


def share_inside(drawn: Mask, shipped: Mask) -> float:
    """Which part of a rendered hand lies inside the shipped mask. One-sided: a held object may hide the rest."""
    return int((drawn & shipped).sum()) / max(int(drawn.sum()), 1)


def compose(masks: str, shipped: Mask | None, drawn: Mask | None, wrist: Mask | None = None) -> NDArray[np.uint8]:
    """The stored mask, label ids uint8 [H, W].

    Args:
        masks: shipped, rendered, or agree: void where the two differ.
        shipped: bool [H, W], which `shipped` and `agree` need.
        drawn: bool [H, W], which `rendered` and `agree` need.
        wrist: bool [H, W], where a drawn hand ends and is left undecided.
    """
    hand = drawn if masks == "rendered" else shipped
    assert hand is not None
    mask = _labels(hand)
    if masks == "shipped":
        return mask
    if masks == "agree":
        assert drawn is not None
        mask[hand != drawn] = Label.VOID
    if wrist is not None:
        mask[wrist] = Label.VOID
    return mask


def open_wrist(annotation: Annotation, mesh: HandMesh, drawn: Drawn) -> Mask:
    """The band round the open wrist of a rendered hand, bool [H, W]."""
    from hodata.pose.wrist import wrist_band  # numba

    assert annotation.K is not None and annotation.vertices is not None
    return wrist_band(annotation.vertices[mesh.loop], annotation.K, drawn.depth, drawn.hand)


def hand_instance(mask: NDArray[np.uint8], shipped: Mask | None, drawn: Mask | None) -> Instance:
    """The hand of a stored mask; if it was rendered, with its whole silhouette and how much of that is seen."""
    hand = instance_of(mask == Label.RIGHT_HAND, int(Label.RIGHT_HAND))
    if drawn is not None:
        hand.amodal_rle = encode_rle(drawn)
        # Held objects and arms have no mesh: only the shipped mask knows what they hide.
        hand.visible_fraction = 1.0 if shipped is None else share_inside(drawn, shipped)
    return hand


def camera_of(annotation: Annotation, size: tuple[int, int], where: str) -> Camera:
    """The camera of a sample; unknown without K.

    Raises:
        SampleError: K is no camera matrix.
    """
    K = annotation.K
    if K is None:
        return Camera(size=list(size))
    if not (np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0 and np.array_equal(K[2], [0, 0, 1])):
        raise SampleError(where, f"its camera matrix {K.tolist()} is none; copy the tables again")
    return Camera(model="pinhole", K=K.tolist(), size=list(size))


def hand_of(annotation: Annotation, mesh: HandMesh | None, drawn: Drawn | None, where: str) -> Hand:
    """The hand of a sample, with empty lists for what the tables at hand do not say.

    Raises:
        SampleError: key points that are not finite, or lie behind the camera.
    """
    hand = Hand(side="right")
    K, xyz, vertices = annotation.K, annotation.xyz, annotation.vertices
    if xyz is not None:
        if not np.isfinite(xyz).all():
            raise SampleError(where, "its key points hold nan or infinity; copy the tables again")
        if not (xyz[:, 2] > 0).all():
            raise SampleError(where, "its key points lie behind the camera; FreiHAND's z points forward")
        hand.keypoints_m = xyz.tolist()
        hand.valid = [True] * len(xyz)
        hand.definition = "freihand"
        if K is not None:
            hand.keypoints_px = _pixels(xyz, K)
        if K is not None and drawn is not None:
            hand.in_front = in_front(xyz, drawn.depth, K).tolist()
    if K is not None and vertices is not None and mesh is not None and (vertices[mesh.loop, 2] > 0).all():
        hand.wrist_loop = _pixels(vertices[mesh.loop], K)
    return hand


def pose_of(annotation: Annotation) -> dict[str, Any]:
    """The source's own numbers, as shipped; see `CONVENTION`."""
    pose: dict[str, Any] = {}
    if annotation.mano is not None:
        pose["mano"] = annotation.mano.tolist()
    if annotation.scale is not None and np.isfinite(annotation.scale):
        pose["scale"] = annotation.scale
    return pose


def _labels(hand: Mask) -> NDArray[np.uint8]:
    return np.where(hand, np.uint8(Label.RIGHT_HAND), np.uint8(Label.BACKGROUND))


def _pixels(points: NDArray[np.float64], K: NDArray[np.float64]) -> list[list[float]]:
    return np.round(project(points, K), _DECIMALS).tolist()
