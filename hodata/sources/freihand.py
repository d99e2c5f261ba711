"""FreiHAND v2: 224x224 pictures of right hands, four colour versions of each; masks to the wrist, no objects.

Facts: `utils/fh_utils.py` and the README of lmb-freiburg/freihand. Training picture i shows base i % 32,560 in
version i // 32,560; masks and annotation rows exist for the base only.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SampleError, SourceError
from hodata.labels import MEANINGS, Label, Meaning
from hodata.sample import Hand, Record, Sample, mask_instances, sample_key
from hodata.sources.base import Detection, LeftOut, Scan, Source, SplitRules, files_with
from hodata.sources.images import read_image, read_mask, require_size
from hodata.sources.pairs import frame_number

BASES = 32_560
VERSIONS = (
    "gs",
    "hom",
    "sample",
    "auto",
)  # green screen, homogenised, colourised with sample points, automatic
MASK_THRESHOLD = 128  # the masks are lossy JPEGs: values ring round 0 and 255
POSE_DECIMALS = 4


class FreiHand(Source):
    """FreiHAND v2 as unpacked from `FreiHAND_pub_v2.zip`, with or without the later evaluation archive."""

    name = "freihand"
    title = "FreiHAND"
    licence = "FreiHAND: research only, no commercial use"
    citation = (
        "Zimmermann, Ceylan, Yang, Russell, Argus, Brox: FreiHAND: A Dataset for Markerless Capture of Hand Pose and "
        "Shape from Single RGB Images. ICCV 2019"
    )
    url = "https://lmb.informatik.uni-freiburg.de/projects/freihand/"
    version = "v2"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        found = self.detect(self.root)
        if not found.matched:
            raise SourceError(f"{self.root}: is not FreiHAND: {found.reason}")

    @classmethod
    def detect(cls, root: Path) -> Detection:
        for needed in ("training/rgb", "training/mask"):
            if not (root / needed).is_dir():
                return Detection(False, f"no folder {needed}")
        name = next((p.name for p in (root / "training/rgb").glob("*.jpg") if p.stem.isdecimal()), "")
        if len(name) != len("00000000.jpg"):
            return Detection(False, "training/rgb holds no file named like 00000000.jpg")
        return Detection(True, "training/rgb/%08d.jpg and training/mask", "v2")

    @property
    def meanings(self) -> tuple[Meaning, ...]:
        return (MEANINGS["hand-wrist"],)

    @property
    def split_rules(self) -> SplitRules:
        return SplitRules(official={"training": "train", "evaluation": "test"}, clean_test=frozenset({"evaluation"}))

    def scan(self) -> Scan:
        scan = Scan([])
        self._scan_training(scan)
        self._scan_evaluation(scan)
        return scan

    def _scan_training(self, scan: Scan) -> None:
        masks = {path.stem: path.name for path in files_with(self.root / "training/mask", ".jpg", ".png")}
        poses = _pose_groups(self.root / "training_mano.json")
        if not poses:
            scan.notes.append(
                "no training_mano.json: views of one instant cannot be told, so each base picture is its own group"
            )
        used: set[str] = set()
        for path in files_with(self.root / "training/rgb", ".jpg"):
            if not path.stem.isdecimal() or int(path.stem) >= BASES * len(VERSIONS):
                scan.left_out.append(LeftOut(f"training/rgb/{path.name}", "not a FreiHAND file number"))
                continue
            version, base = divmod(int(path.stem), BASES)
            mask = f"{base:08d}"
            if mask not in masks:
                scan.left_out.append(LeftOut(f"training/rgb/{path.name}", f"no mask training/mask/{mask}.jpg"))
                continue
            used.add(mask)
            instant = poses[base] if base < len(poses) else mask
            scan.records.append(
                Record(
                    key=sample_key("training", path.stem),
                    group=f"freihand/{instant}",
                    subset="training",
                    image=f"training/rgb/{path.name}",
                    mask=f"training/mask/{masks[mask]}",
                    recording=instant,
                    frame=int(path.stem),
                    instant=instant,
                    view="exo",
                    mask_origin="chroma",
                    extra={"version": version, "row": base},
                )
            )
        for mask in sorted(masks.keys() - used):
            scan.left_out.append(LeftOut(f"training/mask/{mask}", "no picture training/rgb of this number"))

    def _scan_evaluation(self, scan: Scan) -> None:
        folder = self.root / "evaluation"
        pictures = list(files_with(folder / "rgb", ".jpg"))
        if not pictures:
            scan.notes.append("no evaluation/rgb, so no official test set")
            return
        if not (folder / "segmap").is_dir():
            scan.notes.append(
                f"no evaluation/segmap (it comes with FreiHAND_pub_v2_eval.zip): the {len(pictures):,} evaluation "
                "pictures have no masks and are not converted"
            )
            return
        labelled = {path.stem: path.name for path in files_with(folder / "segmap", ".png")}
        for path in pictures:
            if path.stem not in labelled:
                scan.left_out.append(
                    LeftOut(f"evaluation/rgb/{path.name}", f"no mask evaluation/segmap/{path.stem}.png")
                )
                continue
            scan.records.append(
                Record(
                    key=sample_key("evaluation", path.stem),
                    group=f"freihand/evaluation-{path.stem}",
                    subset="evaluation",
                    image=f"evaluation/rgb/{path.name}",
                    mask=f"evaluation/segmap/{labelled[path.stem]}",
                    recording=f"evaluation-{path.stem}",
                    frame=frame_number(path.stem),
                    instant=f"evaluation-{path.stem}",
                    view="exo",
                    mask_origin="rendered",
                    extra={"version": 0, "row": -1},
                )
            )

    def load(self, record: Record) -> Sample:
        image, kind, size = read_image(self.root / record.image, record.image)
        drawn = read_mask(self.root / record.mask, record.mask)
        require_size(drawn, size, record.mask, record.image)
        channel = drawn[..., 0] if drawn.ndim == 3 else drawn
        hand = channel > 0 if record.subset == "evaluation" else channel >= MASK_THRESHOLD
        if not hand.any():
            raise SampleError(record.mask, "shows no hand at all; a FreiHAND mask always does: copy the file again")
        mask = np.where(hand, np.uint8(Label.RIGHT_HAND), np.uint8(Label.BACKGROUND))
        backgrounds = ("green", "composited", "composited", "composited")
        return Sample(
            image=image,
            image_kind=kind,
            mask=mask,
            meaning="hand-wrist",
            hands=[Hand(side="right")],
            instances=mask_instances(mask),
            background=backgrounds[int(record.extra["version"])] if record.subset == "training" else "real",
        )


def _pose_groups(path: Path) -> list[str]:
    """Group name of each base: views of one instant share finger pose and shape, `mano[3:48]` and `mano[48:58]`.

    The global rotation (first three numbers) differs between views, so it is left out.
    """
    import json

    if not path.exists():
        return []
    try:
        rows: list[Any] = json.loads(path.read_text())
        table: NDArray[np.float64] = np.array([row[0] for row in rows], dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != 61:
            raise ValueError(f"rows have shape {table.shape[1:]}, expected 61 numbers")
    except (OSError, ValueError, IndexError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise SourceError(f"{path}: is not FreiHAND's table of MANO parameters ({error})") from error
    # Adding 0 turns -0.0 into 0.0: both print alike and must hash alike.
    shared = np.round(table[:, 3:58], POSE_DECIMALS) + 0.0
    return [hashlib.sha256(row.astype("<f8").tobytes()).hexdigest()[:16] for row in shared]
