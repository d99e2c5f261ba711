"""Miniature HO-3D, versions 2 and 3: sequences, depth, annotations, lists, calibration and rendered segmentations.

Some listed training frames have an annotation of None, or none at all; some frames are not listed. Evaluation frames
tell the root joint only. Version 3 alone has calibration files and, beside the frames, the ground truth that was
published later. The pictures are the same in both versions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Label
from hodata.pose.camera import invert_rigid
from hodata.synth import ho3d_meta
from hodata.synth.encode import write_gray, write_jpeg, write_png
from hodata.synth.ho3d_sequences import CAMERAS, Job, Sequence, plan_sequences
from hodata.synth.scene import truths
from hodata.synth.stage_table import camera_of, compose_take, pair_map, scaled
from hodata.synth.streams import stream
from hodata.synth.world import View

Array = NDArray[np.float64]

SIZE = (640, 480)
SEG_SIZE = (160, 120)
DEPTH_SCALE = 0.00012498664727900177  # metres
QUALITY = 92


@dataclass(frozen=True)
class Ho3d:
    """The writer of one version.

    Args:
        image: suffix of colour pictures; `seg` of rendered segmentations.
        hand, thing: their colours in the segmentations, RGB.
        seg_of: subsets that have segmentations.
        contacts: annotations have the contact fields.
        released: the evaluation's ground truth is there.
        calibrated: the cameras of a recording have calibration files.
    """

    image: str
    seg: str
    hand: tuple[int, int, int]
    thing: tuple[int, int, int]
    seg_of: tuple[str, ...]
    contacts: bool
    released: bool
    calibrated: bool

    def plan(self, frames: int, seed: int) -> list[Job]:
        """One job for each sequence."""
        return plan_sequences(frames, seed)

    def pictures(self, job: Job) -> int:
        """Pictures in a job."""
        return len(job.frames)

    def write(self, job: Job, folder: Path, seed: int) -> list[dict[str, Any]]:
        """Draw the frames of a sequence; returns {line, xyz, verts} for each that its list file names."""
        sequence = job.sequence
        plot = sequence.plot(seed)
        rows: list[dict[str, Any]] = []
        if self.calibrated and job.leads and sequence.recording in CAMERAS:
            _write_calibration(folder / "calibration" / sequence.recording / "calibration", sequence, seed)
        for frame, state in job.frames:
            shot = compose_take(plot, frame, SIZE, sequence.camera)
            view = shot.view
            home, name = folder / sequence.subset / sequence.name, f"{frame:04d}"
            picture = home / "rgb" / f"{name}{self.image}"
            if self.image == ".jpg":
                write_jpeg(picture, shot.images()[0], QUALITY)
            else:
                write_png(picture, shot.images()[0])
            write_png(home / "depth" / f"{name}.png", depth_picture(view.raster.depth))
            write_gray(folder / "truth" / sequence.subset / sequence.name / "rgb" / f"{name}.png", view.truth)
            self._write_meta(home / "meta" / f"{name}.pkl", view, job, state)
            if state == "annotated" and sequence.subset in self.seg_of:
                self._write_seg(home / "seg" / f"{name}{self.seg}", view)
            if state != "unlisted":
                hand = truths(view)[0][0]
                joints, vertices = ho3d_meta.joints_of(hand), hand.vertices * (1, -1, -1)
                truth = {"xyz": np.round(joints, 8).tolist(), "verts": np.round(vertices, 8).tolist()}
                rows.append({"line": f"{sequence.name}/{name}"} | (truth if sequence.subset == "evaluation" else {}))
        return rows

    def finish(self, folder: Path, jobs: list[Job], results: list[list[dict[str, Any]]]) -> None:
        """Write the list files and the published ground truth."""
        for subset in ("train", "evaluation"):
            rows = [
                row for job, found in zip(jobs, results, strict=True) if job.sequence.subset == subset for row in found
            ]
            (folder / f"{subset}.txt").write_text("".join(f"{row['line']}\n" for row in rows))
            if subset == "evaluation" and self.released:
                for table in ("xyz", "verts"):
                    (folder / f"evaluation_{table}.json").write_text(json.dumps([row[table] for row in rows]))

    def _write_meta(self, path: Path, view: View, job: Job, state: str) -> None:
        sequence, style = job.sequence, job.number % ho3d_meta.STYLES
        path.parent.mkdir(parents=True, exist_ok=True)
        if state == "missing":
            return
        hands, things = truths(view)
        cameras = [str(digit) for digit in CAMERAS.get(sequence.recording, (0,))]
        meta = ho3d_meta.annotation(hands[0], things[0], view.K, cameras)
        if sequence.subset == "evaluation":
            meta = ho3d_meta.withheld(meta, hands[0])
        elif self.contacts:
            meta |= ho3d_meta.contacts(hands[0], things[0])
        path.write_bytes(ho3d_meta.pickled(meta if state == "annotated" else ho3d_meta.emptied(meta), style))

    def _write_seg(self, path: Path, view: View) -> None:
        K = scaled(view.K, SEG_SIZE)
        pair = pair_map(view.world, view.T_camera_from_world, K, SEG_SIZE)
        picture = np.zeros((*pair.shape, 3), dtype=np.uint8)
        picture[pair == Label.RIGHT_HAND] = self.hand
        picture[(pair != Label.RIGHT_HAND) & (pair > 0)] = self.thing
        if self.seg == ".jpg":
            write_jpeg(path, picture, QUALITY)
        else:
            write_png(path, picture)


V3 = Ho3d(".jpg", ".png", (0, 0, 255), (0, 255, 0), ("train",), True, True, True)
V2 = Ho3d(".png", ".jpg", (255, 0, 0), (0, 0, 255), ("train", "evaluation"), False, False, False)


def depth_picture(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Depth in metres [H, W] (inf: nothing there) as HO-3D stores it: RGB [H, W, 3], R + 256 G counts `DEPTH_SCALE`."""
    counts = np.where(np.isfinite(depth), np.minimum(depth / DEPTH_SCALE + 0.5, 65535), 0).astype(np.uint16)
    return np.stack([counts & 255, counts >> 8, 0 * counts], axis=-1).astype(np.uint8)


def _write_calibration(folder: Path, sequence: Sequence, seed: int) -> None:
    """Files numbered by place in cam_orders.txt; trans_i carries camera i's points to the frame of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    digits = CAMERAS[sequence.recording]
    places = stream(seed, "ho3d", sequence.recording, "order").permutation(len(digits))
    if (places == np.arange(len(digits))).all():
        places = np.roll(places, 1)
    order = [digits[int(k)] for k in places]
    (folder / "cam_orders.txt").write_text("".join(f"{digit}\n" for digit in order))
    plot = sequence.plot(seed)
    common = camera_of(plot, order[0])[0]
    for i, digit in enumerate(order):
        T, K = camera_of(plot, digit)
        words = zip(("fx", "fy", "ppx", "ppy"), (K[0, 0], K[1, 1], K[0, 2], K[1, 2]), strict=True)
        line = ", ".join(f"{name}: {value:.9f}" for name, value in words)
        (folder / f"cam_{i}_intrinsics.txt").write_text(f"{line}\n")
        (folder / f"cam_{i}_depth_scale.txt").write_text(f"{DEPTH_SCALE}\n")
        rows = (" ".join(f"{value:.12f}" for value in row) for row in common @ invert_rigid(T))
        (folder / f"trans_{i}.txt").write_text("\n".join(rows) + "\n")
