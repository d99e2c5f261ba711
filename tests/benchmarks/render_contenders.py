"""One renderer in one process: draws scenes from a file whenever it is told to, and says how long that took.

    python render_contenders.py NAME SCENES.npz CPU

Runs in the environment of its renderer, so it imports hodata only for our own. It writes one JSON line when ready
({"ready": ...} or {"error": ...}) and one for each line that it reads: `run` -> milliseconds a scene, wall clock and
processor time; `labels FILE` -> label maps of all scenes, saved.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

WIDTH, HEIGHT = 640, 480
Scene = dict[str, Any]  # K [3, 3], labels [2], v0, f0 (hand), v1, f1 (object)
Draw = Callable[[Scene], np.ndarray]  # label map [H, W]


def hodata_render(scenes: list[Scene], everything: bool) -> Draw:
    """Labels alone, or `everything`: depth, parts, amodal masks, visible fractions. Nothing is made beforehand."""
    from hodata.pose.render import PosedMesh, render, render_labels

    def draw(s: Scene) -> np.ndarray:
        meshes = [PosedMesh(s[f"v{k}"], s[f"f{k}"], int(s["labels"][k])) for k in (0, 1)]
        size = (WIDTH, HEIGHT)
        return render(meshes, s["K"], size).labels if everything else render_labels(meshes, s["K"], size)

    return draw


def pyrender_any(scenes: list[Scene], upload: bool) -> Draw:
    """Segmentation pass, the fastest one. All meshes lie in one scene; the others' are hidden.

    With `upload` the meshes are new in every picture, as a posed hand is; otherwise all are on the device before.
    """
    import pyrender

    renderer = pyrender.OffscreenRenderer(WIDTH, HEIGHT)
    flags = pyrender.RenderFlags.SEG | pyrender.RenderFlags.SKIP_CULL_FACES
    flip = np.diag([1.0, -1.0, -1.0, 1.0])

    def nodes(s: Scene) -> list[Any]:
        return [
            pyrender.Node(
                mesh=pyrender.Mesh([pyrender.Primitive(s[f"v{k}"].astype(np.float32), indices=s[f"f{k}"])]), matrix=flip
            )
            for k in (0, 1)
        ]

    def camera(K: np.ndarray) -> Any:  # OpenGL's pixel centres lie at halves
        return pyrender.IntrinsicsCamera(K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5, znear=0.05, zfar=5.0)

    stage = pyrender.Scene(bg_color=np.zeros(4))
    eye = pyrender.Node(camera=camera(scenes[0]["K"]))
    stage.add_node(eye)
    stage.main_camera_node = eye
    loaded: dict[int, list[Any]] = {}
    if not upload:
        for s in scenes:
            loaded[id(s)] = nodes(s)
            for node in loaded[id(s)]:
                node.mesh.is_visible = False
                stage.add_node(node)

    def draw(s: Scene) -> np.ndarray:
        eye.camera = camera(s["K"])
        here = nodes(s) if upload else loaded[id(s)]
        for node in here:
            if upload:
                stage.add_node(node)
            node.mesh.is_visible = True
        colors = {node: (int(label),) * 3 for node, label in zip(here, s["labels"], strict=True)}
        image, _ = renderer.render(stage, flags=flags, seg_node_map=colors)
        for node in here:
            if upload:
                stage.remove_node(node)
            node.mesh.is_visible = False
        return image[..., 0]

    return draw


def open3d_cast(scenes: list[Scene], build: bool) -> Draw:
    """RaycastingScene, one thread. With `build` its search tree is new in every picture; otherwise made before."""
    import open3d as o3d

    def caster(s: Scene) -> Any:
        world = o3d.t.geometry.RaycastingScene(nthreads=1)
        for k in (0, 1):
            world.add_triangles(
                o3d.core.Tensor(s[f"v{k}"].astype(np.float32)), o3d.core.Tensor(s[f"f{k}"].astype(np.uint32))
            )
        K = s["K"] + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # its pixel centres lie at halves
        rays = world.create_rays_pinhole(o3d.core.Tensor(K), o3d.core.Tensor(np.eye(4)), WIDTH, HEIGHT)
        return world, rays

    loaded = {} if build else {id(s): caster(s) for s in scenes}

    def draw(s: Scene) -> np.ndarray:
        world, rays = caster(s) if build else loaded[id(s)]
        number = world.cast_rays(rays, nthreads=1)["geometry_ids"].numpy()
        return np.where(number < 2, s["labels"][np.minimum(number, 1)], 0).astype(np.uint8)

    return draw


def embree_cast(scenes: list[Scene], build: bool) -> Draw:
    """trimesh with embreex, first hits. With `build` its search tree is new in every picture; otherwise made before."""
    import embreex  # noqa: F401  (trimesh would fall back to a slow caster in silence)
    import trimesh
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    def caster(s: Scene) -> Any:
        faces = np.concatenate([s["f0"], s["f1"] + len(s["v0"])])
        mesh = trimesh.Trimesh(np.concatenate([s["v0"], s["v1"]]), faces, process=False)
        K = s["K"]
        u, v = np.meshgrid((np.arange(WIDTH) - K[0, 2]) / K[0, 0], (np.arange(HEIGHT) - K[1, 2]) / K[1, 1])
        rays = np.stack([u, v, np.ones_like(u)], axis=-1).reshape(-1, 3)
        world = RayMeshIntersector(mesh)
        world.intersects_first(rays[:1] * 0, rays[:1])  # builds the tree
        return world, rays

    loaded = {} if build else {id(s): caster(s) for s in scenes}

    def draw(s: Scene) -> np.ndarray:
        world, rays = caster(s) if build else loaded[id(s)]
        face = world.intersects_first(np.zeros_like(rays), rays)
        table = np.repeat([*s["labels"], 0], [len(s["f0"]), len(s["f1"]), 1]).astype(np.uint8)
        return table[face].reshape(HEIGHT, WIDTH)

    return draw


def make(name: str, scenes: list[Scene]) -> Draw:
    """The contender of a name such as `open3d+build`."""
    kind, _, option = name.partition("+")
    if kind in ("egl", "osmesa"):
        return pyrender_any(scenes, upload=bool(option))
    return {"hodata": hodata_render, "open3d": open3d_cast, "embree": embree_cast}[kind](scenes, bool(option))


def main(name: str, file: str, cpu: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})
    answers = os.fdopen(os.dup(1), "w")  # libraries may print
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    with np.load(file) as data:
        count = int(data["count"])
        scenes = [{key: data[f"{n}_{key}"] for key in ("K", "labels", "v0", "f0", "v1", "f1")} for n in range(count)]
    try:
        draw = make(name, scenes)
        for s in scenes:  # compile, upload, warm up
            draw(s)
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}".splitlines()[0])
        return
    answer(ready=name)
    for line in sys.stdin:
        command, _, path = line.strip().partition(" ")
        if command == "labels":
            np.save(path, np.stack([draw(s) for s in scenes]))
            answer(saved=path)
        else:
            wall, processor = time.perf_counter(), time.process_time()
            for s in scenes:
                draw(s)
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            answer(wall=wall / count * 1e3, processor=processor / count * 1e3)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
