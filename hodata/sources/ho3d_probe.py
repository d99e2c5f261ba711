"""HO-3D read the way its authors meant it? Residuals of frames from every recording, before the first shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hodata.errors import SourceError
from hodata.sample import Record
from hodata.sources import ho3d_checks as checks
from hodata.sources.ho3d_frame import Models, PosedHand, draw, frame_of
from hodata.sources.ho3d_meta import Meta
from hodata.sources.images import read_image


class Probe:
    """Collects residuals with `add`; `notes` judges them.

    Args:
        root: the dataset's folder.
        models: hand model and meshes.
    """

    def __init__(self, root: Path, models: Models) -> None:
        self._root, self._models = root, models
        self._joints: list[float] = []
        self._corners: list[float] = []
        self._unchecked: Counter[str] = Counter()
        self._causes: dict[str, Counter[str]] = {"hand joints": Counter(), "object corners": Counter()}
        self._seg: dict[checks.SegColors, list[float]] = {colors: [] for colors in checks.SEG_COLORS}

    def add(self, record: Record, meta: Meta, hand: PosedHand | None) -> None:
        """Measure one frame.

        Raises:
            SampleError: something of it cannot be used.
        """
        mesh = self._models.mesh(meta.object_name, record.extra["meta"])
        corner = checks.corners_residual_mm(meta, mesh)
        if corner >= 0:
            self._corners.append(corner)
        else:
            self._unchecked["objCorners3D and objCorners3DRest"] += 1
        if corner > checks.LIMIT_MM:
            self._causes["object corners"][checks.explain_corners(meta, mesh)] += 1
        if hand is not None:
            joints = checks.hand_residual_mm(meta, hand.joints, hand.vertices, hand.from_tables)
            if joints >= 0:
                self._joints.append(joints)
            else:
                self._unchecked["21 joints in handJoints3D"] += 1
            if joints > checks.LIMIT_MM:
                self._causes["hand joints"][checks.explain_hand(self._models.hand, meta)] += 1
        if record.extra["seg"] and hand is not None:  # without a pose only half of it is drawn here
            shipped = checks.read_seg(self._root / record.extra["seg"], record.extra["seg"])
            frame = frame_of(self._models, meta, hand, record.image)
            _, _, size = read_image(self._root / record.image, record.image)
            part = draw(self._models, frame, meta.K, size, record.image).part
            for colors, found in self._seg.items():
                found.append(checks.seg_iou(shipped, part, colors))

    def seg_colors(self) -> checks.SegColors | None:
        """What the channels of the shipped segmentation mean; None where none is shipped."""
        means = {colors: float(np.mean(found)) for colors, found in self._seg.items() if found}
        return max(means, key=lambda colors: means[colors]) if means else None

    def notes(self) -> list[str]:
        """What was measured, for people.

        Raises:
            SourceError: a median residual is over the limit; the message has its likely cause.
        """
        notes = [
            self._judged(what, residuals)
            for what, residuals in (("hand joints", self._joints), ("object corners", self._corners))
            if residuals
        ]
        notes += [
            f"{count} of the probed frames lack {what}: nothing says whether their poses are read right"
            for what, count in self._unchecked.items()
        ]
        colors = self.seg_colors()
        if colors is not None:
            mean = float(np.mean(self._seg[colors]))
            notes.append(f"shipped segmentation: {colors}; mean IoU {mean:.2f} with what is drawn here")
        return notes

    def _judged(self, what: str, residuals: Sequence[float]) -> str:
        median = float(np.median(residuals))
        if median > checks.LIMIT_MM:
            cause = self._causes[what].most_common(1)[0][0]
            raise SourceError(
                f"{self._root}: {what} are {median:.1f} mm from the annotation in the median of {len(residuals)} "
                f"probed frames; {checks.LIMIT_MM:g} mm is the limit. Likely cause: {cause}"
            )
        return f"probe of {len(residuals)} frames: {what} {median:.3f} mm from the annotation in the median"
