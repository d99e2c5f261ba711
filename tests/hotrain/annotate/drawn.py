"""Drawn frames, and a network whose answer is known: it segments by colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hodata.labels import TASKS, Task
from hotrain.input_rule import InputRule

COLORS = {
    "background": (40, 40, 40),
    "hand": (220, 150, 120),
    "object": (30, 200, 60),
    "arm": (60, 60, 220),
    "left": (220, 150, 120),
    "right": (220, 60, 120),
    "left_arm": (60, 60, 220),
    "right_arm": (0, 160, 220),
}


class ColorNetwork:
    """Logits fall with the distance to each class's colour; a drawn picture's answer is the drawing."""

    def __init__(self, task: Task = TASKS["hand-object"], size: int = 48, kind: str = "short-side") -> None:
        self.task, self.rule, self.temperature, self.identity = task, InputRule(size, kind), 1.0, f"colors-{size}"
        self._colors = np.array([COLORS[name] for name in task.classes], dtype=np.float32)
        self.calls = 0

    def logits(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        self.calls += 1
        image = np.stack(prepared).astype(np.float32)
        distance = ((image[:, None] - self._colors[None, :, None, None]) ** 2).sum(-1)
        return -distance / np.float32(2000)


def scene(number: int = 0, size: tuple[int, int] = (64, 48)) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """uint8 image [H, W, 3] and classes of task hand-object [H, W]: a hand and an object side by side, an arm below."""
    width, height = size
    classes = np.zeros((height, width), dtype=np.uint8)
    left = width // 4 + number % 5
    classes[height // 4 : height // 2, left : left + width // 4] = 1
    classes[height // 4 : height // 2, left + width // 4 : left + width // 2] = 2
    classes[height // 2 : height * 7 // 8, left : left + width // 8] = 3
    return paint(classes), classes


def paint(classes: NDArray[np.uint8], task: Task = TASKS["hand-object"]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: each class in its colour."""
    return np.array([COLORS[name] for name in task.classes], dtype=np.uint8)[classes]


def write_image(path: Path, pixels: NDArray[np.uint8] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene()[0] if pixels is None else pixels).save(path)
    return path


def write_frames(folder: Path, count: int, size: tuple[int, int] = (64, 48), start: int = 0) -> Path:
    """`<number>.png`, numbers without leading zeros."""
    for number in range(start, start + count):
        write_image(folder / f"{number}.png", scene(number, size)[0])
    return folder


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Path -> content of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
