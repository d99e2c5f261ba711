"""Training on one CUDA GPU, data and all: `hotrain fit`'s loader and step beside a loop in the usual style.

    python tests/benchmarks/bench_gpu.py [--batch N] [--usual-batch N] [--only NAME...]

DeepLabv3 ResNet-50 with its auxiliary head learns crops of drawn 640x480 JPEGs. The usual loop is what torchvision's
reference script for segmentation does: PIL images, torchvision transforms, DataLoader, float32 with TF32 and cuDNN's
search for algorithms, SGD. Each contender is a process of its own, one after the other. Before the clock starts it
takes some steps (compilation, algorithms) and then throws away every batch that its loader had ready, so that no stock
is spent. Waiting for data is the time in which a batch was asked for and not there; of fit that is too much rather than
too little, since its CPU asks while the GPU still computes. Share of the peak: the model's operations an image, forward
and backward, as torch's FlopCounterMode counts them, over the rate of a large bfloat16 matrix product on the same card.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import numpy as np  # noqa: E402
import torch  # noqa: E402

CONTENDERS = {
    "usual": "usual loop: PIL, TF32, SGD",
    "fit": "`hotrain fit`",
    "compiled": "`hotrain fit --compile`",
}
WARM, STEPS, ROUNDS, LOG_STEPS = 12, 20, 5, 20
CLASSES = 4
STOCK = 4  # batches that a worker has ready


@contextmanager
def fit(folder: Path, options: argparse.Namespace, compiled: bool) -> Iterator[Callable[[bool], int]]:
    """As `hotrain.fit` does it between two checkpoints.

    Gives what loads a batch, learns from it if told to, and returns when it was there.
    """
    from hodata.labels import TASKS
    from hotrain.config import FitConfig
    from hotrain.learning.acceleration import place
    from hotrain.learning.optimizer import create_optimizer, parameter_groups
    from hotrain.learning.selection import select
    from hotrain.learning.start import begin
    from hotrain.learning.step import Flags, Step
    from hotrain.loading.loader import Loader
    from hotrain.loading.training_data import training_data

    device, task, batch = torch.device(options.device), TASKS["hand-object"], options.batch
    shards = str(folder / "shards")
    config = FitConfig(
        (shards,),
        shards,
        task=task.name,
        model=options.model,
        weights="none",
        crop=options.crop,
        batch_size=batch,
        optimizer=options.optimizer,
        compile=compiled,
    )
    selection = select(config, task)
    data = training_data(config, selection)
    start = begin(config, task, None)
    model = place(start.model, device, sync_batchnorm=False)
    optimizer = create_optimizer(config.optimizer, parameter_groups(model, 1e-4, 1.0, 0.01))
    step = Step(start, optimizer, task, selection, config, device)
    stop = 10**9 // batch * batch
    pin = device.type == "cuda"
    loader = Loader(data, start=0, stop=stop, batch=batch, micro=batch, workers=options.workers, keep=1, pin=pin)
    number = 0
    with closing(iter(loader)) as batches:

        def one(learn: bool) -> int:
            nonlocal number
            part = next(batches)
            there = time.perf_counter_ns()
            if learn:
                step.take([part], number * batch, Flags())
                number += 1
                if number % LOG_STEPS == 0:
                    step.settle()
                    step.training_scores(part)
            return there

        yield one


@contextmanager
def usual(folder: Path, options: argparse.Namespace) -> Iterator[Callable[[bool], int]]:
    """A loop in the style of torchvision's reference script, as `fit` above."""
    import torchvision
    from PIL import Image
    from torch.nn import functional
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32; cuDNN's convolutions have it anyway
    device, crop = torch.device(options.device), options.crop
    change = v2.Compose(
        [
            v2.RandomResize(crop // 2, 2 * crop),
            v2.RandomHorizontalFlip(),
            v2.RandomCrop(crop, pad_if_needed=True, fill={tv_tensors.Mask: 255, "others": 0}),
            v2.ToImage(),
            v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, "others": None}, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    paths = sorted((folder / "files").glob("*.jpg"))

    class Files(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, number: int) -> Any:
            image = Image.open(paths[number]).convert("RGB")
            mask = np.array(Image.open(paths[number].with_suffix(".png")))
            mask[mask == 4] = 3
            return change(image, tv_tensors.Mask(torch.from_numpy(mask)))

    loader = torch.utils.data.DataLoader(
        Files(),
        options.batch,
        shuffle=True,
        num_workers=options.workers,
        pin_memory=torch.cuda.is_available(),
        drop_last=True,
        prefetch_factor=STOCK,
        persistent_workers=True,
    )
    model = torchvision.models.get_model(
        options.model, weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True
    )
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    batches = (batch for _ in itertools.count() for batch in loader)

    def one(learn: bool) -> int:
        image, target = next(batches)
        there = time.perf_counter_ns()
        if learn:
            image, target = image.to(device, non_blocking=True), target.to(device, non_blocking=True)
            outputs = model(image)
            loss = functional.cross_entropy(outputs["out"], target, ignore_index=255)
            loss = loss + 0.5 * functional.cross_entropy(outputs["aux"], target, ignore_index=255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        return there

    yield one


def measure(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Images/s of each round; share of the time in which no batch was there; greatest memory of the GPU in GB."""
    rates, waited, spent = [], 0, 0
    with usual(folder, options) if name == "usual" else fit(folder, options, name == "compiled") as one:
        begun = time.perf_counter()
        for _ in range(WARM):
            one(True)
        _finish(options)
        warm = time.perf_counter() - begun
        for _ in range(STOCK * options.workers):
            one(False)
        for _ in range(2):
            one(True)
        for _ in range(ROUNDS):
            _finish(options)
            first = last = time.perf_counter_ns()
            for _ in range(STEPS):
                waited += one(True) - last
                last = time.perf_counter_ns()
            _finish(options)
            last = time.perf_counter_ns()
            spent += last - first
            rates.append(1e9 * options.batch * STEPS / (last - first))
        if options.profile:
            _profile(name, one)
    memory = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0
    return {"rates": rates, "waiting": waited / spent, "memory": memory, "warm": warm}


def _finish(options: argparse.Namespace) -> None:
    if options.device == "cuda":
        torch.cuda.synchronize()


def _profile(name: str, one: Callable[[bool], int]) -> None:
    """Where the GPU's time goes, to stderr."""
    from torch.profiler import ProfilerActivity, profile

    begun = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _ in range(5):
            one(True)
        torch.cuda.synchronize()
    print(f"{name}: 5 steps in {time.perf_counter() - begun:.3f} s", file=sys.stderr)
    table = seen.key_averages().table(sort_by="self_device_time_total", row_limit=40, max_name_column_width=90)
    print(table, file=sys.stderr)


def work(options: argparse.Namespace) -> float:
    """TFLOP of an image, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    from hotrain.model import create_model

    model = create_model(options.model, CLASSES).to("meta")
    with FlopCounterMode(display=False) as counter:
        outputs = model(torch.empty(2, 3, options.crop, options.crop, device="meta"))
        sum(head.sum() for head in outputs.values()).backward()
    return counter.get_total_flops() / 2e12


def card() -> tuple[str, float]:
    """Name of the GPU, and its TFLOP/s in a product of 8192 x 8192 x 8192 in bfloat16, median of 20."""
    one, other = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(25):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        one @ other
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return torch.cuda.get_device_name(), 2 * 8192**3 / statistics.median(times[5:]) / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--model", default="deeplabv3_resnet50")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--usual-batch", type=int, help="Of the usual loop, which needs more memory.")
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=max((os.cpu_count() or 1) - 2, 1))
    parser.add_argument("--optimizer", default="adamw", help="Of fit; the usual loop has SGD.")
    parser.add_argument("--device", default="cuda", help="cpu: to try this program.")
    parser.add_argument("--profile", action="store_true", help="Tell where the GPU's time goes.")
    parser.add_argument("--data", type=Path, help="Drawn data, kept there for the next call.")
    parser.add_argument("--contender", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA GPU here: not measured")
        return 0
    if options.contender:
        print(json.dumps(measure(options.contender, options.data, options)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.data or Path(temporary)
        if not (folder / "files").is_dir():
            from loader_data import write_files, write_shards

            folder.mkdir(parents=True, exist_ok=True)
            write_shards(folder / "shards", options.samples)
            write_files(folder / "files", options.samples)
        return compare(folder, options)


def compare(folder: Path, options: argparse.Namespace) -> int:
    """Run the contenders one after the other, and print the table."""
    with ProcessPoolExecutor(1, get_context("spawn")) as child:  # this process takes no memory of the GPU
        where, rate = child.submit(card).result() if options.device == "cuda" else ("CPU", 0.0)
    needed = work(options)
    print(
        f"{where}, torch {torch.__version__}, bf16 matrix product {rate:.0f} TFLOP/s; {options.model}, crop "
        f"{options.crop}, {needed:.2f} TFLOP an image, batches of {options.batch} (usual loop: "
        f"{options.usual_batch or options.batch}), {options.optimizer}, "
        f"{options.workers} loading processes; {ROUNDS} rounds of {STEPS} steps\n"
    )
    print(
        "| | images/s (slowest to fastest round) | times the usual | of peak | waiting for data | GPU memory | start |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    settings = [
        f"--{key}={getattr(options, key)}" for key in ("model", "batch", "crop", "workers", "optimizer", "device")
    ]
    found: dict[str, float] = {}
    for name in sorted(options.only, key=list(CONTENDERS).index):
        command = [sys.executable, __file__, "--contender", name, "--data", str(folder), *settings]
        if name == "usual" and options.usual_batch:
            command += ["--batch", str(options.usual_batch)]
        result = subprocess.run(command + ["--profile"] * options.profile, stdout=subprocess.PIPE, text=True)
        if result.returncode:
            print(f"| {CONTENDERS[name]} | failed, exit {result.returncode} | | | | | |", flush=True)
            continue
        one = json.loads(result.stdout.splitlines()[-1])
        median = found[name] = statistics.median(one["rates"])
        times = f"{median / found['usual']:.2f}" if "usual" in found else ""
        share = f"{median * needed / rate:.0%}" if rate else ""
        print(
            f"| {CONTENDERS[name]} | {median:.0f} ({min(one['rates']):.0f} to {max(one['rates']):.0f}) | {times} "
            f"| {share} | {one['waiting']:.1%} | {one['memory']:.0f} GB | {one['warm']:.0f} s |",
            flush=True,
        )
    return 0 if len(found) == len(options.only) else 1


if __name__ == "__main__":
    raise SystemExit(main())
