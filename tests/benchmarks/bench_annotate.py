"""What annotation costs beside the network.

    python tests/benchmarks/bench_annotate.py [--frames 32] [--models mobilenet resnet50]    needs matplotlib

1. Processor time per 640x480 PNG frame: decode, resize, decide, statistics, run lengths, the HOnnotate file; against
   the usual script's way, PNG decode and a matplotlib figure of image and mask.
2. `annotate --format honnotate` from files to files, against the bare forward of the same network on the same, already
   prepared frames: the network's share of all processor time. The network uses all processors, so on a CPU this is
   the share of its own rate that is left, and other programs do not change it.

Medians of repeated, interleaved rounds; every contender warms up once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hodata.labels import TASKS
from hotrain.annotate.formats import Options, create_formats
from hotrain.annotate.inputs import Inputs, find_frames
from hotrain.annotate.loading import Loaded, Loading
from hotrain.annotate.pipeline import AnnotateConfig, _Run, annotate
from hotrain.input_rule import InputRule
from hotrain.model import create_model
from hotrain.predict import NetworkPredictor

TASK = TASKS["hand-object"]
SIZE = (640, 480)
MODELS = {"mobilenet": "deeplabv3_mobilenet_v3_large", "resnet50": "deeplabv3_resnet50"}
WANTED = {"mobilenet": 0.75, "resnet50": 0.90}


class RandomNetwork:
    """A network with random weights, as `hotrain.network.Network`."""

    def __init__(self, name: str, size: int) -> None:
        model = create_model(name, len(TASK.classes)).eval().to(memory_format=torch.channels_last)
        self.task, self.rule, self.temperature, self.identity = TASK, InputRule(size), 1.0, name
        self._predictor = NetworkPredictor(model, self.rule, (0.5,) * 3, (0.25,) * 3, torch.device("cpu"))

    def logits(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        return self._predictor.network_logits(prepared).numpy()


class NoNetwork(RandomNetwork):
    """Logits of a hand and an object, at no cost."""

    def __init__(self, size: int) -> None:
        self.task, self.rule, self.temperature, self.identity = TASK, InputRule(size), 1.0, "none"
        rows, columns = np.mgrid[:size, : size * SIZE[0] // SIZE[1]] / size
        hand = 8 - 60 * np.hypot(rows - 0.5, columns - 0.6) + np.sin(40 * columns)
        thing = 8 - 60 * np.hypot(rows - 0.6, columns - 0.8) + np.sin(30 * rows)
        self._answer = np.stack([np.zeros_like(hand), hand, thing, hand - 20]).astype(np.float32)

    def logits(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        return np.repeat(self._answer[None], len(prepared), axis=0)


def write_frames(folder: Path, count: int) -> Path:
    """PNGs with the grain and gradients of a camera's picture."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)).astype(np.int16)
        grain = rng.normal(0, 4, smooth.shape)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.png")
    return folder


def median_seconds(
    rounds: int, *contenders: Callable[[], None], clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Median seconds of each contender; they take turns."""
    for contender in contenders:
        contender()
    times: list[list[float]] = [[] for _ in contenders]
    for _ in range(rounds):
        for contender, own in zip(contenders, times, strict=True):
            begun = clock()
            contender()
            own.append(clock() - begun)
    return [statistics.median(own) for own in times]


def beside_the_network(root: Path, out: Path, size: int, rounds: int) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    network, config = NoNetwork(size), AnnotateConfig(formats=("honnotate",), refine="none")
    inputs = find_frames([str(root)])
    run = _Run(network, inputs, out, config, create_formats(config.formats, TASK, Options()))
    frames = inputs.frames

    def ours() -> None:
        with ThreadPoolExecutor(1) as pool:
            loading = Loading(Inputs(frames), network.rule, config.exif, pool)
            for frame in frames:
                loaded = loading._load(frame)
                assert isinstance(loaded, Loaded)
                run._finish_frame(loaded, network._answer, None, ())

    mask = np.asarray(Image.open(next(out.rglob("*.png")))) if list(out.rglob("*.png")) else np.zeros(SIZE[::-1])

    def figure() -> None:
        for frame in frames:
            image = np.asarray(Image.open(frame.path).convert("RGB"))
            drawn, axes = pyplot.subplots(1, 2, figsize=(10, 5))
            for axis, picture in zip(axes, (image, mask), strict=True):
                axis.imshow(picture)
                axis.axis("off")
            drawn.savefig(out / f"{frame.stem}_figure.png")
            pyplot.close(drawn)

    mine, theirs = (
        seconds / len(frames) * 1e3 for seconds in median_seconds(rounds, ours, figure, clock=time.process_time)
    )
    verdict = "reached" if mine <= theirs / 6 else "MISSED"
    print(f"beside the network {mine:6.1f} ms of processor time a frame; PNG decode and figure {theirs:6.1f} ms: "
          f"1/{theirs / mine:.1f} of it (wanted 1/6: {verdict})")  # fmt: skip


def against_bare_forward(name: str, root: Path, count: int, size: int, rounds: int, folder: Path) -> None:
    network = RandomNetwork(MODELS[name], size)
    paths = sorted(root.glob("*.png"))[:count]
    prepared = [network.rule.resize(np.asarray(Image.open(path).convert("RGB"))) for path in paths]
    batch = min(8, count)
    config = AnnotateConfig(formats=("honnotate",), refine="none", batch_size=batch)
    calls = iter(range(1_000_000))

    def bare() -> None:
        for start in range(0, len(prepared), batch):
            network.logits(prepared[start : start + batch])

    def whole() -> None:
        annotate(network, find_frames([str(path) for path in paths]), folder / f"{name}{next(calls)}", config)

    forward, everything = (seconds / count for seconds in median_seconds(rounds, bare, whole, clock=time.process_time))
    share, wanted = forward / everything, WANTED[name]
    verdict = "reached" if share >= wanted else "MISSED"
    print(f"{MODELS[name]}: bare forward {forward:.3f} s of processor time a frame, annotate {everything:.3f}: "
          f"{100 * share:.0f} % (wanted {100 * wanted:.0f} %: {verdict})")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=480, help="short side as the network sees it")
    parser.add_argument("--models", nargs="*", choices=sorted(MODELS), default=sorted(MODELS))
    options = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, torch {torch.__version__} on {torch.get_num_threads()} threads, "
          f"{SIZE[0]}x{SIZE[1]} seen at {options.size}, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        root, out = Path(name) / "frames", Path(name) / "out"
        for folder in (root, out):
            folder.mkdir()
        write_frames(root, options.frames)
        try:
            beside_the_network(root, out, options.size, options.rounds)
        except ModuleNotFoundError as error:
            print(f"left out: {error}", file=sys.stderr)
        for model in options.models:
            count = options.frames if model == "mobilenet" else min(options.frames, 8)
            against_bare_forward(model, root, count, options.size, options.rounds, Path(name))


if __name__ == "__main__":
    main()
