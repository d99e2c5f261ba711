"""EgoHOS: egocentric frames from four collections; hands with arm and sleeve, and the objects they touch.

Facts: the README and `mmseg/datasets/egohos.py` of owenzlz/EgoHOS. Labels are single-channel PNGs of the ids 0-8,
which are this project's own. `contact/` (the border between hands and objects) follows from them and is not read.
"""

from __future__ import annotations

from pathlib import Path

from hodata.labels import MEANINGS, Label, Meaning
from hodata.sample import Hand, Record, Sample, mask_instances, sample_key
from hodata.sources.base import Detection, Scan, Source, SplitRules, files_with
from hodata.sources.images import read_image, read_mask, require_size
from hodata.sources.masks import map_values, single_channel
from hodata.sources.pairs import IMAGE_SUFFIXES, frame_number, keep_one_kind, pair_by_stem

SUBSETS = ("train", "val", "test_indomain", "test_outdomain")
_IDS = {int(label): label for label in Label if label <= Label.SECOND_BOTH}
_SIDES = {Label.LEFT_HAND: "left", Label.RIGHT_HAND: "right"}


class EgoHOS(Source):
    """EgoHOS as unpacked: `<subset>/image/*.jpg` and `<subset>/label/*.png`, any of the four subsets."""

    name = "egohos"
    title = "EgoHOS"
    licence = "EgoHOS: research; its frames (Ego4D, EPIC-KITCHENS, THU-READ, YouTube, own) keep terms of their own"
    citation = (
        "Zhang, Zhou, Stent, Shi: Fine-Grained Egocentric Hand-Object Segmentation: Dataset, Model, and Applications. "
        "ECCV 2022"
    )
    url = "https://github.com/owenzlz/EgoHOS"

    @classmethod
    def detect(cls, root: Path) -> Detection:
        present = [subset for subset in SUBSETS if _complete(root / subset)]
        if present:
            return Detection(True, "image/ and label/ in " + ", ".join(present))
        half = [subset for subset in SUBSETS if (root / subset / "image").is_dir()]
        if half:
            return Detection(False, f"no folder {half[0]}/label beside {half[0]}/image")
        return Detection(False, "no folder train/image (or val, test_indomain, test_outdomain)")

    @property
    def meanings(self) -> tuple[Meaning, ...]:
        return (MEANINGS["egohos"],)

    @property
    def split_rules(self) -> SplitRules:
        # The authors split frames, not videos: train, val and test_indomain share most of their videos.
        return SplitRules(
            official={"train": "train", "val": "val", "test_indomain": "test", "test_outdomain": "test"},
            clean_test=frozenset({"test_outdomain"}),
            redraw_test=True,
        )

    def scan(self) -> Scan:
        scan = Scan([])
        for subset in SUBSETS:
            folder = self.root / subset
            if not _complete(folder):
                missing = [name for name in ("image", "label") if not (folder / name).is_dir()]
                scan.notes.append(f"no {subset}: there is no folder {subset}/{missing[0]}")
                continue
            self._scan_subset(scan, subset)
        keep_one_kind(scan)
        return scan

    def _scan_subset(self, scan: Scan, subset: str) -> None:
        images, labels = self.root / subset / "image", self.root / subset / "label"
        found = pair_by_stem(
            self.root, (images, files_with(images, *IMAGE_SUFFIXES)), (labels, files_with(labels, ".png"))
        )
        scan.left_out += found.left_out
        for pair in found.pairs:
            video = pair.stem.rpartition("_")[0] or pair.stem
            scan.records.append(
                Record(
                    key=sample_key(subset, pair.stem),
                    group=f"egohos/{video}",
                    subset=subset,
                    image=pair.image,
                    mask=pair.mask,
                    recording=video,
                    sequence=video,
                    frame=frame_number(pair.stem),
                    view="ego",
                )
            )

    def load(self, record: Record) -> Sample:
        image, kind, size = read_image(self.root / record.image, record.image)
        drawn = single_channel(read_mask(self.root / record.mask, record.mask), record.mask)
        require_size(drawn, size, record.mask, record.image)
        mask = map_values(drawn, _IDS, record.mask, "EgoHOS")
        instances = mask_instances(mask)
        # Whether other people's hands are drawn is not documented, so the owner stays unknown.
        hands = [Hand(side=_SIDES[Label(item.label)]) for item in instances if item.label in _SIDES]
        return Sample(image=image, image_kind=kind, mask=mask, meaning="egohos", hands=hands, instances=instances)


def _complete(folder: Path) -> bool:
    return (folder / "image").is_dir() and (folder / "label").is_dir()
