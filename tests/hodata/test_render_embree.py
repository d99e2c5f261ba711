"""Label maps against Embree, Intel's ray caster: other mathematics, other code, the same pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hand_object_scenes import SIZE, hand_object_scene, subdivide

from hodata.pose.camera import pixel_rays
from hodata.pose.render import PosedMesh, render

pytest.importorskip("embreex")
LIMIT = 1e-4  # of the pixels on which anything is drawn: stricter than of all pixels


def cast(meshes: list[PosedMesh], K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Label [H, W] of the first face that the ray through each pixel centre meets."""
    import trimesh
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    vertices = np.concatenate([mesh.vertices for mesh in meshes])
    faces = np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts[:-1], strict=True)])
    labels = np.repeat([mesh.label for mesh in meshes] + [0], [len(mesh.faces) for mesh in meshes] + [1])
    pixels = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), axis=-1).reshape(-1, 2)
    rays = pixel_rays(pixels, K)
    caster = RayMeshIntersector(trimesh.Trimesh(vertices, faces, process=False))
    face = caster.intersects_first(np.zeros_like(rays), rays)  # -1 where nothing is
    return labels[face].reshape(size[1], size[0])


def differing(seeds: range) -> tuple[int, int]:
    """Pixels that differ, and pixels that either way is drawn on."""
    differ = drawn = 0
    for seed in seeds:
        meshes, K = hand_object_scene(seed)
        ours, theirs = render(meshes, K, SIZE).labels, cast(meshes, K, SIZE)
        differ += int((ours != theirs).sum())
        drawn += int(((ours > 0) | (theirs > 0)).sum())
    return differ, drawn


def test_pixels_are_those_of_a_ray_caster():
    differ, drawn = differing(range(8))
    assert drawn > 50_000 and differ < LIMIT * drawn


@pytest.mark.soak
def test_pixels_are_those_of_a_ray_caster_in_200_scenes():
    differ, drawn = differing(range(200))
    print(f"{differ} of {drawn} drawn pixels differ, of {200 * SIZE[0] * SIZE[1]} in all")
    assert drawn > 2_000_000 and differ < LIMIT * drawn


def test_the_scenes_are_what_they_say():
    hidden = []
    for seed in range(12):
        meshes, K = hand_object_scene(seed)
        rendering = render(meshes, K, SIZE)
        assert len(meshes[0].faces) == 1538 and 16_000 <= len(meshes[1].faces) < 23_000
        hidden.append(rendering.visible_fraction)
    assert (np.array(hidden) < 0.9).sum(axis=0).min() >= 2, "hands hide things and things hide hands"


def test_subdividing_keeps_the_surface():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.5]])
    faces = np.array([[0, 1, 2], [1, 3, 2]])
    fine, cut = subdivide(vertices, faces, 30)
    area = np.linalg.norm(np.cross(fine[cut[:, 1]] - fine[cut[:, 0]], fine[cut[:, 2]] - fine[cut[:, 0]]), axis=1) / 2
    assert len(cut) == 32 and len(fine) == 25  # 4 x 4 each; the shared edge's corners once
    np.testing.assert_allclose(area[:16], 0.5 / 16)
    edges = np.sort(np.concatenate([cut[:, [0, 1]], cut[:, [1, 2]], cut[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 1).sum() == 16, "only the rim is open"
