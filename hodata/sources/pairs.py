"""Which image belongs to which mask, by file name; what stays alone is listed, never lost in silence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hodata.sources.base import LeftOut, Scan

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_KIND = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png"}
_FRAME = re.compile(r"(\d{1,18})$", re.ASCII)


@dataclass(frozen=True)
class Pair:
    """An image and its mask; `stem` is their common path below their folders, without the extension."""

    stem: str
    image: str  # relative to the root, with `/`
    mask: str


@dataclass
class Pairs:
    """What pairing found."""

    pairs: list[Pair] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def pair_by_stem(root: Path, images: tuple[Path, Iterable[Path]], masks: tuple[Path, Iterable[Path]]) -> Pairs:
    """Match files whose path below their folder is the same but for the extension (only the last dot counts).

    Args:
        root: the dataset's folder, which reported names are relative to.
        images: the folder of the images, and its files.
        masks: the folder of the masks, and its files.

    Returns:
        pairs in the order of their stems; files without a partner and second files of one stem are left out.
    """
    found = Pairs()
    image_of = _by_stem(root, *images, found.left_out)
    mask_of = _by_stem(root, *masks, found.left_out)
    wanted, offered = _shown(root, masks[0]), _shown(root, images[0])
    for stem in sorted(image_of):
        if stem in mask_of:
            found.pairs.append(Pair(stem, image_of[stem], mask_of[stem]))
        else:
            found.left_out.append(LeftOut(image_of[stem], f"no mask named {stem}.* in {wanted}"))
    for stem in sorted(set(mask_of) - set(image_of)):
        found.left_out.append(LeftOut(mask_of[stem], f"no image named {stem}.* in {offered}"))
    return found


def keep_one_kind(scan: Scan) -> None:
    """A build holds one kind of image (JPEG or PNG): leave out the rarer one, PNG in a tie. What is left out is sorted
    by name."""
    counts = Counter(image_kind(record.image) for record in scan.records)
    kept = "png" if counts["png"] > counts["jpg"] else "jpg"
    why = (
        f"one build holds one kind of image and {counts[kept]:,} of {len(scan.records):,} are {kept}; "
        f"convert it to {kept}, or build these from a folder of their own"
    )
    scan.left_out += [LeftOut(record.image, why) for record in scan.records if image_kind(record.image) != kept]
    scan.left_out.sort(key=lambda item: item.what)
    scan.records = [record for record in scan.records if image_kind(record.image) == kept]


def image_kind(name: str) -> str:
    """`jpg` or `png` by the extension; the content decides when the image is read."""
    return _KIND[Path(name).suffix.lower()]


def frame_number(stem: str) -> int:
    """The digits at the end of a stem as a number; 0 where there are none."""
    match = _FRAME.search(stem)
    return int(match[1]) if match else 0


def _by_stem(root: Path, folder: Path, files: Iterable[Path], left_out: list[LeftOut]) -> dict[str, str]:
    names: dict[str, str] = {}
    for path in sorted(files):
        stem, name = path.relative_to(folder).with_suffix("").as_posix(), _shown(root, path)
        if stem in names:
            left_out.append(LeftOut(name, f"{names[stem]} has the same name; keep one of the two"))
        else:
            names[stem] = name
    return names


def _shown(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
