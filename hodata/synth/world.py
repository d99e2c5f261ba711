"""Everything that is in a scene, in one frame, and what a camera sees of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Label
from hodata.pose.camera import transform
from hodata.pose.rasterize import Raster, label_map, rasterize
from hodata.synth import appearance, shade
from hodata.synth.body import Arm, Person
from hodata.synth.solids import Mesh

Array = NDArray[np.float64]

OWNER_NONE, OWNER_SELF, OWNER_OTHER = 0, 1, 2


@dataclass
class PlacedHand:
    """A hand of the scene: `R` [3, 3] and `wrist` [3] place it, `pose` [48] (first three 0) bends it."""

    side: str
    owner: int
    R: Array
    wrist: Array
    pose: Array
    betas: Array
    vertices: Array  # [778, 3]
    joints: Array  # [16, 3]


@dataclass
class PlacedObject:
    """A thing of the scene: x_scene = R x_thing + t; `label` says who holds it."""

    kind: str
    R: Array
    t: Array
    mesh: Mesh
    label: Label


@dataclass
class World:
    """Surfaces with materials and labels, collected with `add`; metres, any right-handed frame."""

    hands: list[PlacedHand] = field(default_factory=list)
    objects: list[PlacedObject] = field(default_factory=list)
    _vertices: list[Array] = field(default_factory=list)
    _normals: list[Array] = field(default_factory=list)
    _texture: list[Array] = field(default_factory=list)
    _faces: list[NDArray[np.int32]] = field(default_factory=list)
    _face_material: list[NDArray[np.int32]] = field(default_factory=list)
    _face_label: list[NDArray[np.uint8]] = field(default_factory=list)
    _face_owner: list[NDArray[np.uint8]] = field(default_factory=list)
    _casts: list[NDArray[np.bool_]] = field(default_factory=list)
    _materials: list[Array] = field(default_factory=list)
    _occupied: list[Array] = field(default_factory=list)
    _count: int = 0

    def add(
        self,
        vertices: Array,
        normals: Array,
        texture: Array,
        parts: list[tuple[NDArray[np.int32], Array, Label]],
        owner: int = OWNER_NONE,
        casts: bool = True,
    ) -> None:
        """Add vertices [V, 3] with faces: each part is (faces [F, 3], material row [16], label)."""
        for faces, material, label in parts:
            self._faces.append(faces + self._count)
            self._face_material.append(np.full(len(faces), len(self._materials), dtype=np.int32))
            self._materials.append(material)
            self._face_label.append(np.full(len(faces), label, dtype=np.uint8))
            self._face_owner.append(np.full(len(faces), owner, dtype=np.uint8))
            self._casts.append(np.full(len(faces), casts))
        self._vertices.append(vertices)
        self._normals.append(normals)
        self._texture.append(texture)
        self._count += len(vertices)

    def add_object(self, kind: str, mesh: Mesh, R: Array, t: Array, materials: list[Array], label: Label) -> None:
        """Add a solid's mesh at its place; `materials` are those of its slots."""
        moved = mesh.moved(R, t)
        parts = [
            (mesh.faces[mesh.slots == slot], materials[slot % len(materials)], label) for slot in np.unique(mesh.slots)
        ]
        self.add(moved.vertices, moved.normals, mesh.vertices, parts)
        self._occupied.append(moved.vertices)
        self.objects.append(PlacedObject(kind, R, t, mesh, label))

    def add_arm(self, person: Person, side: str, R: Array, wrist: Array, pose: Array, arm: Arm, owner: int) -> None:
        """Add an arm: the hand is a hand, and everything behind the wrist, cloth as well, is an arm."""
        hand = Label.LEFT_HAND if side == "left" else Label.RIGHT_HAND
        behind = Label.LEFT_ARM if side == "left" else Label.RIGHT_ARM
        parts = [(arm.hand, person.skin, hand), (arm.forearm, person.skin, behind)]
        self.add(arm.vertices, arm.normals, arm.texture, parts, owner)
        if arm.sleeve is not None and person.sleeve is not None:
            vertices, normals, faces = arm.sleeve
            texture = (vertices - wrist) @ R
            self.add(vertices, normals, texture, [(faces, person.sleeve[0], behind)], owner)
        if arm.watch is not None and person.watch is not None:
            vertices, normals, faces = arm.watch
            self.add(vertices, normals, vertices, [(faces, person.watch[0], behind)], owner)
        self._occupied.append(arm.vertices)
        count = int(arm.hand.max()) + 1
        self.hands.append(PlacedHand(side, owner, R, wrist, pose, person.betas, arm.vertices[:count], arm.joints))

    def occupied(self) -> list[Array]:
        """Vertices [V, 3] of every arm with its hand and of every thing so far."""
        return self._occupied

    def view(self, T_camera_from_world: Array, K: Array, size: tuple[int, int]) -> View:
        """Draw what a camera sees; colours come later, as often as wanted."""
        vertices = np.concatenate(self._vertices)
        faces = np.ascontiguousarray(np.concatenate(self._faces), dtype=np.int32)
        camera = transform(T_camera_from_world, vertices)
        return View(self, T_camera_from_world, K, camera, faces, rasterize(camera, faces, K, size))


@dataclass
class View:
    """One camera's picture before colour."""

    world: World
    T_camera_from_world: Array
    K: Array
    vertices: Array
    faces: NDArray[np.int32]
    raster: Raster

    @property
    def truth(self) -> NDArray[np.uint8]:
        """Label ids uint8 [H, W]."""
        return label_map(self.raster.face, np.concatenate(self.world._face_label), Label.BACKGROUND)

    @property
    def owner(self) -> NDArray[np.uint8]:
        """Whose hand or arm, uint8 [H, W]: 0 nobody's, 1 the camera wearer's, 2 somebody else's."""
        return label_map(self.raster.face, np.concatenate(self.world._face_owner), OWNER_NONE)

    def colors(
        self, light: shade.Light, backdrop: NDArray[np.float32], center: Array, radius: float
    ) -> NDArray[np.float32]:
        """Linear colours float32 [H, W, 3] under a light given in the world's frame.

        Args:
            backdrop: [h, w, 3], stretched behind everything.
            center, radius: the part of the world [3] (metres) that throws and takes shadows.
        """
        world, R = self.world, self.T_camera_from_world[:3, :3]
        casters = self.faces[np.concatenate(world._casts)]
        turned = appearance.turn_light(light, R)
        middle = transform(self.T_camera_from_world, center)
        return shade.shade(
            self.raster,
            self.K,
            self.vertices,
            np.concatenate(world._normals) @ R.T,
            np.concatenate(world._texture),
            self.faces,
            np.concatenate(world._face_material),
            np.array(world._materials),
            turned,
            shade.shadow_map(self.vertices, casters, turned, middle, radius),
            backdrop,
            appearance.skin_marks(),
        )
