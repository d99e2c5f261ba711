"""compare/compare.png: every row's figures with their intervals, and what the models answer. Drawn with Pillow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def charts(results: Results, rows: Sequence[str] = tuple(TITLES)) -> Image:
    """A panel for each figure: a line for each row, its mean as a dot, its seeds as small dots, its interval a bar."""
    from PIL import Image, ImageDraw, ImageFont

    font, small = ImageFont.load_default(14), ImageFont.load_default(11)
    lines = (len(MEASURES) + 1) // 2
    picture = Image.new("RGB", (2 * PANEL_WIDTH, lines * PANEL_HEIGHT), PAPER)
    draw = ImageDraw.Draw(picture)
    for number, measure in enumerate(MEASURES):
        x, y = PANEL_WIDTH * (number % 2), PANEL_HEIGHT * (number // 2)
        draw.text((x + 10, y + 8), measure.title, INK, font)
        found = {row: results.value(row, measure) for row in rows if row in results.scores}
        top = max([0.1, *(_highest(one) for one in found.values())])

        def place(value: float, x: int = x, top: float = top) -> float:
            return x + LEFT + value / top * (PANEL_WIDTH - LEFT - 70)

        for tick in np.linspace(0, top, 6):
            draw.line((place(tick), y + 32, place(tick), y + 36 + LINE * len(found)), FAINT)
            draw.text((place(tick), y + 38 + LINE * len(found)), f"{100 * tick:.0f}", INK, small, anchor="mt")
        for place_y, (row, one) in enumerate(found.items()):
            middle = y + 46 + LINE * place_y
            draw.text((x + LEFT - 8, middle), TITLES[row], INK, small, anchor="rm")
            _dots(draw, one, [(place(value), middle) for value in _known(one)], place, middle, COLORS[row])
            end = max([one.interval[1]] if one.interval else [], default=one.value or 0.0)
            label = "n/a" if one.value is None else f"{100 * one.value:.1f}"
            draw.text((place(max(end, *_known(one), 0.0)) + 10, middle), label, INK, small, anchor="lm")
    return picture


def _dots(
    draw: ImageDraw, one: Estimate, seeds: Sequence[tuple[float, float]], place: object, middle: float, color: object
) -> None:
    assert callable(place)
    if one.interval:
        low, high = (place(limit) for limit in one.interval)
        draw.line((low, middle, high, middle), color, 3)  # type: ignore[arg-type]
    for x, y in seeds:
        draw.ellipse((x - 2, y - 7, x + 2, y - 3), color)  # type: ignore[arg-type]
    if one.value is not None:
        x = place(one.value)
        draw.ellipse((x - 5, middle - 5, x + 5, middle + 5), color, PAPER)  # type: ignore[arg-type]


def _known(one: Estimate) -> list[float]:
    return [value for value in one.by_seed if value is not None]


def _highest(one: Estimate) -> float:
    return max([one.value or 0.0, *(one.interval or ()), *_known(one)])


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
