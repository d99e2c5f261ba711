"""Counts of a set of shards, from the index alone: nothing is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hodata.labels import LABELS
from hodata.splits import SPLITS

if TYPE_CHECKING:
    from rich.table import Table

    from hodata.shards.reader import ShardIndex

_SIZES_SHOWN = 3


def inspect_summary(index: ShardIndex, rows: NDArray[np.int64] | None = None) -> dict[str, Any]:
    """Counts of everything in an index, ready for JSON.

    Args:
        index: the shards.
        rows: int64 [N], the rows to count; None: all.

    Returns:
        {samples, shards, bytes, groups,
         sources: {name: {samples, groups, shards, bytes, complete, title, licence, left_out,
                          splits, subsets, image_sizes, image_kinds, meanings, mask_origins, views, labels}},
         splits: {name: {samples, groups}}, labels: {name: {pixels, samples}},
         meanings: {name: description}}.
        `labels` holds pixel counts and in how many samples a label occurs; labels that never occur are not listed.
        `shards` and `bytes` are those of the tars that hold any of the rows.
        Counters inside a source are {value: samples}, most frequent first.
    """
    rows = np.arange(len(index)) if rows is None else rows
    columns = {name: index.column(name)[rows] for name in _TEXTS}
    columns["shard_number"] = index.shard_number[rows]
    sizes = zip(index.column("width")[rows], index.column("height")[rows], strict=True)
    columns["size"] = np.array([f"{width}x{height}" for width, height in sizes], dtype=object)
    pixels = np.stack([index.column(f"pixels_{label.label_name}")[rows] for label in LABELS], axis=1).astype(np.int64)
    everything = np.ones(len(rows), dtype=bool)
    manifests = index.manifests
    tars = np.unique(columns["shard_number"]).tolist()
    return {
        "samples": len(rows),
        "shards": len(tars),
        "bytes": sum(index.tars[number].bytes for number in tars),
        "groups": len(set(columns["group"])),
        "sources": {
            name: _source(index, columns, pixels, columns["source"] == name, manifests.get(name, {}))
            for name in sorted(set(columns["source"]))
        },
        "splits": _splits(columns, everything),
        "labels": _labels(pixels),
        "meanings": {name: index.meanings[name].description for name in sorted(set(columns["meaning"]))},
    }


_TEXTS = ("source", "split", "subset", "group", "image_kind", "meaning", "mask_origin", "view")


def _source(
    index: ShardIndex,
    columns: Mapping[str, NDArray[Any]],
    pixels: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    manifest: Mapping[str, Any],
) -> dict[str, Any]:
    tars = set(columns["shard_number"][chosen].tolist())
    source = str(columns["source"][chosen][0])
    dataset = manifest.get("dataset", {})
    return {
        "samples": int(chosen.sum()),
        "groups": len(set(columns["group"][chosen])),
        "shards": len(tars),
        "bytes": sum(index.tars[number].bytes for number in tars),
        "complete": bool(manifest) or source in index.foreign,
        "title": str(dataset.get("title", "")),
        "licence": str(dataset.get("licence", "")),
        "left_out": len(manifest.get("left_out", ())) + index.left_out.get(source, 0),
        "splits": _splits(columns, chosen),
        "subsets": _counted(columns["subset"][chosen]),
        "image_sizes": _counted(columns["size"][chosen]),
        "image_kinds": _counted(columns["image_kind"][chosen]),
        "meanings": _counted(columns["meaning"][chosen]),
        "mask_origins": _counted(columns["mask_origin"][chosen]),
        "views": _counted(columns["view"][chosen]),
        "labels": _labels(pixels[chosen]),
    }


def _splits(columns: Mapping[str, NDArray[Any]], chosen: NDArray[np.bool_]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        rows = chosen & (columns["split"] == split)
        if rows.any():
            found[split] = {"samples": int(rows.sum()), "groups": len(set(columns["group"][rows]))}
    return found


def _labels(pixels: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    return {
        label.label_name: {"pixels": int(column.sum()), "samples": int(np.count_nonzero(column))}
        for label, column in zip(LABELS, pixels.T, strict=True)
        if column.any()
    }


def _counted(values: NDArray[Any]) -> dict[str, int]:
    names, counts = np.unique(values.astype(str), return_counts=True)
    order = np.lexsort((names, -counts))
    return {str(names[i]): int(counts[i]) for i in order}


def inspect_tables(summary: Mapping[str, Any]) -> list[Table]:
    """The summary as tables for a terminal (rich renderables): sources, splits, labels, meanings."""
    return [_sources_table(summary), _splits_table(summary), _labels_table(summary), _meanings_table(summary)]


def _sources_table(summary: Mapping[str, Any]) -> Table:
    table = _table("Sources", "source", ("samples", "groups", "shards", "size"), ("images", "left out"))
    for name, source in summary["sources"].items():
        table.add_row(
            plain(name) + ("" if source["complete"] else " (not complete)"),
            *_numbers(source["samples"], source["groups"], source["shards"]),
            size_text(source["bytes"]),
            f"{', '.join(source['image_kinds'])} {sizes_text(source['image_sizes'])}",
            f"{source['left_out']:,}" if source["left_out"] else "",
        )
    if len(summary["sources"]) > 1:
        table.add_section()
        totals = _numbers(summary["samples"], summary["groups"], summary["shards"])
        table.add_row("all", *totals, size_text(summary["bytes"]), "", "")
    return table


def _splits_table(summary: Mapping[str, Any]) -> Table:
    splits = [split for split in SPLITS if split in summary["splits"]]
    table = _table("Samples (groups) of each split", "source", splits, ())
    rows = {**summary["sources"], "all": summary} if len(summary["sources"]) > 1 else summary["sources"]
    for name, source in rows.items():
        if source is summary:
            table.add_section()
        cells = (source["splits"].get(split) for split in splits)
        table.add_row(plain(name), *(f"{cell['samples']:,} ({cell['groups']:,})" if cell else "-" for cell in cells))
    return table


def _labels_table(summary: Mapping[str, Any]) -> Table:
    sources = summary["sources"]
    table = _table("Labels: share of pixels, of samples", "label", list(sources), ())
    for label in summary["labels"]:
        table.add_row(label, *(_share_text(source, label) for source in sources.values()))
    return table


def _meanings_table(summary: Mapping[str, Any]) -> Table:
    table = _table("What the masks mean", "source", (), ("mask origin", "meaning", "in words"))
    for name, source in summary["sources"].items():
        for meaning in source["meanings"]:
            description = summary["meanings"].get(meaning, "")
            origins = ", ".join(source["mask_origins"])
            table.add_row(plain(name), plain(origins), plain(meaning), plain(description))
    return table


def label_shares(source: Mapping[str, Any], label: str) -> tuple[float, float]:
    """Of a source of `inspect_summary`: the label's share of all pixels, and of the samples that show it, in 0..1."""
    counts = source["labels"].get(label)
    if counts is None:
        return 0.0, 0.0
    total = sum(item["pixels"] for item in source["labels"].values())
    return counts["pixels"] / total, counts["samples"] / source["samples"]


def size_text(size: int) -> str:
    """`12.3 MB`; 1 MB is 1,000,000 bytes."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size / 1e3:,.1f} kB"


def sizes_text(sizes: Mapping[str, int]) -> str:
    """The most frequent image sizes."""
    listed = ", ".join(list(sizes)[:_SIZES_SHOWN])
    return listed if len(sizes) <= _SIZES_SHOWN else f"{listed} and {len(sizes) - _SIZES_SHOWN} more"


def plain(text: str) -> str:
    """Names come out of files that anybody can make: nothing in them moves a cursor or sets a colour."""
    from rich.markup import escape

    return escape("".join(character if character.isprintable() else "�" for character in text))


def _share_text(source: Mapping[str, Any], label: str) -> str:
    share, presence = label_shares(source, label)
    return f"{100 * share:.2f} %  {100 * presence:3.0f} %" if presence else "-"


def _numbers(*values: int) -> list[str]:
    return [f"{value:,}" for value in values]


def _table(title: str, first: str, right: Iterable[str], left: Iterable[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in right:
        table.add_column(plain(name), justify="right", no_wrap=True)
    for name in left:
        table.add_column(name)
    return table
