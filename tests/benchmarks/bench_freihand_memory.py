"""Memory of a FreiHAND build with 4 workers on tables of full size: 32,560 rows, vertices 1.7 GB of text.

    make bench                                   or: python tests/benchmarks freihand_memory

The tree has all 130,240 pictures and 32,560 masks, as hard links to 64 drawn ones (so 5 GB of disk, and no real data);
each row of the tables has its own numbers. `--masks agree` reads every table and renders every hand. A quarter of the
pictures is converted (BENCH_LIMIT), after a scan of all of them. Every 0.1 s the memory of all processes of the build
is added up: RSS counts a page that several processes share (the mapped vertices) for each, PSS counts it once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from hodata.pose.camera import intrinsics
from hodata.pose.render import PosedMesh, render
from hodata.sources.freihand import BASES, VERSIONS
from hodata.synth.hand_model import hand_model
from hodata.synth.native_mano import write as write_mano

DRAWN = 64
SIZE = (224, 224)
WORKERS = 4
LIMIT = int(os.environ.get("BENCH_LIMIT", BASES))
ALLOWED_GB = 3.0


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="bench_freihand_", dir=os.environ.get("BENCH_TMP")) as name:
        folder = Path(name)
        start = time.monotonic()
        write_dataset(folder / "freihand")
        write_mano("right", folder / "mano", 0)
        text = sum(path.stat().st_size for path in (folder / "freihand").glob("*.json"))
        print(
            f"written: tables of {BASES:,} rows, {text / 1e9:.2f} GB, in {time.monotonic() - start:.0f} s", flush=True
        )
        command = [sys.executable, "-m", "hodata.cli", "build", "--source", "freihand", "--masks", "agree"]
        command += ["--root", str(folder / "freihand"), "--mano", str(folder / "mano"), "--out", str(folder / "shards")]
        command += ["--workers", str(WORKERS), "--limit", str(LIMIT), "--json"]
        rss, pss, seconds, report = measure(command, {"HODATA_CACHE": str(folder / "cache")})
        copies = sum(path.stat().st_size for path in (folder / "cache").rglob("*.npy"))
        print(f"built {sum(report['samples'].values()):,} samples in {seconds:.0f} s, {WORKERS} workers")
        print(f"copies of the tables: {copies / 1e9:.2f} GB")
        print(f"peak of all processes: RSS {rss / 1e9:.2f} GB, PSS {pss / 1e9:.2f} GB (allowed {ALLOWED_GB} GB)")
        return int(rss > ALLOWED_GB * 1e9)


def write_dataset(root: Path) -> None:
    """A FreiHAND tree of full size."""
    rng = np.random.default_rng(0)
    model, K = hand_model("right"), intrinsics(480.0, SIZE)
    hands = []
    for folder in ("training/rgb", "training/mask"):
        (root / folder).mkdir(parents=True)
    for number in range(DRAWN):
        pose = np.concatenate([rng.normal(0, 2, 3), model.hands_mean + rng.normal(0, 0.15, 45)])
        vertices, joints = model.pose(pose)
        shift = np.array([0.0, 0.0, 0.7]) - vertices.mean(axis=0)
        hands.append((vertices + shift, model.keypoints(vertices + shift, joints + shift), pose))
        mask = render([PosedMesh(vertices + shift, model.faces, 255)], K, SIZE).labels
        Image.fromarray(np.repeat(mask[..., None], 3, axis=2)).save(root / f"training/mask/{number:08d}.jpg")
        noise = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)).resize(SIZE)
        noise.save(root / f"training/rgb/{number:08d}.jpg", quality=95)
    for kind, count in (("rgb", BASES * len(VERSIONS)), ("mask", BASES)):
        for number in range(DRAWN, count):
            source = root / f"training/{kind}/{number % BASES % DRAWN:08d}.jpg"
            os.link(source, root / f"training/{kind}/{number:08d}.jpg")
    files = {name: (root / f"training_{name}.json").open("w") for name in ("K", "xyz", "verts", "mano", "scale")}
    for row in range(BASES):
        vertices, keypoints, pose = hands[row % DRAWN]
        moved = rng.normal(0, 1e-5, (1, 3))
        numbers = {
            "K": K.tolist(),
            "xyz": (keypoints + moved).tolist(),
            "verts": (vertices + moved).tolist(),
            "mano": [[*(pose + moved[0, 0]).tolist(), *rng.normal(0, 1, 10).tolist(), 110.0, 110.0, 690.0]],
            "scale": 0.027,
        }
        for name, file in files.items():
            file.write(("[" if not row else ", ") + json.dumps(numbers[name]))
    for file in files.values():
        file.write("]")
        file.close()


def measure(command: list[str], env: dict[str, str]) -> tuple[int, int, float, dict]:
    """Run a command; peak RSS and PSS (bytes) of it and all its descendants, seconds, and its JSON output."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=out)
        rss = pss = 0
        while process.poll() is None:
            now = [memory(pid) for pid in (process.pid, *descendants(process.pid))]
            rss, pss = max(rss, sum(each[0] for each in now)), max(pss, sum(each[1] for each in now))
            time.sleep(0.1)
        if process.returncode:
            raise SystemExit(f"the build failed ({process.returncode})")
        out.seek(0)
        return rss, pss, time.monotonic() - start, json.load(out)


def descendants(pid: int) -> list[int]:
    """All children of a process, theirs, and so on."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def memory(pid: int) -> tuple[int, int]:
    """RSS and PSS of a process in bytes; zeros if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return kilobytes["Rss"] * 1024, kilobytes["Pss"] * 1024


if __name__ == "__main__":
    raise SystemExit(main())
