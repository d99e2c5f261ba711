"""Masks that any program wrote, read as answers: one PNG per sample, and a word on what their values mean."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hodata.labels import LABELS, Label, Task, label_from_name
from hotrain.errors import PredictionError

if TYPE_CHECKING:
    from hodata.shards.reader import ShardIndex

LEGEND = "legend.json"
ANNOTATED = "png"  # where `hotrain annotate --format png` puts masks and legend
_UNKNOWN = 255
_LISTED = 5  # names in a message
_LARGEST_LEGEND = 1_000_000  # bytes


@dataclass(frozen=True)
class Matched:
    """Which file belongs to which sample.

    Args:
        files: row -> file.
        missing: keys of the samples without one.
        extra: files that belong to no sample.
    """

    files: Mapping[int, Path]
    missing: list[str]
    extra: list[Path]


class MaskFolder:
    """Answers by row (`evaluate.RowPredictor`).

    Args:
        files: row -> PNG.
        table: uint8 [256], value -> class; 255 where nothing says which.
        sizes: row -> (width, height).
    """

    def __init__(
        self, files: Mapping[int, Path], table: NDArray[np.uint8], sizes: Mapping[int, tuple[int, int]]
    ) -> None:
        self._files, self._table, self._sizes = files, table, sizes

    def answer(self, row: int) -> NDArray[np.uint8]:
        """Class ids uint8 [H, W].

        Raises:
            PredictionError: unreadable, of another size, or with a value that nothing explains.
        """
        path = self._files[row]
        values = read_values(path, self._sizes[row])
        answer = self._table[values]
        if (answer == _UNKNOWN).any():
            value = int(values[answer == _UNKNOWN][0])
            raise PredictionError(
                f"{path}: holds the value {value}, and nothing says which class of the task that is; add it to "
                f"{LEGEND} beside the masks, or name another --ids"
            )
        return answer


def open_masks(
    folder: Path, index: ShardIndex, rows: NDArray[np.int64], task: Task, ids: str | None, allow_missing: bool = False
) -> tuple[MaskFolder, Matched, str]:
    """Match a folder of masks to samples, and check every file's size before anything is scored.

    Args:
        folder: searched with its subfolders; of an --out of `hotrain annotate` its png/.
        index: the shards.
        rows: int64 [N] to answer.
        task: whose classes are wanted.
        ids: `classes`, `labels`, or a legend file; None: legend.json in the folder.
        allow_missing: whether samples without a file are no error.

    Returns:
        the predictor, what was matched, and the extent that the legend names (empty if none).

    Raises:
        PredictionError: no folder, no legend, masks missing or of another size; all are counted, some named.
    """
    if not folder.is_dir():
        raise PredictionError(f"{folder}: no such folder; --predictions takes a folder of PNG masks")
    if (folder / ANNOTATED / LEGEND).is_file() and not (folder / LEGEND).is_file():
        folder = folder / ANNOTATED
    table, extent = value_table(folder, task, ids)
    matched = match(folder, index, rows)
    if not matched.files or (matched.missing and not allow_missing):
        example = index.reader().json(int(rows[0])).get("original_file", "") if len(rows) else ""
        cure = " or give --allow-missing to score the others" if matched.files else ""
        raise PredictionError(
            f"{folder}: has no mask for {len(matched.missing)} of {len(rows)} samples ({_some(matched.missing)}); "
            f"{len(matched.extra)} of its PNGs belong to no sample ({_some(matched.extra)}). Name each by its key or "
            f"its original file ({example}) with the ending .png; a name that fits several samples is not taken{cure}"
        )
    widths, heights = index.column("width"), index.column("height")
    sizes = {row: (int(widths[row]), int(heights[row])) for row in matched.files}
    wrong = []
    for row, path in matched.files.items():
        found = _png_size(path)
        if found != sizes[row]:
            wrong.append(f"{path} is {found[0]}x{found[1]}, its image {sizes[row][0]}x{sizes[row][1]}")
    if wrong:
        raise PredictionError(
            f"{len(wrong)} masks have another size than their images: {_some(wrong, '; ')}. Resize the model's scores "
            "(not its ids) to the image, and write the masks again"
        )
    return MaskFolder(matched.files, table, sizes), matched, extent


def match(folder: Path, index: ShardIndex, rows: NDArray[np.int64]) -> Matched:
    """Find each row's file: `<key>.png`, `<key>.mask.png`, or the original file's path or any end of it, with .png.

    An end of a path counts only where a single one of the rows has it. A key, which no two samples share, may lie in
    any subfolder, as those of annotated shards do; not where two subfolders hold it.
    """
    found = {path.relative_to(folder).as_posix()[:-4]: path for path in sorted(folder.rglob("*.[pP][nN][gG]"))}
    named: dict[str, list[Path]] = {}
    for place, path in found.items():
        named.setdefault(PurePosixPath(place).name, []).append(path)
    keys = index.column("key")[rows].tolist()
    files: dict[int, Path] = {}
    for row, key in zip(rows.tolist(), keys, strict=True):
        names = (key, f"{key}.mask")
        alone = [named[name][0] for name in names if len(named.get(name, ())) == 1]
        fitting = [found[name] for name in names if name in found] or alone
        if fitting:
            files[row] = fitting[0]
    if len(files) < len(keys):
        reader = index.reader()
        ends = {row: _ends(str(reader.json(row).get("original_file", ""))) for row in rows.tolist()}
        times = Counter(end for own in ends.values() for end in own)
        for row, own in ends.items():
            name = next((end for end in own if end in found and times[end] == 1), None)
            if row not in files and name is not None:
                files[row] = found[name]
    missing = [key for row, key in zip(rows.tolist(), keys, strict=True) if row not in files]
    used = set(files.values())
    return Matched(files, missing, [path for path in found.values() if path not in used])


def value_table(folder: Path, task: Task, ids: str | None) -> tuple[NDArray[np.uint8], str]:
    """What the values of masks are: uint8 [256], class of the task or 255, and the extent that a legend names.

    Void is an answer too: background, because whoever finds nothing there says so.
    """
    table = np.full(256, _UNKNOWN, dtype=np.uint8)
    if ids == "classes":
        table[: len(task.classes)] = np.arange(len(task.classes))
        return table, ""
    if ids == "labels":
        for label in LABELS:
            table[label] = _class_of_label(label, task)
        return table, ""
    path = Path(ids) if ids is not None else folder / LEGEND
    if not path.is_file():
        classes = ", ".join(f"{c} {name}" for c, name in enumerate(task.classes))
        raise PredictionError(
            f"{path}: no such legend, so nothing says what the masks' values are; give --ids classes ({classes}), "
            f'--ids labels (hodata\'s label ids), or a {LEGEND} such as {{"0": "background", "1": "hand"}}'
        )
    names, extent = _read_legend(path)
    for value, name in names.items():
        table[value] = _class_of_name(name, task, path)
    return table, extent


def read_values(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The values of a mask uint8 [H, W]: gray levels, palette places, or 0 and 1.

    Raises:
        PredictionError: not an 8-bit PNG of one channel, damaged, or not (width, height) = `size`.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.size != size:
                raise PredictionError(f"{path}: is {image.size}, its image {size} (width, height)")
            if image.mode not in ("L", "P", "1"):
                raise PredictionError(
                    f"{path}: has colours or 16 bits (Pillow mode {image.mode}); a mask is an 8-bit grayscale or "
                    "palette PNG whose values are ids"
                )
            return np.asarray(image).astype(np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PredictionError(f"{path}: cannot be read as PNG ({error})") from error


def _png_size(path: Path) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PredictionError(f"{path}: cannot be read as PNG ({error})") from error


def _read_legend(path: Path) -> tuple[dict[int, str], str]:
    """{value: name} of `{"1": "hand"}`, or of what `hotrain annotate --format png` writes; and its extent."""
    try:
        if path.stat().st_size > _LARGEST_LEGEND:
            raise ValueError("too large")
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        pairs: Iterable[tuple[Any, Any]]
        if isinstance(data.get("labels"), list):
            pairs, extent = [(entry["id"], entry["name"]) for entry in data["labels"]], str(data.get("extent", ""))
        else:
            pairs, extent = data.items(), ""
        names = {int(value): str(name) for value, name in pairs}
        if not names or not all(0 <= value <= 255 for value in names):
            raise ValueError("values must be 0 to 255")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PredictionError(
            f'{path}: is no legend ({error}); write {{"0": "background", "1": "hand"}}: value -> class or label'
        ) from error
    return names, extent


def _class_of_name(name: str, task: Task, path: Path) -> int:
    if name in task.classes:
        return task.classes.index(name)
    try:
        found = _class_of_label(label_from_name(name), task)
    except ValueError as error:
        raise PredictionError(
            f"{path}: {name!r} is neither a class of the task {task.name} ({', '.join(task.classes)}) nor a label "
            f"({error})"
        ) from error
    if found == _UNKNOWN:
        raise PredictionError(
            f"{path}: {name!r} may be several classes of the task {task.name}; name one of {', '.join(task.classes)}"
        )
    return found


def _class_of_label(label: Label, task: Task) -> int:
    """The one class that a label is, 255 where a task leaves it open; void: background."""
    if label is Label.VOID:
        return 0
    classes = task.sets[label]
    return next(iter(classes)) if len(classes) == 1 else _UNKNOWN


def _ends(file: str) -> list[str]:
    """`a/b/c.jpg` -> `a/b/c`, `b/c`, `c`."""
    if not file:
        return []
    parts = PurePosixPath(file).with_suffix("").parts
    return ["/".join(parts[begin:]) for begin in range(len(parts))]


def _some(things: Iterable[object], joint: str = ", ") -> str:
    listed = [str(thing) for thing in things]
    more = len(listed) - _LISTED
    return joint.join(listed[:_LISTED]) + (f" and {more} more" if more > 0 else "") if listed else "none"
