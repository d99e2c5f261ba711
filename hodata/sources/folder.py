"""People's own data: `images/`, `masks/` of the same file names, and a `labels.toml` that says what they mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SampleError, SourceError
from hodata.folders import files_below
from hodata.labels import Meaning
from hodata.sample import Record, Sample, mask_instances, sample_key
from hodata.sources.base import Detection, LeftOut, Scan, Source, SplitRules
from hodata.sources.images import read_image, read_mask, require_size
from hodata.sources.labels_toml import FILE, LabelsFile, read_labels
from hodata.sources.masks import map_values, single_channel
from hodata.sources.pairs import IMAGE_SUFFIXES, Pair, frame_number, keep_one_kind, pair_by_stem

IMAGES, MASKS = "images", "masks"
_MASK_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_JPEG_SUFFIXES = (".jpg", ".jpeg")
_JPEG_START = b"\xff\xd8\xff"
_LOSSY = (
    "is a JPEG, which blurs ids into each other; export the masks as PNG, or, if they are black and white, "
    f"put `threshold = 128` into {FILE}"
)


class Folder(Source):
    """Images and masks in two folders (subfolders allowed), described by `labels.toml`.

    Attributes:
        labels: the checked `labels.toml`; its `name` names the source.
    """

    name = "folder"
    title = "a folder of images and masks"
    licence = ""
    citation = ""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.labels: LabelsFile = read_labels(self.root / FILE, table="ids")
        self.licence = self.labels.licence
        self.citation = self.labels.citation
        self.url = self.labels.url

    @classmethod
    def detect(cls, root: Path) -> Detection:
        for folder in (IMAGES, MASKS):
            if not (root / folder).is_dir():
                return Detection(False, f"no folder {folder}")
        if not (root / FILE).is_file():
            return Detection(
                False, f"{IMAGES} and {MASKS} are there, but no {FILE} that says what the values in the masks mean"
            )
        return Detection(True, f"{IMAGES}, {MASKS} and {FILE}")

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
        ids = " ".join(f"{value}={label.label_name}" for value, label in sorted(self.labels.ids.items()))
        return {"ids": ids, "threshold": str(self.labels.threshold)}

    def scan(self) -> Scan:
        """List every image with its mask.

        Raises:
            SourceError: nothing can be used; the message gives the first reasons.
        """
        images, masks = self.root / IMAGES, self.root / MASKS
        listed = files_below(images, IMAGE_SUFFIXES), files_below(masks, _MASK_SUFFIXES)
        gone = {path for files in listed for path in files if not path.exists()}
        pictures, drawn = ([path for path in files if path not in gone] for files in listed)
        found = pair_by_stem(self.root, (images, pictures), (masks, drawn))
        scan = Scan([], left_out=found.left_out)
        for path in gone:
            scan.left_out.append(LeftOut(path.relative_to(self.root).as_posix(), "is a link to a file that is gone"))
        for pair in found.pairs:
            self._add(scan, pair)
        keep_one_kind(scan)
        if not scan.records:
            reasons = "\n".join(f"  {item.what}: {item.why}" for item in scan.left_out[:3])
            raise SourceError(f"{self.root}: not one image can be used\n{reasons or f'  {IMAGES} is empty'}")
        return scan

    def _add(self, scan: Scan, pair: Pair) -> None:
        group = self.labels.group_of(pair.stem)
        recording = self.labels.recording_of(pair.stem)
        if group is None or recording is None:
            why = f"the pattern `group` of {FILE} does not match {pair.stem!r}, so its recording is unknown"
            scan.left_out.append(LeftOut(pair.image, why))
        elif Path(pair.mask).suffix.lower() in _JPEG_SUFFIXES and not self.labels.threshold:
            scan.left_out.append(LeftOut(pair.mask, _LOSSY))
        else:
            scan.records.append(
                Record(
                    key=sample_key(*pair.stem.split("/")),
                    group=group,
                    subset=self.labels.subset_of(pair.stem),
                    image=pair.image,
                    mask=pair.mask,
                    recording=recording,
                    sequence=recording,
                    frame=frame_number(pair.stem),
                    view=self.labels.view,
                    mask_origin=self.labels.mask_origin or "human",
                )
            )

    def load(self, record: Record) -> Sample:
        image, kind, size = read_image(self.root / record.image, record.image)
        path = self.root / record.mask
        drawn = read_mask(path, record.mask, colors=bool(self.labels.threshold))
        if not self.labels.threshold and _is_jpeg(path):
            raise SampleError(record.mask, _LOSSY)
        require_size(drawn, size, record.mask, record.image)
        values = self._black_and_white(drawn) if self.labels.threshold else single_channel(drawn, record.mask)
        mask = map_values(values, self.labels.ids, record.mask, f"[ids] of {FILE}")
        return Sample(
            image=image,
            image_kind=kind,
            mask=mask,
            meaning=self.labels.meaning.name,
            instances=mask_instances(mask),
        )

    def _black_and_white(self, drawn: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Black and white [H, W] or [H, W, 3] with ringing -> the two listed values. A colour mask's mean decides."""
        gray = drawn if drawn.ndim == 2 else drawn.mean(axis=2)
        low, high = sorted(self.labels.ids)
        return np.where(gray >= self.labels.threshold, np.uint8(high), np.uint8(low))


def _is_jpeg(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(3) == _JPEG_START
