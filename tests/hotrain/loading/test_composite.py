"""Composites: labels are those of the two crops and stay true, images change where they say, by position alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from drawn_shards import Spec, break_member, crop_data
from hypothesis import given, settings
from hypothesis import strategies as st

from hodata.labels import LABELS, MEANINGS, MIRROR, TASKS, Label, Meaning, task_table
from hodata.shards.reader import ShardIndex
from hotrain.loading.composite import (
    BLOCK,
    CompositeRule,
    Compositor,
    Layer,
    Plan,
    block_of,
    foreground,
    move,
    overlay,
    translation,
)
from hotrain.loading.crop import CropRule
from hotrain.loading.degrade import DegradeRule
from hotrain.loading.loader import Loader

ODD = Meaning(
    "odd",
    "ids of another kind",
    {
        Label.HAND: frozenset({Label.ARM}),
        Label.ARM: frozenset({Label.HAND}),
        Label.OBJECT: frozenset({Label.OBJECT, Label.BACKGROUND}),
        Label.SECOND_LEFT: frozenset({Label.OBJECT_LEFT}),
    },
)
ALL = [*MEANINGS.values(), ODD]
NAMES = [meaning.name for meaning in ALL]
ZOOM_1 = float(np.log(1 / 0.4) / np.log(1.25 / 0.4)) + 1e-9
CENTRE = np.array([ZOOM_1, 0.3, 0.6, 0.9])  # not mirrored


def layer(meaning: str, seed: int = 0, size: int = 24) -> Layer:
    """Noise with an object and, before it, a left hand, as the meaning draws them; a corner is void."""
    rng = np.random.default_rng(seed)
    label = np.zeros((size, size), np.uint8)
    top, left = rng.integers(2, size - 14, 2)
    label[top : top + 7, left : left + 9] = Label.OBJECT_LEFT
    label[top + 3 : top + 12, left + 2 : left + 6] = Label.LEFT_HAND
    label[-2:] = Label.VOID
    return Layer(rng.integers(0, 256, (size, size, 3), dtype=np.uint8), label, NAMES.index(meaning))


@pytest.mark.parametrize(("donor", "receiver"), itertools.product(ALL, ALL), ids=lambda meaning: meaning.name)
def test_a_translated_id_allows_all_that_it_allowed(donor: Meaning, receiver: Meaning) -> None:
    """For every label that a pixel may truly have, and for the classes of every task."""
    table = translation(donor, receiver)
    for stored in set(LABELS) - {Label.VOID}:
        word = Label(int(table[stored]))
        assert all(receiver.allows(word, true) for true in donor.labels_of(stored))
        if donor is receiver:
            assert donor.labels_of(word) == donor.labels_of(stored)
    for task in TASKS.values():
        before, after = task_table(donor, task), task_table(receiver, task)[table]
        assert not (before & ~after)[[int(label) for label in LABELS]].any()


def test_words_between_the_datasets() -> None:
    """What the docstring promises: what is lost between FreiHAND, EgoHOS and HO-3D, and what is not."""
    frei, ego, ho3d = (MEANINGS[name] for name in ("hand-wrist", "egohos", "hand-object-wrist"))
    zero, hand, item = Label.BACKGROUND, Label.RIGHT_HAND, Label.OBJECT_RIGHT
    assert translation(ego, frei)[zero] == zero and translation(frei, ego)[zero] == Label.VOID
    assert translation(frei, ego)[hand] == hand and translation(ego, frei)[hand] == Label.VOID
    assert translation(ho3d, frei)[[zero, hand, item]].tolist() == [zero, hand, item]
    assert translation(frei, ho3d)[zero] == Label.VOID
    assert translation(MEANINGS["exact"], ODD)[Label.ARM] == Label.HAND  # by what ids mean, not by their names
    assert not foreground(MEANINGS["object-amodal"])[zero] and foreground(ego)[hand]
    assert translation(ODD, ODD)[Label.SECOND_LEFT] == Label.SECOND_LEFT  # of two words for one thing, its own
    assert not foreground(frei)[Label.VOID] and not foreground(ODD)[Label.OBJECT]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), pair=st.permutations(range(len(ALL))), same=st.booleans())
def test_background_is_the_other_crop_and_foreground_stays(seed: int, pair: list[int], same: bool) -> None:
    own, donor = layer(NAMES[pair[0]], seed), layer(NAMES[pair[0] if same else pair[1]], seed + 1)
    before = [part.copy() for part in (*own[:2], *donor[:2])]
    made = Compositor(ALL, CompositeRule(1.0), 0).make(Plan(1, False, CENTRE), own, donor)
    assert made is not None and made.meaning == own.meaning
    kept = (own.label == Label.LEFT_HAND) | (own.label == Label.OBJECT_LEFT)
    words = translation(ALL[donor.meaning], ALL[own.meaning])
    np.testing.assert_array_equal(made.label, np.where(kept, own.label, words[donor.label]))
    np.testing.assert_array_equal(made.image[~kept], donor.image[~kept])
    _one_pixel_of_seam(made.image, own.image, donor.image, kept)
    for part, old in zip((*own[:2], *donor[:2]), before, strict=True):
        np.testing.assert_array_equal(part, old)


def _one_pixel_of_seam(image: np.ndarray, top: np.ndarray, base: np.ndarray, kept: np.ndarray) -> None:
    """Deep inside the top as it is; on its border a mixture, at least a quarter of the top."""
    padded = np.pad(kept, 1, mode="edge")
    size = len(kept)
    deep = np.logical_and.reduce([padded[y : y + size, x : x + size] for y in range(3) for x in range(3)])
    np.testing.assert_array_equal(image[deep], top[deep])
    rim = kept & ~deep
    low, high = np.minimum(top, base)[rim], np.maximum(top, base)[rim]
    assert ((image[rim] >= low) & (image[rim] <= high)).all()
    nearer = np.abs(image[rim].astype(int) - top[rim]) <= 0.75 * (high.astype(int) - low) + 1
    assert nearer.all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), numbers=st.lists(st.floats(0, 0.9999), min_size=4, max_size=4).map(np.array))
def test_what_is_pasted_and_what_is_not(seed: int, numbers: np.ndarray) -> None:
    own, donor = layer("hand-wrist", seed), layer("hand-object-wrist", seed + 1)
    made = Compositor(ALL, CompositeRule(paste=1.0), 0).make(Plan(1, True, numbers), own, donor)
    assert made is not None
    swap = MIRROR if numbers[3] < 0.5 else {}
    front = foreground(ALL[donor.meaning])[donor.label]
    lifted = np.where(front, donor.label, np.uint8(Label.VOID))
    moved = move(Layer(donor.image, lifted, own.meaning), numbers)
    pasted = moved.label != Label.VOID
    np.testing.assert_array_equal(made.label, np.where(pasted, moved.label, own.label))
    np.testing.assert_array_equal(made.image[~pasted], own.image[~pasted])
    found = set(np.unique(moved.label[pasted]).tolist())
    assert found <= {swap.get(label, label) for label in (Label.LEFT_HAND, Label.OBJECT_LEFT)} and found
    assert 0.05 * front.sum() < pasted.sum() < 2 * front.sum()


def drawn(meaning: Meaning, seed: int) -> Layer:
    """A crop whose image is its own truth, one label in all channels, drawn as the meaning draws it."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((24, 24), np.uint8)
    for label in (Label.OBJECT_LEFT, Label.LEFT_ARM, Label.LEFT_HAND, Label.RIGHT_HAND):
        top, left, height, width = (*rng.integers(0, 16, 2), *rng.integers(3, 12, 2))
        truth[top : top + height, left : left + width] = label
    stored = np.full(256, Label.VOID, np.uint8)
    for true in map(Label, np.unique(truth).tolist()):
        stored[true] = next((word for word in LABELS if meaning.allows(word, true)), Label.VOID)
    return Layer(np.repeat(truth[..., None], 3, 2), stored[truth], ALL.index(meaning))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1000), pair=st.tuples(*[st.sampled_from(ALL)] * 2), paste=st.booleans())
def test_every_label_of_a_composite_is_true(seed: int, pair: tuple[Meaning, Meaning], paste: bool) -> None:
    """The image says what each pixel truly is, wherever it came from; the label allows that. With hard seams."""
    own, donor = drawn(pair[0], seed), drawn(pair[1], seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hotrain.loading.composite._shares", lambda kept: np.full(kept.shape, 16, np.uint8))
        made = Compositor(ALL, CompositeRule(0.5, 0.5), 0).make(Plan(1, paste, CENTRE), own, donor)
    if made is not None:
        said = set(zip(made.label.ravel().tolist(), made.image[..., 0].ravel().tolist(), strict=True))
        assert [pair for pair in said if not ALL[made.meaning].allows(Label(pair[0]), Label(pair[1]))] == []


def test_moving_at_zoom_1_is_a_shift_or_a_mirrored_one() -> None:
    """Against slices: hand and object at another place, sides swapped where mirrored."""
    source = layer("exact", 3)
    lifted = Layer(source.image, np.where(source.label == Label.BACKGROUND, np.uint8(255), source.label), 0)
    rows, columns = np.nonzero(lifted.label != Label.VOID)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    for mirror in (0.9, 0.1):
        moved = move(lifted, np.array([ZOOM_1, 0.999, 0.0, mirror]))
        height, width = lifted.label[box].shape
        step = -1 if mirror < 0.5 else 1
        at = np.s_[:height, :width] if mirror < 0.5 else np.s_[:height, 24 - width :]
        expected = lifted.label[box][:, ::step]
        if mirror < 0.5:
            expected = np.vectorize(lambda v: MIRROR.get(Label(v), v))(expected)
        np.testing.assert_array_equal(moved.label[at], expected)
        np.testing.assert_array_equal(moved.image[at], lifted.image[box][:, ::step])
        assert (moved.label != Label.VOID).sum() == len(rows)


def test_without_foreground_or_with_a_void_donor_nothing_is_made() -> None:
    maker, own = Compositor(ALL, CompositeRule(0.5, 0.5), 0), layer("exact")
    empty = Layer(own.image, np.zeros_like(own.label), own.meaning)
    void = Layer(own.image, np.full_like(own.label, Label.VOID), own.meaning)
    assert maker.make(Plan(1, False, CENTRE), empty, own) is None
    assert maker.make(Plan(1, False, CENTRE), own, void) is None
    assert maker.make(Plan(1, True, CENTRE), own, empty) is None
    assert maker.make(Plan(1, True, CENTRE), own, void) is None
    assert maker.make(Plan(1, True, CENTRE), void, own) is not None


def test_overlaying_nothing_or_everything() -> None:
    one, other = layer("exact", 1), layer("exact", 2)
    none, every = np.zeros((24, 24), bool), np.ones((24, 24), bool)
    for kept, expected in ((none, other), (every, one)):
        made = overlay(one, kept, other)
        np.testing.assert_array_equal(made.image, expected.image)
        np.testing.assert_array_equal(made.label, expected.label)


def test_donors_are_drawn_among_those_that_fit() -> None:
    """EgoHOS takes FreiHAND's hands and not its background; each fitting place is drawn about equally often."""
    ego, frei = NAMES.index("egohos"), NAMES.index("hand-wrist")
    block = np.array([ego, frei, ego, frei, ego, frei, frei, frei], np.int16)
    maker = Compositor(ALL, CompositeRule(background=0.3, paste=0.5), 5)
    drawn: dict[tuple[bool, bool], list[int]] = {}
    plans = 0
    for position in range(8 * 600):
        plan = maker.plan(position, block)
        if plan:
            plans += 1
            assert plan.donor in block_of(position) and plan.donor != position
            drawn.setdefault((block[position % BLOCK] == ego, plan.paste), []).append(plan.donor % BLOCK)
    assert plans / 4800 == pytest.approx(0.8, abs=0.03)
    assert {kind: set(places) for kind, places in drawn.items()} == {
        (True, True): set(range(8)),
        (True, False): {0, 2, 4},
        (False, True): {1, 3, 5, 6, 7},
        (False, False): set(range(8)),
    }
    counts = np.bincount(drawn[(False, True)], minlength=8)[[1, 3, 5, 6, 7]]
    assert counts.min() > 0.7 * counts.max()
    lonely = np.array([ego, *[frei] * 7], np.int16)
    plans_there = [maker.plan(position, lonely) for position in range(0, 4800, 8)]
    assert all(plan is None or plan.paste for plan in plans_there)


EVERYTHING = {"composite": CompositeRule(0.3, 0.6), "degrade": DegradeRule(0.5, 0.5, 0.5)}


@pytest.fixture
def three(opened: Callable[..., ShardIndex]) -> ShardIndex:
    return opened(
        Spec("ego", samples=11, meaning="egohos", hand=Label.LEFT_HAND, item=Label.OBJECT_LEFT),
        Spec("wrist", samples=7, meaning="hand-wrist", size=(40, 40), item=Label.BACKGROUND, kind="png"),
        Spec("held", samples=9, meaning="hand-object-wrist", hand=Label.RIGHT_HAND, item=Label.OBJECT_RIGHT),
    )


def test_off_is_as_before(three: ShardIndex) -> None:
    plain = crop_data(three)[np.arange(48)]
    torch.testing.assert_close(crop_data(three, composite=CompositeRule(), degrade=DegradeRule())[np.arange(48)], plain)


def test_a_crop_depends_on_seed_and_position_alone(three: ShardIndex) -> None:
    """Whatever the micro-batch (also odd ones, whose donors lie elsewhere), rank, number of processes and workers."""
    whole = crop_data(three, **EVERYTHING)[np.arange(48)]
    plain = crop_data(three)[np.arange(48)]
    changed = (whole["label"] != plain["label"]).flatten(1).any(1)
    assert 0.5 < float(changed.float().mean()) < 1
    assert torch.equal(whole["meaning"], plain["meaning"]) and torch.equal(whole["row"], plain["row"])
    for label, counts in zip(whole["label"], whole["counts"], strict=True):  # of the crop as it is learnt from
        assert counts.tolist() == np.bincount(label.ravel(), minlength=256).tolist()
    for micro, world, accumulation, workers in ((8, 1, 2, 1), (2, 2, 1, 0), (3, 1, 2, 2), (4, 3, 1, 0), (1, 4, 3, 0)):
        shares = {"start": 0, "stop": 48, "batch": micro * world * accumulation, "micro": micro, "world": world}
        for rank in range(world):
            for batch in Loader(crop_data(three, **EVERYTHING), **shares, rank=rank, workers=workers):
                for name, found in batch.items():
                    assert torch.equal(found, whole[name][batch["position"]]), (micro, world, name)
    later = crop_data(three, **EVERYTHING)[np.arange(20, 31)]
    assert torch.equal(later["image"], whole["image"][20:31])
    other = crop_data(three, seed=4, **EVERYTHING)[np.arange(48)]
    assert not torch.equal(other["image"], whole["image"])


def test_degrading_leaves_labels_alone(three: ShardIndex) -> None:
    plain = crop_data(three)[np.arange(32)]
    found = crop_data(three, degrade=DegradeRule(1, 1, 1))[np.arange(32)]
    assert torch.equal(found["label"], plain["label"])
    assert (found["image"] != plain["image"]).flatten(1).any(1).all()


def test_a_damaged_donor_lends_nothing(three: ShardIndex) -> None:
    """In the batch or not: its receiver stays as it is, and only its own position names it."""
    rule = CompositeRule(0.5, 0.5)
    row = int(crop_data(three)[np.arange(1)]["row"][0])
    break_member(three, row)
    data = crop_data(three, composite=rule, skip_damaged=True)
    plain = crop_data(three, skip_damaged=True)
    whole, pixels = data[np.arange(8)], torch.empty(data.batch_bytes(8), dtype=torch.uint8)
    assert len(data.fill(np.arange(8), pixels).damaged) == 1
    alone = [data[np.arange(p, p + 1)] for p in range(8)]
    assert torch.equal(torch.cat([batch["image"] for batch in alone]), whole["image"])
    for p in range(1, 8):
        facts = data.fill(np.arange(p, p + 1), torch.empty(data.batch_bytes(1), dtype=torch.uint8))
        assert facts.damaged == []
    assert not torch.equal(whole["image"], plain[np.arange(8)]["image"])


def test_crops_of_a_run_stay_flips_of_each_other(opened: Callable[..., ShardIndex]) -> None:
    """Sides: wherever a hand is pasted, left hands hold left objects and right hands right ones."""
    spec = Spec("ego", samples=6, meaning="exact", size=(32, 32), hand=Label.LEFT_HAND, item=Label.OBJECT_LEFT)
    batch = crop_data(opened(spec), crop=CropRule(32, (1, 1)), composite=CompositeRule(paste=1.0))[np.arange(64)]
    kinds = {tuple(np.unique(label).tolist()) for label in batch["label"].numpy()}
    sided = ({Label.LEFT_HAND, Label.OBJECT_LEFT}, {Label.RIGHT_HAND, Label.OBJECT_RIGHT})
    assert any(sided[0] <= set(kind) for kind in kinds) and any(sided[1] <= set(kind) for kind in kinds)
    both = [kind for kind in kinds if Label.LEFT_HAND in kind and Label.RIGHT_HAND in kind]
    assert both
