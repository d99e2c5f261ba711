"""What a closer look at hands (`annotate --refine`) does to the masks.

    python tests/benchmarks/bench_refine.py --checkpoint RUN --shards 'shards/*-test-*.tar' [--tiles 1 2 3]

Annotates the samples of a split without a closer look, with one at hands seen under 96 pixels (auto, the default), and
with one at every hand that a crop enlarges (crop). With `--tiles 2`, four samples of one size make one frame, so hands
are half as large in it; each sample's part of the answer is cut out again. Prints, source by source, the hand's IoU,
its Boundary IoU and the fingertip recall at the samples' own size, and the difference to no closer look with its 95 %
interval by a paired bootstrap over groups, or with the groups' range where they are fewer than 10.

Needs a trained checkpoint: `make bench` has none and leaves it out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hodata.labels import Task
from hodata.shards.reader import ShardIndex
from hotrain.annotate.inputs import find_frames
from hotrain.annotate.pipeline import AnnotateConfig, annotate
from hotrain.evaluate import equal_size_batches, evaluate
from hotrain.loading.data import decode_image
from hotrain.network import Network, open_network
from hotrain.scoring.comparison import Difference, compare
from hotrain.scoring.mask_folder import open_masks
from hotrain.scoring.sample_counts import SampleCounts

FIGURES = {"hand IoU": "kinds.hand", "Boundary IoU": "boundary_iou.hand", "fingertip recall": "fingertip_recall"}
REFINED = ("auto", "crop")


@dataclass(frozen=True)
class Tiled:
    """Frames of n x n samples of one size: where the frames lie, and which rows each holds, row by row of the frame."""

    folder: Path
    frames: list[list[int]]
    side: int


def write_tiles(index: ShardIndex, rows: NDArray[np.int64], side: int, folder: Path) -> Tiled:
    """Write the frames as PNG, 000000.png onward; places that are left over stay grey."""
    folder.mkdir()
    frames = equal_size_batches(index, rows, side * side)
    reader = index.reader()
    for number, members in enumerate(frames):
        height, width = (int(index.column(name)[members[0]]) for name in ("height", "width"))
        frame = np.full((side * height, side * width, 3), 128, dtype=np.uint8)
        for place, row in enumerate(members):
            image = decode_image(reader.image(row), index.column("image_kind")[row], index.column("key")[row])
            frame[_part(place, side, height, width)] = image
        Image.fromarray(frame).save(folder / f"{number:06d}.png", compress_level=1)
    return Tiled(folder, frames, side)


def counts_of(
    network: Network, index: ShardIndex, rows: NDArray[np.int64], tiled: Tiled, refine: str, out: Path
) -> tuple[SampleCounts, float]:
    """Annotate, cut each sample's mask out, and score; also the share of frames that a closer look changed."""
    annotate(network, find_frames([str(tiled.folder)]), out, AnnotateConfig(refine=refine))
    masks = out / "cut"
    masks.mkdir()
    (masks / "legend.json").write_bytes((out / "png" / "legend.json").read_bytes())
    for number, members in enumerate(tiled.frames):
        answer = np.asarray(Image.open(out / "png" / f"{number:06d}.png"))
        height, width = answer.shape[0] // tiled.side, answer.shape[1] // tiled.side
        for place, row in enumerate(members):
            own = answer[_part(place, tiled.side, height, width)]
            Image.fromarray(own).save(masks / f"{index.column('key')[row]}.png", compress_level=1)
    task: Task = network.task
    read, _, _ = open_masks(masks, index, rows, task, None)
    found = evaluate(index, rows, task, read, details=True)
    assert found.details is not None
    refined = [json.loads(line).get("refined", 0) > 0 for line in (out / "frames.jsonl").read_text().splitlines()]
    return found.details, float(np.mean(refined))


def _part(place: int, side: int, height: int, width: int) -> tuple[slice, slice]:
    top, left = place // side * height, place % side * width
    return slice(top, top + height), slice(left, left + width)


def _told(found: Difference) -> str:
    """`0.153 -> 0.160 (+0.007, +0.001 to +0.012)`; the interval, or the range over the groups in square brackets."""
    if found.a is None or found.b is None:
        return "n/a"
    if found.interval is not None:
        spread = "({:+.3f} to {:+.3f})".format(*found.interval)
    else:
        spread = f"[{min(found.by_group.values()):+.3f} to {max(found.by_group.values()):+.3f}]"
    return f"{found.a:.3f} -> {found.b:.3f}  {found.b - found.a:+.3f} {spread}"


def measure(checkpoint: Path, shards: Sequence[str], split: str, sides: Sequence[int], device: str) -> None:
    network, index = open_network(checkpoint, device), ShardIndex.open(shards)
    print(f"network sees the shorter side at {network.rule.size} pixels; split {split}; without -> with a closer look, "
          "difference (95 % interval over groups) or [range over the groups, fewer than 10]")  # fmt: skip
    print(
        f"{'source':<10} {'tiles':<5} {'--refine':<8} {'frames refined':<14} " + " ".join(f"{n:<44}" for n in FIGURES)
    )
    for source in sorted(index.plans):
        rows = index.select(split=split, source=source)
        if not len(rows):
            continue
        groups = len(set(index.column("group")[rows]))
        for side in sides:
            with tempfile.TemporaryDirectory() as name:
                tiled = write_tiles(index, rows, side, Path(name) / "frames")
                plain, _ = counts_of(network, index, rows, tiled, "none", Path(name) / "none")
                for refine in REFINED:
                    closer, share = counts_of(network, index, rows, tiled, refine, Path(name) / refine)
                    found = compare(plain, closer).pooled
                    told = " ".join(f"{_told(found[figure]):<44}" for figure in FIGURES.values())
                    print(f"{source:<10} {f'{side}x{side}':<5} {refine:<8} {f'{100 * share:.0f} %':<14} {told}")
        print(f"{source:<10} {len(rows)} samples of {groups} groups")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a run, a checkpoint or an .onnx file")
    parser.add_argument("--shards", nargs="+", help="with key points, for the fingertips: FreiHAND, HO-3D")
    parser.add_argument("--split", default="test")
    parser.add_argument("--tiles", type=int, nargs="+", default=[1, 2, 3], help="samples along each side of a frame")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if options.checkpoint is None or options.shards is None:
        print("left out: needs --checkpoint and --shards")
        return
    measure(options.checkpoint, options.shards, options.split, options.tiles, options.device)


if __name__ == "__main__":
    main()
