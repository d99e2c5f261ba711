"""Batches: what is in them, what damage does to them, and how images are decoded."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_shards import Spec, break_member, crop_data, draw, encode
from PIL import Image

from hodata.errors import ShardError
from hodata.labels import MIRROR, Label
from hodata.shards.reader import SampleReader, ShardIndex
from hotrain.input_rule import InputRule
from hotrain.loading.crop import BEYOND, CropRule
from hotrain.loading.data import batch_of, decode_image


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
        "counts": ((8, 256), torch.int64),
        "meaning": ((8,), torch.int16),
        "row": ((8,), torch.int64),
        "position": ((8,), torch.int64),
    }
    np.testing.assert_array_equal(batch["position"], positions)
    names = sorted(mixed.meanings)
    assert [names[m] for m in batch["meaning"]] == [mixed.column("meaning")[row] for row in batch["row"]]
    assert set(mixed.column("split")[batch["row"]]) == {"train"}


@pytest.mark.parametrize("member", ["image", "mask"])
def test_a_damaged_sample_is_empty_and_named_and_the_others_are_untouched(
    opened: Callable[..., ShardIndex], member: str
) -> None:
    index = opened(Spec("one", samples=6))
    whole = crop_data(index)[np.arange(6)]
    key = break_member(index, 4, member)
    data = crop_data(index, skip_damaged=True)
    pixels = torch.zeros(data.batch_bytes(6), dtype=torch.uint8)
    facts = data.fill(np.arange(6), pixels)
    found = batch_of(pixels, facts)
    assert [(item.key, f"{key} ({member}) at offset" in item.what) for item in facts.damaged] == [(key, True)]
    bad = whole["row"] == 4
    assert (found["image"][bad] == BEYOND).all() and (found["label"][bad] == Label.VOID).all()
    for name in ("meaning", "row", "position"):
        assert torch.equal(found[name], whole[name])
    assert torch.equal(found["image"][~bad], whole["image"][~bad])
    assert torch.equal(found["label"][~bad], whole["label"][~bad])
    assert found["counts"][bad, Label.VOID].tolist() == [found["label"][0].numel()]
    with pytest.raises(ShardError, match=rf"one-train-000000\.tar: {key} .*offset"):
        crop_data(index)[np.arange(6)]


def test_a_decoded_image_has_its_mask_s_size() -> None:
    data = encode(np.zeros((48, 64, 3), np.uint8), "jpg")
    for kind, file in (("jpg", data), ("png", encode(np.zeros((48, 64, 3), np.uint8), "png"))):
        assert decode_image(file, kind, "k", (64, 48)).shape == (48, 64, 3)
        with pytest.raises(ShardError, match="k: its image is 64 x 48, its mask 48 x 64"):
            decode_image(file, kind, "k", (48, 64))
    for shrink in (2, 4, 8):
        odd = encode(np.zeros((45, 63, 3), np.uint8), "jpg")
        assert decode_image(odd, "jpg", "k", (63, 45), shrink).shape == (-(-45 // shrink), -(-63 // shrink), 3)


def test_a_jpeg_that_claims_to_be_huge_takes_no_memory() -> None:
    data = bytearray(encode(np.zeros((48, 64, 3), np.uint8), "jpg"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xdc\xff\xdc"
    with pytest.raises(ShardError, match="its image is 65500 x 65500"):
        decode_image(bytes(data), "jpg", "k", (64, 48))


def test_an_undecodable_image_is_named() -> None:
    with pytest.raises(ShardError, match="some_key: its image cannot be decoded"):
        decode_image(b"\xff\xd8 no jpeg", "jpg", "some_key")


def test_gray_and_cmyk_jpegs_become_rgb() -> None:
    for mode in ("L", "CMYK"):
        buffer = io.BytesIO()
        Image.new(mode, (20, 10)).save(buffer, "JPEG")
        assert decode_image(buffer.getvalue(), "jpg", "k").shape == (10, 20, 3)


def test_a_shard_is_read_forward(mixed: ShardIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mounted storage reads ahead; going back may cost another request."""
    original, read = SampleReader._read_once, []

    def read_once(reader: SampleReader, member: str, row: int) -> bytes:
        read.append((row, int(mixed.column(f"{member}_offset")[row])))
        return original(reader, member, row)

    monkeypatch.setattr(SampleReader, "_read_once", read_once)
    _ = crop_data(mixed)[np.arange(12)]
    assert len(read) == 24
    for (row, first), (same, second) in zip(read[::2], read[1::2], strict=True):
        assert row == same and first < second


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
