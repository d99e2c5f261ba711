"""compare/compare.png: every row's figures with their intervals, and what the models answer. Drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compare.paired import Estimate
from compare.results import (
    AS_DRAWN,
    FLOOD_OBJECT,
    HAND_ARM,
    HAND_BOUNDARY,
    HAND_WRIST,
    IGNORE,
    OBJECT_IOU,
    OURS,
    PUBLISHED,
    TIPS,
    TUNED,
    Results,
)
from hodata.labels import color_table
from hotrain.pictures import class_colors

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from hodata.labels import Task

MEASURES = (OBJECT_IOU, HAND_WRIST, HAND_ARM, HAND_BOUNDARY, TIPS, FLOOD_OBJECT)
TITLES = {PUBLISHED: "reference", TUNED: "reference, tuned", AS_DRAWN: "ours, as-drawn", IGNORE: "ours, ignore"}
TITLES |= {OURS: "ours"}
COLORS = {PUBLISHED: (150, 150, 150), TUNED: (90, 90, 90), AS_DRAWN: (200, 130, 0), IGNORE: (60, 120, 200)}
COLORS |= {OURS: (190, 40, 60)}
INK, FAINT, PAPER = (30, 30, 30), (225, 225, 225), (255, 255, 255)
PANEL_WIDTH, PANEL_HEIGHT, LINE, LEFT = 620, 190, 26, 150
HEIGHT = 150  # of a picture in the sheet
PICTURES = 8  # in a sheet


@dataclass(frozen=True)
class _Axis:
    """Values 0..`top` on a line of a panel that begins at `left`."""

    left: float
    top: float

    def __call__(self, value: float) -> float:
        return self.left + value / self.top * (PANEL_WIDTH - LEFT - 70)


def charts(results: Results) -> Image:
    """A panel for each figure: a line for each row, its mean as a dot, its seeds as small dots, its interval a bar."""
    from PIL import Image, ImageDraw

    lines = math.ceil(len(MEASURES) / 2)
    picture = Image.new("RGB", (2 * PANEL_WIDTH, lines * PANEL_HEIGHT), PAPER)
    draw = ImageDraw.Draw(picture)
    for number, measure in enumerate(MEASURES):
        found = {row: results.value(row, measure) for row in TITLES if row in results.scores}
        _panel(draw, measure.title, found, PANEL_WIDTH * (number % 2), PANEL_HEIGHT * (number // 2))
    return picture


def _panel(draw: ImageDraw, title: str, found: Mapping[str, Estimate], x: int, y: int) -> None:
    from PIL import ImageFont

    small = ImageFont.load_default(11)
    draw.text((x + 10, y + 8), title, INK, ImageFont.load_default(14))
    axis = _Axis(x + LEFT, max([0.1, *(value for one in found.values() for value in _values(one))]))
    bottom = y + 36 + LINE * len(found)
    for tick in np.linspace(0, axis.top, 6).tolist():
        draw.line((axis(tick), y + 32, axis(tick), bottom), FAINT)
        draw.text((axis(tick), bottom + 2), f"{100 * tick:.0f}", INK, small, anchor="mt")
    for number, (row, one) in enumerate(found.items()):
        middle = y + 46 + LINE * number
        draw.text((x + LEFT - 8, middle), TITLES[row], INK, small, anchor="rm")
        if one.interval:
            draw.line((axis(one.interval[0]), middle, axis(one.interval[1]), middle), COLORS[row], 3)
        for value in _by_seed(one):
            draw.ellipse((axis(value) - 2, middle - 9, axis(value) + 2, middle - 5), COLORS[row])
        if one.value is not None:
            draw.ellipse((axis(one.value) - 5, middle - 5, axis(one.value) + 5, middle + 5), COLORS[row], PAPER)
        label = "n/a" if one.value is None else f"{100 * one.value:.1f}"
        draw.text((axis(max(_values(one), default=0.0)) + 10, middle), label, INK, small, anchor="lm")


def _by_seed(one: Estimate) -> list[float]:
    return [value for value in one.by_seed if value is not None]


def _values(one: Estimate) -> list[float]:
    """All that is drawn of an estimate."""
    return [*_by_seed(one), *(one.interval or ())]


def sheet(
    images: Sequence[NDArray[np.uint8]],
    truths: Sequence[NDArray[np.uint8]],
    answers: Mapping[str, Sequence[NDArray[np.uint8]]],
    task: Task,
) -> Image:
    """Lines of image | truth | each model's answer.

    Args:
        images: uint8 [H, W, 3] each.
        truths: uint8 [H, W] of label ids.
        answers: title -> class ids uint8 [H, W] of the same images.
        task: whose classes they are.
    """
    from PIL import Image, ImageDraw, ImageFont

    small = ImageFont.load_default(12)
    lines = []
    for number, (image, truth) in enumerate(zip(images, truths, strict=True)):
        panels = [image, tinted(image, color_table()[truth], truth > 0)]
        answered = [each[number] for each in answers.values()]
        panels += [tinted(image, class_colors(task)[answer], answer > 0) for answer in answered]
        lines.append([Image.fromarray(panel).resize(_panel_size(panel), Image.Resampling.BILINEAR) for panel in panels])
    width = max(line[0].width for line in lines) + 6
    columns = ["image", "truth", *answers]
    picture = Image.new("RGB", (width * len(columns), 24 + (HEIGHT + 6) * len(lines)), PAPER)
    draw = ImageDraw.Draw(picture)
    for column, title in enumerate(columns):
        draw.text((width * column + 4, 5), title, INK, small)
    for row, line in enumerate(lines):
        for column, panel in enumerate(line):
            picture.paste(panel, (width * column, 24 + (HEIGHT + 6) * row))
    return picture


def silhouettes(answers: Mapping[str, Sequence[NDArray[np.uint8]]], values: Mapping[str, Sequence[float]]) -> Image:
    """What the models answer without the pictures, which often may not be passed on: a line for each model.

    Args:
        answers: title -> class ids uint8 [H, W] of the same pictures.
        values: title -> IoU of each.
    """
    from PIL import Image, ImageDraw, ImageFont

    small, gap, height = ImageFont.load_default(12), 6, HEIGHT + 44
    lines = [
        [Image.fromarray(np.where(answer > 0, 235, 60).astype(np.uint8)).resize(_panel_size(answer)) for answer in own]
        for own in answers.values()
    ]
    wide = max(panel.width for line in lines for panel in line)
    picture = Image.new("RGB", (gap + (wide + gap) * len(lines[0]), height * len(lines)), PAPER)
    draw = ImageDraw.Draw(picture)
    for number, (title, line) in enumerate(zip(answers, lines, strict=True)):
        draw.text((gap, height * number + 4), title, INK, small)
        for place, (panel, value) in enumerate(zip(line, values[title], strict=True)):
            x, y = gap + (wide + gap) * place, height * number + 22
            picture.paste(panel, (x, y))
            draw.text((x, y + HEIGHT + 2), f"IoU {100 * value:.0f}", INK, small)
    return picture


def tinted(image: NDArray[np.uint8], colors: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: half the picture, half the colours [H, W, 3] where bool [H, W] says so; darker elsewhere."""
    return np.where(where[..., None], image // 2 + colors // 2, image - image // 4).astype(np.uint8)


def below(*pictures: Image) -> Image:
    """Pictures under one another."""
    from PIL import Image

    whole = Image.new("RGB", (max(one.width for one in pictures), sum(one.height for one in pictures)), PAPER)
    y = 0
    for one in pictures:
        whole.paste(one, (0, y))
        y += one.height
    return whole


def _panel_size(image: NDArray[np.uint8]) -> tuple[int, int]:
    return max(round(image.shape[1] * HEIGHT / image.shape[0]), 1), HEIGHT
