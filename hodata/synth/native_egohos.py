"""Miniature EgoHOS: image, label and contact folders; hands drawn with arm and sleeve, touched things by holder.

As in the original, train, val and test_indomain are a random permutation of single frames, so one video is in all
three; test_outdomain has videos of its own.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np

from hodata.labels import Label
from hodata.synth.encode import write_gray, write_jpeg
from hodata.synth.scene import compose
from hodata.synth.streams import stream

NAME = "egohos"
SIZES = ((480, 270), (480, 360), (640, 360))
SHARES = (("train", 0.8), ("val", 0.1), ("test_indomain", 0.1))
FRAMES_PER_VIDEO = 12

Job = tuple[int, str, tuple[tuple[int, str], ...]]  # video number, stem, (frame number, subset)s


def plan(frames: int, seed: int) -> list[Job]:
    """One job for each video: about `frames` pictures in at least 16 videos."""
    rng = stream(seed, NAME, "plan")
    videos = max(frames // FRAMES_PER_VIDEO, 16)
    outdomain = max(videos // 10, 2)
    stems = [_stem(k, k >= videos - outdomain, seed) for k in range(videos)]
    counts = [frames // videos + (k < frames % videos) for k in range(videos)]
    numbers = [sorted(rng.choice(9000, max(count, 1), replace=False).tolist()) for count in counts]
    pool = [(k, number) for k in range(videos - outdomain) for number in numbers[k]]
    subset_of: dict[tuple[int, int], str] = {}
    start = 0.0
    order = [pool[int(i)] for i in rng.permutation(len(pool))]
    for subset, share in SHARES:
        first, last = round(start * len(pool)), round((start + share) * len(pool))
        subset_of.update(dict.fromkeys(order[first:last], subset))
        start += share
    return [
        (k, stems[k], tuple((number, subset_of.get((k, number), "test_outdomain")) for number in numbers[k]))
        for k in range(videos)
    ]


def pictures(job: Job) -> int:
    """Pictures in a job."""
    return len(job[2])


def write(job: Job, folder: Path, seed: int) -> None:
    """Draw the frames of one video."""
    video, stem, frames = job
    own = stream(seed, NAME, "video", video)
    size = SIZES[int(own.integers(len(SIZES)))]
    quality = int(own.integers(80, 96))
    for number, subset in frames:
        scene = compose("ego", seed, video, number, size)
        truth = scene.view.truth
        name = f"{stem}_{number}"
        label = truth.copy()
        label[truth == Label.LEFT_ARM] = Label.LEFT_HAND
        label[truth == Label.RIGHT_ARM] = Label.RIGHT_HAND
        write_jpeg(folder / subset / "image" / f"{name}.jpg", scene.images()[0], quality)
        write_gray(folder / subset / "label" / f"{name}.png", label)
        write_gray(folder / subset / "contact" / f"{name}.png", contact(label))
        write_gray(folder / "truth" / subset / "image" / f"{name}.png", truth)


def finish(folder: Path, jobs: list[Job], results: list[None]) -> None:
    """Nothing is left to write."""


def contact(label: np.ndarray) -> np.ndarray:
    """Where hands meet first-order objects, uint8 [H, W] of 0 and 1.

    Both are dilated by a 5x5 square `int(width / 456)` times, then intersected (preprocess_script of EgoHOS).
    """
    from scipy.ndimage import maximum_filter

    # n dilations by a 5x5 square are one by a square of 4n + 1.
    reach = 4 * int(label.shape[1] / 456) + 1
    hands, things = (maximum_filter(np.isin(label, ids).view(np.uint8), reach) > 0 for ids in ((1, 2), (3, 4, 5)))
    return (hands & things).astype(np.uint8)


def _stem(number: int, outdomain: bool, seed: int) -> str:
    rng = stream(seed, NAME, "name", number)
    if outdomain:
        return f"youtube_{''.join(rng.choice(list('abcdefghkmnpqrstuvwxyz'), 7))}{number}"
    kind = number % 3
    if kind == 0:
        return f"ego4d_{uuid.UUID(bytes=rng.bytes(16), version=4)}"
    if kind == 1:
        return f"epic_P{1 + number // 3:02d}_{int(rng.integers(1, 30)):02d}"
    return f"thu_{100 + number}"
