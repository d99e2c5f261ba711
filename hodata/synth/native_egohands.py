"""Miniature EgoHands: video folders of 1280x720 frames, polygons.mat in each, metadata.mat above.

Polygons outline visible hands, cut at the wrist, in MATLAB's 1-based coordinates. Both players' views of a game are
there, and some of the eight official test videos.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.errors import HodataError
from hodata.labels import Label
from hodata.synth.encode import write_gray, write_jpeg
from hodata.synth.outlines import outline
from hodata.synth.stage_game import compose_game
from hodata.synth.streams import stream
from hodata.synth.world import OWNER_OTHER, OWNER_SELF

NAME = "egohands"
FOLDER = "_LABELLED_SAMPLES"
SIZE = (1280, 720)
VIDEO_FRAMES = 2700
SHARE = 0.4  # of `frames`: these pictures are many times larger than the others
# Games, each filmed by both players: all 24 of the real dataset, first one at each place with each game. Official test
# videos are among the first twelve too: the first, fifth and tenth game, first viewer.
_FIRST = (
    ("CARDS", "COURTYARD", "B", "T"),
    ("CHESS", "OFFICE", "B", "S"),
    ("JENGA", "LIVINGROOM", "B", "H"),
    ("PUZZLE", "OFFICE", "S", "T"),
    ("CHESS", "LIVINGROOM", "T", "H"),
    ("CARDS", "OFFICE", "H", "T"),
    ("PUZZLE", "LIVINGROOM", "H", "S"),
    ("JENGA", "COURTYARD", "B", "H"),
    ("CHESS", "COURTYARD", "H", "S"),
    ("JENGA", "OFFICE", "H", "T"),
    ("PUZZLE", "COURTYARD", "B", "S"),
    ("CARDS", "LIVINGROOM", "B", "T"),
)
GAMES = (*_FIRST, *((game, place, *sorted({*"BHST"} - {*players})) for game, place, *players in _FIRST))
FIELDS = ("myleft", "myright", "yourleft", "yourright")

Job = tuple[tuple[str, str, str, str], tuple[int, ...]]  # a video's words, its frame numbers


def plan(frames: int, seed: int) -> list[Job]:
    """One job for each video: `frames` * 0.4 pictures in 8 to 48 videos, as many as there are of 5 pictures.

    Raises:
        HodataError: more pictures than a video of the real dataset has frames.
    """
    total = max(round(frames * SHARE), 8)
    games = GAMES[: int(np.clip(total // 10, 4, len(GAMES)))]
    videos = [words for a, b, c, d in games for words in ((a, b, c, d), (a, b, d, c))]
    if total > len(videos) * VIDEO_FRAMES:
        room = len(videos) * VIDEO_FRAMES
        raise HodataError(f"synth: egohands has room for at most {room:,} pictures, not {total:,}; lower --frames")
    jobs = []
    for k, words in enumerate(sorted(videos)):
        count = total // len(videos) + (k < total % len(videos))
        numbers = stream(seed, NAME, *words).choice(VIDEO_FRAMES, count, replace=False)
        jobs.append((words, tuple(sorted(int(n) for n in numbers))))
    return jobs


def pictures(job: Job) -> int:
    """Pictures in a job."""
    return len(job[1])


def write(job: Job, folder: Path, seed: int) -> list[dict[str, NDArray[np.float64]]]:
    """Draw the frames of one video and its polygons.mat; returns the polygons of each frame."""
    from scipy.io import savemat

    words, numbers = job
    name = "_".join(words)
    video = folder / FOLDER / name
    frames = []
    for number in numbers:
        shot = compose_game(seed, *words, number, SIZE)
        truth, owner = shot.view.truth, shot.view.owner
        write_jpeg(video / f"frame_{number:04d}.jpg", shot.images()[0], 90)
        write_gray(folder / "truth" / FOLDER / name / f"frame_{number:04d}.png", truth)
        frames.append(
            {
                who + side: _polygon((truth == label) & (owner == whose))
                for who, whose in (("my", OWNER_SELF), ("your", OWNER_OTHER))
                for side, label in (("left", Label.LEFT_HAND), ("right", Label.RIGHT_HAND))
            }
        )
    savemat(video / "polygons.mat", {"polygons": _struct(FIELDS, frames)}, do_compression=True)
    return frames


def finish(folder: Path, jobs: list[Job], results: list[list[dict[str, NDArray[np.float64]]]]) -> None:
    """Write metadata.mat: one struct of videos, each with a struct of labelled frames."""
    from scipy.io import savemat

    videos = []
    for (words, numbers), frames in zip(jobs, results, strict=True):
        activity, location, viewer, partner = words
        labelled = [
            {"frame_num": np.array([[float(number)]]), **polygons}
            for number, polygons in zip(numbers, frames, strict=True)
        ]
        videos.append(
            {
                "video_id": "_".join(words),
                "partner_video_id": f"{activity}_{location}_{partner}_{viewer}",
                "ego_viewer_id": viewer,
                "partner_id": partner,
                "location_id": location,
                "activity_id": activity,
                "labelled_frames": _struct(("frame_num", *FIELDS), labelled),
            }
        )
    savemat(folder / "metadata.mat", {"video": _struct(tuple(videos[0]), videos)}, do_compression=True)
    for name in ("polygons.mat", "metadata.mat"):
        for path in folder.rglob(name):
            _without_time(path)


def _polygon(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[N, 2] in MATLAB's coordinates (1 = centre of the first pixel), or [] as MATLAB stores it."""
    polygon = outline(mask)
    return polygon + 1.0 if len(polygon) else np.zeros((0, 0))


def _struct(fields: tuple[str, ...], rows: list[dict[str, Any]]) -> NDArray[Any]:
    """A MATLAB struct array of size 1xN."""
    array = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    for k, row in enumerate(rows):
        for field in fields:
            array[0, k][field] = row[field]
    return array


def _without_time(path: Path) -> None:
    """Blank the free text at the head of a MAT file, where the writer puts the time of day."""
    data = bytearray(path.read_bytes())
    data[:116] = b"MATLAB 5.0 MAT-file".ljust(116)
    path.write_bytes(data)
