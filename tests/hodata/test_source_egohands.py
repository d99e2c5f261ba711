"""EgoHands trees as MATLAB writes them: struct arrays, empty outlines, 1-based coordinates, two kinds of file."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from hodata.errors import SampleError, SourceError
from hodata.labels import Label
from hodata.sample import Record
from hodata.sources import find_root
from hodata.sources.egohands import EgoHands
from hodata.splits import assign_splits

WIDTH, HEIGHT = 64, 36
HANDS = ("myleft", "myright", "yourleft", "yourright")
FRAMES = (11, 100, 1207)
EMPTY: NDArray[np.float64] = np.zeros((0, 0))
Frame = Mapping[str, NDArray[np.float64]]


def box(x0: float, y0: float, x1: float, y1: float) -> NDArray[np.float64]:
    """The outline round MATLAB's pixels x0..x1, y0..y1 (1-based, last included)."""
    left, top, right, bottom = x0 - 0.5, y0 - 0.5, x1 + 0.5, y1 + 0.5
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def some_frame(number: int) -> Frame:
    return {"myleft": box(2 + number % 7, 20, 20, 30), "yourright": box(12, 5, 30, 25)}


def structs(items: Sequence[Mapping[str, object]], fields: Sequence[str], shape: Callable[[int], tuple[int, ...]]):
    """A MATLAB struct array, as savemat takes it."""
    array = np.empty(shape(len(items)), dtype=[(name, object) for name in fields])
    flat = array.reshape(-1)
    for place, item in enumerate(items):
        flat[place] = tuple(item[name] for name in fields)
    return array


def row(count: int) -> tuple[int, ...]:
    return (1, count)


def column(count: int) -> tuple[int, ...]:
    return (count, 1)


def write_video(root: Path, video: str, numbers: Sequence[int] = FRAMES) -> Path:
    folder = root / "_LABELLED_SAMPLES" / video
    folder.mkdir(parents=True)
    for number in numbers:
        pixels = np.random.Generator(np.random.Philox(number)).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"frame_{number:04d}.jpg")
    return folder


def write_polygons(folder: Path, frames: Sequence[Frame], shape=row, empty: NDArray[np.float64] = EMPTY) -> None:
    items = [{hand: frame.get(hand, empty) for hand in HANDS} for frame in frames]
    savemat(folder / "polygons.mat", {"polygons": structs(items, HANDS, shape)}, do_compression=True)


def write_metadata(root: Path, videos: Mapping[str, Mapping[int, Frame]], drop: str = "") -> None:
    frame_fields = [name for name in ("frame_num", *HANDS) if name != drop]
    video_fields = ["video_id", "partner_video_id", "ego_viewer_id", "location_id", "labelled_frames"]
    items = []
    for name, frames in videos.items():
        listed = [
            {"frame_num": float(number), **{hand: frame.get(hand, EMPTY) for hand in HANDS}}
            for number, frame in frames.items()
        ]
        items.append(
            {
                "video_id": name,
                "partner_video_id": name,
                "ego_viewer_id": name[-3],
                "location_id": name.split("_")[1],
                "labelled_frames": structs(listed, frame_fields, row),
            }
        )
    savemat(root / "metadata.mat", {"video": structs(items, [f for f in video_fields if f != drop], row)})


def by_frame(source: EgoHands) -> dict[int, Record]:
    return {record.frame: record for record in source.scan().records}


VIDEO = "CARDS_COURTYARD_B_T"  # official test
PARTNER = "CARDS_COURTYARD_T_B"


def test_outlines_become_pixels_partner_below_wearer(tmp_path: Path) -> None:
    folder = write_video(tmp_path, VIDEO)
    write_polygons(folder, [some_frame(number) for number in FRAMES])
    source = EgoHands(tmp_path)
    sample = pickle.loads(pickle.dumps(source)).load(by_frame(source)[11])
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[4:25, 11:30] = Label.RIGHT_HAND  # the partner's: MATLAB's rows 5-25, columns 12-30
    expected[19:30, 5:20] = Label.LEFT_HAND  # the wearer's, painted over it
    assert (sample.mask == expected).all()
    assert sample.meaning == "hand-wrist"
    assert [(hand.side, hand.owner) for hand in sample.hands] == [("right", "other"), ("left", "self")]
    partner, wearer = sample.instances
    assert (partner.label, partner.owner, partner.box) == (Label.RIGHT_HAND, "other", [11, 4, 29, 24])
    assert partner.area == np.count_nonzero(expected == Label.RIGHT_HAND)
    assert (wearer.label, wearer.owner, wearer.area) == (Label.LEFT_HAND, "self", 11 * 15)


def test_both_hands_of_one_side_keep_their_owners(tmp_path: Path) -> None:
    folder = write_video(tmp_path, VIDEO, [5])
    write_polygons(folder, [{"myleft": box(2, 2, 9, 9), "yourleft": box(20, 2, 29, 9)}])
    source = EgoHands(tmp_path)
    sample = source.load(by_frame(source)[5])
    assert {(item.label, item.owner, item.area) for item in sample.instances} == {
        (Label.LEFT_HAND, "other", 80),
        (Label.LEFT_HAND, "self", 64),
    }


def test_a_hand_painted_over_entirely_is_no_instance(tmp_path: Path) -> None:
    folder = write_video(tmp_path, VIDEO, [5])
    write_polygons(folder, [{"myright": box(2, 2, 19, 19), "yourleft": box(4, 4, 9, 9)}])
    source = EgoHands(tmp_path)
    sample = source.load(by_frame(source)[5])
    assert [(hand.side, hand.owner) for hand in sample.hands] == [("right", "self")]
    assert len(sample.instances) == 1


@pytest.mark.parametrize("shape", [row, column])
@pytest.mark.parametrize("empty", [np.zeros((0, 0)), np.zeros((1, 0)), np.zeros((0, 2)), np.array([[1.0, 2.0]])])
def test_every_way_to_say_no_hand(tmp_path: Path, shape, empty: NDArray[np.float64]) -> None:
    folder = write_video(tmp_path, VIDEO, [3, 20])
    write_polygons(folder, [{"yourleft": box(2, 2, 9, 9)}, {}], shape, empty)
    source = EgoHands(tmp_path)
    records = by_frame(source)
    assert records[3].tags == ("left_hand",)
    assert np.count_nonzero(source.load(records[3]).mask) == 64
    assert records[20].tags == ()
    assert not source.load(records[20]).mask.any()


def test_elements_follow_the_sorted_file_names(tmp_path: Path) -> None:
    numbers = [900, 7, 2699, 30]
    folder = write_video(tmp_path, VIDEO, numbers)
    write_polygons(folder, [{"myleft": box(1, 1, place + 3, 4)} for place in range(4)])
    source = EgoHands(tmp_path)
    records = by_frame(source)
    areas = [source.load(records[number]).instances[0].area for number in sorted(numbers)]
    assert areas == [4 * (place + 3) for place in range(4)]


def test_metadata_names_the_frames_whatever_is_missing(tmp_path: Path) -> None:
    write_video(tmp_path, VIDEO, [11, 1207, 1300])
    write_metadata(tmp_path, {VIDEO: {number: some_frame(number) for number in (1207, 100, 11)}, PARTNER: {}})
    source = EgoHands(tmp_path)
    scan = source.scan()
    records = {record.frame: record for record in scan.records}
    assert sorted(records) == [11, 1207]
    assert [item.what.rpartition("/")[2] for item in scan.left_out] == ["frame_0100.jpg", "frame_1300.jpg"]
    assert any("1 of 2 videos are not on the disk" in note for note in scan.notes)
    wearer = source.load(records[1207]).instances[1]
    assert wearer.box[0] == 1 + 1207 % 7


def test_both_kinds_of_file_give_the_same_masks(tmp_path: Path) -> None:
    frames = {number: some_frame(number) for number in FRAMES}
    for name in ("ordered", "named", "both"):
        folder = write_video(tmp_path / name, VIDEO)
        if name != "named":
            write_polygons(folder, [frames[number] for number in FRAMES])
        if name != "ordered":
            write_metadata(tmp_path / name, {VIDEO: frames})
    sources = [EgoHands(tmp_path / name) for name in ("ordered", "named", "both")]
    for number in FRAMES:
        ordered, named, both = (source.load(by_frame(source)[number]).mask for source in sources)
        assert (ordered == named).all()
        assert (ordered == both).all()
    assert not any("differ" in note for note in sources[2].scan().notes)


def test_a_contradiction_between_the_two_files_is_told(tmp_path: Path) -> None:
    folder = write_video(tmp_path, VIDEO)
    write_polygons(folder, [some_frame(number) for number in reversed(FRAMES)])
    write_metadata(tmp_path, {VIDEO: {number: some_frame(number) for number in FRAMES}})
    assert any(f"differ in {VIDEO}" in note for note in EgoHands(tmp_path).scan().notes)


def test_groups_are_games_and_the_partner_video_is_left_out(tmp_path: Path) -> None:
    videos = [VIDEO, PARTNER, "CHESS_OFFICE_H_S", "CHESS_OFFICE_S_H", "JENGA_OFFICE_B_H", "PUZZLE_OFFICE_B_T"]
    for video in videos:
        write_polygons(write_video(tmp_path, video), [some_frame(number) for number in FRAMES])
    source = EgoHands(tmp_path)
    records = source.scan().records
    assert {record.group for record in records if record.recording in (VIDEO, PARTNER)} == {
        "egohands/CARDS_COURTYARD_B_T"
    }
    plan = assign_splits(records, source.split_rules, "clean")
    split_of = {record.recording: plan.split_of.get(record.key) for record in records}
    assert split_of[VIDEO] == "test"
    assert split_of[PARTNER] is None
    assert split_of["CHESS_OFFICE_H_S"] == split_of["CHESS_OFFICE_S_H"]


# The main split of the paper (Bambach et al., ICCV 2015); the other 36 videos are for training.
TEST = """CARDS_COURTYARD_B_T CARDS_OFFICE_S_B CHESS_COURTYARD_B_T CHESS_LIVINGROOM_T_H JENGA_LIVINGROOM_S_T
    JENGA_OFFICE_H_T PUZZLE_COURTYARD_H_T PUZZLE_LIVINGROOM_T_B"""
VALID = "CARDS_LIVINGROOM_S_H CHESS_COURTYARD_H_S JENGA_COURTYARD_T_S PUZZLE_OFFICE_S_T"


def test_the_official_split_is_the_paper_s(tmp_path: Path) -> None:
    """Of each named video the partner's stands beside it, which is for training."""
    named = {**dict.fromkeys(TEST.split(), "test"), **dict.fromkeys(VALID.split(), "val")}
    partners = {f"{name[:-3]}{name[-1]}_{name[-3]}": "train" for name in named}
    expected = named | partners
    assert len(expected) == 24
    for name in expected:
        write_polygons(write_video(tmp_path, name, [1]), [some_frame(1)])
    source = EgoHands(tmp_path)
    records = source.scan().records
    plan = assign_splits(records, source.split_rules, "official")
    assert {record.recording: plan.split_of[record.key] for record in records} == expected


def test_the_official_split_and_the_games_over_the_real_names(samples: Path, tmp_path: Path) -> None:
    names = (samples / "egohands_names" / "video_ids_48.txt").read_text().split()
    for name in names:
        write_polygons(write_video(tmp_path, name, [1]), [some_frame(1)])
    records = EgoHands(tmp_path).scan().records
    subsets = [record.subset for record in records]
    assert (subsets.count("train"), subsets.count("valid"), subsets.count("test")) == (36, 4, 8)
    assert len({record.group for record in records}) == 24
    assert len({record.key for record in records}) == 48


@pytest.mark.parametrize("missing", ["video_id", "labelled_frames", "frame_num", "yourleft"])
def test_metadata_without_a_field_names_it_and_what_was_found(tmp_path: Path, missing: str) -> None:
    write_video(tmp_path, VIDEO)
    write_metadata(tmp_path, {VIDEO: {number: some_frame(number) for number in FRAMES}}, drop=missing)
    kept = "myleft" if missing in ("frame_num", "yourleft") else "partner_video_id"
    with pytest.raises(SourceError, match=rf"metadata\.mat: .*no field '{missing}'; found .*{kept}"):
        EgoHands(tmp_path).scan()


def test_metadata_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path, VIDEO)
    savemat(tmp_path / "metadata.mat", {"something": np.arange(4), "else": 1})
    with pytest.raises(SourceError, match="no variable 'video'; found something, else"):
        EgoHands(tmp_path).scan()
    savemat(tmp_path / "metadata.mat", {"video": np.arange(4)})
    with pytest.raises(SourceError, match="expected a struct array"):
        EgoHands(tmp_path).scan()
    (tmp_path / "metadata.mat").write_bytes(b"not a matlab file at all, by any means" * 10)
    with pytest.raises(SourceError, match=r"metadata\.mat: cannot be read"):
        EgoHands(tmp_path).scan()


def test_a_damaged_polygons_file_costs_its_video_only(tmp_path: Path) -> None:
    folder = write_video(tmp_path, VIDEO)
    write_polygons(folder, [some_frame(number) for number in FRAMES])
    whole = (folder / "polygons.mat").read_bytes()
    (folder / "polygons.mat").write_bytes(whole[: len(whole) // 2])
    good = write_video(tmp_path, "CHESS_OFFICE_H_S")
    write_polygons(good, [some_frame(number) for number in FRAMES])
    source = EgoHands(tmp_path)
    records = source.scan().records
    assert len(records) == 6
    for record in records:
        if record.recording == VIDEO:
            with pytest.raises(SampleError, match=r"polygons\.mat"):
                source.load(record)
        else:
            assert source.load(record).mask.any()


def test_a_count_that_does_not_match_the_frames_is_refused(tmp_path: Path) -> None:
    folder = write_video(tmp_path, VIDEO)
    write_polygons(folder, [some_frame(number) for number in FRAMES[:2]])
    source = EgoHands(tmp_path)
    records = by_frame(source)
    for number in FRAMES:
        with pytest.raises(SampleError, match="outlines for 2 frames, the folder holds 3"):
            source.load(records[number])


@pytest.mark.parametrize(
    ("outline", "words"),
    [
        (np.ones((4, 3)), "4x3"),
        (np.array([[1, 2], [np.inf, 4], [5, 6], [7, 8]]), "finite"),
        (np.array([[1, 2], [1e12, 4], [5, 6], [7, 8]]), "myleft.*reaches to"),
    ],
)
def test_outlines_that_are_none_are_refused(tmp_path: Path, outline: NDArray[np.float64], words: str) -> None:
    write_polygons(write_video(tmp_path, VIDEO, [1]), [{"myleft": outline}])
    source = EgoHands(tmp_path)
    with pytest.raises(SampleError, match=words):
        source.load(by_frame(source)[1])


def test_wrong_folders_say_what_they_lack(tmp_path: Path) -> None:
    root = tmp_path / "unpacked"
    with pytest.raises(SourceError, match="no folder _LABELLED_SAMPLES"):
        EgoHands(root)
    (root / "_LABELLED_SAMPLES" / "notes").mkdir(parents=True)
    with pytest.raises(SourceError, match="no folder named like CARDS_COURTYARD_B_T"):
        EgoHands(root)
    folder = write_video(root, VIDEO)
    with pytest.raises(SourceError, match=rf"neither metadata\.mat nor .*{VIDEO}/polygons\.mat"):
        EgoHands(root)
    with pytest.raises(SourceError, match="give the folder that holds it"):
        EgoHands(root / "_LABELLED_SAMPLES")
    write_polygons(folder, [some_frame(number) for number in FRAMES])
    assert find_root("egohands", tmp_path) == root


def test_videos_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    write_polygons(write_video(tmp_path, VIDEO), [some_frame(number) for number in FRAMES])
    write_video(tmp_path, "CHESS_OFFICE_H_S")
    folder = write_video(tmp_path, "demo")
    (folder / "x.jpg").write_bytes(b"")
    (tmp_path / "_LABELLED_SAMPLES" / VIDEO / "cover.jpg").write_bytes(b"")
    scan = EgoHands(tmp_path).scan()
    assert [item.what.split("/", 1)[1] for item in scan.left_out] == [
        f"{VIDEO}/cover.jpg",
        "CHESS_OFFICE_H_S",
        "demo",
    ]


def test_a_damaged_image_is_refused(tmp_path: Path) -> None:
    folder = write_video(tmp_path, VIDEO)
    write_polygons(folder, [some_frame(number) for number in FRAMES])
    source = EgoHands(tmp_path)
    record = by_frame(source)[11]
    path = tmp_path / record.image
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SampleError, match=r"frame_0011\.jpg: cannot be decoded"):
        source.load(record)
