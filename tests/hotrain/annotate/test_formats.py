"""Each format as its readers read it: OpenCV, pycocotools, hodata's own folder source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from drawn import ColorNetwork, paint, scene, write_frames, write_image
from PIL import Image
from pycocotools.coco import COCO

from hodata.labels import TASKS, Label
from hotrain.annotate.cli import FORMATS as CLI_FORMATS
from hotrain.annotate.formats import FORMATS
from hotrain.annotate.inputs import find_frames
from hotrain.annotate.pipeline import AnnotateConfig, annotate
from hotrain.errors import AnnotateError


def run(root: Path, out: Path, *formats: str, network: Any = None, **options: Any) -> Path:
    config = AnnotateConfig(formats=formats, refine="none", **options)
    annotate(network or ColorNetwork(), find_frames([str(root)], out=out), out, config)
    return out


def drawn(number: int = 0, extent: str = "wrist") -> np.ndarray:
    return TASKS["hand-object"].fold(extent)[scene(number)[1]]


def test_the_command_line_knows_the_same_formats() -> None:
    assert tuple(FORMATS) == CLI_FORMATS


@pytest.mark.parametrize("extent", ["wrist", "arm"])
def test_png(tmp_path: Path, extent: str) -> None:
    out = run(write_frames(tmp_path / "in", 3), tmp_path / "out", "png", extent=extent)
    ids = np.array([0, Label.HAND, Label.OBJECT])
    for number in range(3):
        stored = Image.open(out / "png" / f"{number}.png")
        assert stored.mode == "L"
        np.testing.assert_array_equal(np.asarray(stored), ids[drawn(number, extent)])
    legend = json.loads((out / "png" / "legend.json").read_text())
    assert legend["extent"] == extent
    assert [(entry["id"], entry["name"]) for entry in legend["labels"]] == [
        (0, "background"),
        (9, "hand"),
        (10, "object"),
    ]


@pytest.mark.parametrize("extent", ["wrist", "arm"])
def test_honnotate_as_its_code_reads_it(tmp_path: Path, extent: str) -> None:
    """`cv2.imread(...)[:, :, 0]`, 2 is hand and 1 is object, whatever the extent of the other formats."""
    root = tmp_path / "in"
    classes = scene()[1].copy()
    classes[2:4, 50:60] = 1  # a second, smaller hand
    classes[40:44, 50:60] = 2  # an object apart
    write_image(root / "seq" / "rgb" / "1" / "00002.png", paint(classes))
    for keep_all in (False, True):
        out = run(root, tmp_path / f"out{keep_all}", "honnotate", keep_all=keep_all, visualise=True, extent=extent)
        folder = out / "seq" / "segmentation" / "1"
        stored = cv2.imread(str(folder / "raw_seg_results" / "00002.png"), cv2.IMREAD_UNCHANGED)
        assert stored.ndim == 2 and stored.dtype == np.uint8
        read = cv2.imread(str(folder / "raw_seg_results" / "00002.png"))[:, :, 0]
        expected = classes if keep_all else scene()[1]
        np.testing.assert_array_equal(read == 2, expected == 1)
        np.testing.assert_array_equal(read == 1, expected == 2)
        shown = cv2.imread(str(folder / "visualization" / "00002_prediction.png"))
        np.testing.assert_array_equal(shown[..., 1] == 128, read == 2)  # green: hand
        np.testing.assert_array_equal(shown[..., 2] == 128, read == 1)  # red: object
        image = cv2.cvtColor(cv2.imread(str(folder / "visualization" / "00002_image.png")), cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(image, paint(classes))


def test_honnotate_frames_without_sequence_or_camera(tmp_path: Path) -> None:
    out = run(write_frames(tmp_path / "in", 1), tmp_path / "out", "honnotate")
    assert (out / "segmentation" / "0" / "raw_seg_results" / "0.png").is_file()


def test_frames_that_would_become_one_file_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "in" / "seq" / "0", 1)
    write_frames(tmp_path / "in" / "seq" / "0" / "rgb" / "", 0)
    write_image(tmp_path / "in" / "seq" / "rgb" / "0" / "0.png")
    frames = find_frames([str(tmp_path / "in" / "seq" / "0" / "0.png"), str(tmp_path / "in/seq/rgb/0/0.png")])
    with pytest.raises(AnnotateError, match="one sequence, camera and stem"):
        annotate(ColorNetwork(), frames, tmp_path / "out", AnnotateConfig(formats=("binary",)))


def test_binary(tmp_path: Path) -> None:
    write_frames(tmp_path / "in" / "cam2", 2)
    out = run(tmp_path / "in", tmp_path / "out", "binary")
    for class_id, kind in ((1, "hand"), (2, "object")):
        read = cv2.imread(str(out / "binary" / "cam2" / kind / "1.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(read, (drawn(1) == class_id) * 255)


def test_coco_masks_are_ours(tmp_path: Path) -> None:
    classes = scene()[1].copy()
    classes[2:6, 50:60] = 1
    write_image(tmp_path / "in" / "b.png", paint(classes))
    write_frames(tmp_path / "in" / "c", 2)
    out = run(tmp_path / "in", tmp_path / "out", "coco", "png", "confidence")
    coco = COCO(str(out / "coco.json"))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["b.png", "c/0.png", "c/1.png"]
    assert {cat["name"] for cat in coco.loadCats(coco.getCatIds())} == {"hand", "object"}
    ids = {1: Label.HAND, 2: Label.OBJECT}
    for image in coco.loadImgs(coco.getImgIds()):
        name = image["file_name"]
        stored, sure = (np.asarray(Image.open(out / kind / name)) for kind in ("png", "confidence"))
        merged = np.zeros_like(stored)
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        for annotation in annotations:
            mask = coco.annToMask(annotation).astype(bool)
            assert not merged[mask].any() and annotation["iscrowd"] == 0
            assert cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] == 2
            assert annotation["area"] == mask.sum() and tuple(annotation["bbox"]) == cv2.boundingRect(
                mask.astype(np.uint8)
            )
            assert annotation["score"] == pytest.approx(sure[mask].mean() / 255, abs=6e-4)
            merged[mask] = ids[annotation["category_id"]]
        np.testing.assert_array_equal(merged, stored)
        assert len(annotations) == (3 if name == "b.png" else 2)


def test_hold_needs_sides(tmp_path: Path) -> None:
    root = write_frames(tmp_path / "in", 1)
    with pytest.raises(AnnotateError, match="--task sides"):
        run(root, tmp_path / "no", "hold")
    task = TASKS["sides"]
    classes = np.zeros((48, 64), dtype=np.uint8)
    classes[4:20, 4:20], classes[4:20, 40:60], classes[30:40, 10:50], classes[20:28, 4:20] = 1, 2, 3, 4
    write_image(tmp_path / "sides" / "0.png", paint(classes, task))
    out = run(tmp_path / "sides", tmp_path / "out", "hold", network=ColorNetwork(task))
    read = cv2.imread(str(out / "hold" / "0.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read, np.array([0, 250, 150, 50, 0])[classes])


def test_overlay_of_pictures_and_confidence(tmp_path: Path) -> None:
    out = run(write_frames(tmp_path / "in", 1), tmp_path / "out", "overlay", "confidence")
    picture = np.asarray(Image.open(out / "overlay" / "0.jpg")).astype(int)
    image = scene()[0].astype(int)
    changed = np.abs(picture - image).sum(2) > 60
    inside = cv2.erode((drawn() > 0).astype(np.uint8), np.ones((5, 5))) > 0
    outside = cv2.dilate((drawn() > 0).astype(np.uint8), np.ones((7, 7))) == 0
    assert changed[inside].mean() > 0.9 and changed[outside].mean() < 0.05
    sure = np.asarray(Image.open(out / "confidence" / "0.png"))
    assert sure.shape == (48, 64) and sure.min() >= 255 // 4


def test_confidence_is_that_of_the_model_s_temperature(tmp_path: Path) -> None:
    root, (image, _) = write_frames(tmp_path / "in", 1), scene()
    (logits,) = ColorNetwork().logits([image])  # at the picture's own size
    for temperature in (1.0, 4.0):
        network = ColorNetwork()
        network.temperature = temperature
        out = run(root, tmp_path / f"{temperature}", "confidence", "png", network=network)
        chances = np.exp((logits - logits.max(0)) / temperature)
        chances[0] += chances[3]  # to the wrist: an arm is background
        expected = 255 * chances[:3].max(0) / (chances[:3].sum(0))
        found = np.asarray(Image.open(out / "confidence" / "0.png"))
        assert np.abs(found - expected).max() < 1
    assert found.mean() < 250  # and above 254 at a temperature of 1


def test_overlay_of_a_video_is_a_video(tmp_path: Path) -> None:
    from fractions import Fraction

    from hotrain.annotate.video import write_video

    source = tmp_path / "clip.mp4"
    write_video(source, (scene(number, (128, 96))[0] for number in range(6)), Fraction(10))
    out = tmp_path / "out"
    config = AnnotateConfig(formats=("overlay", "png"), refine="none")
    annotate(ColorNetwork(size=96), find_frames([str(source)], every=2), out, config)
    assert sorted(path.name for path in (out / "png" / "clip").iterdir()) == ["000000.png", "000002.png", "000004.png"]
    capture = cv2.VideoCapture(str(out / "overlay" / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 5 and capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    for number in (0, 2, 4):
        ok, frame = capture.read()
        assert ok and frame.shape == (96, 128, 3)
        image = scene(number, (128, 96))[0].astype(int)
        object_ = cv2.erode((scene(number, (128, 96))[1] == 2).astype(np.uint8), np.ones((7, 7))) > 0
        assert np.abs(frame[..., ::-1].astype(int) - image).sum(2)[object_].mean() > 60


def test_a_video_that_is_gone_is_named_and_not_its_overlay(tmp_path: Path) -> None:
    from fractions import Fraction

    from hotrain.annotate.formats.base import Finished, Options
    from hotrain.annotate.formats.overlay import Overlay
    from hotrain.annotate.inputs import Frame
    from hotrain.annotate.video import write_video

    source = tmp_path / "clip.mp4"
    write_video(source, iter([scene(0)[0]]), Fraction(10))
    done = Finished(Frame("clip/000000", "", "clip", "000000", source, 0), {}, {}, None)
    form = Overlay(ColorNetwork().task, Options())
    form.finish(tmp_path / "out", [done])
    for damage in (lambda: source.write_text("no video"), source.unlink):
        damage()
        with pytest.raises(AnnotateError, match=r"clip\.mp4: cannot be read as a video") as error:
            form.finish(tmp_path / "out", [done])
        assert "cannot be written" not in str(error.value) and str(tmp_path / "out") not in str(error.value)


def test_labels_are_what_the_folder_source_reads(tmp_path: Path) -> None:
    """The masks of format png, with a labels.toml that lists the legend, are a dataset."""
    from hodata.sources.folder import Folder

    out = run(write_frames(tmp_path / "in", 2), tmp_path / "out", "png")
    root = tmp_path / "dataset"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "in")
    (root / "masks").symlink_to(out / "png")
    (root / "labels.toml").write_text(
        'name = "mine"\ngroup = "each"\nmeaning = "exact"\n[ids]\n0 = "background"\n9 = "hand"\n10 = "object"\n'
    )
    source = Folder(root)
    sample = source.load(source.scan().records[0])
    np.testing.assert_array_equal(sample.mask, np.array([0, 9, 10])[drawn()])
