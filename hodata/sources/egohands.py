"""EgoHands: 48 videos of two people at a table, all four hands outlined to the wrist, never an object.

Facts: Bambach, Lee, Crandall, Yu, ICCV 2015, and the MATLAB files that come with the data. The 48 videos are 24
games, each filmed by both players: two recordings of one game never stand on both sides of a split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hodata.errors import SampleError, SourceError
from hodata.labels import MEANINGS, Label, Meaning
from hodata.sample import Hand, Instance, Record, Sample, instance_of, sample_key
from hodata.sources.base import Detection, LeftOut, Scan, Source, SplitRules, files_with
from hodata.sources.egohands_mat import Outlines, read_metadata, read_polygons
from hodata.sources.images import read_image
from hodata.sources.polygons import fill_polygon

SAMPLES = "_LABELLED_SAMPLES"
METADATA = "metadata.mat"
POLYGONS = "polygons.mat"
MATLAB_ORIGIN = 1.0  # the centre of the top left pixel is (1, 1)

# The paper's main split; the other 36 videos are for training.
_TEST = frozenset(
    {
        "CARDS_COURTYARD_B_T",
        "CARDS_OFFICE_S_B",
        "CHESS_COURTYARD_B_T",
        "CHESS_LIVINGROOM_T_H",
        "JENGA_LIVINGROOM_S_T",
        "JENGA_OFFICE_H_T",
        "PUZZLE_COURTYARD_H_T",
        "PUZZLE_LIVINGROOM_T_B",
    }
)
_VALID = frozenset({"CARDS_LIVINGROOM_S_H", "CHESS_COURTYARD_H_S", "JENGA_COURTYARD_T_S", "PUZZLE_OFFICE_S_T"})
_VIDEO = re.compile(r"[A-Z]+_[A-Z]+_[A-Z]+_[A-Z]+")
_FRAME = re.compile(r"frame_\d{1,9}\.jpg", re.IGNORECASE | re.ASCII)

# In the order of painting: outlines overlap, and the wearer's hands are nearer to the camera.
_PAINTED = (
    ("yourleft", Label.LEFT_HAND, "left", "other"),
    ("yourright", Label.RIGHT_HAND, "right", "other"),
    ("myleft", Label.LEFT_HAND, "left", "self"),
    ("myright", Label.RIGHT_HAND, "right", "self"),
)


class EgoHands(Source):
    """EgoHands as unpacked from `egohands_data.zip`: all videos or some.

    Outlines come from `metadata.mat` where it lists the video, because it names each frame's number; from the
    video's own `polygons.mat` otherwise, whose order is that of the sorted file names.
    """

    name = "egohands"
    title = "EgoHands"
    licence = "EgoHands: research; cite the paper"
    citation = (
        "Bambach, Lee, Crandall, Yu: Lending A Hand: Detecting Hands and Recognizing Activities in Complex Egocentric "
        "Interactions. ICCV 2015"
    )
    url = "http://vision.soic.indiana.edu/projects/egohands/"

    @classmethod
    def detect(cls, root: Path) -> Detection:
        if root.name == SAMPLES:
            return Detection(False, f"this is the folder {SAMPLES} itself; give the folder that holds it")
        folder = root / SAMPLES
        if not folder.is_dir():
            return Detection(False, f"no folder {SAMPLES}")
        videos = [path for path in sorted(folder.iterdir()) if path.is_dir() and _VIDEO.fullmatch(path.name)]
        if not videos:
            return Detection(False, f"{SAMPLES} holds no folder named like CARDS_COURTYARD_B_T")
        if (root / METADATA).is_file():
            return Detection(True, f"{SAMPLES} with {len(videos)} videos, {METADATA}")
        listed = sum((path / POLYGONS).is_file() for path in videos)
        if not listed:
            return Detection(False, f"neither {METADATA} nor {SAMPLES}/{videos[0].name}/{POLYGONS}")
        return Detection(True, f"{SAMPLES} with {len(videos)} videos, {listed} of them with {POLYGONS}")

    @property
    def meanings(self) -> tuple[Meaning, ...]:
        return (MEANINGS["hand-wrist"],)

    @property
    def split_rules(self) -> SplitRules:
        return SplitRules(official={"train": "train", "valid": "val", "test": "test"}, clean_test=frozenset({"test"}))

    def scan(self) -> Scan:
        """List every frame with its outlines' place; reads the MATLAB files.

        Raises:
            SourceError: `metadata.mat` is damaged or lacks a field.
        """
        scan = Scan([])
        metadata = read_metadata(self.root / METADATA) if (self.root / METADATA).is_file() else {}
        ordered: list[str] = []
        folders = sorted(path for path in (self.root / SAMPLES).iterdir() if path.is_dir())
        for folder in folders:
            name = f"{SAMPLES}/{folder.name}"
            if not _VIDEO.fullmatch(folder.name):
                scan.left_out.append(LeftOut(name, "the name is not ACTIVITY_LOCATION_VIEWER_PARTNER"))
                continue
            frames = _frames(folder, scan)
            if folder.name in metadata:
                self._scan_listed(scan, folder.name, frames, metadata[folder.name])
            elif (folder / POLYGONS).is_file():
                ordered.append(folder.name)
                self._scan_ordered(scan, folder.name, frames)
            else:
                scan.left_out.append(LeftOut(name, f"no outlines: no {POLYGONS} in it, and not in {METADATA}"))
        if ordered:
            scan.notes.append(f"outlines of {len(ordered)} videos by the sorted order of frames, from {POLYGONS}")
        if metadata:
            on_disk = {folder.name for folder in folders} & set(metadata)
            scan.notes.append(f"outlines of {len(on_disk)} videos by frame number, from {METADATA}")
            if len(on_disk) < len(metadata):
                scan.notes.append(f"{len(metadata) - len(on_disk)} of {len(metadata)} videos are not on the disk")
            scan.notes += self._contradictions({video: metadata[video] for video in sorted(on_disk)})
        scan.left_out.sort(key=lambda item: item.what)
        return scan

    def _scan_listed(self, scan: Scan, video: str, frames: list[str], listed: Mapping[int, Outlines]) -> None:
        for name in frames:
            outlines = listed.get(_number(name))
            if outlines is None:
                scan.left_out.append(LeftOut(f"{SAMPLES}/{video}/{name}", f"{METADATA} has no outlines for it"))
            else:
                scan.records.append(_record(video, name, outlines, {"outlines": METADATA}))
        for number in sorted(set(listed) - {_number(name) for name in frames}):
            scan.left_out.append(LeftOut(f"{SAMPLES}/{video}/frame_{number:04d}.jpg", "outlines without an image"))

    def _scan_ordered(self, scan: Scan, video: str, frames: list[str]) -> None:
        path = f"{SAMPLES}/{video}/{POLYGONS}"
        # A bad file fails in `load`, frame by frame: --on-error decides, and the other videos are kept.
        try:
            listed = read_polygons(self.root / path)
        except SourceError as error:
            scan.notes.append(str(error))
            listed = []
        for position, name in enumerate(frames):
            outlines = listed[position] if position < len(listed) else {}
            place = {"outlines": path, "position": position, "frames": len(frames)}
            scan.records.append(_record(video, name, outlines, place))

    def _contradictions(self, metadata: Mapping[str, Mapping[int, Outlines]]) -> list[str]:
        """Both kinds of file at hand: say where they differ, which would mean that one is read wrongly."""
        differing: list[str] = []
        for video, listed in metadata.items():
            path = self.root / SAMPLES / video / POLYGONS
            if not path.is_file():
                continue
            try:
                ordered = read_polygons(path)
            except SourceError:
                continue  # it is not used
            same = len(ordered) == len(listed) and all(
                _equal(one, other) for one, (_, other) in zip(ordered, sorted(listed.items()), strict=True)
            )
            if not same:
                differing.append(video)
        if not differing:
            return []
        return [f"{METADATA} and {POLYGONS} differ in {', '.join(differing)}; {METADATA} is used"]

    def load(self, record: Record) -> Sample:
        image, kind, size = read_image(self.root / record.image, record.image)
        outlines = self._outlines(record)
        mask = np.zeros((size[1], size[0]), dtype=np.uint8)
        painted = np.full(mask.shape, -1, dtype=np.int8)
        for number, (hand, label, _, _) in enumerate(_PAINTED):
            if hand in outlines:
                try:
                    inside = fill_polygon(outlines[hand], size, origin=MATLAB_ORIGIN)
                except ValueError as error:
                    raise SampleError(record.image, f"{hand} in {record.extra['outlines']}: {error}") from error
                mask[inside], painted[inside] = label, number
        hands: list[Hand] = []
        instances: list[Instance] = []
        for number, (hand, label, side, owner) in enumerate(_PAINTED):
            visible = painted == number
            if hand in outlines and visible.any():
                hands.append(Hand(side=side, owner=owner))
                instances.append(instance_of(visible, int(label), owner))
        return Sample(image=image, image_kind=kind, mask=mask, meaning="hand-wrist", hands=hands, instances=instances)

    def _outlines(self, record: Record) -> Outlines:
        name = record.extra["outlines"]
        try:
            if name == METADATA:
                return read_metadata(self.root / METADATA)[record.sequence][record.frame]
            listed = read_polygons(self.root / name)
        except SourceError as error:
            raise SampleError(record.image, str(error)) from error
        position, frames = record.extra["position"], record.extra["frames"]
        if len(listed) != frames:
            raise SampleError(
                record.image,
                f"{name} has outlines for {len(listed)} frames, the folder holds {frames}: which belongs to which "
                f"cannot be told; download the folder again, or put {METADATA} (it names the frames) beside {SAMPLES}",
            )
        return listed[position]


def _frames(folder: Path, scan: Scan) -> list[str]:
    """File names of a video's frames, sorted; other pictures in the folder are left out."""
    names: dict[int, str] = {}
    for path in files_with(folder, ".jpg", ".jpeg", ".png"):
        if not _FRAME.fullmatch(path.name):
            why = "the name is not frame_NNNN.jpg"
        elif _number(path.name) in names:
            why = f"{names[_number(path.name)]} has the same frame number"
        else:
            names[_number(path.name)] = path.name
            continue
        scan.left_out.append(LeftOut(f"{SAMPLES}/{folder.name}/{path.name}", why))
    return sorted(names.values())


def _number(name: str) -> int:
    return int(Path(name).stem.rpartition("_")[2])


def _record(video: str, name: str, outlines: Outlines, place: Mapping[str, Any]) -> Record:
    game, viewer, partner = video.rsplit("_", 2)
    return Record(
        key=sample_key(video, Path(name).stem),
        group=f"egohands/{game}_{'_'.join(sorted((viewer, partner)))}",
        subset="test" if video in _TEST else "valid" if video in _VALID else "train",
        image=f"{SAMPLES}/{video}/{name}",
        recording=video,
        sequence=video,
        frame=_number(name),
        subject=viewer,
        view="ego",
        tags=tuple(sorted({label.label_name for hand, label, _, _ in _PAINTED if hand in outlines})),
        mask_origin="polygon",
        extra=place,
    )


def _equal(one: Outlines, other: Outlines) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[hand], other[hand]) for hand in one)
