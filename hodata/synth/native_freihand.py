"""Miniature FreiHAND: its tree, names, tables and lossy masks, drawn by the scene generator.

Four versions of each training image share geometry (file id = base + 32560 * version); masks exist for base ids
only, hand to the wrist. Two views of one instant share the 45 pose numbers and the shape.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hodata.errors import HodataError
from hodata.labels import Label
from hodata.synth.encode import write_gray, write_jpeg
from hodata.synth.hand_model import hand_model
from hodata.synth.mano_frame import full_pose
from hodata.synth.native_mano import joint_regressor
from hodata.synth.scene import compose, truths
from hodata.synth.streams import stream

NAME = "freihand"
VERSION_STEP = 32560
VERSIONS = 4
VIEWS = 2
INSTANTS_PER_PERSON = 2
SIZE = (224, 224)
TABLES = ("K", "xyz", "verts", "mano", "scale")


def plan(frames: int, seed: int) -> list[tuple[str, int, int]]:
    """Jobs (subset, first id, how many ids): one person each. About `frames` pictures in all.

    Raises:
        HodataError: more pictures than FreiHAND's numbering has room for.
    """
    evaluation = max(frames // 10, 4)
    bases = max((frames - evaluation) // VERSIONS, 8)
    if bases > VERSION_STEP:  # base 32,560 would overwrite picture 0 of version 1
        raise HodataError(
            f"synth: freihand has room for at most {VERSION_STEP:,} views of hands, not {bases:,}; lower --frames"
        )
    jobs = []
    step = VIEWS * INSTANTS_PER_PERSON
    for subset, count in (("training", bases), ("evaluation", evaluation)):
        jobs += [(subset, first, min(step, count - first)) for first in range(0, count, step)]
    return jobs


def pictures(job: tuple[str, int, int]) -> int:
    """Pictures in a job."""
    subset, _, count = job
    return count * (VERSIONS if subset == "training" else 1)


def write(job: tuple[str, int, int], folder: Path, seed: int) -> list[dict[str, Any]]:
    """Draw the images of one job and return their table rows, in the order of ids."""
    subset, first, count = job
    rows = []
    for number in range(first, first + count):
        instant, camera = divmod(number, VIEWS)
        recording = instant // INSTANTS_PER_PERSON + (0 if subset == "training" else 1_000_000)
        shot = compose("studio", seed, recording, instant, SIZE, camera)
        truth = shot.view.truth
        quality = int(stream(seed, NAME, subset, number).integers(84, 96))
        hand = np.where(truth == Label.RIGHT_HAND, np.uint8(255), np.uint8(0))
        for version, image in enumerate(shot.images(VERSIONS if subset == "training" else 2)):
            if subset == "evaluation" and version == 0:
                continue  # evaluation pictures are real rooms, not green screens
            file_id = number + VERSION_STEP * version if subset == "training" else number
            write_jpeg(folder / subset / "rgb" / f"{file_id:08d}.jpg", image, quality)
            write_gray(folder / "truth" / subset / "rgb" / f"{file_id:08d}.png", truth)
        if subset == "training":
            mask = np.repeat(hand[..., None], 3, axis=2)
            write_jpeg(folder / "training" / "mask" / f"{number:08d}.jpg", mask, 90)
        else:
            write_gray(folder / "evaluation" / "segmap" / f"{number:08d}.png", _part_map(shot.view.raster.face, truth))
        hands, _ = truths(shot.view)
        rows.append(_row(hands[0], shot.view.K))
    return rows


def finish(folder: Path, jobs: list[tuple[str, int, int]], results: list[list[dict[str, Any]]]) -> None:
    """Write the JSON tables; row number = base id."""
    for subset in ("training", "evaluation"):
        rows = [row for job, found in zip(jobs, results, strict=True) if job[0] == subset for row in found]
        for table in TABLES:
            text = json.dumps([row[table] for row in rows])
            (folder / f"{subset}_{table}.json").write_text(text)


def _row(hand: Any, K: np.ndarray) -> dict[str, Any]:
    """One row of each table, with FreiHAND's conventions: pose relative to the mean, root = joint 9."""
    model = hand_model("right")
    # The authors' joints are regressed from the posed vertices, which bent fingers carry away from the chain's joints.
    xyz = model.keypoints(hand.vertices, joint_regressor() @ hand.vertices)
    focal = 0.5 * (K[0, 0] + K[1, 1])
    scale = focal / xyz[9, 2]
    root = xyz[9, :2] * scale + K[:2, 2]
    pose = full_pose("right", np.concatenate([hand.pose[:3], hand.pose[3:] - model.hands_mean]))
    return {
        "K": K.tolist(),
        "xyz": np.round(xyz, 8).tolist(),
        "verts": np.round(hand.vertices, 8).tolist(),
        "mano": [[*np.round(pose, 8).tolist(), *np.round(hand.betas, 8).tolist(), *root.tolist(), float(scale)]],
        "scale": float(np.linalg.norm(xyz[9] - xyz[10])),
    }


def _part_map(face: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Part ids 1-16 (the joint that moves a face most) where the hand is seen, 0 elsewhere."""
    model = hand_model("right")
    part = model.weights[model.faces].sum(axis=1).argmax(axis=1).astype(np.uint8) + 1
    seen = truth == Label.RIGHT_HAND  # the hand's faces come first in the scene
    return np.where(seen, part[np.where(seen, face, 0)], np.uint8(0))
