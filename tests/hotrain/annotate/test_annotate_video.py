"""Videos, frame by frame: the number drawn into each frame is the one it gets."""

from __future__ import annotations

import struct
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn import ColorNetwork
from PIL import Image

from hotrain.annotate.apply import apply_review
from hotrain.annotate.inputs import find_frames
from hotrain.annotate.pipeline import AnnotateConfig, annotate
from hotrain.annotate.review import Reviewed, write_page
from hotrain.annotate.video import VideoReader, count_frames, frame_rate, write_video
from hotrain.errors import AnnotateError, FrameError


def numbered(number: int) -> np.ndarray:
    """A grey of 10 + 8 * number."""
    return np.full((48, 64, 3), 10 + 8 * number, dtype=np.uint8)


def number_of(frame: np.ndarray) -> int:
    return round((float(frame.mean()) - 10) / 8)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    write_video(path, (numbered(number) for number in range(25)), Fraction(30))
    return path


def test_frames_are_counted_and_accurate(video: Path) -> None:
    """x264 writes frames that depend on later ones; they come out in the order in which they are shown."""
    assert count_frames(video) == 25 and frame_rate(video) == 30
    read = list(VideoReader(video).read(range(25)))
    assert [number_of(frame) for frame in read if not isinstance(frame, FrameError)] == list(range(25))


def test_the_written_video_is_what_opencv_reads(video: Path) -> None:
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FPS) == 30
    for number in range(25):
        ok, frame = capture.read()
        assert ok and number_of(frame) == number


def test_every_nth_frame_and_going_back(video: Path) -> None:
    frames = find_frames([str(video)], every=6).frames
    assert [frame.name for frame in frames] == [f"clip/{number:06d}" for number in (0, 6, 12, 18, 24)]
    assert {frame.camera for frame in frames} == {"clip"}
    reader = VideoReader(video)
    read = [*reader.read([frame.number for frame in frames]), *reader.read([3])]
    assert [number_of(frame) for frame in read if not isinstance(frame, FrameError)] == [0, 6, 12, 18, 24, 3]
    reader.close()


QUARTERS = np.repeat(np.repeat([[(200, 30, 30), (30, 200, 30)], [(30, 30, 200), (220, 220, 220)]], 24, 0), 32, 1)
ONE = 1 << 16
# The matrix of an MP4 track (ISO/IEC 14496-12, tkhd): a, b, u, c, d, v, x, y, w.
TURNS = {
    90: (0, ONE, 0, -ONE, 0, 0, 48 * ONE, 0, 1 << 30),
    180: (-ONE, 0, 0, 0, -ONE, 0, 64 * ONE, 48 * ONE, 1 << 30),
    270: (0, -ONE, 0, ONE, 0, 0, 0, 64 * ONE, 1 << 30),
}


def turned(path: Path, degrees: int) -> Path:
    """A video of four colours that players turn by so much before they show it."""
    write_video(path, (QUARTERS.astype(np.uint8) for _ in range(4)), Fraction(30))
    data = path.read_bytes()
    matrix = data.index(b"tkhd") + 44
    path.write_bytes(data[:matrix] + struct.pack(">9i", *TURNS[degrees]) + data[matrix + 36 :])
    return path


@pytest.mark.parametrize("degrees", TURNS)
def test_a_video_that_lies_on_its_side_is_as_opencv_reads_it(tmp_path: Path, degrees: int) -> None:
    path = turned(tmp_path / "clip.mp4", degrees)
    ok, expected = cv2.VideoCapture(str(path)).read()
    assert ok
    np.testing.assert_array_equal(next(VideoReader(path, "upright").read([0])), expected[..., ::-1])
    stored = next(VideoReader(path, "stored").read([0]))
    assert isinstance(stored, np.ndarray) and stored.shape == (48, 64, 3)
    refused = next(VideoReader(path).read([1]))
    assert isinstance(refused, FrameError) and f"turned by {degrees} degrees" in str(refused)


@pytest.mark.parametrize("exif", ["upright", "stored"])
def test_masks_and_overlay_of_a_turned_video_fit_its_frames(tmp_path: Path, exif: str) -> None:
    path, out = turned(tmp_path / "clip.mp4", 90), tmp_path / "out"
    with pytest.raises(AnnotateError, match="--exif upright"):
        annotate(ColorNetwork(), find_frames([str(path)]), out, AnnotateConfig())
    config = AnnotateConfig(("png", "overlay"), exif=exif)
    annotate(ColorNetwork(), find_frames([str(path)]), out, config, overwrite=True)
    size = (48, 64) if exif == "upright" else (64, 48)
    with Image.open(out / "png/clip/000000.png") as mask:
        assert mask.size == size
    capture = cv2.VideoCapture(str(out / "overlay/clip.mp4"))
    assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == size


def test_a_turned_video_that_an_earlier_version_annotated_can_be_reviewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read every video as stored, and noted `refuse`."""
    path, out = turned(tmp_path / "clip.mp4", 90), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(VideoReader, "_upright", lambda self, frame: frame.to_ndarray(format="rgb24"))
        annotate(ColorNetwork(), find_frames([str(path)]), out, AnnotateConfig())
    assert '"frames": [{' in write_page(out).read_text()
    accepted = Reviewed("colors-48", {"clip/000000": "accept"})
    assert apply_review(out, accepted, None).accepted == 1
    with Image.open(next((out / "accepted/images").rglob("*.png"))) as picture:
        assert picture.size == (64, 48)


def test_an_old_pyav_is_named(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    monkeypatch.delattr(av.VideoFrame, "rotation", raising=True)
    with pytest.raises(AnnotateError, match=r"pip install 'av>=14\.1'"):
        count_frames(video)


def test_frames_that_a_trimmed_video_hides_are_none(video: Path) -> None:
    """An edit list that begins six frames later, as a phone's trimming and `ffmpeg -ss -c copy` write it."""
    data = video.read_bytes()
    entry, header = data.index(b"elst") + 12, data.index(b"mdhd")
    duration, begin, rate = struct.unpack(">3i", data[entry : entry + 12])
    (second,) = struct.unpack(">I", data[header + 16 : header + 20])
    later = struct.pack(">3i", duration * 19 // 25, begin + 6 * second // 30, rate)
    video.write_bytes(data[:entry] + later + data[entry + 12 :])
    capture, seen = cv2.VideoCapture(str(video)), []
    while (found := capture.read())[0]:
        seen.append(number_of(found[1]))
    assert seen == list(range(6, 25)) and count_frames(video) == 19
    read = VideoReader(video).read(range(19))
    assert [number_of(frame) for frame in read if not isinstance(frame, FrameError)] == seen


def test_a_video_that_is_cut_off_gives_what_it_has(tmp_path: Path, video: Path) -> None:
    import av

    rng = np.random.default_rng(0)
    whole = tmp_path / "whole.mkv"
    with av.open(str(whole), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(20):
            noise = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode())
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    assert 5 < count_frames(cut) < 20
    read = list(VideoReader(cut).read(range(20)))
    good = [not isinstance(frame, FrameError) for frame in read]
    assert any(good) and not good[-1] and good == sorted(good, reverse=True)
    assert "ends after" in str(read[-1]) or "cannot be decoded" in str(read[-1])


def test_a_text_file_named_mp4_is_one_broken_frame(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    (frame,) = find_frames([str(tmp_path / "a.mp4")]).frames
    (read,) = VideoReader(frame.path).read([frame.number])
    assert isinstance(read, FrameError) and "cannot be opened" in str(read)


def test_without_pyav_the_error_says_what_to_install(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AnnotateError, match="pip install 'av>="):
        find_frames([str(video)])
