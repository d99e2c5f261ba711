"""A whole HO-3D build: read, skin, check, draw with amodal masks, measure distances, encode, write.

    python tests/benchmarks ho3d          # or: python tests/benchmarks/bench_ho3d_build.py [--frames N] [--runs N]

Builds the miniature HO-3D v3 (640x480 JPEG) with object meshes cut to about 16,000 faces, as many as the real ones
have, in one process on one thread, several times over. The figure is frames per second of processor time; waiting for
the disk is not counted. The first run compiles and is left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

FACES = 16_000


def subdivide(ycb: Path) -> list[int]:
    """Cut every mesh into smaller faces of the same surface; returns the numbers of faces."""
    import trimesh

    from hodata.pose.mesh import read_mesh

    counts = []
    for path in sorted(ycb.rglob("textured_simple.obj")):
        mesh = read_mesh(path)
        vertices, faces = mesh.vertices, mesh.faces.astype(int)
        while len(faces) < 0.7 * FACES:
            room = max(round((FACES - len(faces)) / 3), 1)  # each cut face becomes four
            vertices, faces = trimesh.remesh.subdivide(vertices, faces, face_index=range(min(room, len(faces))))
        lines = [f"v {x:.9f} {y:.9f} {z:.9f}" for x, y, z in vertices]
        lines += [f"f {a} {b} {c}" for a, b, c in faces + 1]
        path.write_text("\n".join(lines) + "\n")
        counts.append(len(faces))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=300, help="pictures of the miniature, about")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # before NumPy is imported

    from hodata.build import BuildOptions, build
    from hodata.plan import make_plan
    from hodata.sources.ho3d import HO3D
    from hodata.synth.miniatures import write_miniatures

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["HODATA_CACHE"] = str(root / "cache")
        write_miniatures(root / "raw", ("ho3d", "mano", "ycb"), options.frames, workers=2)
        faces = subdivide(root / "raw/ycb")
        rates = []
        for run in range(options.runs + 1):
            source = HO3D(root / "raw/ho3d", mano=root / "raw/mano", ycb=root / "raw/ycb")
            plan = make_plan(source, BuildOptions("ho3d_v3"))
            shutil.rmtree(root / "out", ignore_errors=True)
            started = time.process_time()
            report = build(source, root / "out", BuildOptions("ho3d_v3"), plan=plan)
            taken = time.process_time() - started
            if run:
                rates.append(sum(report.samples.values()) / taken)
        print(f"{sum(report.samples.values())} frames, meshes of {min(faces):,} to {max(faces):,} faces")
        median = statistics.median(rates)
        spread = f"{min(rates):.0f} to {max(rates):.0f} in {len(rates)} runs"
        print(f"{median:.0f} frames/s and core ({spread}; {1000 / median:.1f} ms a frame); 100 are asked for")


if __name__ == "__main__":
    main()
