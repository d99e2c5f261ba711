"""Pictures for people: image | truth | prediction sheets, and training curves. Drawn with Pillow alone."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hodata.errors import HodataError
from hodata.files import replacing
from hodata.labels import COLORS, LABELS, Task, color_table

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

Color = tuple[int, int, int]
_PAPER, _INK, _FAINT = (255, 255, 255), (30, 30, 30), (215, 215, 215)
_LINES: tuple[Color, ...] = ((40, 90, 200), (210, 70, 50), (20, 150, 100), (180, 110, 0), (130, 60, 180), (90, 90, 90))


@dataclass(frozen=True)
class Example:
    """One row of a sheet: image uint8 [H, W, 3], stored label map and predicted classes uint8 [H, W], a caption."""

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    caption: str


@dataclass(frozen=True)
class Curve:
    """One line of a chart: its points as (x, y), y finite."""

    name: str
    points: Sequence[tuple[float, float]]


def class_colors(task: Task) -> NDArray[np.uint8]:
    """uint8 [K, 3]: the overlay colour of each class of a task."""
    return np.array([COLORS[label] for label in task.labels], dtype=np.uint8)


def prediction_sheet(
    examples: Sequence[Example], task: Task, title: str, *, height: int = 180, columns: int = 2
) -> Image:
    """Image | truth | prediction, with a legend. Stored labels have their own colours, classes those of their label.

    Args:
        examples: what to show; none gives a sheet that says so.
        task: whose classes were predicted.
        title: drawn on top.
        height: of each panel, pixels.
        columns: examples side by side.
    """
    from PIL import Image, ImageDraw, ImageFont

    font, small = ImageFont.load_default(15), ImageFont.load_default(11)
    cells = [_panels(example, task, height) for example in examples]
    width = max((cell.width for cell in cells), default=0) + 12
    title = title if cells else f"{title}: none of the samples could be read"
    line = height + 22
    rows = math.ceil(len(cells) / columns)
    used = min(columns, len(cells))
    legend = _legend(examples, task)
    sheet = Image.new("RGB", (max(width * used + 8, 560), 34 + rows * line + 30), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((8, 8), title, _INK, font)
    for number, (cell, example) in enumerate(zip(cells, examples, strict=True)):
        x, y = 8 + width * (number % columns), 34 + line * (number // columns)
        sheet.paste(cell, (x, y))
        draw.text((x, y + height + 3), example.caption, _INK, small)
    draw_legend(draw, (8, 34 + rows * line + 6), legend)
    return sheet


def draw_legend(draw: ImageDraw, corner: tuple[int, int], legend: Mapping[str, Color]) -> None:
    """Names beside their colours, in one line."""
    from PIL import ImageFont

    small = ImageFont.load_default(11)
    x, y = corner
    for name, color in legend.items():
        draw.rectangle((x, y, x + 12, y + 12), color, _INK)
        draw.text((x + 17, y), name, _INK, small)
        x += 32 + int(draw.textlength(name, small))


def curves(charts: Mapping[str, Sequence[Curve]], x_name: str) -> Image:
    """Line charts side by side.

    Args:
        charts: title -> its lines; a chart without points says so.
        x_name: what all x are.
    """
    from PIL import Image

    width, height = 560, 380
    picture = Image.new("RGB", (width * len(charts), height), _PAPER)
    for number, (title, lines) in enumerate(charts.items()):
        picture.paste(
            _chart(title, [line for line in lines if line.points], x_name, (width, height)), (width * number, 0)
        )
    return picture


def save_picture(picture: Image, path: Path) -> None:
    """Write a PNG, which appears when complete; folders are made.

    Raises:
        HodataError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            picture.save(temporary, format="PNG")
    except OSError as error:
        raise HodataError(f"{path}: cannot be written ({error.strerror or error})") from error


def png_bytes(image: NDArray[np.uint8]) -> bytes:
    """uint8 [H, W, 3] as a PNG file, packed fast rather than small."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _panels(example: Example, task: Task, height: int) -> Image:
    from PIL import Image

    width = max(round(example.image.shape[1] * height / example.image.shape[0]), 1)
    image = np.asarray(Image.fromarray(example.image).resize((width, height), Image.Resampling.BILINEAR))
    truth = overlay(image, nearest(example.label, width, height), color_table())
    answer = overlay(image, nearest(example.predicted, width, height), class_colors(task))
    gap = np.full((height, 3, 3), 255, dtype=np.uint8)
    return Image.fromarray(np.concatenate([image, gap, truth, gap, answer], 1))


def overlay(
    image: NDArray[np.uint8], ids: NDArray[np.uint8], colors: NDArray[np.uint8], tint: float = 0.5, light: float = 0.75
) -> NDArray[np.uint8]:
    """Tint what is not background (id 0), with a full-colour outline where ids change.

    Args:
        image: uint8 [H, W, 3].
        ids: uint8 [H, W].
        colors: uint8 [N, 3], of each id.
        tint: share of the colour, 0..1.
        light: of the background, relative to the image.
    """
    mixed = ((1 - tint) * image + tint * colors[ids]).astype(np.uint8)
    edge = np.zeros(ids.shape, dtype=bool)
    edge[1:] |= ids[1:] != ids[:-1]
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    painted = np.where((ids > 0)[..., None], mixed, (image * light).astype(np.uint8))
    painted[edge & (ids > 0)] = colors[ids][edge & (ids > 0)]
    return np.asarray(painted, dtype=np.uint8)


def nearest(ids: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """A label map at another size."""
    rows = (np.arange(height) + 0.5) * ids.shape[0] / height
    columns = (np.arange(width) + 0.5) * ids.shape[1] / width
    return ids[rows.astype(np.int64)[:, None], columns.astype(np.int64)[None]]


def _legend(examples: Sequence[Example], task: Task) -> dict[str, Color]:
    names = label_legend([example.label for example in examples])
    classes = zip(task.classes[1:], task.labels[1:], strict=True)
    return names | {name: COLORS[label] for name, label in classes if name not in names}


def label_legend(labels: Sequence[NDArray[np.uint8]]) -> dict[str, Color]:
    """Name and colour of the labels in some label maps, without background."""
    stored = {int(value) for label in labels for value in np.unique(label)}
    return {label.label_name: COLORS[label] for label in LABELS if int(label) in stored and label}


def _chart(title: str, lines: Sequence[Curve], x_name: str, size: tuple[int, int]) -> Image:
    from PIL import Image, ImageDraw, ImageFont

    font, small = ImageFont.load_default(14), ImageFont.load_default(11)
    chart = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(chart)
    left, top, right, bottom = 58, 34, size[0] - 16, size[1] - 66
    draw.text((left, 10), title, _INK, font)
    points = [point for line in lines for point in line.points]
    if not points:
        draw.text((left + 20, (top + bottom) // 2), "nothing was measured", _INK, font)
        return chart
    x_low, x_high = _range([x for x, _ in points])
    y_low, y_high = _range([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - x_low) / (x_high - x_low) * (right - left),
            bottom - (y - y_low) / (y_high - y_low) * (bottom - top),
        )

    for y in _ticks(y_low, y_high):
        draw.line((left, place(x_low, y)[1], right, place(x_low, y)[1]), _FAINT)
        draw.text((left - 6, place(x_low, y)[1]), f"{y:.4g}", _INK, small, anchor="rm")
    for x in _ticks(x_low, x_high):
        draw.line((place(x, y_low)[0], top, place(x, y_low)[0], bottom), _FAINT)
        draw.text((place(x, y_low)[0], bottom + 5), f"{x:.6g}", _INK, small, anchor="mt")
    draw.text((right, bottom + 20), x_name, _INK, small, anchor="rt")
    draw.rectangle((left, top, right, bottom), outline=_INK)
    x_legend, y_legend = left, size[1] - 22
    for number, line in enumerate(lines):
        color = _LINES[number % len(_LINES)]
        path = [place(x, y) for x, y in line.points]
        if len(path) > 1:
            draw.line(path, color, 2)
        for x, y in path if len(path) <= 60 else []:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), color)
        length = 32 + int(draw.textlength(line.name, small))
        if x_legend > left and x_legend + length > size[0]:
            x_legend, y_legend = left, y_legend + 14
        draw.line((x_legend, y_legend, x_legend + 16, y_legend), color, 3)
        draw.text((x_legend + 20, y_legend), line.name, _INK, small, anchor="lm")
        x_legend += length
    return chart


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.04 or max(abs(high), 1.0) * 0.5
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between the two, about five."""
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next((factor for factor in (1, 2, 5) if (high - low) / (factor * step) <= 6), 10)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
