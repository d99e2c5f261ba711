"""One HO-3D frame as geometry: the annotated hand and object in OpenCV's camera frame, drawn and measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SampleError, SourceError
from hodata.labels import Label
from hodata.pose.camera import OPENCV_FROM_OPENGL, flip_opengl
from hodata.pose.contact import Surface, surface_of
from hodata.pose.mano import OPENPOSE, TIPS_HO3D, ManoModel, load_mano
from hodata.pose.mesh import Mesh, read_mesh
from hodata.pose.render import PosedMesh, Rendering, render
from hodata.sources import ho3d_checks as checks
from hodata.sources.ho3d_layout import mesh_path
from hodata.sources.ho3d_meta import Meta

Array = NDArray[np.float64]

HAND, THING = 0, 1  # numbers of the meshes in a rendering
HELD_MM = 5.0  # nearer than this, or touching as shipped: the object is held


@dataclass(frozen=True)
class PosedHand:
    """The right hand of a frame in HO-3D's own OpenGL camera frame.

    Args:
        vertices: [778, 3].
        joints: [21, 3] in HO-3D's order.
        from_tables: both are annotated, in the evaluation tables. False: both were skinned from one annotated pose.
    """

    vertices: Array
    joints: Array
    from_tables: bool


@dataclass(frozen=True)
class Frame:
    """What a frame shows: OpenCV camera frame, metres.

    Args:
        hand: [778, 3], None where the frame has no hand pose.
        keypoints: [21, 3] as annotated, OpenPose order; those of the posed hand where `quality` lacks
            `residual_joints_mm`, because none are annotated; None without a hand pose.
        loop: [16, 3] the open boundary at the wrist; None without a hand pose.
        mesh: of the object, in its own frame.
        R, t: x_camera = R x_mesh + t.
        distance_mm: between the hand's vertices and the object's surface; -1 without a hand pose.
        held: nearer than 5 mm, or touching as shipped.
        quality: residuals, named as in the index; without those for which nothing is annotated.
    """

    hand: Array | None
    keypoints: Array | None
    loop: NDArray[np.float64] | None
    mesh: Mesh
    R: Array
    t: Array
    distance_mm: float
    held: bool
    quality: dict[str, float]


@dataclass(frozen=True)
class Models:
    """Where the hand model and the meshes are; opened once in every process.

    Args:
        mano: MANO_RIGHT.pkl, or None where no hand is posed.
        ycb: folder of `<object>/textured_simple.obj`.
    """

    mano: Path | None
    ycb: Path

    @property
    def hand(self) -> ManoModel:
        assert self.mano is not None
        return load_mano(self.mano, "right")

    def mesh(self, name: str, where: str) -> Mesh:
        """The mesh of an object; SampleError where there is none."""
        try:
            path = mesh_path(self.ycb, name)
        except ValueError as error:
            raise SampleError(where, str(error)) from None
        if not path.is_file():
            raise SampleError(where, f"its object {name} has no mesh {path}; copy it from the YCB-Video models")
        try:
            return read_mesh(path)
        except SourceError as error:
            raise SampleError(where, str(error)) from error

    def surface(self, name: str) -> Surface:
        return _surface(mesh_path(self.ycb, name))


@lru_cache(maxsize=64)
def _surface(path: Path) -> Surface:
    return surface_of(read_mesh(path))


def posed_from_mano(models: Models, meta: Meta) -> PosedHand | None:
    """Skin the annotated pose; None where the frame has none."""
    if meta.pose is None:
        return None
    posed = models.hand.pose(meta.pose, meta.betas, meta.translation)
    return PosedHand(posed.vertices[0], checks.ho3d_joints(posed), from_tables=False)


def ho3d_order(xyz: NDArray[np.float64], vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points [21, 3] in HO-3D's order (MANO's 16, then the tips), also where the table is in OpenPose order."""
    tips = vertices[list(TIPS_HO3D)]
    as_shipped = checks.joints_residual_mm(xyz[16:], tips)
    reordered = np.empty_like(xyz)
    reordered[list(OPENPOSE)] = xyz
    return reordered if checks.joints_residual_mm(reordered[16:], tips) < as_shipped else xyz


def frame_of(models: Models, meta: Meta, hand: PosedHand | None, where: str) -> Frame:
    """Pose and measure a frame.

    Raises:
        SampleError: the mesh is missing, or hand or object are too far from their own annotation.
    """
    mesh = models.mesh(meta.object_name, where)
    quality: dict[str, float] = {}
    corners = checks.corners_residual_mm(meta, mesh)
    if corners >= 0:
        quality["residual_corners_mm"] = round(corners, 4)
    if corners > checks.FRAME_LIMIT_CORNERS_MM:
        raise SampleError(
            where, f"object corners are {corners:.1f} mm from the annotation: {checks.explain_corners(meta, mesh)}"
        )
    keypoints = loop = vertices = None
    distance, held = -1.0, bool(meta.contact)
    if hand is not None:
        annotated = meta.joints if meta.joints is not None else hand.joints
        residual = checks.hand_residual_mm(meta, hand.joints, hand.vertices, hand.from_tables)
        if residual >= 0:
            quality["residual_joints_mm"] = round(residual, 4)
        if residual > checks.FRAME_LIMIT_JOINTS_MM:
            why = checks.explain_hand(models.hand, meta)
            raise SampleError(where, f"hand joints are {residual:.1f} mm from the annotation: {why}")
        vertices = flip_opengl(hand.vertices)
        keypoints = flip_opengl(annotated[list(OPENPOSE)])
        loop = vertices[models.hand.loop]
        # In the mesh's own frame, where the surface was prepared once.
        distance = 1000 * models.surface(meta.object_name).nearest((hand.vertices - meta.t) @ meta.R)
        held = held or distance < HELD_MM
    return Frame(
        hand=vertices,
        keypoints=keypoints,
        loop=loop,
        mesh=mesh,
        R=OPENCV_FROM_OPENGL @ meta.R,
        t=flip_opengl(meta.t),
        distance_mm=round(distance, 3),
        held=held,
        quality=quality,
    )


def draw(models: Models, frame: Frame, K: Array, size: tuple[int, int], where: str) -> Rendering:
    """Render a frame: mesh 0 is the hand (no faces where there is none), mesh 1 the object.

    Raises:
        SampleError: a camera of zeros, coordinates that are not finite, or a mesh behind the camera.
    """
    thing = PosedMesh(frame.mesh.moved(frame.R, frame.t), frame.mesh.faces, int(thing_label(frame)))
    if frame.hand is None:
        hand = PosedMesh(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int32), int(Label.RIGHT_HAND))
    else:
        hand = PosedMesh(frame.hand, models.hand.faces, int(Label.RIGHT_HAND))
        if not (frame.hand[:, 2] > 0).any():
            raise SampleError(where, "its hand lies behind the camera; HO-3D's poses are in OpenGL axes (z backward)")
    try:
        return render([hand, thing], K, size)
    except ValueError as error:
        raise SampleError(where, f"cannot be drawn ({error})") from error


def thing_label(frame: Frame) -> Label:
    """HO-3D annotates right hands only: what they hold is `object_right`, anything else an object of nobody."""
    return Label.OBJECT_RIGHT if frame.held else Label.OBJECT
