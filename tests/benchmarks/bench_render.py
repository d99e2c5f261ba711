"""Label maps of a hand (1,538 faces) and a thing (16,000 faces and more) at 640x480: ours beside the usual renderers.

    make bench                                   or: python tests/benchmarks render

All contenders draw the same 16 scenes, each in a process of its own that is bound to one CPU and told to use one
thread; rounds alternate between them, so that a busy machine slows all alike. Ours get their meshes anew in every
picture. The others are measured so, and with all geometry loaded beforehand: their best case, which a hand that moves
never allows. pyrender draws its fastest pass (SEG), which leaves out faces seen from behind: less work, and a hole
where one looks into the open wrist, hence its differing pixels.

Peers live in `.venv-bench` (peers.txt). pyrender and Open3D also need system libraries, on Debian:

    apt install libegl1 libgl1-mesa-dri libosmesa6 libgl1 libusb-1.0-0 libgomp1

Without a GPU, EGL is Mesa's llvmpipe. A peer that cannot start stands in the table with its reason.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from hand_object_scenes import hand_object_scene
from peers import peer_python

SCENES, ROUNDS = 16, 9
CONTENDERS = {
    "hodata": "hodata render_labels",
    "hodata+all": "hodata render: labels, depth, parts, amodal masks",
    "egl": "pyrender EGL, meshes loaded",
    "egl+upload": "pyrender EGL",
    "osmesa": "pyrender OSMesa, meshes loaded",
    "osmesa+upload": "pyrender OSMesa",
    "open3d": "Open3D ray casting, tree built",
    "open3d+build": "Open3D ray casting",
    "embree": "trimesh + embreex, tree built",
    "embree+build": "trimesh + embreex",
}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


class Contender:
    """A running render_contenders.py."""

    def __init__(self, name: str, python: str, scenes: Path, cpu: int) -> None:
        env = {**os.environ, **ONE_THREAD, "LP_NUM_THREADS": "0"}  # llvmpipe: draw in the calling thread
        if name.startswith(("egl", "osmesa")):
            env["PYOPENGL_PLATFORM"] = name.partition("+")[0]
        script = Path(__file__).with_name("render_contenders.py")
        self.process = subprocess.Popen(
            [python, str(script), name, str(scenes), str(cpu)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env,
        )  # fmt: skip
        self.error = self._answer().get("error", "")
        self.wall: list[float] = []
        self.processor: list[float] = []

    def _answer(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"ended with exit code {self.process.wait()}"}

    def ask(self, command: str) -> dict:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def save_scenes(path: Path) -> list[int]:
    """Write the scenes; the number of faces of each thing is returned."""
    data: dict[str, np.ndarray] = {"count": np.array(SCENES)}
    faces = []
    for n in range(SCENES):
        meshes, K = hand_object_scene(n)
        data[f"{n}_K"], data[f"{n}_labels"] = K, np.array([mesh.label for mesh in meshes], dtype=np.uint8)
        for k, mesh in enumerate(meshes):
            data[f"{n}_v{k}"], data[f"{n}_f{k}"] = mesh.vertices, mesh.faces.astype(np.int32)
        faces.append(len(meshes[1].faces))
    np.savez(path, **data)
    return faces


def middle(times: list[float]) -> str:
    """Median, fastest and slowest."""
    return f"{statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})"


def main() -> int:
    cpu = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    peers = str(peer_python())
    running, maps = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        scenes = Path(folder) / "scenes.npz"
        faces = save_scenes(scenes)
        for name in CONTENDERS:
            running[name] = Contender(name, sys.executable if name.startswith("hodata") else peers, scenes, cpu)
        able = {name: contender for name, contender in running.items() if not contender.error}
        for _ in range(ROUNDS):
            for contender in able.values():
                times = contender.ask("run")
                contender.wall.append(times["wall"])
                contender.processor.append(times["processor"])
        for number, (name, contender) in enumerate(able.items()):
            contender.ask(f"labels {folder}/{number}.npy")
            maps[name] = np.load(f"{folder}/{number}.npy")
        for contender in running.values():
            contender.close()
    if "hodata" not in able:
        print(f"ours could not run: {running['hodata'].error}", file=sys.stderr)
        return 1
    print(
        f"{SCENES} scenes at 640x480: hand 1,538 faces, thing {min(faces):,} to {max(faces):,}; one thread on one CPU"
    )
    print(f"milliseconds a frame: median (fastest-slowest) of {ROUNDS} alternating rounds; ratios by processor time\n")
    print("| contender | frames/s | processor ms | wall ms | times ours | pixels that differ |")
    print("|---|---|---|---|---|---|")
    ours = statistics.median(able["hodata"].processor)
    for name, title in CONTENDERS.items():
        c = running[name]
        if c.error:
            print(f"| {title} | could not run: {c.error} | | | | |")
            continue
        processor = statistics.median(c.processor)
        differ = (maps[name] != maps["hodata"]).mean()
        print(f"| {title} | {1e3 / processor:,.0f} | {middle(c.processor)} | {middle(c.wall)} ", end="")
        print(f"| {processor / ours:.1f} | {differ:.1e} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
