"""HO-3D's names: which sequences are one recording, which camera is which, where the files of a frame lie.

Facts: the README and `vis_pcl_all_cameras.py` of shreyashampali/ho3d; the sequence lists of FORMATS section 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SourceError

SUBSETS = ("train", "evaluation")
# Sequences whose last digit is a camera: all of them show one recording, and equal frame numbers one instant.
_MULTI_CAMERA = re.compile(r"(ABF1|BB1|GPMF1|GSF1|MDF1|SB1|ShSu1|SiBF1|SMu4|MPM1|AP1)\d")
# Which object a sequence shows, by the letters of its name: only to keep an object's last recording in training. The
# mesh is always the one that the annotation names.
_OBJECTS = {
    "ABF": "021_bleach_cleanser", "SB": "021_bleach_cleanser", "BB": "011_banana", "SiBF": "011_banana",
    "GPMF": "010_potted_meat_can", "MPM": "010_potted_meat_can", "GSF": "037_scissors", "MC": "003_cracker_box",
    "MDF": "035_power_drill", "ND": "035_power_drill", "SM": "006_mustard_bottle", "SMu": "025_mug",
    "SS": "004_sugar_box", "ShSu": "004_sugar_box", "SiS": "004_sugar_box", "AP": "019_pitcher_base",
}  # fmt: skip
_LINE = re.compile(r"([A-Za-z0-9_-]+)/(\d{1,8})")
_OBJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MAX_LIST_BYTES = 64 << 20


@dataclass(frozen=True)
class Sequence:
    """A folder of frames: `recording` and, where several cameras filmed it, the number of its `camera`."""

    name: str
    recording: str
    camera: str
    tags: tuple[str, ...]


def sequence_of(name: str, calibrated: frozenset[str]) -> Sequence:
    """What a sequence's name says.

    Args:
        name: such as `ABF12`.
        calibrated: names of the folders in `calibration/`: recordings of several cameras.
    """
    several = _MULTI_CAMERA.fullmatch(name) or (name[-1:].isdigit() and name[:-1] in calibrated)
    recording, camera = (name[:-1], name[-1]) if several else (name, "")
    thing = _OBJECTS.get(name.rstrip("0123456789"), "")
    return Sequence(name, recording, camera, (thing,) if thing else ())


def calibrated_recordings(root: Path) -> frozenset[str]:
    """Names of the folders in `calibration/`."""
    folder = root / "calibration"
    return frozenset(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else frozenset()


def read_list(path: Path) -> list[tuple[str, str]]:
    """The frames that train.txt or evaluation.txt lists: (sequence, frame), as written.

    Raises:
        SourceError: a line that is not `<sequence>/<number>`.
    """
    try:
        if path.stat().st_size > _MAX_LIST_BYTES:
            raise SourceError(f"{path}: is {path.stat().st_size:,} bytes long; a list of frames is smaller")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error
    frames = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise SourceError(f"{path}: line {number} is {line[:60]!r}, expected <sequence>/<frame>; copy it again")
        frames.append((match[1], match[2]))
    return frames


@lru_cache(maxsize=256)
def world_from_camera(root: Path, recording: str, camera: str) -> NDArray[np.float64] | None:
    """T_world_from_camera [4, 4] of a camera, OpenCV axes, metres; None where there is no calibration.

    `trans_<i>.txt` belongs to the camera that stands at place i of `cam_orders.txt`, not to camera i.

    Raises:
        SourceError: the calibration is there, but cannot be what it should be.
    """
    folder = root / "calibration" / recording / "calibration"
    order_path = folder / "cam_orders.txt"
    if not camera or not order_path.is_file():
        return None
    order = re.findall(r"\d+", order_path.read_text(encoding="utf-8", errors="replace")[:1000])
    if camera not in order:
        return None
    path = folder / f"trans_{order.index(camera)}.txt"
    if not path.is_file():
        return None
    try:
        T = np.loadtxt(path, dtype=np.float64, max_rows=8)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read as a 4x4 matrix ({error})") from error
    sound = T.shape == (4, 4) and np.isfinite(T).all() and np.allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-2)
    if not sound:
        raise SourceError(f"{path}: is not a rigid 4x4 transform; delete calibration/{recording} or copy it again")
    return T


def mesh_path(models: Path, name: str) -> Path:
    """The file of an object's mesh below the YCB folder.

    Raises:
        ValueError: a name that is no plain folder name.
    """
    if not _OBJECT_NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"object name {name[:60]!r} is not one")
    return models / name / "textured_simple.obj"
