"""People's own data in COCO's instance format (polygons and RLE), as CVAT, Label Studio and LabelMe export it.

A `labels.toml` in the folder says which label each category is, what the labels mean, and which recording an image
belongs to. Masks are painted largest annotation first, so that a small thing in front of a large one survives; equal
areas in the order of their ids.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SampleError, SourceError
from hodata.labels import Label, Meaning
from hodata.sample import Instance, Record, Sample, instance_of, sample_key
from hodata.sources.base import SPLIT_WORDS, Detection, LeftOut, Scan, Source, SplitRules, files_with
from hodata.sources.coco_json import CocoFile, CocoImage, looks_like_coco, read_coco, safe_path
from hodata.sources.images import read_image
from hodata.sources.labels_toml import FILE, LabelsFile, label_names, named_meanings, read_labels
from hodata.sources.pairs import IMAGE_SUFFIXES, frame_number, keep_one_kind
from hodata.sources.polygons import decode_counts, fill_polygon, fill_runs

_FOLDERS = ("", "annotations")  # where the JSON file lies: LabelMe and Label Studio, CVAT
COCO_ORIGIN = 0.5  # integers are pixel corners: the centre of the top left pixel is (0.5, 0.5)
_MIN_NUMBERS = 6  # of a polygon; COCO's library takes four for a box


class Coco(Source):
    """COCO instance files `*.json` or `annotations/*.json`, their images, and `labels.toml`.

    With several files each is a subset of its own, named after the file (`instances_val.json`: val), and a subset
    called train, val or test is the official split.

    Attributes:
        labels: the checked `labels.toml`; its `name` names the source.
    """

    name = "coco"
    title = "a COCO instance dataset"
    licence = ""
    citation = ""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.files = [self.root / name for name in self.detection.files]
        path = next((self.root / folder / FILE for folder in _FOLDERS if (self.root / folder / FILE).is_file()), None)
        if path is None:
            raise SourceError(_missing_labels(self.root, self.files))
        self.labels: LabelsFile = read_labels(path, table="categories")
        self.licence = self.labels.licence
        self.citation = self.labels.citation
        self.url = self.labels.url

    @classmethod
    def detect(cls, root: Path) -> Detection:
        files = _json_files(root)
        if not files:
            return Detection(
                False, 'no *.json or annotations/*.json with "images", "annotations", "categories" and outlines'
            )
        names = tuple(path.relative_to(root).as_posix() for path in files)
        named = ", ".join(names[:4])
        if not any((root / folder / FILE).is_file() for folder in _FOLDERS):
            # Still this format: making the source says what to put into the missing file.
            return Detection(True, f"{named}; {FILE} is still missing", files=names)
        return Detection(True, f"{named} and {FILE}", files=names)

    @property
    def default_name(self) -> str:
        return self.labels.build_name

    @property
    def meanings(self) -> tuple[Meaning, ...]:
        return (self.labels.meaning,)

    @property
    def split_rules(self) -> SplitRules:
        return self.labels.split_rules

    def options(self) -> dict[str, str]:
        names = sorted(self.labels.categories.items())
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(path.read_bytes())
        return {
            "annotations_sha256": digest.hexdigest(),
            "categories": " ".join(f"{name}={label.label_name}" for name, label in names),
            "empty": self.labels.empty,
        }

    def scan(self) -> Scan:
        """List every annotated image; its annotations travel in the record, as compact JSON text.

        Raises:
            SourceError: a file is not COCO, uses a category that `labels.toml` does not map, or nothing can be used.
        """
        scan = Scan([])
        counts: Counter[str] = Counter()
        taken: dict[str, str] = {}
        for path in self.files:
            file = read_coco(path)
            self._require_known(file, path)
            scan.left_out += [LeftOut(what, why) for what, why in file.problems]
            for image in file.images:
                self._add(scan, path, image, taken, counts)
        self._finish(scan, counts)
        return scan

    def _require_known(self, file: CocoFile, path: Path) -> None:
        used = {item["category"] for image in file.images for item in image.annotations}
        unknown = sorted(used - set(self.labels.categories))
        if unknown:
            lines = "\n".join(f'{json.dumps(name, ensure_ascii=False)} = "..."' for name in unknown)
            raise SourceError(
                f"{path}: uses categories that [categories] of {self.labels.path} does not map; add\n{lines}\n"
                f"labels: {label_names()}"
            )

    def _add(self, scan: Scan, path: Path, image: CocoImage, taken: dict[str, str], counts: Counter[str]) -> None:
        subset = _subset_of(path) if len(self.files) > 1 else ""
        name = self._find(image, path)
        why = self._obstacle(image, name, taken)
        stem = "" if name is None else Path(name).with_suffix("").as_posix().removeprefix("images/")
        recording = self.labels.recording_of(stem)
        if not why and recording is None:
            why = f"the pattern `group` of {FILE} does not match {stem!r}, so its recording is unknown"
        if why or name is None or recording is None:
            scan.left_out.append(LeftOut(f"{path.name}: {image.file_name}", why))
            return
        taken[name] = path.name
        for item in image.annotations:
            counts["crowd"] += item["iscrowd"]
            counts["no outline"] += _paints_nothing(item["segmentation"])
        scan.records.append(
            Record(
                key=sample_key(*stem.split("/")),
                group=f"{self.labels.name}/{recording}",
                subset=self.labels.subset_of(stem) or subset,
                image=name,
                recording=recording,
                sequence=recording,
                frame=frame_number(stem),
                view=self.labels.view,
                tags=tuple(sorted({self.labels.categories[item["category"]].label_name for item in image.annotations})),
                mask_origin=self.labels.mask_origin or _origin(image),
                extra={
                    "annotations": json.dumps(image.annotations, separators=(",", ":")),
                    "size": (image.width, image.height),
                },
            )
        )

    def _find(self, image: CocoImage, file: Path) -> str | None:
        """The image's path below the root, with `/`; None where no such file is there, or the name leaves the root."""
        path = safe_path(image.file_name)
        if path is None:
            return None
        words = (file.stem.removeprefix("instances_"), _word_of(file))  # `val2017` and `val`
        # LabelMe and Label Studio; CVAT, with or without a folder per subset; COCO; FiftyOne.
        for folder in ("", "images", *(f"images/{word}" for word in words), *words, "data"):
            # Path.is_file raises on a name that is too long.
            if os.path.isfile(self.root / folder / path):  # noqa: PTH113
                return (Path(folder) / path).as_posix()
        return None

    def _obstacle(self, image: CocoImage, name: str | None, taken: dict[str, str]) -> str:
        """Why an image cannot be used; "" where it can."""
        if safe_path(image.file_name) is None:
            return "the file_name leaves the dataset's folder; refused: make it relative to the folder"
        if name is None:
            return f"no such image below {self.root.name} (looked beside {FILE}, in images/ and so on)"
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            return "only JPEG and PNG images can be stored as shipped"
        if name in taken:
            return f"{name} is also listed in {taken[name]}; the first is kept"
        if not image.annotations and self.labels.empty != "background":
            if self.labels.empty == "skip":
                return "has no annotations"
            return (
                "has no annotations: nothing to be seen, or not annotated yet? "
                f'Put empty = "background" or empty = "skip" into {FILE}'
            )
        return ""

    def _finish(self, scan: Scan, counts: Counter[str]) -> None:
        keep_one_kind(scan)
        if counts["crowd"]:
            scan.notes.append(
                f"{counts['crowd']:,} annotations have iscrowd 1 (as CVAT gives brush masks): painted like the others"
            )
        if counts["no outline"]:
            scan.notes.append(f"{counts['no outline']:,} annotations have no outline and paint nothing")
        if not scan.records:
            reasons = "\n".join(f"  {item.what}: {item.why}" for item in scan.left_out[:3])
            raise SourceError(f"{self.root}: not one image can be used\n{reasons or '  the files list no images'}")

    def load(self, record: Record) -> Sample:
        image, kind, size = read_image(self.root / record.image, record.image)
        listed = tuple(record.extra["size"])
        if listed != size:
            raise SampleError(record.image, f"is {size[0]}x{size[1]}, its annotations are for {listed[0]}x{listed[1]}")
        painted: list[tuple[int, int, str, NDArray[np.bool_]]] = []
        items = sorted(
            json.loads(record.extra["annotations"]), key=lambda item: (isinstance(item["id"], str), item["id"])
        )
        for order, item in enumerate(items):
            try:
                pixels = segment(item["segmentation"], size)
            except (ValueError, TypeError, OverflowError) as error:
                raise SampleError(record.image, f"annotation {item['id']} ({item['category']}): {error}") from error
            painted.append((-int(np.count_nonzero(pixels)), order, item["category"], pixels))
        painted.sort(key=lambda entry: entry[:2])
        mask = np.zeros((size[1], size[0]), dtype=np.uint8)
        owner = np.zeros(mask.shape, dtype=np.int32)
        for number, (_, _, category, pixels) in enumerate(painted, start=1):
            mask[pixels], owner[pixels] = self.labels.categories[category], number
        return Sample(
            image=image,
            image_kind=kind,
            mask=mask,
            meaning=self.labels.meaning.name,
            instances=_instances(mask, owner, len(painted)),
        )


def segment(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of a COCO `segmentation`: polygons (their union), or run lengths, compressed or not.

    Args:
        segmentation: list of flat lists x0, y0, x1, y1, ...; or {"size": [height, width], "counts": ...}.
        size: (width, height) of the image.

    Returns:
        bool [H, W]; all False where the segmentation is empty.

    Raises:
        ValueError: malformed, or for another image size.
    """
    width, height = size
    if not segmentation:
        return np.zeros((height, width), dtype=bool)
    if isinstance(segmentation, dict):
        if segmentation.get("size") != [height, width]:
            raise ValueError(f"the RLE is for size {segmentation.get('size')}, the image has {[height, width]}")
        counts = segmentation.get("counts")
        if not isinstance(counts, str | list):
            raise ValueError("the RLE has no counts")
        return fill_runs(decode_counts(counts) if isinstance(counts, str) else counts, size)
    if not isinstance(segmentation, list):
        raise ValueError(f"the segmentation is a {type(segmentation).__name__}, expected polygons or RLE")
    pixels = np.zeros((height, width), dtype=bool)
    for polygon in segmentation:
        flat = np.asarray(polygon, dtype=np.float64)
        if flat.ndim != 1 or len(flat) % 2:
            raise ValueError("a polygon is not a flat list of x, y numbers")
        if len(flat) >= _MIN_NUMBERS:
            pixels |= fill_polygon(flat.reshape(-1, 2), size, origin=COCO_ORIGIN)
    return pixels


def _instances(mask: NDArray[np.uint8], owner: NDArray[np.int32], count: int) -> list[Instance]:
    """The visible part of every annotation; background and void are nobody's."""
    found: list[Instance] = []
    for number in range(1, count + 1):
        visible = owner == number
        if visible.any():
            label = int(mask[visible][0])
            if label not in (Label.BACKGROUND, Label.VOID):
                found.append(instance_of(visible, label))
    return found


def _paints_nothing(segmentation: Any) -> bool:
    if isinstance(segmentation, list):
        return all(isinstance(polygon, list) and len(polygon) < _MIN_NUMBERS for polygon in segmentation)
    return not segmentation


def _json_files(root: Path) -> list[Path]:
    return [path for folder in _FOLDERS for path in files_with(root / folder, ".json") if looks_like_coco(path)]


def _subset_of(path: Path) -> str:
    """The subset of a file's images: what the file is called, in lower case where that names a split."""
    word = _word_of(path)
    return word.lower() if word.lower() in SPLIT_WORDS else word


def _word_of(path: Path) -> str:
    """`val` for `instances_val.json`; CVAT and COCO write it so (`instances_val2017.json`)."""
    return path.stem.removeprefix("instances_").rstrip("0123456789").rstrip("_-") or path.stem


def _origin(image: CocoImage) -> str:
    return "human" if any(isinstance(item["segmentation"], dict) for item in image.annotations) else "polygon"


def _missing_labels(root: Path, files: list[Path]) -> str:
    """What to write into the missing `labels.toml`, with the categories that the files use."""
    names = sorted({name for path in files for name in read_coco(path).categories})
    lines = "\n".join(f'{json.dumps(name, ensure_ascii=False)} = "hand"' for name in names) or '"hand" = "hand"'
    return (
        f"{root}: the COCO files need a {FILE} beside them that says what they mean. Write, and correct:\n\n"
        f'name = "my_recordings"\n'
        f"group = '^(\\d+)_'   # pattern on the file's path without extension: its recording\n"
        f'meaning = "exact"   # or another of the list below\n\n[categories]\n{lines}\n\n'
        f"labels: {label_names()}\nmeanings:\n{named_meanings()}"
    )
