"""What augmentation in the loading process costs, and what the same would cost on the device.

    python tests/benchmarks/bench_augment.py [--crops 256 480] [--rounds 5]

Processor time of one thread, ms per image: batches of 16 crops of drawn 640x480 JPEGs, without augmentation and with
each kind done to every crop; the difference is its cost. Then blur and noise as torch would do them on the batch, on
this CPU. Medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command sets it

import numpy as np  # noqa: E402
import torch  # noqa: E402
from loader_data import write_shards  # noqa: E402
from torch.nn import functional  # noqa: E402

from hodata.shards.reader import ShardIndex  # noqa: E402
from hotrain.input_rule import InputRule  # noqa: E402
from hotrain.loading.composite import CompositeRule  # noqa: E402
from hotrain.loading.crop import CropRule  # noqa: E402
from hotrain.loading.data import CropData  # noqa: E402
from hotrain.loading.degrade import DegradeRule  # noqa: E402
from hotrain.order import Order  # noqa: E402

BATCH, IMAGES = 16, 64
KINDS: dict[str, tuple[DegradeRule, CompositeRule]] = {
    "nothing": (DegradeRule(), CompositeRule()),
    "blur": (DegradeRule(blur=1), CompositeRule()),
    "noise": (DegradeRule(noise=1), CompositeRule()),
    "jpeg": (DegradeRule(jpeg=1), CompositeRule()),
    "background": (DegradeRule(), CompositeRule(background=1)),
    "paste": (DegradeRule(), CompositeRule(paste=1)),
}


def loads(folder: Path, crop: int) -> dict[str, Callable[[], object]]:
    """For each kind: load all images once."""
    index = ShardIndex.open(folder)
    rows = {"drawn": np.arange(len(index))}

    def work(degrade: DegradeRule, composite: CompositeRule) -> Callable[[], object]:
        order = Order({"drawn": len(index)}, 0)
        data = CropData(index, rows, order, InputRule(crop), CropRule(crop), degrade=degrade, composite=composite)
        pixels = torch.empty(data.batch_bytes(BATCH), dtype=torch.uint8)
        return lambda: [data.fill(np.arange(n, n + BATCH), pixels) for n in range(0, IMAGES, BATCH)]

    return {name: work(*rules) for name, rules in KINDS.items()}


def on_device(crop: int) -> dict[str, Callable[[], object]]:
    """Blur by a depthwise convolution with a kernel for each image, Gaussian noise from torch's one generator."""
    batch = torch.randint(0, 256, (BATCH, 3, crop, crop), dtype=torch.uint8)
    size = 2 * max(round(crop / 60), 2) + 1  # the longest motion
    kernels = torch.rand(BATCH, 1, size, size).repeat_interleave(3, 0)
    kernels /= kernels.sum((2, 3), keepdim=True)

    def blur() -> torch.Tensor:
        pixels = functional.pad(batch.float(), (size // 2,) * 4, mode="replicate")
        found = functional.conv2d(pixels.view(1, -1, *pixels.shape[2:]), kernels, groups=3 * BATCH)
        return found.round_().byte().view(batch.shape)

    def noise() -> torch.Tensor:
        return (batch.float() + 5 * torch.randn(batch.shape)).clamp_(0, 255).round_().byte()

    return {"torch, blur": blur, "torch, noise": noise}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=int, nargs="+", default=[256, 480])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder) / "shards", IMAGES)
        for crop in options.crops:
            works = {**loads(Path(folder) / "shards", crop), **on_device(crop)}
            times: dict[str, list[float]] = {name: [] for name in works}
            for turn in range(options.rounds + 1):
                for name, work in works.items():
                    began = time.process_time()
                    work()
                    if turn:
                        images = BATCH if name.startswith("torch") else IMAGES
                        times[name].append(1000 * (time.process_time() - began) / images)
            print(f"crop {crop}, ms per image (lowest to highest)")
            bare = statistics.median(times["nothing"])
            for name, found in times.items():
                median = statistics.median(found)
                more = "" if name == "nothing" or name.startswith("torch") else f"   {median - bare:+.2f}"
                print(f"  {name:13s} {median:6.2f} ({min(found):.2f} to {max(found):.2f}){more}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
