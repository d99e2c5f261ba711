"""What a step of `hotrain fit` costs beside a bare loop: forward, cross-entropy, backward, AdamW on ready tensors.

    make bench                                   or: python tests/benchmarks/bench_step.py [--model NAME] [--pairs N]

Both train their own copy of one model on the same batches, step by step in turn, so that a busy machine slows both; the
order within a pair alternates. Ours begins with the bytes that the loader hands over: colour changes, normalisation,
the table of meanings, loss over sets with weights and prior, counts and flags for all ranks, the check of the loss, and
every 20th step the scores of the training crops. The bare loop gets normalised floats and class ids made beforehand.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command sets it

import numpy as np  # noqa: E402
import torch  # noqa: E402
from loader_data import write_shards  # noqa: E402
from torch.nn import functional  # noqa: E402

from hodata.labels import TASKS  # noqa: E402
from hotrain.config import PRECISIONS, FitConfig  # noqa: E402
from hotrain.input_rule import InputRule  # noqa: E402
from hotrain.learning.augment import normalize  # noqa: E402
from hotrain.learning.optimizer import OPTIMIZERS, create_optimizer, parameter_groups  # noqa: E402
from hotrain.learning.selection import select  # noqa: E402
from hotrain.learning.start import begin  # noqa: E402
from hotrain.learning.step import Flags, Step  # noqa: E402
from hotrain.loading.crop import CropRule  # noqa: E402
from hotrain.loading.data import Batch, CropData  # noqa: E402
from hotrain.model import AUX_WEIGHT, logits_of  # noqa: E402
from hotrain.order import Order  # noqa: E402

LOG_STEPS = 20
TASK = TASKS["hand-object"]


def class_ids(label: torch.Tensor) -> torch.Tensor:
    """int64: background, hand, object; void is ignored."""
    table = torch.zeros(256, dtype=torch.int64)
    table[2], table[4], table[255] = 1, 2, -100
    return table[label.long()]


def bare_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, image: torch.Tensor, ids: torch.Tensor) -> None:
    model.train()
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=image.device.type == "cuda"):
        outputs = logits_of(model, image)
    loss = functional.cross_entropy(outputs["out"].float(), ids)
    if "aux" in outputs:
        loss = loss + AUX_WEIGHT * functional.cross_entropy(outputs["aux"].float(), ids)
    loss.backward()
    optimizer.step()
    loss.item()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deeplabv3_mobilenet_v3_large")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="Of fit's step; the bare one has auto.")
    parser.add_argument(
        "--optimizer", choices=OPTIMIZERS, default="adamw", help="Of fit's step; the bare one has AdamW."
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder) / "shards", 64)
        config = FitConfig(
            (folder,),
            folder,
            task="hand-object",
            model=options.model,
            weights="none",
            crop=options.crop,
            batch_size=options.batch,
            precision=options.precision,
            optimizer=options.optimizer,
        )
        selection = select(config, TASK)
        order = Order({name: len(rows) for name, rows in selection.rows.items()}, 0)
        data = CropData(selection.index, selection.rows, order, InputRule(options.crop), CropRule(options.crop))
        batches = [data[np.arange(n * options.batch, (n + 1) * options.batch)] for n in range(8)]
    start = begin(config, TASK, None)
    start.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    bare = copy.deepcopy(start.model)

    own_optimizer = create_optimizer(config.optimizer, parameter_groups(start.model, 1e-3, 1.0, 0.01))
    step = Step(start, own_optimizer, TASK, selection, config, device)
    bare_optimizer = torch.optim.AdamW(parameter_groups(bare, 1e-3, 1.0, 0.01), fused=True)
    ready = [
        (normalize(batch["image"].to(device), start.mean, start.std), class_ids(batch["label"]).to(device))
        for batch in batches
    ]

    def ours(number: int) -> None:
        batch: Batch = batches[number % len(batches)]
        step.take([batch], number * options.batch, Flags())
        if number % LOG_STEPS == 0:
            step.training_scores(batch)

    def theirs(number: int) -> None:
        bare_step(bare, bare_optimizer, *ready[number % len(ready)])

    def timed(work: Any, number: int) -> tuple[float, float]:
        wall, processor = time.perf_counter(), time.process_time()
        work(number)
        if device.type == "cuda":  # ours is told of its loss a step later, and would leave its work to the other
            torch.cuda.synchronize()
        return time.perf_counter() - wall, time.process_time() - processor

    for number in range(3):
        ours(number), theirs(number)
    pairs = []
    for number in range(options.pairs):
        if number % 2:
            other = timed(theirs, number)
            own = timed(ours, number)
        else:
            own = timed(ours, number)
            other = timed(theirs, number)
        pairs.append((own, other))
        if (number + 1) % 50 == 0:
            print(f"{number + 1} of {options.pairs} pairs", file=sys.stderr, flush=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {options.threads} thread(s)"
    what = f"{options.model}, batch {options.batch}, crop {options.crop}"
    print(f"{what}, fit by {options.optimizer} in {options.precision}, {name}; {options.pairs} pairs\n")
    print("| | step of fit, ms | bare step, ms | median of the pairs' ratios (quartiles) | goal |")
    print("|---|---|---|---|---|")
    for title, place, goal in (("wall", 0, "1.03"), ("processor", 1, "")):
        own_ms, other_ms = (1e3 * statistics.median(pair[n][place] for pair in pairs) for n in (0, 1))
        low, middle, high = statistics.quantiles((own[place] / other[place] for own, other in pairs), n=4)
        print(f"| {title} | {own_ms:.1f} | {other_ms:.1f} | {middle:.3f} ({low:.3f} to {high:.3f}) | {goal} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
