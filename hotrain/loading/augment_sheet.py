"""`hotrain fit --preview-augment`: some samples as stored, and as a run would see them, epoch by epoch.

Every crop is the one that the network gets at that position of the run, before normalisation: same numbers, same
donors, same colours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from hodata.labels import TASKS, color_table
from hotrain.columns import coded
from hotrain.config import SHARES, FitConfig
from hotrain.learning.augment import ColorRule, jitter_colors
from hotrain.learning.selection import Selection, select
from hotrain.loading.composite import COMPOSITE, CompositeRule
from hotrain.loading.data import CropData, decode_image, read_mask
from hotrain.loading.degrade import DegradeRule, draw_faults
from hotrain.loading.training_data import training_data
from hotrain.order import uniforms
from hotrain.pictures import draw_legend, label_legend, nearest, overlay
from hotrain.sheets import spread_rows

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

Crop = tuple[NDArray[np.uint8], NDArray[np.uint8], str]  # image [S, S, 3], label [S, S], caption

_ROWS, _EPOCHS = 8, 5
_SIDE, _GAP, _LINE, _HEAD = 224, 6, 17, 46  # pixels: of a panel, between panels, of a caption, of the title
_TINT = 0.15  # colours of labels; their outlines are full


def augment_sheet(config: FitConfig) -> Image:
    """Draw a sheet: a row for each of 8 samples spread over the sources, first as stored, then in its first 5 epochs.

    Raises:
        HodataError: the run could not start with these options.
    """
    from PIL import Image, ImageDraw, ImageFont

    selection = select(config, TASKS[config.task])
    data = training_data(config, selection)
    rows = spread_rows(selection.index, selection.train_rows, _ROWS)
    cells = [[_stored(selection, row), *_seen(selection, data, config, row)] for row in rows]
    wide, high = _SIDE + _GAP, _SIDE + _LINE + _GAP
    sheet = Image.new("RGB", (wide * (1 + _EPOCHS) + _GAP, _HEAD + high * len(cells) + 22), (255, 255, 255))
    draw, small = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    draw.text((_GAP, 6), _title(config), (30, 30, 30), ImageFont.load_default(14))
    for column in range(1 + _EPOCHS):
        heading = "as stored, whole" if column == 0 else f"epoch {column - 1} of its source"
        draw.text((_GAP + wide * column, 28), heading, (110, 110, 110), small)
    for line, cell in enumerate(cells):
        for column, (image, label, caption) in enumerate(cell):
            x, y = _GAP + wide * column, _HEAD + high * line
            sheet.paste(_panel(image, label), (x, y))
            draw.text((x, y + _SIDE + 2), _fitting(caption, draw, small), (30, 30, 30), small)
    legend = label_legend([label for cell in cells for _, label, _ in cell])
    draw_legend(draw, (_GAP, _HEAD + high * len(cells) + 3), legend)
    return sheet


def _stored(selection: Selection, row: int) -> Crop:
    index, reader = selection.index, selection.index.reader()
    kinds, kind = coded(index, "image_kind")
    key = str(index.arrow("key")[row].as_py())
    return decode_image(reader.image(row), kinds[kind[row]], key), read_mask(reader, row, key), key


def _seen(selection: Selection, data: CropData, config: FitConfig, row: int) -> list[Crop]:
    """The crops of a row in the first epochs of its source."""
    source, sample = _place(selection, data, row)
    positions = np.array([data.order.when(source, sample, epoch) for epoch in range(_EPOCHS)])
    batch = data[positions]
    colors = ColorRule.of_strength(config.jitter)
    images = jitter_colors(batch["image"], config.seed, torch.from_numpy(positions), colors)
    crops = []
    composite = CompositeRule(config.background, config.paste)
    rule = DegradeRule(config.blur, config.noise, config.jpeg)
    pixels, cut = (np.empty((config.crop, config.crop, depth), np.uint8) for depth in (3, 1))
    for position, image, label in zip(positions.tolist(), images, batch["label"].numpy(), strict=True):
        data.write_crop(row, position, pixels, cut[..., 0])
        kind = composite.kind(float(uniforms(config.seed, position, COMPOSITE, 1)[0]))
        what = [kind] if kind and not np.array_equal(label, cut[..., 0]) else []
        what += [str(draw_faults(config.seed, position, rule, config.crop))]
        caption = f"{position:,}: " + ", ".join(word for word in what if word)
        crops.append((image.permute(1, 2, 0).numpy(), label, caption.rstrip(": ")))
    return crops


def _place(selection: Selection, data: CropData, row: int) -> tuple[int, int]:
    """Number of a row's source in the order, and of the row among its source's."""
    for number, name in enumerate(data.order.sources):
        found = np.flatnonzero(selection.rows[name] == row)
        if len(found):
            return number, int(found[0])
    raise ValueError(f"row {row} is no training sample")


def _panel(image: NDArray[np.uint8], label: NDArray[np.uint8]) -> Image:
    """An image under its labels, as large as fits into a square of `_SIDE`."""
    from PIL import Image

    height, width = label.shape
    scale = _SIDE / max(width, height)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    return Image.fromarray(overlay(small, nearest(label, *size), color_table(), _TINT, 1.0))


def _fitting(text: str, draw: ImageDraw, font: object) -> str:
    """The end of a text where all of it is wider than a panel."""
    cut = text
    while draw.textlength(cut, font) > _SIDE and len(cut) > 2:  # type: ignore[arg-type]
        cut = "…" + cut[2:]
    return cut


def _title(config: FitConfig) -> str:
    shares = {name: getattr(config, name) for name in ("aim", "even", *SHARES)}
    on = [f"zoom and colours {config.jitter:g}", *(["flip"] if config.flip else [])]
    on += [f"{name} {share:g}" for name, share in shares.items() if share]
    off = [*([] if config.flip else ["flip"]), *(name for name, share in shares.items() if not share)]
    title = f"What a run sees, seed {config.seed}, crop {config.crop}.   On: {', '.join(on)}."
    return title + (f"   Off: {', '.join(off)}." if off else "")
