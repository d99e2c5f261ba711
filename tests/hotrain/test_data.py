"""Crops, flips and batches: geometry against slow twins, and the loader against itself."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import floor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import Spec, draw, encode
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import get_worker_info

from hodata.errors import ShardError
from hodata.labels import MIRROR, Label
from hodata.shards.reader import ShardIndex
from hotrain.data import CropData, CropRule, Loader, Window, cut, decode_image, draw_window, prefetch_factor
from hotrain.errors import TrainingError
from hotrain.input_rule import InputRule
from hotrain.order import Order


def crop_data(index: ShardIndex, seed: int = 3, crop: CropRule | None = None) -> CropData:
    train = index.select(split="train")
    rows = {name: train[index.column("source")[train] == name] for name in index.plans}
    order = Order({name: len(own) for name, own in rows.items()}, seed)
    return CropData(index, rows, order, InputRule(32), crop or CropRule(32))


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(3, 40), st.integers(3, 40)),
    scaled=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    crop=st.integers(4, 24),
    place=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_labels_are_the_nearest_pixel_and_void_beyond(
    size: tuple[int, int], scaled: tuple[int, int], crop: int, place: tuple[float, float]
) -> None:
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 14, size[::-1], dtype=np.uint8)
    x, y = (
        int(p * (s - crop + 1)) if s >= crop else -int(p * (crop - s + 1)) for p, s in zip(place, scaled, strict=True)
    )
    _, label = cut(np.zeros((*mask.shape, 3), np.uint8), mask, Window(*scaled, x, y, False), crop)
    for row in range(crop):
        for column in range(crop):
            sx, sy = column + x, row + y
            if 0 <= sx < scaled[0] and 0 <= sy < scaled[1]:
                half = Fraction(1, 2)
                source = floor((sy + half) * size[1] / scaled[1]), floor((sx + half) * size[0] / scaled[0])
                assert label[row, column] == mask[source]
            else:
                assert label[row, column] == Label.VOID


def test_image_and_label_stay_together() -> None:
    """A bright disc under its own mask: after any crop both have the same area and centre, to a fraction of a pixel."""
    rows, columns = np.mgrid[:120, :160]
    mask = ((columns - 83) ** 2 + (rows - 57) ** 2 < 30**2).astype(np.uint8)
    image = np.repeat(mask[..., None] * 200, 3, 2)
    for number in range(40):
        window = draw_window(160, 120, InputRule(64), CropRule(64), np.random.default_rng(number).random(4))
        pixels, label = cut(image, mask, window, 64)
        inside = label != Label.VOID
        seen = np.where(inside, pixels[..., 0], 0) / 200
        drawn = label == 1
        assert seen.sum() == pytest.approx(drawn.sum(), rel=0.04)
        for axis in np.mgrid[:64, :64]:
            assert (axis * seen).sum() / seen.sum() == pytest.approx(axis[drawn].mean(), abs=0.2)


def test_a_scaled_down_decode_shows_the_same_place() -> None:
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    image = np.repeat(np.repeat(ramp[None, :, None], 480, 0), 3, 2)
    data, mask = encode(image, "jpg"), np.zeros((480, 640), np.uint8)
    window = Window(150, 112, 20, 5, False)
    small = decode_image(data, "jpg", "k", (150, 112))
    assert small.shape == (120, 160, 3)
    exact, quick = (
        cut(decoded, mask, window, 96)[0].astype(int) for decoded in (decode_image(data, "jpg", "k"), small)
    )
    assert np.abs(exact - quick).max() <= 3


@pytest.mark.parametrize("limits", [(1.0, 1.0), (0.5, 0.9), (0.6, 1.7)])
def test_windows_cover_the_image_and_keep_its_aspect(limits: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    zooms, lefts = [], []
    for _ in range(500):
        window = draw_window(640, 480, InputRule(96), CropRule(96, limits), rng.random(4))
        assert window.width / window.height == pytest.approx(4 / 3, abs=0.03)
        for side, corner in ((window.width, window.x), (window.height, window.y)):
            assert min(0, side - 96) <= corner <= max(0, side - 96)
        zooms.append(window.height / 96)
        lefts.append(window.x)
    assert min(zooms) == pytest.approx(limits[0], abs=0.02) and max(zooms) == pytest.approx(limits[1], abs=0.02)
    assert len(set(lefts)) > 10


def test_flips_swap_sides(opened: Callable[..., ShardIndex]) -> None:
    spec = Spec(
        "ego", samples=5, meaning="egohos", size=(32, 32), hand=Label.LEFT_HAND, item=Label.SECOND_RIGHT, kind="png"
    )
    data = crop_data(opened(spec), crop=CropRule(32, (1.0, 1.0)))
    batch = data[np.arange(100)]
    mirrored = 0
    for image, label, row in zip(batch["image"].numpy(), batch["label"].numpy(), batch["row"].tolist(), strict=True):
        original, mask = draw(spec, row)
        flipped = np.array([MIRROR.get(Label(v), v) for v in mask[:, ::-1].ravel()]).reshape(mask.shape)
        if np.array_equal(label, mask):
            np.testing.assert_array_equal(image.transpose(1, 2, 0), original)
        else:
            mirrored += 1
            np.testing.assert_array_equal(label, flipped)
            np.testing.assert_array_equal(image.transpose(1, 2, 0), original[:, ::-1])
    assert 30 < mirrored < 70


def test_a_batch_is_what_the_design_says(mixed: ShardIndex) -> None:
    positions = np.arange(5, 13)
    batch = crop_data(mixed)[positions]
    kinds = {name: (tuple(value.shape), value.dtype) for name, value in batch.items()}
    assert kinds == {
        "image": ((8, 3, 32, 32), torch.uint8),
        "label": ((8, 32, 32), torch.uint8),
        "meaning": ((8,), torch.int16),
        "row": ((8,), torch.int64),
        "position": ((8,), torch.int64),
    }
    np.testing.assert_array_equal(batch["position"], positions)
    names = sorted(mixed.meanings)
    assert [names[m] for m in batch["meaning"]] == [mixed.column("meaning")[row] for row in batch["row"]]
    assert set(mixed.column("split")[batch["row"]]) == {"train"}


def test_ranks_workers_and_restarts_see_the_same_samples(mixed: ShardIndex) -> None:
    data = crop_data(mixed)
    whole = list(Loader(data, start=0, stop=48, batch=12, micro=12, workers=0))
    joined = {name: torch.cat([batch[name] for batch in whole]) for name in whole[0]}
    np.testing.assert_array_equal(joined["position"], np.arange(48))

    parts = [
        batch
        for rank in (0, 1)
        for batch in Loader(data, start=12, stop=48, batch=12, micro=3, rank=rank, world=2, workers=2 * rank)
    ]
    parts.sort(key=lambda batch: int(batch["position"][0]))
    assert len(parts) == 12
    for name, value in joined.items():
        torch.testing.assert_close(torch.cat([batch[name] for batch in parts]), value[12:], rtol=0, atol=0)


class _Reports(CropData):
    """Says how its worker treats signals and threads."""

    def __getitem__(self, positions: np.ndarray) -> dict[str, torch.Tensor]:
        assert get_worker_info() is not None
        ignored = [signal.getsignal(number) is signal.SIG_IGN for number in (signal.SIGTERM, signal.SIGINT)]
        return {"ignored": torch.tensor(ignored), "threads": torch.tensor(torch.get_num_threads())}


def test_workers_leave_signals_to_the_run_and_use_one_thread(mixed: ShardIndex) -> None:
    data = crop_data(mixed)
    data.__class__ = _Reports
    first = next(iter(Loader(data, start=0, stop=8, batch=8, micro=8, workers=1)))
    assert first["ignored"].all() and int(first["threads"]) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_arrives_as_the_shard_s_own_error(opened: Callable[..., ShardIndex], workers: int) -> None:
    index = opened(Spec("one", samples=4))
    path = index.shards[0]
    raw = bytearray(path.read_bytes())
    offset = int(index.column("image_offset")[2])
    raw[offset + 40] ^= 255
    path.write_bytes(raw)
    with pytest.raises(ShardError, match=r"one-train-000000\.tar: one_train_2 .*offset") as caught:
        list(Loader(crop_data(index), start=0, stop=8, batch=8, micro=8, workers=workers))
    assert "Traceback" not in str(caught.value)


def test_workers_start_before_the_first_batch_is_asked_for(mixed: ShardIndex) -> None:
    """Forking later, when the run has threads, may copy a held lock."""
    before = {process.pid for process in multiprocessing.active_children()}
    batches = iter(Loader(crop_data(mixed), start=0, stop=8, batch=8, micro=8, workers=2))
    assert len({process.pid for process in multiprocessing.active_children()} - before) == 2
    next(batches)


def test_batches_waiting_fit_into_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def room(_: Path) -> SimpleNamespace:
        return SimpleNamespace(f_bavail=64, f_frsize=10**6)

    monkeypatch.setattr("os.statvfs", room)
    assert [prefetch_factor(megabytes * 10**6, 2, tmp_path) for megabytes in (1, 5, 10, 16)] == [4, 3, 1, 1]
    with pytest.raises(TrainingError, match=r"64 MB free.*17 MB need 68 MB.*--shm-size"):
        prefetch_factor(17 * 10**6, 2, tmp_path)
    assert prefetch_factor(10**9, 9, tmp_path / "no such folder") == 4


def test_an_undecodable_image_is_named() -> None:
    with pytest.raises(ShardError, match="some_key: its image cannot be decoded"):
        decode_image(b"\xff\xd8 no jpeg", "jpg", "some_key")


def test_gray_and_cmyk_jpegs_become_rgb() -> None:
    import io

    from PIL import Image

    for mode in ("L", "CMYK"):
        buffer = io.BytesIO()
        Image.new(mode, (20, 10)).save(buffer, "JPEG")
        assert decode_image(buffer.getvalue(), "jpg", "k").shape == (10, 20, 3)


def test_uneven_parts_are_refused(mixed: ShardIndex) -> None:
    with pytest.raises(TrainingError, match="micro-batches of 5 on 2 ranks"):
        Loader(crop_data(mixed), start=0, stop=12, batch=12, micro=5, world=2)


def test_crop_data_pickles(mixed: ShardIndex) -> None:
    data = crop_data(mixed)
    again = pickle.loads(pickle.dumps(data))
    torch.testing.assert_close(data[np.arange(4)], again[np.arange(4)])


def test_input_rules() -> None:
    assert InputRule(100).network_size(640, 480) == (133, 100)
    assert InputRule(100).network_size(480, 640) == (100, 133)
    squash = replace(InputRule(100), kind="squash")
    assert squash.network_size(640, 480) == (100, 100)
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    assert squash.resize(image).shape == (100, 100, 3)
    assert InputRule(48).resize(image) is image
    assert InputRule.from_json(squash.to_json()) == squash
