"""One HTML file that shows what is in a set of shards: tables, thumbnails, masks on hover or key press, filters.

What it shares with other pages is in `html.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hodata.errors import HodataError
from hodata.files import replacing
from hodata.labels import Label
from hodata.report.draw import decode_image, overlay_layer, resize_mask
from hodata.report.html import chip, head, jpeg, png, resource, table
from hodata.report.pick import spread_rows
from hodata.report.tables import inspect_summary, label_shares, size_text, sizes_text
from hodata.splits import SPLITS

if TYPE_CHECKING:
    from hodata.shards.reader import SampleReader, ShardIndex


def html_page(
    index: ShardIndex,
    path: Path,
    *,
    rows: NDArray[np.int64] | None = None,
    limit: int = 200,
    width: int = 320,
    title: str = "Shards",
) -> NDArray[np.int64]:
    """Write one self-contained page: tables, then samples that show their mask on hover, focus or the key `o`.

    Args:
        index: the shards.
        path: the HTML file; it appears when complete.
        rows: int64 [N], rows to choose from; None: all.
        limit: at most so many samples, spread over sources, splits and groups.
        width: of a thumbnail, in pixels; a sample takes some 20 kB at 320.

    Returns:
        int64 [<= limit]: the rows shown.

    Raises:
        ShardError: a shown sample is damaged.
        HodataError: the file cannot be written.
    """
    shown = spread_rows(index, limit, rows)
    total = len(index) if rows is None else len(rows)
    summary, reader = inspect_summary(index, rows), index.reader()
    script = resource("page.js")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(head(title, resource("page.css"), script))
            file.write(f"<header><h1>{escape(title)}</h1>{_lead(summary)}</header>\n<main>\n")
            file.write(_tables(summary))
            file.write(_controls(index, shown, total))
            file.write('<section id="samples" aria-label="Samples">\n')
            for row, fact in zip(shown.tolist(), index.table.take(shown).to_pylist(), strict=True):
                file.write(_figure(reader, row, fact, width))
            file.write(f"</section>\n</main>\n<script>{script}</script>\n</html>\n")
    except OSError as error:
        raise HodataError(f"{path}: cannot be written ({error.strerror or error})") from error
    return shown


def _lead(summary: Mapping[str, Any]) -> str:
    return (
        f"<p>{summary['samples']:,} samples in {summary['groups']:,} groups, {summary['shards']:,} shards, "
        f"{size_text(summary['bytes'])}</p>"
    )


def _tables(summary: Mapping[str, Any]) -> str:
    sources: Mapping[str, Any] = summary["sources"]
    splits = [split for split in SPLITS if split in summary["splits"]]
    overview = [
        (
            name,
            f"{source['samples']:,}",
            f"{source['groups']:,}",
            *(_split_text(source["splits"].get(split)) for split in splits),
            size_text(source["bytes"]),
            f"{', '.join(source['image_kinds'])} {sizes_text(source['image_sizes'])}",
            ", ".join(source["meanings"]),
            ", ".join(source["mask_origins"]),
        )
        for name, source in sources.items()
    ]
    heads = ("source", "samples", "groups", *splits, "size", "images", "meaning", "mask origin")
    shares = [
        (label, *(_share_text(*label_shares(source, label)) for source in sources.values()))
        for label in summary["labels"]
    ]
    meanings = list(summary["meanings"].items())
    return (
        table("Sources", "samples (groups) of each split", heads, overview)
        + table("Labels", "share of pixels, share of samples that show it", ("label", *sources), shares, chips=True)
        + table("Meanings", "what the ids of a mask may truly be", ("meaning", "in words"), meanings)
    )


def _controls(index: ShardIndex, shown: NDArray[np.int64], total: int) -> str:
    labels = [label for label in Label if (index.column(f"pixels_{label.label_name}")[shown] > 0).any()]
    note = f"{len(shown):,} of {total:,} samples are on this page"
    if len(shown) < total:
        note += ", spread over sources, splits and groups"
    splits = [split for split in SPLITS if split in set(index.column("split")[shown])]
    return (
        '<form id="filters" aria-label="Filters">'
        + _select("source", sorted(set(index.column("source")[shown])))
        + _select("split", splits)
        + _select("label", [label.label_name for label in labels if label is not Label.BACKGROUND])
        + '<button type="button" id="masks" aria-pressed="false">Masks <kbd>o</kbd></button>'
        + '<output id="count" role="status"></output></form>\n'
        + f'<p class="note">{escape(note)}. Point at a picture to see its mask; <kbd>o</kbd> or <kbd>space</kbd> '
        + "shows or hides all.</p>\n"
        + '<p class="legend">'
        + "".join(
            f"<span>{chip(label.label_name)}{label.label_name}</span>"
            for label in labels
            if label is not Label.BACKGROUND
        )
        + "</p>\n"
    )


def _select(name: str, choices: Sequence[str]) -> str:
    options = "".join(f'<option value="{escape(choice)}">{escape(choice)}</option>' for choice in choices)
    return f'<label>{name} <select name="{name}"><option value="">all</option>{options}</select></label>'


def _figure(reader: SampleReader, row: int, fact: Mapping[str, Any], width: int) -> str:
    image = decode_image(reader.image(row), (width, 2 * width))
    height, wide = image.shape[:2]
    mask = resize_mask(reader.mask(row), (wide, height))
    counts = {label: fact[f"pixels_{label.label_name}"] for label in Label if label is not Label.BACKGROUND}
    shares = {label: count / (fact["width"] * fact["height"]) for label, count in counts.items() if count}
    words = ", ".join(f"{label.label_name} {100 * share:.1f} %" for label, share in shares.items()) or "no label"
    labels = " ".join(label.label_name for label in shares)
    data = {"source": fact["source"], "split": fact["split"], "labels": labels}
    attributes = " ".join(f'data-{name}="{escape(value)}"' for name, value in data.items())
    size = f'width="{wide}" height="{height}"'
    return (
        f'<figure tabindex="0" {attributes}><div class="picture">'
        f'<img src="{jpeg(image)}" {size} alt="{escape(fact["key"])}: {escape(words)}" loading="lazy">'
        f'<img class="mask" src="{png(overlay_layer(mask))}" {size} alt="" loading="lazy"></div>'
        f"<figcaption><b>{escape(fact['key'])}</b><span>{escape(fact['split'])} · {escape(fact['group'])}</span>"
        f"<span>{''.join(chip(label.label_name) for label in shares)}{escape(words)}</span></figcaption></figure>\n"
    )


def _split_text(counts: Mapping[str, int] | None) -> str:
    return f"{counts['samples']:,} ({counts['groups']:,})" if counts else "-"


def _share_text(share: float, presence: float) -> str:
    return f"{100 * share:.2f} %, {100 * presence:.0f} %" if presence else "-"
