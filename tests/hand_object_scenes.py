"""Hands that hold things, seen by a camera like HO-3D's: what the Embree test and the rendering benchmark draw."""

from __future__ import annotations

import numpy as np
import trimesh

from hodata.labels import Label
from hodata.pose.camera import intrinsics, rodrigues
from hodata.pose.render import PosedMesh
from hodata.synth.grasp import free_pose, grasp
from hodata.synth.hand_model import hand_model
from hodata.synth.solids import KINDS, make_solid

SIZE = (640, 480)
OBJECT_FACES = 16_000  # as many as YCB's downsampled models have


def hand_object_scene(seed: int) -> tuple[list[PosedMesh], np.ndarray]:
    """A hand (1,538 faces) and a thing (16,000 to 21,000 faces) at 0.35 to 0.8 m, and K [3, 3] for `SIZE`.

    In two scenes of three the hand holds the thing; in the third it is anywhere near, often reaching into it. Parts
    may lie beside the picture.
    """
    rng = np.random.default_rng([7, seed])
    side = str(rng.choice(["left", "right"]))
    model, betas = hand_model(side), rng.normal(size=10)
    solid = make_solid(KINDS[seed % len(KINDS)], rng)
    vertices, faces = subdivide(solid.mesh.vertices, solid.mesh.faces)
    if seed % 3:
        held = grasp(side, betas, solid, "wrap", rng)
        hand, _ = model.pose(held.pose, betas)
        thing = vertices @ held.R.T + held.t
    else:
        hand, _ = model.pose(free_pose(side, rng), betas)
        thing = vertices @ rodrigues(rng.normal(0, 1.5, 3)).T + hand.mean(axis=0) + rng.normal(0, 0.06, 3)
    turn, middle = rodrigues(rng.normal(0, 2.0, 3)), thing.mean(axis=0)
    depth = rng.uniform(0.35, 0.8)
    place = np.array([rng.uniform(-0.35, 0.35) * depth, rng.uniform(-0.25, 0.25) * depth, depth])
    K = intrinsics(617.0 + rng.normal(0, 2), SIZE, (312.0 + rng.normal(0, 3), 241.0 + rng.normal(0, 3)))
    hand_label, thing_label = (
        (Label.LEFT_HAND, Label.OBJECT_LEFT) if side == "left" else (Label.RIGHT_HAND, Label.OBJECT_RIGHT)
    )
    return [
        PosedMesh((hand - middle) @ turn.T + place, model.faces, int(hand_label)),
        PosedMesh((thing - middle) @ turn.T + place, faces, int(thing_label)),
    ], K


def subdivide(vertices: np.ndarray, faces: np.ndarray, at_least: int = OBJECT_FACES) -> tuple[np.ndarray, np.ndarray]:
    """The same surface with every face cut into n x n equal ones, corners shared, no T-junctions."""
    n = int(np.ceil(np.sqrt(at_least / len(faces))))
    places = [(i, j, n - i - j) for i in range(n + 1) for j in range(n + 1 - i)]
    number = {place: k for k, place in enumerate(places)}
    cut = []
    for i, j, k in places:
        if k > 0:
            cut.append([number[i, j, k], number[i + 1, j, k - 1], number[i, j + 1, k - 1]])
        if k > 1:
            cut.append([number[i + 1, j, k - 1], number[i + 1, j + 1, k - 2], number[i, j + 1, k - 1]])
    points = np.einsum("pk,fkc->fpc", np.array(places) / n, vertices[faces])
    all_faces = np.array(cut) + len(places) * np.arange(len(faces))[:, None, None]
    mesh = trimesh.Trimesh(points.reshape(-1, 3), all_faces.reshape(-1, 3), process=True)  # merges equal corners
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)
