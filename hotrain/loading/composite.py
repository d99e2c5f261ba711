"""One crop made of two: the background replaced, or hand and object of another crop pasted in; labels go along.

The donor of position p is one of the other positions of p's block of 8. Which one, and what is done with it, are
functions of seed and position, so a crop stays the same whatever the batch, the worker or the number of processes. A
micro-batch whose size is a multiple of 8 holds all of its donors; in others a donor may have to be read for itself.

**When this is truthful.** What stands in front is *foreground*: pixels whose stored id cannot mean background. Of
FreiHAND (hand alone) that cuts arm and held object away with the background, which says nothing false: they are gone.
All that remains of the other crop keeps its labels, in the words of the receiver's meaning, which the sample keeps: an
id becomes the one that allows the same labels or the fewest more, and void where none does. So a label may say less
than before, never something else. A donor is taken only where this loses little:

* background: from a donor whose background has a word of its own in the receiver's meaning (FreiHAND may get EgoHOS's
  scenery, where arm and object are now left open too; EgoHOS may not get FreiHAND's, which may hide an object);
* paste: from a donor whose whole foreground has (EgoHOS may get FreiHAND's hands; FreiHAND may not get EgoHOS's, which
  may be arms). Hand and what it holds stay together.

What neither mask can know is not said either: a pasted hand may seem to touch a thing that it never held.

Shapes: S side of a crop, M meanings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hodata.labels import LABELS, Label, Meaning, mirror_table
from hotrain.loading.crop import Box, Window, cut
from hotrain.order import uniforms

COMPOSITE = 10  # purpose of the random numbers drawn here, see `order.uniforms`
BLOCK = 8  # positions among which donors are found
_ZOOM = 0.4, 1.25  # of what is pasted, relative to the donor's crop
_SHARES = 16  # of a pixel, at the seam


@dataclass(frozen=True)
class CompositeRule:
    """Shares of the samples, 0..1, together at most 1: no sample is both.

    Args:
        background: everything but hand, arm and object is taken from another crop.
        paste: hand, arm and object of another crop are put on top, larger or smaller, elsewhere, half of them mirrored
            (Ghiasi et al. 2021, arXiv:2012.07177).
    """

    background: float = 0.0
    paste: float = 0.0

    def kind(self, number: float) -> str | None:
        """`background`, `paste` or None for a number in [0, 1)."""
        if number < self.background:
            return "background"
        return "paste" if number < self.background + self.paste else None


class Layer(NamedTuple):
    """A crop: image uint8 [S, S, 3], label uint8 [S, S], and the number of its meaning."""

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    meaning: int


class Plan(NamedTuple):
    """What becomes of a sample: the donor's position, whether it is pasted or is the background, and four numbers in
    [0, 1) for zoom, x, y and mirror of what is pasted."""

    donor: int
    paste: bool
    numbers: NDArray[np.float64]


class Compositor:
    """Plans and makes composites.

    Args:
        meanings: of the shards; a sample names its own by its place here.
        rule: how often.
        seed: of the run.
    """

    def __init__(self, meanings: Sequence[Meaning], rule: CompositeRule, seed: int) -> None:
        self._rule, self._seed = rule, seed
        self._foreground = np.stack([foreground(meaning) for meaning in meanings])
        self._words = np.stack([[translation(donor, own) for own in meanings] for donor in meanings])
        lost = self._words == Label.VOID
        self._lends_background = ~lost[:, :, Label.BACKGROUND]  # [donor, receiver], as is what follows
        self._lends_foreground = ~(lost & self._foreground[:, None]).any(2)

    def plan(self, position: int, meanings: NDArray[np.int16]) -> Plan | None:
        """What becomes of the sample at a position of the run.

        Args:
            position: p.
            meanings: int16 [8], numbers of the meanings at the positions of p's block.

        Returns:
            None: it stays as it is, because that was drawn, or because no sample of the block can lend what was.
        """
        draw = uniforms(self._seed, position, COMPOSITE, 6)
        kind = self._rule.kind(float(draw[0]))
        if kind is None:
            return None
        paste = kind == "paste"
        lends = (self._lends_foreground if paste else self._lends_background)[meanings, meanings[position % BLOCK]]
        places = [place for place in np.flatnonzero(lends).tolist() if place != position % BLOCK]
        if not places:
            return None
        return Plan(block_of(position)[places[int(draw[1] * len(places))]], paste, draw[2:])

    def make(self, plan: Plan, own: Layer, donor: Layer) -> Layer | None:
        """The composite of two crops, which are left as they are.

        Returns:
            None: there is nothing to take: no foreground, or a donor that is void everywhere.
        """
        words = self._words[donor.meaning, own.meaning]
        if not plan.paste:
            kept = look_up(self._foreground[own.meaning], own.label)
            if not kept.any() or (donor.label == Label.VOID).all():
                return None
            return overlay(own, kept, Layer(donor.image, look_up(words, donor.label), own.meaning))
        lifted = look_up(np.where(self._foreground[donor.meaning], words, np.uint8(Label.VOID)), donor.label)
        if (lifted == Label.VOID).all():
            return None
        moved = move(Layer(donor.image, lifted, own.meaning), plan.numbers)
        return overlay(moved, moved.label != Label.VOID, own)


def block_of(position: int) -> range:
    """The 8 positions among which the donor of a position is found; it is one of them."""
    return range(position - position % BLOCK, position - position % BLOCK + BLOCK)


def foreground(meaning: Meaning) -> NDArray[np.bool_]:
    """bool [256]: the ids that cannot be background: hand, arm, object."""
    sure = np.zeros(256, dtype=bool)
    for stored in set(LABELS) - {Label.VOID}:
        sure[stored] = not meaning.labels_of(stored) & {Label.BACKGROUND, Label.VOID}
    return sure


def translation(donor: Meaning, receiver: Meaning) -> NDArray[np.uint8]:
    """uint8 [256]: for each id of the donor the id of the receiver that allows all of its labels and the fewest more.

    The id itself where it is among the best; void where no id allows all.
    """
    table = np.full(256, Label.VOID, dtype=np.uint8)
    for stored in set(LABELS) - {Label.VOID}:
        needed = donor.labels_of(stored)
        able = [word for word in LABELS if word is not Label.VOID and needed <= receiver.labels_of(word)]
        if able:
            table[stored] = min(able, key=lambda word: (len(receiver.labels_of(word)), word is not stored, word))
    return table


def move(layer: Layer, numbers: NDArray[np.float64]) -> Layer:
    """What of a crop is not void, zoomed, put at another place inside of the crop, mirrored; void around it.

    Args:
        layer: with a pixel at least that is not void.
        numbers: float64 [4] in [0, 1): zoom, x, y, mirror.
    """
    size = len(layer.label)
    taken = _bounds(layer.label != Label.VOID)
    low, high = _ZOOM
    zoom = min(low * (high / low) ** float(numbers[0]), size / max(taken.width, taken.height))
    width, height = (max(math.floor(side * zoom), 1) for side in (taken.width, taken.height))
    corner = math.floor(numbers[1] * (size - width + 1)), math.floor(numbers[2] * (size - height + 1))
    window = Window(taken, Box(*corner, width, height), 1, bool(numbers[3] < 0.5))
    image, label = np.empty_like(layer.image), np.empty_like(layer.label)
    cut(layer.image, layer.label, window, image, label)
    return Layer(image, look_up(mirror_table(), label) if window.mirrored else label, layer.meaning)


def overlay(top: Layer, kept: NDArray[np.bool_], base: Layer) -> Layer:
    """Some pixels of one crop over another.

    Labels change hard. Images mix over one pixel, on the kept side: what is not kept shows the base and nothing else.

    Args:
        top: what comes in front.
        kept: bool [S, S], where it does.
        base: what is seen elsewhere; its labels are in the same meaning.
    """
    image, label = base.image.copy(), base.label.copy()
    if not kept.any():
        return Layer(image, label, base.meaning)
    x, y, width, height = _bounds(kept)
    inside = np.s_[y : y + height, x : x + width]
    front, share = kept[inside], _shares(kept)[inside]
    label[inside] = np.where(front, top.label[inside], label[inside])
    # A mask as large as the image: spreading one over its channels takes twice the time.
    every = np.repeat(front, 3, axis=1).reshape(height, width, 3)
    image[inside] = np.where(every, top.image[inside], image[inside])

    rows, columns = np.nonzero(front & (share < _SHARES))
    mine = share[rows, columns][:, None].astype(np.uint16)
    rows, columns = rows + y, columns + x
    mixed = top.image[rows, columns] * mine + base.image[rows, columns] * (_SHARES - mine)
    image[rows, columns] = (mixed + _SHARES // 2) // _SHARES
    return Layer(image, label, base.meaning)


def look_up(table: NDArray[Any], label: NDArray[np.uint8]) -> NDArray[Any]:
    """`table[label]` for a table of 256 bytes or truth values, in less than half of NumPy's time."""
    return np.frombuffer(label.tobytes().translate(table.tobytes()), table.dtype).reshape(label.shape)


def _bounds(kept: NDArray[np.bool_]) -> Box:
    """The smallest box around what is true, which is something."""
    columns, rows = np.flatnonzero(kept.any(0)), np.flatnonzero(kept.any(1))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1)


def _shares(kept: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """uint8 [S, S], sixteenths: how much of a 3x3 binomial window round each pixel is kept."""
    padded = np.pad(kept.view(np.uint8), 1, mode="edge")
    down = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return np.asarray(down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:])
