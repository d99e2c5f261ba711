"""Pictures of label maps: overlays, and tiles in rows with captions, titles and a legend.

Shapes: images uint8 [H, W, 3] sRGB, label maps uint8 [H, W].
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hodata.errors import HodataError
from hodata.files import replacing
from hodata.labels import COLORS, Label, color_table

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

PAPER, INK, FAINT, RULE = (22, 24, 29), (236, 238, 242), (150, 156, 168), (58, 62, 72)
_MARGIN, _GAP, _LINE = 20, 12, 17
_TITLE, _HEADING, _TEXT, _SMALL = 24, 17, 14, 12
_HATCH = 6  # pixels from one stripe of void to the next

Legend = Sequence[tuple[str, tuple[int, int, int]]]


@dataclass(frozen=True)
class Tile:
    """One picture of a grid with the lines below it; lines that are too long lose their middle."""

    image: NDArray[np.uint8]
    caption: tuple[str, ...] = ()


def overlay(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    *,
    colors: NDArray[np.uint8] | None = None,
    alpha: float = 0.4,
    outline: int = 1,
) -> NDArray[np.uint8]:
    """Tint an image by its labels and draw their outlines; background stays as it is, void is hatched grey.

    Args:
        image: uint8 [H, W, 3].
        mask: uint8 [H, W], label ids (or class ids with `colors` of their own; 0 and 255 keep their meaning).
        colors: uint8 [256, 3], a colour per id; None: those of the labels.
        alpha: strength of the tint, 0..1.
        outline: thickness in pixels; 0: none.

    Returns:
        uint8 [H, W, 3], a new array.
    """
    if image.shape[:2] != mask.shape or image.shape[2:] != (3,):
        raise ValueError(f"image {list(image.shape)} and mask {list(mask.shape)} differ in size")
    tint = overlay_layer(mask, colors=colors, alpha=alpha, outline=outline)
    strength = tint[..., 3:].astype(np.uint16)
    mixed = (image * (255 - strength) + tint[..., :3] * strength + 127) // 255
    return mixed.astype(np.uint8)


def overlay_layer(
    mask: NDArray[np.uint8], *, colors: NDArray[np.uint8] | None = None, alpha: float = 0.4, outline: int = 1
) -> NDArray[np.uint8]:
    """What `overlay` puts over an image, as uint8 [H, W, 4]: RGB and opacity."""
    table = color_table() if colors is None else colors
    layer = np.dstack([table[mask], np.zeros_like(mask)])
    drawn, void = mask != Label.BACKGROUND, mask == Label.VOID
    layer[..., 3] = np.where(drawn, round(255 * alpha), 0)
    if void.any():
        rows, columns = np.nonzero(void)
        layer[rows, columns, 3] = np.where((rows + columns) % _HATCH < _HATCH // 2, 200, 90)
    if outline:
        border = _borders(mask, outline)
        layer[border & drawn, 3] = 255
        # A dark rim outside keeps a line visible on a background of its own colour.
        rim = border & ~drawn
        layer[rim, :3], layer[rim, 3] = 0, 140
    return layer


def _borders(mask: NDArray[np.uint8], thickness: int) -> NDArray[np.bool_]:
    """Pixels within `thickness` of a pixel of another id; the picture's edge is no border."""
    border = np.zeros(mask.shape, dtype=bool)
    across, down = mask[:, 1:] != mask[:, :-1], mask[1:] != mask[:-1]
    border[:, 1:] |= across
    border[:, :-1] |= across
    border[1:] |= down
    border[:-1] |= down
    for _ in range(thickness - 1):
        grown = border.copy()
        grown[:, 1:] |= border[:, :-1]
        grown[:, :-1] |= border[:, 1:]
        grown[1:] |= border[:-1]
        grown[:-1] |= border[1:]
        border = grown
    return border


def decode_image(data: bytes, box: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Decode image bytes; with `box` (width, height) shrink to fit into it, never enlarge.

    Returns:
        uint8 [H, W, 3].
    """
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        if box is None:
            return np.asarray(image.convert("RGB"))
        size = fitted(image.size, box)
        image.draft("RGB", size)  # lets the JPEG decoder skip detail that would be shrunk away
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS))


def resize_mask(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A label map at (width, height), nearest neighbour."""
    from PIL import Image

    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def fitted(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """The largest (width, height) of this aspect that fits into a box and is not larger than `size`."""
    scale = min(1.0, box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def grid(
    rows: Sequence[str | Sequence[Tile]],
    *,
    box: tuple[int, int],
    title: str = "",
    subtitle: str = "",
    columns: Sequence[str] = (),
    legend: Legend = (),
) -> NDArray[np.uint8]:
    """Lay out tiles in rows.

    Args:
        rows: a text is a heading; a list of tiles is one row of pictures.
        box: (width, height) of the place for one picture; larger pictures are shrunk, and a row is as high as its
            highest one.
        title, subtitle: at the top.
        columns: headings of the columns, such as image, truth, prediction.
        legend: names and colours.

    Returns:
        uint8 [H, W, 3].
    """
    from PIL import Image, ImageDraw

    widest = max([len(row) for row in rows if not isinstance(row, str)] + [len(columns), 1])
    width = 2 * _MARGIN + widest * box[0] + (widest - 1) * _GAP
    top = _Header(title, subtitle, legend, width)
    heights = [_row_height(row, box) for row in rows]
    column_titles = _LINE + 6 if columns else 0
    canvas = Image.new("RGB", (width, top.height + column_titles + sum(heights) + _MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    top.draw(draw)
    y = top.height
    for number, name in enumerate(columns):
        draw.text((_MARGIN + number * (box[0] + _GAP), y), name, INK, _font(_TEXT))
    y += column_titles
    for row, height in zip(rows, heights, strict=True):
        if isinstance(row, str):
            draw.line((_MARGIN, y + 6, width - _MARGIN, y + 6), RULE)
            draw.text((_MARGIN, y + 14), _elided(row, width - 2 * _MARGIN, _HEADING), INK, _font(_HEADING))
        else:
            place = (box[0], _picture_height(row, box))
            for number, tile in enumerate(row):
                _draw_tile(canvas, draw, tile, (_MARGIN + number * (box[0] + _GAP), y), place)
        y += height
    return np.asarray(canvas)


def legend_of(labels: Iterable[Label]) -> Legend:
    """Names and colours of labels for `grid`; background, which is not drawn, is left out."""
    return [(label.label_name, COLORS[label]) for label in labels if label is not Label.BACKGROUND]


def save_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3] as PNG, which appears when complete; folders are made.

    Raises:
        HodataError: the file cannot be written.
    """
    from PIL import Image

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            Image.fromarray(image).save(temporary, format="PNG", optimize=True)
    except OSError as error:
        raise HodataError(f"{path}: cannot be written ({error.strerror or error})") from error


class _Header:
    """Title, subtitle and legend: measured first, because the picture's height depends on it."""

    def __init__(self, title: str, subtitle: str, legend: Legend, width: int) -> None:
        self._texts: list[tuple[tuple[int, int], str, int, tuple[int, int, int]]] = []
        self._chips: list[tuple[tuple[int, int, int, int], str, tuple[int, int, int]]] = []
        room = width - 2 * _MARGIN
        y = _MARGIN
        for text, size, color in ((title, _TITLE, INK), (subtitle, _TEXT, FAINT)):
            if text:
                self._texts.append(((_MARGIN, y), _elided(text, room, size), size, color))
                y += round(1.6 * size)
        x = _MARGIN
        for name, color in legend:
            wide = 22 + round(_font(_TEXT).getlength(name)) + 20
            if x > _MARGIN and x + wide > width - _MARGIN:
                x, y = _MARGIN, y + 24
            self._chips.append(((x, y + 2, x + 14, y + 16), name, color))
            x += wide
        self.height = y + (34 if legend else 8)

    def draw(self, draw: ImageDraw.ImageDraw) -> None:
        for place, text, size, color in self._texts:
            draw.text(place, text, color, _font(size))
        for area, name, color in self._chips:
            draw.rounded_rectangle(area, 3, color)
            if name == Label.VOID.label_name:
                for shift in (0, 6):
                    draw.line((area[0] + shift, area[3] - 2, area[0] + shift + 8, area[1] + 2), PAPER, 2)
            draw.text((area[2] + 7, area[1] - 1), name, INK, _font(_TEXT))


def _row_height(row: str | Sequence[Tile], box: tuple[int, int]) -> int:
    if isinstance(row, str):
        return 46
    lines = max((len(tile.caption) for tile in row), default=0)
    return _picture_height(row, box) + lines * _LINE + (20 if lines else _GAP)


def _picture_height(row: Sequence[Tile], box: tuple[int, int]) -> int:
    return max((fitted((tile.image.shape[1], tile.image.shape[0]), box)[1] for tile in row), default=0)


def _draw_tile(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, place: tuple[int, int], box: tuple[int, int]
) -> None:
    from PIL import Image

    picture = Image.fromarray(tile.image)
    size = fitted(picture.size, box)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    x, y = place
    draw.rectangle((x, y, x + box[0] - 1, y + box[1] - 1), (30, 33, 39))
    canvas.paste(picture, (x + (box[0] - size[0]) // 2, y + (box[1] - size[1]) // 2))
    for number, line in enumerate(tile.caption):
        color = INK if number == 0 else FAINT
        text = _elided(line, box[0], _SMALL)
        draw.text((x, y + box[1] + 5 + number * _LINE), text, color, _font(_SMALL))


def _elided(text: str, width: float, size: int) -> str:
    """`text`, or its two ends with dots between if it is wider than `width` pixels. Unprintable characters go."""
    text = "".join(character if character.isprintable() else "?" for character in text)[:1000]
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
        if font.getlength(short) <= width:
            return short
    return "..."


_fonts: dict[int, ImageFont.FreeTypeFont | ImageFont.ImageFont] = {}


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    if size not in _fonts:
        _fonts[size] = ImageFont.load_default(size)
    return _fonts[size]
