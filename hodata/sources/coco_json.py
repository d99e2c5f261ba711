"""COCO instance files: read, bounded and checked, and each image's annotations gathered.

Facts: the data format page of cocodataset.org and what CVAT, Label Studio and LabelMe export. The file may come from
anybody: nothing in it is used as a path or a length before it was checked.
"""

from __future__ import annotations

import json
import mmap
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from hodata.errors import SourceError

_KEYS = (b'"images"', b'"annotations"', b'"categories"')
_OUTLINE = re.compile(rb'"segmentation"\s*:\s*(\[\s*\[|\{)')  # key point and box files leave it empty
_MAX_BYTES = 2 * 2**30  # takes some ten times as much memory while it is read
_DRIVE = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True)
class CocoImage:
    """One image of a COCO file; `annotations` are as written, with a category's name in place of its id."""

    id: int | str
    file_name: str
    width: int
    height: int
    annotations: tuple[dict[str, Any], ...]


@dataclass
class CocoFile:
    """What a COCO file says. `problems` are entries that were passed over: (what, why)."""

    images: list[CocoImage]
    categories: list[str]
    problems: list[tuple[str, str]] = field(default_factory=list)


def looks_like_coco(path: Path) -> bool:
    """Whether a JSON object names images, annotations and categories and holds an outline; does not parse it."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            starts = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
            return starts and all(content.find(key) >= 0 for key in _KEYS) and bool(_OUTLINE.search(content))
    except (OSError, ValueError):  # unreadable, or empty, which cannot be mapped
        return False


def read_coco(path: Path) -> CocoFile:
    """Read a COCO instance file.

    Raises:
        SourceError: too large, not JSON, or its three lists are missing or malformed.
    """
    content = _parse(path)
    lists: dict[str, list[Any]] = {}
    for name in ("images", "annotations", "categories"):
        value = content.get(name) if isinstance(content, dict) else None
        if not isinstance(value, list):
            raise SourceError(f"{path}: has no list {name!r}: this is not a COCO instance file")
        lists[name] = value
    file = CocoFile([], [])
    categories = _categories(lists["categories"], path)
    file.categories = sorted(set(categories.values()))
    by_image = _annotations(lists["annotations"], categories, file)
    seen: set[int | str] = set()
    for position, entry in enumerate(lists["images"]):
        image = _image(entry, by_image)
        if image is None:
            file.problems.append((f"{path.name}: images[{position}]", "needs an id, a file_name, width and height"))
        elif image.id in seen:
            file.problems.append((f"{path.name}: image id {image.id}", "is listed twice; the first is kept"))
        else:
            seen.add(image.id)
            file.images.append(image)
    orphans = sum(len(found) for image_id, found in by_image.items() if image_id not in seen)
    if orphans:
        file.problems.append((f"{path.name}: {orphans:,} annotations", "belong to images that the file does not list"))
    return file


def safe_path(file_name: str) -> PurePosixPath | None:
    """A `file_name` as a path that stays below the folder it is put in; None if it leaves it.

    Windows separators count as separators; absolute paths, drive letters, addresses and `..` are refused.
    """
    text = file_name.replace("\\", "/")
    path = PurePosixPath(text)
    if not text or "\0" in text or path.is_absolute() or _DRIVE.match(text) or "://" in text or ".." in path.parts:
        return None
    return path if path.name else None


def _parse(path: Path) -> Any:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise SourceError(f"{path}: is {size:,} bytes long, over the limit of {_MAX_BYTES:,}; split it")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: is not valid JSON ({error}); export it again") from error


def _categories(entries: list[Any], path: Path) -> dict[int | str, str]:
    names: dict[int | str, str] = {}
    for position, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) else None
        number = _identity(entry)
        if number is None or not isinstance(name, str):
            raise SourceError(f"{path}: categories[{position}] needs an id and a name")
        if number in names:
            raise SourceError(f"{path}: category id {number} is listed twice ({names[number]!r} and {name!r})")
        names[number] = name
    return names


def _annotations(
    entries: list[Any], categories: dict[int | str, str], file: CocoFile
) -> dict[int | str, list[dict[str, Any]]]:
    by_image: dict[int | str, list[dict[str, Any]]] = defaultdict(list)
    for position, entry in enumerate(entries):
        image = entry.get("image_id") if isinstance(entry, dict) else None
        number = _identity(entry)
        category = entry.get("category_id") if isinstance(entry, dict) else None
        if number is None or not isinstance(image, int | str) or not isinstance(category, int | str):
            file.problems.append((f"annotations[{position}]", "needs an id, an image_id and a category_id"))
        elif category not in categories:
            file.problems.append((f"annotation {number}", f"its category_id {category} is not in `categories`"))
        else:
            by_image[image].append(
                {
                    "id": number,
                    "category": categories[category],
                    "segmentation": entry.get("segmentation"),
                    "iscrowd": bool(entry.get("iscrowd")),
                }
            )
    return by_image


def _image(entry: Any, by_image: dict[int | str, list[dict[str, Any]]]) -> CocoImage | None:
    number = _identity(entry)
    if number is None:
        return None
    name, width, height = entry.get("file_name"), entry.get("width"), entry.get("height")
    sizes = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in (width, height))
    if not isinstance(name, str) or not sizes:
        return None
    return CocoImage(number, name, width, height, tuple(by_image.get(number, ())))


def _identity(entry: Any) -> int | str | None:
    number = entry.get("id") if isinstance(entry, dict) else None
    return number if isinstance(number, int | str) and not isinstance(number, bool) else None
