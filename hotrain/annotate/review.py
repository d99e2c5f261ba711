"""A page on which a person looks at the frames of an annotation, the doubtful ones first, and judges them.

One HTML file with all pictures in it: it works opened from disk, and served it saves by itself (`serve.py`). Frame
names are anybody's words: they enter the page as JSON and leave it as text, never as markup.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.labels import COLORS, TASKS, Label, Task
from hodata.report.draw import fitted, overlay_layer, resize_mask
from hodata.report.html import head, jpeg, png, resource
from hotrain.annotate.files import write_atomic
from hotrain.annotate.pipeline import finished_rows, frame_of
from hotrain.annotate.pixels import frame_pixels
from hotrain.annotate.rle import paint
from hotrain.annotate.state import VERDICTS, State, current_records, put_verdicts_aside
from hotrain.errors import AnnotateError, FrameError

PAGE = "review.html"
REVIEW_VERSION = 1
CHOICES = ("accept", "reject", "again")
_BOX = (640, 480)
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Reviewed:
    """A checked review.json: the model whose annotation was judged, and frame -> one of `CHOICES`."""

    model: str
    frames: Mapping[str, str]


def write_page(out: Path, limit: int = 300, say: Callable[[str], object] = lambda _: None) -> Path:
    """Write OUT/review.html.

    Args:
        out: a finished annotation.
        limit: at most so many frames, those of the lowest quality first.
        say: is told of images that changed since, and where verdicts on other masks were put.

    Raises:
        AnnotateError: there is no finished annotation.
    """
    state = State(out)
    plan = state.plan()
    if plan is None or not (out / "frames.jsonl").is_file():
        raise AnnotateError(f"{out}: holds no finished annotation; give the --out folder of `hotrain annotate`")
    task = TASKS[plan["task"]]
    records = current_records(out)
    rows = finished_rows(records, task)
    order = sorted((i for i, row in enumerate(rows) if row["status"] == "ok"), key=lambda i: (rows[i]["quality"], i))
    chosen = order[:limit]
    pictures = _pictures([records[i] for i in sorted(chosen)], task, plan["exif"], say)
    entries = [{**_entry(rows[i]), **pictures[rows[i]["frame"]]} for i in chosen if rows[i]["frame"] in pictures]
    data = {
        "version": REVIEW_VERSION,
        "model": plan["model"],
        "total": len(order),
        "frames": entries,
        "verdicts": _standing_verdicts(out, plan["model"], {row["frame"] for row in rows}, say),
    }
    write_atomic(out / PAGE, _html(data, out.resolve().name, task).encode())
    return out / PAGE


def parse_review(data: bytes, where: str) -> Reviewed:
    """Check a review.json from anywhere.

    Raises:
        AnnotateError: too large, no JSON, or of another shape.
    """
    if len(data) > _MAX_BYTES:
        raise AnnotateError(f"{where}: is larger than {_MAX_BYTES:,} bytes; this is no review")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AnnotateError(f"{where}: is no JSON ({error})") from error
    if not isinstance(found, dict) or found.get("version") != REVIEW_VERSION:
        raise AnnotateError(f"{where}: is no review of version {REVIEW_VERSION}; save it from the page again")
    frames, model = found.get("frames"), found.get("model")
    if not isinstance(model, str) or not isinstance(frames, dict):
        raise AnnotateError(f"{where}: lacks `model` or `frames`; save it from the page again")
    for name, verdict in frames.items():
        if verdict not in CHOICES:
            raise AnnotateError(f"{where}: {name!r} is {verdict!r}; a verdict is {', '.join(CHOICES)}")
    return Reviewed(model, frames)


def read_review(path: Path) -> Reviewed:
    """See `parse_review`."""
    try:
        with path.open("rb") as file:
            return parse_review(file.read(_MAX_BYTES + 1), str(path))
    except OSError as error:
        raise AnnotateError(f"{path}: cannot be read ({error.strerror or error})") from error


def review_text(review: Reviewed) -> bytes:
    """What `parse_review` reads."""
    content = {"version": REVIEW_VERSION, "model": review.model, "frames": dict(review.frames)}
    return (json.dumps(content, indent=1) + "\n").encode()


def _standing_verdicts(out: Path, model: str, known: Collection[str], say: Callable[[str], object]) -> dict[str, str]:
    """The verdicts in OUT/review.json that are of this model's masks. If others are among them, the file is put aside
    and written anew: the page sends all that it was given under the model that it shows."""
    path = out / VERDICTS
    if not path.is_file():
        return {}
    before = read_review(path)
    standing = {name: verdict for name, verdict in before.frames.items() if before.model == model and name in known}
    if standing != dict(before.frames):
        aside = put_verdicts_aside(out)
        say(f"verdicts on masks that are no more: {len(before.frames) - len(standing)}, kept in {aside}")
        write_atomic(path, review_text(Reviewed(model, standing)))
    return standing


def _entry(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of a frame."""
    kinds = {kind: row[kind] for kind in ("hand", "object") if kind in row}
    figures = [f"quality {row['quality']:.3f}", f"{row['width']}x{row['height']}"]
    for kind, found in kinds.items():
        figures.append(
            f"{kind} {found['area']:,} px, components {found['components']}, confidence {found['confidence_mean']:.3f} "
            f"(5 % under {found['confidence_p05']:.3f})"
        )
    shares = ("iou_previous", "iou_next", "flip_disagreement")
    figures += [f"{name.replace('_', ' ')} {row[name]:.3f}" for name in shares if row.get(name) is not None]
    return {"name": row["frame"], "camera": row["recording"], "flags": row["flags"], "figures": figures}


def _pictures(
    records: Sequence[Mapping[str, Any]], task: Task, exif: str, say: Callable[[str], object]
) -> dict[str, dict[str, str]]:
    """Frame -> data URIs of its picture and of its mask; frames whose image is gone are left out, and those
    whose image changed since are hatched."""
    found = {}
    for record, image in zip(records, _images(records, exif), strict=True):
        if isinstance(image, FrameError):
            continue
        try:
            mask = paint(record["rle"], task, image.shape[:2])
        except FrameError as error:
            say(f"{record['row']['frame']}: {error} (hatched on the page)")
            mask = np.full(image.shape[:2], Label.VOID, dtype=np.uint8)
        size = fitted((image.shape[1], image.shape[0]), _BOX)
        layer = overlay_layer(resize_mask(mask, size), alpha=0.45)
        found[record["row"]["frame"]] = {"image": jpeg(_shrunk(image, size)), "mask": png(layer)}
    return found


def _images(records: Sequence[Mapping[str, Any]], exif: str) -> Iterator[NDArray[np.uint8] | FrameError]:
    return frame_pixels([frame_of(record) for record in records], exif)


def _html(data: Mapping[str, Any], title: str, task: Task) -> str:
    script, style, template = (resource(name, __package__) for name in ("review.js", "review.css", "review.html"))
    facts = json.dumps(data).replace("<", "\\u003c")
    legend = "".join(
        f'<span><i style="background:rgb{COLORS[label]}"></i>{escape(name)}</span>'
        for name, label in list(zip(task.public_classes, task.labels, strict=False))[1:]
    )
    values = {
        "TITLE": escape(title),
        "LEGEND": legend,
        "DATA": facts,
        "SCRIPT": script,
    }
    parts = template.split("@@")  # text, NAME, text, NAME, ...
    body = "".join(values[part] if number % 2 else part for number, part in enumerate(parts))
    return head(f"Review: {title}", style, script, connects=True) + body


def _shrunk(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
