"""FreiHAND v2: 224x224 pictures of right hands, four colour versions of each; masks to the wrist, no objects.

Facts: `utils/fh_utils.py` and the README of lmb-freiburg/freihand. Training picture i shows base i % 32,560 in
version i // 32,560; masks and annotation rows exist for the base only.

With MANO's faces the hand can also be rendered from its annotated vertices. `masks` says what is stored:
* shipped: the authors' masks (green screen, hence "chroma"); evaluation: their segmap.
* rendered: the mesh, to its wrist. Objects and arms have none, so it is drawn over what the hand holds, and over an arm
  that comes from the camera: such masks have a meaning of their own.
* agree: what both say; void where they differ, so neither the held object nor a shifted outline is taught as hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from hodata.errors import SampleError, SourceError
from hodata.labels import MEANINGS, Meaning
from hodata.sample import Record, Sample, sample_key
from hodata.sources.base import Detection, LeftOut, Scan, Source, SplitRules, files_with
from hodata.sources.freihand_pose import (
    CONVENTION,
    Mask,
    camera_of,
    compose,
    draw_hand,
    find_hand_mesh,
    hand_instance,
    hand_of,
    iou,
    open_wrist,
    pose_of,
    share_inside,
)
from hodata.sources.freihand_probe import meaning_of, reach_behind_wrist, require_agreement
from hodata.sources.freihand_tables import Annotation, Tables
from hodata.sources.images import read_image, read_mask, require_size
from hodata.sources.pairs import frame_number

BASES = 32_560
VERSIONS = (
    "gs",
    "hom",
    "sample",
    "auto",
)  # green screen, homogenised, colourised with sample points, automatic
MASKS = ("shipped", "rendered", "agree")
MASK_THRESHOLD = 128  # the masks are lossy JPEGs: values ring round 0 and 255


class FreiHand(Source):
    """FreiHAND v2 as unpacked from `FreiHAND_pub_v2.zip`, with or without the later evaluation archive.

    Args:
        root: the dataset's folder.
        masks: shipped, rendered or agree, see above.
        mano: file or folder of MANO_RIGHT.pkl; None: the default places. Needed to render; with it, shipped masks are
            compared with the annotation.
        wrist_void: `auto`: the band round the open wrist of a rendered hand is void (`rendered`, `agree`); `off`.

    Raises:
        SourceError: not FreiHAND, or `masks` is none of the three.
    """

    name = "freihand"
    title = "FreiHAND"
    licence = "FreiHAND: research only, no commercial use"
    citation = (
        "Zimmermann, Ceylan, Yang, Russell, Argus, Brox: FreiHAND: A Dataset for Markerless Capture of Hand Pose and "
        "Shape from Single RGB Images. ICCV 2019"
    )
    url = "https://lmb.informatik.uni-freiburg.de/projects/freihand/"
    version = "v2"
    option_names: ClassVar[frozenset[str]] = frozenset({"masks", "mano", "wrist_void"})

    def __init__(self, root: Path, masks: str = "shipped", mano: Path | None = None, wrist_void: str = "auto") -> None:
        super().__init__(root)
        if masks not in MASKS:
            raise SourceError(f"--masks {masks!r}: FreiHAND knows {', '.join(MASKS)}")
        if wrist_void not in ("auto", "off"):
            raise SourceError(f"--wrist-void {wrist_void!r}: FreiHAND knows auto and off")
        self.masks, self.wrist_void = masks, wrist_void
        self._mesh = find_hand_mesh(mano, self.root, required=masks != "shipped" or mano is not None)
        self._tables = Tables(self.root, with_vertices=self._mesh is not None)
        self._shipped_meaning = "hand-wrist"  # until the probe has seen arms in the training masks

    @property
    def default_name(self) -> str:
        return self.name if self.masks == "shipped" else f"{self.name}_{self.masks}"

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
        names = {"shipped": [self._shipped_meaning], "rendered": ["hand-rendered"], "agree": ["hand-rendered"]}
        return tuple(MEANINGS[name] for name in dict.fromkeys([*names[self.masks], "hand-wrist"]))

    @property
    def split_rules(self) -> SplitRules:
        return SplitRules(official={"training": "train", "evaluation": "test"}, clean_test=frozenset({"evaluation"}))

    def options(self) -> dict[str, str]:
        faces = "" if self._mesh is None else hashlib.sha256(self._mesh.faces.tobytes()).hexdigest()[:16]
        return {
            "masks": self.masks,
            "wrist_void": self.wrist_void,
            "mano_faces": faces,
            "tables": " ".join(self._tables.found()),
        }

    def prepare(self, progress: Callable[[int, int], None] | None = None) -> None:
        if self.masks != "shipped":
            for table in ("training_K.json", "training_verts.json"):
                if not (self.root / table).is_file():
                    raise SourceError(
                        f"{self.root}: --masks {self.masks} needs {table}, which comes with FreiHAND_pub_v2.zip"
                    )
        self._tables.prepare(progress)

    # ---- scan ----

    def scan(self) -> Scan:
        scan = Scan([])
        self._scan_training(scan)
        self._scan_evaluation(scan)
        return scan

    def _scan_training(self, scan: Scan) -> None:
        masks = {path.stem: path.name for path in files_with(self.root / "training/mask", ".jpg", ".png")}
        poses = self._tables.pose_groups()
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
            used.add(mask)
            if mask not in masks and self.masks != "rendered":
                scan.left_out.append(LeftOut(f"training/rgb/{path.name}", f"no mask training/mask/{mask}.jpg"))
                continue
            if self.masks != "shipped" and not self._tables.has("training", base, "K", "verts"):
                scan.left_out.append(LeftOut(f"training/rgb/{path.name}", f"no row {base} in training_verts.json"))
                continue
            instant = poses[base] if base < len(poses) else mask
            scan.records.append(
                Record(
                    key=sample_key("training", path.stem),
                    group=f"freihand/{instant}",
                    subset="training",
                    image=f"training/rgb/{path.name}",
                    mask=f"training/mask/{masks[mask]}" if mask in masks else "",
                    recording=instant,
                    frame=int(path.stem),
                    instant=instant,
                    view="exo",
                    mask_origin={"shipped": "chroma", "rendered": "rendered", "agree": "chroma+rendered"}[self.masks],
                    extra={"version": version, "row": base, "masks": self.masks},
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
        labelled = {path.stem: path.name for path in files_with(folder / "segmap", ".png")}
        drawable = self.masks != "shipped" and self._tables.has("evaluation", 0, "K", "verts")
        if not drawable and not (folder / "segmap").is_dir():
            scan.notes.append(
                f"no evaluation/segmap (it comes with FreiHAND_pub_v2_eval.zip): the {len(pictures):,} evaluation "
                "pictures have no masks and are not converted"
                + (", unless evaluation_verts.json and evaluation_K.json are there" if self.masks != "shipped" else "")
            )
            return
        for path in pictures:
            row = frame_number(path.stem)
            mask = f"evaluation/segmap/{labelled[path.stem]}" if path.stem in labelled else ""
            masks = self._evaluation_masks(row, bool(mask))
            if not masks:
                why = f"no mask evaluation/segmap/{path.stem}.png"
                scan.left_out.append(LeftOut(f"evaluation/rgb/{path.name}", why))
                continue
            scan.records.append(
                Record(
                    key=sample_key("evaluation", path.stem),
                    group=f"freihand/evaluation-{path.stem}",
                    subset="evaluation",
                    image=f"evaluation/rgb/{path.name}",
                    mask=mask,
                    recording=f"evaluation-{path.stem}",
                    frame=row,
                    instant=f"evaluation-{path.stem}",
                    view="exo",
                    mask_origin="rendered",
                    extra={"version": 0, "row": row, "masks": masks},
                )
            )

    def _evaluation_masks(self, row: int, has_segmap: bool) -> str:
        """Which masks an evaluation picture gets: what was asked for if it can be had, else the next best; or none."""
        drawable = self.masks != "shipped" and self._tables.has("evaluation", row, "K", "verts")
        if not drawable:
            return "shipped" if has_segmap else ""
        return self.masks if has_segmap else "rendered"

    # ---- probe ----

    def probe(self, records: Sequence[Record]) -> list[str]:
        if self._mesh is None:
            return [
                "nothing was probed: without MANO's faces the annotation cannot be held against the masks; register at "
                "https://mano.is.tue.mpg.de, unpack the models, and give --mano DIR"
            ]
        inside, problems, reaches = [], [], []
        for record in records:
            annotation = self._annotation(record)
            if not record.mask or annotation.K is None or annotation.vertices is None:
                continue
            try:
                shipped = self._shipped(record)
            except SampleError:
                continue  # the build names it when its turn comes
            try:
                drawn = draw_hand(annotation, self._mesh, _size(shipped), record.image)
            except SampleError as error:
                inside.append(0.0)
                problems.append(str(error))
                continue
            inside.append(share_inside(drawn.hand, shipped))
            if record.subset == "training" and annotation.xyz is not None:
                reach = reach_behind_wrist(shipped, annotation.vertices, annotation.K, annotation.xyz[9], self._mesh)
                reaches += [reach] if reach else []
        if not inside:
            return ["nothing was probed: no picture has a mask and rows in training_K.json and training_verts.json"]
        agreement = require_agreement(inside, problems, self.root)
        self._shipped_meaning, ends = meaning_of(reaches)
        return [agreement, ends]

    # ---- load ----

    def load(self, record: Record) -> Sample:
        image, kind, size = read_image(self.root / record.image, record.image)
        annotation = self._annotation(record)
        camera = camera_of(annotation, size, record.image)
        shipped = drawn = None
        if record.mask:
            shipped = self._shipped(record)
            require_size(shipped, size, record.mask, record.image)
            if not shipped.any():
                raise SampleError(record.mask, "shows no hand at all; a FreiHAND mask always does: copy the file again")
        if self._mesh is not None and annotation.K is not None and annotation.vertices is not None:
            drawn = draw_hand(annotation, self._mesh, size, record.image)
        quality = {}
        if shipped is not None and drawn is not None:
            quality["iou_silhouette"] = iou(drawn.hand, shipped)
            if not quality["iou_silhouette"]:
                raise SampleError(
                    record.image, f"the annotated hand and the mask {record.mask} do not touch: one is of another hand"
                )
        masks = record.extra["masks"]
        silhouette = None if drawn is None else drawn.hand
        wrist = None
        if drawn is not None and self._mesh is not None and self.wrist_void == "auto":
            wrist = open_wrist(annotation, self._mesh, drawn)
        mask = compose(masks, shipped, silhouette, wrist)
        backgrounds = ("green", "composited", "composited", "composited")
        pose = pose_of(annotation)
        return Sample(
            image=image,
            image_kind=kind,
            mask=mask,
            meaning=self._meaning(record),
            camera=camera,
            hands=[hand_of(annotation, self._mesh, drawn, record.image)],
            instances=[hand_instance(mask, shipped, None if masks == "shipped" else silhouette)],
            background=backgrounds[int(record.extra["version"])] if record.subset == "training" else "real",
            pose=pose,
            pose_convention=CONVENTION if pose else "",
            quality=quality,
        )

    def _annotation(self, record: Record) -> Annotation:
        return self._tables.annotation(record.subset, int(record.extra["row"]))

    def _shipped(self, record: Record) -> Mask:
        """The authors' mask, bool [H, W]."""
        pixels = read_mask(self.root / record.mask, record.mask, colors=record.subset == "training")
        channel = pixels[..., 0] if pixels.ndim == 3 else pixels
        return channel > 0 if record.subset == "evaluation" else channel >= MASK_THRESHOLD

    def _meaning(self, record: Record) -> str:
        if record.extra["masks"] == "rendered":
            return "hand-rendered"
        shipped = record.extra["masks"] == "shipped" and record.subset == "training"
        return self._shipped_meaning if shipped else "hand-wrist"


def _size(mask: Mask) -> tuple[int, int]:
    return mask.shape[1], mask.shape[0]
