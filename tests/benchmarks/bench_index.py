"""How long opening, selecting and hashing take on an index of a million samples.

    python tests/benchmarks/bench_index.py [--samples 1000000] [--shards 1000] [--runs 5] [--profile]

The index is drawn, the tars are files of holes with the recorded sizes: opening looks at nothing else of them. Each run
is a fresh process, as for a user; the time to start Python and import the reader is told apart.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from hodata.labels import LABELS, MEANINGS
from hodata.shards.index import MEMBERS, IndexInfo, TarFacts, schema, write_index

SOURCES = ("egohos", "freihand", "ho3d_v3", "egohands")
EXPRESSION = "source = 'ho3d_v3' and held and visible_fraction_hand > 0.3 and 'mug' in objects"


def draw_table(samples: int, shards: int, rng: np.random.Generator) -> pa.Table:
    """Rows as a build of many recordings has them, in shards of equal size; `image_offset` ascends in each."""
    numbers = np.arange(samples)
    shard = numbers * shards // samples
    sequence = numbers[rng.permutation(samples)] // 500
    source = np.array(SOURCES, dtype=object)[sequence % len(SOURCES)]
    split = np.array(["train", "val", "test"], dtype=object)[np.minimum(shard * 12 // shards // 5, 2)]
    digests = rng.integers(0, 2**32, samples)
    place = numbers - (np.flatnonzero(np.diff(shard, prepend=-1))[shard])
    sizes = {"image": rng.integers(40_000, 80_000, samples), "mask": rng.integers(3_000, 9_000, samples)}
    sizes["json"] = rng.integers(1_800, 2_600, samples)
    columns: dict[str, object] = {
        "key": [f"big_{s}_{n:07d}-{d:08x}" for s, n, d in zip(sequence, numbers, digests, strict=True)],
        "source": source,
        "split": split,
        "subset": ["training"] * samples,
        "group": [f"collection/recording-{s:05d}" for s in sequence],
        "recording": [f"recording-{s:05d}" for s in sequence],
        "sequence": [f"recording-{s:05d}" for s in sequence],
        "frame": numbers % 500,
        "camera": [f"cam{s % 5}" for s in sequence],
        "instant": [f"{s}/{n % 500}" for s, n in zip(sequence, numbers, strict=True)],
        "subject": [f"subject-{s % 40}" for s in sequence],
        "view": np.where(sequence % 2, "ego", "exo"),
        "width": np.full(samples, 640),
        "height": np.full(samples, 480),
        "shard": [f"big-train-{n:06d}.tar" for n in shard],
        "image_kind": ["jpg"] * samples,
        "meaning": np.where(source == "egohos", "egohos", "hand-wrist"),
        "mask_origin": ["human"] * samples,
        "hand_boxes": [[[1, 2, 30, 40], [50, 60, 70, 80]][: 1 + n % 2] for n in numbers],
        "objects": [["mug"] if n % 3 else [] for n in numbers],
        "held": numbers % 3 > 0,
        "visible_fraction_hand": rng.random(samples),
        "visible_fraction_object": rng.random(samples),
    }
    offset = place * 100_352 + 512
    for member in MEMBERS:
        columns[f"{member}_offset"] = offset
        columns[f"{member}_size"] = sizes[member]
        columns[f"{member}_crc32"] = rng.integers(0, 2**32, samples)
        offset = offset + 512 + -(-sizes[member] // 512) * 512
    for label in LABELS:
        columns[f"pixels_{label.label_name}"] = rng.integers(0, 40_000, samples) * (rng.random(samples) < 0.3)
    # A column that is not drawn here is a figure that nothing of this reads.
    filled = [pa.array(columns.get(item.name, np.full(samples, -1)), item.type) for item in schema()]
    return pa.table(filled, schema=schema())


def write_build(folder: Path, samples: int, shards: int, seed: int = 0) -> Path:
    """A merged index of a build named `big` and its tars, which are holes; returns the folder."""
    table = draw_table(samples, shards, np.random.default_rng(seed))
    counts = np.bincount(np.arange(samples) * shards // samples, minlength=shards)
    tars = []
    for number, count in enumerate(counts.tolist()):
        name = f"big-train-{number:06d}.tar"
        size = count * 100_352 + 10_240
        with (folder / name).open("wb") as file:
            file.truncate(size)
        tars.append(TarFacts(name, size, hashlib.sha256(name.encode()).hexdigest(), count))
    declared = [meaning.to_json() for meaning in MEANINGS.values()]
    write_index(folder / "big.index", table, IndexInfo("big", "0" * 64, {"options": {}}, declared, tars))
    return folder


def timed(folder: Path) -> dict[str, float]:
    """Seconds of each step in this process, which has imported nothing yet that it would not need."""
    seconds: dict[str, float] = {}
    last = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[name] = now - last
        last = now

    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401

    from hodata.shards.reader import ShardIndex

    lap("import pyarrow and the reader")
    index = ShardIndex.open(folder)
    lap("open")
    train = index.select(split="train")
    lap("select(split=train)")
    from hodata.shards.select import Selector, select_rows

    chosen = select_rows(index, Selector(EXPRESSION))
    lap("select_rows(where)")
    index.data_hash(train)
    lap("data_hash of train")
    reader = index.reader()
    lap("reader()")
    assert 0 < len(chosen.rows) < len(train) < len(index), "the selections must choose something"
    del reader
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=1_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="Folder for the drawn build; reused if it holds one.")
    parser.add_argument("--profile", action="store_true", help="Print where the time of opening goes.")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(timed(options.one)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "big.index").exists():
            write_build(folder, options.samples, options.shards)
        size = (folder / "big.index").stat().st_size
        print(f"{options.samples:,} samples, {options.shards:,} shards; index {size / 1e6:.1f} MB")
        if options.profile:
            _profile(folder)
        runs = []
        for _ in range(options.runs):
            command = [sys.executable, __file__, "--one", str(folder)]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        for name in runs[0]:
            times = sorted(run[name] for run in runs)
            print(f"{name:32} {statistics.median(times):6.3f} s   ({times[0]:.3f} to {times[-1]:.3f})")


def _profile(folder: Path) -> None:
    import cProfile
    import pstats

    from hodata.shards.reader import ShardIndex

    with cProfile.Profile() as profile:
        ShardIndex.open(folder)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(15)


if __name__ == "__main__":
    main()
