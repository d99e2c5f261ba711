"""HO-3D v2 and v3: a right hand and one YCB object, annotated by poses, from which the masks are rendered here.

Facts: the README, `vis_HO3D.py`, `utils/vis_utils.py` and `setup_mano.py` of shreyashampali/ho3d. The quirks of names
are in `ho3d_layout.py`, those of annotation files in `ho3d_meta.py`, what is checked in `ho3d_checks.py`.

Evaluation frames have no hand pose of their own. With the ground truth of 2024 (`evaluation_verts.json`,
`evaluation_xyz.json`, in the order of evaluation.txt) they are drawn like the others. Without it only the object is
drawn, whole; what of it lies in the annotated box of the hand may be a finger in front of it, and says so.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SampleError, SourceError
from hodata.labels import MEANINGS, Label, Meaning
from hodata.pose.mano import VERTICES
from hodata.pose.wrist import wrist_band
from hodata.sample import Camera, ObjectPose, Record, Sample, sample_key
from hodata.sources import ho3d_checks as checks
from hodata.sources.assets import find_mano, find_ycb
from hodata.sources.base import Detection, LeftOut, Scan, Source, SplitRules
from hodata.sources.big_tables import is_converted, table
from hodata.sources.ho3d_frame import (
    HAND,
    THING,
    Models,
    PosedHand,
    draw,
    frame_of,
    ho3d_order,
    posed_from_mano,
    thing_label,
)
from hodata.sources.ho3d_layout import SUBSETS, calibrated_recordings, read_list, sequence_of, world_from_camera
from hodata.sources.ho3d_meta import CONVENTION, Meta, read_meta, require_size_of_camera
from hodata.sources.ho3d_probe import Probe
from hodata.sources.ho3d_sample import hand_of, leave_hand_open, rendered_instance
from hodata.sources.images import read_image

_SUFFIX = {"v2": ".png", "v3": ".jpg"}
_TABLES = {"evaluation_verts.json": (VERTICES, 3), "evaluation_xyz.json": (21, 3)}
_LISTED = 3  # frames named where many of a sequence are missing


class HO3D(Source):
    """HO-3D v2 or v3 as unpacked: `train/<sequence>/{rgb,meta}`, `evaluation/...`, and the two lists of frames.

    Args:
        root: the dataset's folder.
        mano: file or folder of MANO_RIGHT.pkl; None: the default places.
        ycb: folder of the YCB-Video models; None: the default places.
        wrist_void: `auto`: the band round the open wrist is void. `off`: the mesh's own edge is taken for the wrist.

    Raises:
        SourceError: not HO-3D, or the hand model or the meshes are missing.
    """

    name = "ho3d"
    title = "HO-3D"
    licence = "HO-3D: academic, non-commercial; no redistribution of the data or of what is made from it"
    citation = (
        "Hampali, Rad, Oberweger, Lepetit: HOnnotate: A method for 3D Annotation of Hand and Object Poses. CVPR 2020"
    )
    url = "https://www.tugraz.at/index.php?id=40231"
    option_names: ClassVar[frozenset[str]] = frozenset({"mano", "ycb", "wrist_void"})

    def __init__(self, root: Path, mano: Path | None = None, ycb: Path | None = None, wrist_void: str = "auto") -> None:
        super().__init__(root)
        if wrist_void not in ("auto", "off"):
            raise SourceError(f"--wrist-void {wrist_void!r}: HO-3D knows auto and off")
        self.version = self.detection.version
        self.wrist_void = wrist_void
        self._has_truth = all((self.root / name).is_file() for name in _TABLES)
        needs_hand = self._has_truth or (self.root / "train").is_dir()
        self._models = Models(
            find_mano(mano, self.root) if needs_hand or mano is not None else None, find_ycb(ycb, self.root)
        )
        self._seg_colors: checks.SegColors | None = None  # until the probe has measured which channel is what

    @property
    def default_name(self) -> str:
        return f"ho3d_{self.version}"

    @classmethod
    def detect(cls, root: Path) -> Detection:
        for subset in SUBSETS:
            for folder in sorted((root / subset).glob("*/meta")):
                kinds = Counter(path.suffix.lower() for path in (folder.parent / "rgb").glob("*"))
                if not next(folder.glob("*.pkl"), None) or not kinds:
                    continue
                version = "v2" if kinds[".png"] > kinds[".jpg"] else "v3"
                return Detection(True, f"{subset}/<sequence>/rgb/*{_SUFFIX[version]} and meta/*.pkl", version)
        for subset in SUBSETS:
            if (root / subset).is_dir():
                return Detection(False, f"no {subset}/<sequence>/meta/*.pkl beside {subset}/<sequence>/rgb")
        return Detection(False, "no folder train/<sequence>/meta or evaluation/<sequence>/meta")

    @property
    def meanings(self) -> tuple[Meaning, ...]:
        return MEANINGS["hand-object-wrist"], MEANINGS["object-amodal"]

    @property
    def split_rules(self) -> SplitRules:
        return SplitRules(official={"train": "train", "evaluation": "test"}, clean_test=frozenset({"evaluation"}))

    def options(self) -> dict[str, str]:
        mano = "" if self._models.mano is None else hashlib.sha256(self._models.mano.read_bytes()).hexdigest()[:16]
        truth = "with hands" if self._has_truth else "without hands"
        return {"wrist_void": self.wrist_void, "mano_sha256": mano, "evaluation": truth}

    def prepare(self, progress: Callable[[int, int], None] | None = None) -> None:
        if not self._has_truth:
            return
        paths = [self.root / name for name in _TABLES]
        total = sum(path.stat().st_size for path in paths) >> 20
        done = 0

        def report(read: int) -> None:
            nonlocal done
            done += read
            if progress is not None and total > 100:
                progress(done >> 20, total)

        for path in paths:
            shape = _TABLES[path.name]
            if not is_converted(path, shape, "<f4", finite=False):
                table(path, shape, "<f4", finite=False, report=report)

    # ---- scan ----

    def scan(self) -> Scan:
        scan = Scan([])
        calibrated = calibrated_recordings(self.root)
        for subset in SUBSETS:
            if (self.root / subset).is_dir():
                self._scan_subset(scan, subset, calibrated)
            else:
                scan.notes.append(f"no folder {subset}")
        if self.version == "v2":
            scan.notes.append(
                "PNG pictures take four times as long to read in training as JPEG; docs/datasets.md says how to convert"
            )
        if any(record.subset == "evaluation" for record in scan.records) and not self._has_truth:
            scan.notes.append(
                "no evaluation_verts.json and evaluation_xyz.json (the ground truth of 2024): evaluation frames are "
                "stored with the whole object and no hand, and are never scored"
            )
        return scan

    def _scan_subset(self, scan: Scan, subset: str, calibrated: frozenset[str]) -> None:
        frames = self._frames(scan, subset)
        listed: dict[str, list[tuple[int, str]]] = {}
        for row, (folder_name, frame) in enumerate(frames):
            listed.setdefault(folder_name, []).append((row, frame))
        if subset == "evaluation" and self._has_truth:
            self._require_rows(len(frames))
        suffix = _SUFFIX[self.version]
        for name, own in sorted(listed.items()):
            folder = self.root / subset / name
            if not folder.is_dir():
                scan.left_out.append(LeftOut(f"{subset}/{name}", f"no such folder; {len(own):,} listed frames of it"))
                continue
            images, metas, segs = (_names(folder / part) for part in ("rgb", "meta", "seg"))
            sequence = sequence_of(name, calibrated)
            missing: dict[str, list[str]] = {}
            for row, frame in own:
                image, meta = f"{frame}{suffix}", f"{frame}.pkl"
                if image not in images or meta not in metas:
                    missing.setdefault("rgb" if image not in images else "meta", []).append(frame)
                    continue
                seg = next((f"{frame}{kind}" for kind in (".png", ".jpg") if f"{frame}{kind}" in segs), "")
                instant = f"{sequence.recording}/{frame}"
                scan.records.append(
                    Record(
                        key=sample_key(subset, name, frame),
                        group=f"ho3d/{sequence.recording}",
                        subset=subset,
                        image=f"{subset}/{name}/rgb/{image}",
                        recording=sequence.recording,
                        sequence=name,
                        frame=int(frame),
                        camera=sequence.camera,
                        instant=instant,
                        view="exo",
                        tags=sequence.tags,
                        mask_origin="rendered",
                        extra={
                            "meta": f"{subset}/{name}/meta/{meta}",
                            "seg": f"{subset}/{name}/seg/{seg}" if seg else "",
                            "row": row if subset == "evaluation" else -1,
                        },
                    )
                )
            scan.left_out += [
                LeftOut(f"{subset}/{name}/{part}/{_some(names)}", f"{len(names):,} listed frames without {part} file")
                for part, names in missing.items()
            ]

    def _frames(self, scan: Scan, subset: str) -> list[tuple[str, str]]:
        """The frames that the list names, or, where a partial download has no list, all with an annotation."""
        path = self.root / f"{subset}.txt"
        if path.is_file():
            return read_list(path)
        if subset == "evaluation" and self._has_truth:
            raise SourceError(f"{path}: is missing; the rows of evaluation_verts.json are in its order")
        scan.notes.append(f"no {subset}.txt: every frame with a meta file is taken for annotated")
        found = sorted((self.root / subset).glob("*/meta/*.pkl"))
        return [(meta.parent.parent.name, meta.stem) for meta in found if meta.stem.isdecimal()]

    def _require_rows(self, frames: int) -> None:
        for name, shape in _TABLES.items():
            rows = len(table(self.root / name, shape, "<f4", finite=False))
            if rows != frames:
                raise SourceError(
                    f"{self.root / name}: has {rows:,} rows, evaluation.txt lists {frames:,} frames; both must be of "
                    "one version of HO-3D"
                )

    def probe(self, records: Sequence[Record]) -> list[str]:
        found = Probe(self.root, self._models)
        for record in records:
            # A single bad frame is met again when it is converted.
            with suppress(SampleError):
                meta = read_meta(self.root / record.extra["meta"], record.extra["meta"])
                found.add(record, meta, self._posed(record, meta))
        self._seg_colors = found.seg_colors()
        return found.notes()

    # ---- load ----

    def load(self, record: Record) -> Sample:
        where = record.extra["meta"]
        image, kind, size = read_image(self.root / record.image, record.image)
        meta = read_meta(self.root / where, where)
        hand = self._posed(record, meta)
        frame = frame_of(self._models, meta, hand, where)
        drawn = draw(self._models, frame, meta.K, size, where)
        require_size_of_camera(meta, size, where)
        quality = dict(frame.quality)
        if record.extra["seg"] and hand is not None and self._seg_colors is not None:
            shipped = checks.read_seg(self.root / record.extra["seg"], record.extra["seg"])
            quality["iou_seg"] = round(checks.seg_iou(shipped, drawn.part, self._seg_colors), 4)
        sample = Sample(
            image=image,
            image_kind=kind,
            mask=drawn.labels,
            meaning="hand-object-wrist",
            camera=self._camera(record, meta, size),
            objects=[
                ObjectPose(
                    name=meta.object_name,
                    R=np.round(frame.R, 9).tolist(),
                    t=np.round(frame.t, 9).tolist(),
                    mesh_sha256=frame.mesh.sha256,
                    hand_distance_mm=frame.distance_mm,
                    held=frame.held,
                )
            ],
            pose=meta.numbers,
            pose_convention=CONVENTION,
            quality=quality,
        )
        if meta.betas is not None:
            sample.subject = hashlib.sha256((np.round(meta.betas, 4) + 0.0).astype("<f8").tobytes()).hexdigest()[:16]
        if frame.hand is None:
            leave_hand_open(sample, meta, drawn, where)
        else:
            if self.wrist_void == "auto":
                assert frame.loop is not None
                sample.mask[wrist_band(frame.loop, meta.K, drawn.depth, drawn.part == HAND)] = Label.VOID
            sample.hands = [hand_of(frame, meta.K, drawn)]
            sample.instances = [
                rendered_instance(sample.mask, drawn, HAND, Label.RIGHT_HAND),
                rendered_instance(sample.mask, drawn, THING, thing_label(frame)),
            ]
        return sample

    def _posed(self, record: Record, meta: Meta) -> PosedHand | None:
        """The hand of a frame from its pose, or for evaluation from the ground truth's vertices."""
        if record.subset != "evaluation":
            if meta.pose is None:
                raise SampleError(record.extra["meta"], "lacks handPose; is it a meta file of the training set?")
            return posed_from_mano(self._models, meta)
        if not self._has_truth:
            return None
        row = int(record.extra["row"])
        vertices, xyz = (
            _mapped(self.root / name, shape, (self.root / name).stat().st_mtime_ns)[row].astype(np.float64)
            for name, shape in _TABLES.items()
        )
        if not (np.isfinite(vertices).all() and np.isfinite(xyz).all()):
            raise SampleError(record.image, f"row {row} of the evaluation tables holds nan or infinity")
        return PosedHand(vertices, ho3d_order(xyz, vertices), from_tables=True)

    def _camera(self, record: Record, meta: Meta, size: tuple[int, int]) -> Camera:
        T = world_from_camera(self.root, record.recording, record.camera)
        return Camera(
            id=record.camera,
            model="pinhole",
            K=meta.K.tolist(),
            size=list(size),
            T_world_from_camera=[] if T is None else T.tolist(),
        )


@lru_cache(maxsize=8)
def _mapped(path: Path, shape: tuple[int, ...], changed: int) -> NDArray[np.float32]:
    """A table, mapped once in every process for each state of its file."""
    return table(path, shape, "<f4", finite=False)


def _names(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()


def _some(frames: Iterable[str]) -> str:
    names = sorted(frames)
    return ", ".join(names[:_LISTED]) + (f", ... {names[-1]}" if len(names) > _LISTED else "")
