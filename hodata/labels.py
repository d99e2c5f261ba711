"""Label ids, what a stored id may truly mean, and the classes of a task. The only room that knows ids.

Datasets draw "hand" and "object" differently (EgoHOS with arm and sleeve, FreiHAND to the wrist and never an
object), so a mask stores what was drawn and its sample names a `Meaning`: for each stored id, the labels that
such a pixel may truly have. A `Task` maps labels to classes. Both together are one table of 256 bit masks
(`task_table`): stored id -> set of classes the pixel may be. Loss, metrics and previews read that table only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Label(IntEnum):
    """Ids stored in masks. 0-8 are EgoHOS's own (owenzlz/EgoHOS README)."""

    BACKGROUND = 0  # also scenery: an object that no hand touches and that is not the recording's subject
    LEFT_HAND = 1
    RIGHT_HAND = 2
    OBJECT_LEFT = 3  # held by the left hand
    OBJECT_RIGHT = 4
    OBJECT_BOTH = 5
    SECOND_LEFT = 6  # touched through a tool that the left hand holds
    SECOND_RIGHT = 7
    SECOND_BOTH = 8
    HAND = 9  # side unknown
    OBJECT = 10  # holder unknown
    LEFT_ARM = 11
    RIGHT_ARM = 12
    ARM = 13  # side unknown
    VOID = 255  # undecided: never trained on, never scored

    @property
    def label_name(self) -> str:
        """The name used in files and tables: `left_hand`."""
        return self.name.lower()


LABELS: tuple[Label, ...] = tuple(Label)
HANDS = frozenset({Label.LEFT_HAND, Label.RIGHT_HAND, Label.HAND})
ARMS = frozenset({Label.LEFT_ARM, Label.RIGHT_ARM, Label.ARM})
OBJECTS = frozenset({Label.OBJECT_LEFT, Label.OBJECT_RIGHT, Label.OBJECT_BOTH, Label.OBJECT})
SECOND = frozenset({Label.SECOND_LEFT, Label.SECOND_RIGHT, Label.SECOND_BOTH})

# Labels that leave the side or the holder open stand for each of the sided ones as well.
_COVERS: dict[Label, frozenset[Label]] = {
    Label.HAND: HANDS,
    Label.ARM: ARMS,
    Label.OBJECT: OBJECTS | SECOND,
    Label.VOID: frozenset(Label),
}

# What a left-right mirrored picture turns each side into.
MIRROR: dict[Label, Label] = {
    Label.LEFT_HAND: Label.RIGHT_HAND,
    Label.RIGHT_HAND: Label.LEFT_HAND,
    Label.OBJECT_LEFT: Label.OBJECT_RIGHT,
    Label.OBJECT_RIGHT: Label.OBJECT_LEFT,
    Label.SECOND_LEFT: Label.SECOND_RIGHT,
    Label.SECOND_RIGHT: Label.SECOND_LEFT,
    Label.LEFT_ARM: Label.RIGHT_ARM,
    Label.RIGHT_ARM: Label.LEFT_ARM,
}

# sRGB colours of overlays and legends; void is drawn hatched or grey.
COLORS: dict[Label, tuple[int, int, int]] = {
    Label.BACKGROUND: (0, 0, 0),
    Label.LEFT_HAND: (34, 136, 255),
    Label.RIGHT_HAND: (255, 76, 60),
    Label.OBJECT_LEFT: (0, 214, 170),
    Label.OBJECT_RIGHT: (255, 200, 0),
    Label.OBJECT_BOTH: (120, 220, 40),
    Label.SECOND_LEFT: (0, 140, 140),
    Label.SECOND_RIGHT: (200, 130, 0),
    Label.SECOND_BOTH: (90, 140, 60),
    Label.HAND: (214, 80, 220),
    Label.OBJECT: (250, 230, 90),
    Label.LEFT_ARM: (120, 180, 255),
    Label.RIGHT_ARM: (255, 160, 140),
    Label.ARM: (235, 170, 240),
    Label.VOID: (150, 150, 150),
}


def label_from_name(name: str) -> Label:
    """The label called `name` (`left_hand`, case-insensitive).

    Raises:
        ValueError: no label has that name; the message lists all.
    """
    try:
        return Label[name.strip().upper().replace("-", "_").replace(" ", "_")]
    except KeyError:
        known = ", ".join(label.label_name for label in LABELS)
        raise ValueError(f"unknown label {name!r}; known labels: {known}") from None


def is_legal() -> NDArray[np.bool_]:
    """bool [256]: True where the id is a label."""
    legal = np.zeros(256, dtype=bool)
    legal[[int(label) for label in LABELS]] = True
    return legal


def mirror_table() -> NDArray[np.uint8]:
    """uint8 [256]: the id that each id becomes when the picture is flipped left to right."""
    table = np.arange(256, dtype=np.uint8)
    for old, new in MIRROR.items():
        table[old] = new
    return table


def color_table() -> NDArray[np.uint8]:
    """uint8 [256, 3]: the overlay colour (sRGB) of each id; illegal ids are white."""
    table = np.full((256, 3), 255, dtype=np.uint8)
    for label, color in COLORS.items():
        table[label] = color
    return table


@dataclass(frozen=True)
class Meaning:
    """For each stored id, the labels that such a pixel may truly have.

    Args:
        name: how JSON members and index rows refer to it.
        description: one sentence for people.
        sets: stored label -> labels it may be; a label that is not listed means itself.
        scored: whether such masks may judge a model; False where most of a picture is left open.
    """

    name: str
    description: str
    sets: Mapping[Label, frozenset[Label]] = field(default_factory=dict)
    scored: bool = True

    def labels_of(self, stored: Label) -> frozenset[Label]:
        """The labels a pixel stored as `stored` may have (VOID: any).

        What is said of one side alone holds for the other: a mirrored picture has labels that the dataset never drew.
        """
        other = MIRROR.get(stored, stored)
        if stored not in self.sets and other in self.sets:
            return frozenset(MIRROR.get(label, label) for label in self.sets[other])
        return self.sets.get(stored, frozenset({stored}))

    def allows(self, stored: Label, true: Label) -> bool:
        """Whether a pixel that is truly `true` may be stored as `stored`; `hand` covers both sides, and so on."""
        allowed: set[Label] = set()
        for label in self.labels_of(stored):
            allowed |= _COVERS.get(label, frozenset({label}))
        return true is Label.VOID or true in allowed

    def to_json(self) -> dict[str, object]:
        """For the manifest; `from_json` reads it back."""
        return {
            "name": self.name,
            "description": self.description,
            "sets": {
                stored.label_name: [label.label_name for label in sorted(labels)]
                for stored, labels in sorted(self.sets.items())
            },
            "scored": self.scored,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Meaning:
        """The inverse of `to_json`.

        Raises:
            ValueError: a field is missing or names an unknown label.
        """
        name, sets = data.get("name"), data.get("sets")
        if not isinstance(name, str) or not isinstance(sets, Mapping):
            raise ValueError(f"a meaning needs `name` and `sets`, found {sorted(data)}")
        return cls(name, str(data.get("description", "")), parse_sets(sets), data.get("scored", True) is not False)


def parse_sets(sets: Mapping[str, Iterable[str]]) -> dict[Label, frozenset[Label]]:
    """`{"hand": ["hand", "arm"]}` with label names -> the same with labels.

    Raises:
        ValueError: an unknown label name, or an empty list.
    """
    parsed: dict[Label, frozenset[Label]] = {}
    for stored, labels in sets.items():
        members = [labels] if isinstance(labels, str) else list(labels)
        if not members:
            raise ValueError(f"the meaning of {stored!r} is empty; list at least one label")
        parsed[label_from_name(stored)] = frozenset(label_from_name(label) for label in members)
    return parsed


def _sets(**sets: Iterable[Label]) -> dict[Label, frozenset[Label]]:
    return {Label[stored.upper()]: frozenset(labels) for stored, labels in sets.items()}


MEANINGS: dict[str, Meaning] = {
    meaning.name: meaning
    for meaning in (
        Meaning("exact", "every id is what it says: hand to the wrist, arm and touched objects apart"),
        Meaning(
            "egohos",
            "hand with the whole visible arm and sleeve; objects only where touched",
            _sets(
                left_hand=(Label.LEFT_HAND, Label.LEFT_ARM),
                right_hand=(Label.RIGHT_HAND, Label.RIGHT_ARM),
            ),
        ),
        Meaning(
            "hand-wrist",
            "hand to the wrist; arm and object are drawn as background (FreiHAND, EgoHands)",
            _sets(background=(Label.BACKGROUND, Label.ARM, Label.OBJECT)),
        ),
        Meaning(
            "hand-rendered",
            "a hand's mesh alone, drawn over whatever has none: a held object or the arm in front of it, and beside it "
            "arm and object are background; never scored",
            _sets(
                background=(Label.BACKGROUND, Label.ARM, Label.OBJECT),
                hand=(Label.HAND, Label.ARM, Label.OBJECT),
                left_hand=(Label.LEFT_HAND, Label.LEFT_ARM, Label.OBJECT),
                right_hand=(Label.RIGHT_HAND, Label.RIGHT_ARM, Label.OBJECT),
            ),
            scored=False,
        ),
        Meaning(
            "hand-arm",
            "hand with arm and sleeve; objects are drawn as background",
            _sets(
                background=(Label.BACKGROUND, Label.OBJECT),
                hand=(Label.HAND, Label.ARM),
                left_hand=(Label.LEFT_HAND, Label.LEFT_ARM),
                right_hand=(Label.RIGHT_HAND, Label.RIGHT_ARM),
            ),
        ),
        Meaning(
            "hand-object-wrist",
            "hand to the wrist and every touched object; the arm is drawn as background",
            _sets(background=(Label.BACKGROUND, Label.ARM)),
        ),
        Meaning(
            "object-amodal",
            "the whole object is drawn, no hand: an object pixel near the hand may be a finger in front of it (HO-3D "
            "evaluation without hand poses); never scored",
            _sets(
                background=(Label.BACKGROUND, Label.ARM, Label.HAND),
                # HO-3D has right hands only; a mirrored picture needs the left one's words.
                object_left=(Label.OBJECT, Label.HAND),
                object_right=(Label.OBJECT, Label.HAND),
            ),
            scored=False,
        ),
        Meaning(
            "hand-object-arm",
            "hand with arm and sleeve, and every touched object",
            _sets(
                hand=(Label.HAND, Label.ARM),
                left_hand=(Label.LEFT_HAND, Label.LEFT_ARM),
                right_hand=(Label.RIGHT_HAND, Label.RIGHT_ARM),
            ),
        ),
    )
}


@dataclass(frozen=True)
class Task:
    """Classes to be told apart, and the classes that each label may be.

    Training tells arms from hands even though no published class list does: the last entries of `classes` are
    internal arm classes, and `fold(extent)` turns them into hand or background.

    Args:
        name: as given to `--task`.
        classes: class names; index = class id; the first `public` of them are reported.
        public: how many classes are reported; the rest are arms.
        sets: label -> class ids that a pixel of this label may be.
        arm_to_hand: internal arm class id -> hand class id at extent `arm`.
    """

    name: str
    classes: tuple[str, ...]
    public: int
    sets: Mapping[Label, frozenset[int]]
    arm_to_hand: Mapping[int, int]

    @property
    def public_classes(self) -> tuple[str, ...]:
        return self.classes[: self.public]

    def fold(self, extent: str) -> NDArray[np.uint8]:
        """uint8 [K]: class id -> public class id; arms become background (`wrist`) or their hand (`arm`)."""
        if extent not in EXTENTS:
            raise ValueError(f"extent must be one of {', '.join(EXTENTS)}, not {extent!r}")
        table = np.arange(len(self.classes), dtype=np.uint8)
        for arm, hand in self.arm_to_hand.items():
            table[arm] = hand if extent == "arm" else 0
        return table

    @property
    def labels(self) -> tuple[Label, ...]:
        """The label that each class stands for; what else a class is follows from it."""
        return tuple(_CLASS_LABELS.get(name) or Label[name.upper()] for name in self.classes)

    def mirrored(self) -> list[int]:
        """For each class the one that it becomes in a mirrored picture: left and right change places."""
        return [self.labels.index(MIRROR.get(label, label)) for label in self.labels]

    def kind_of(self, class_id: int) -> str:
        """`background`, `hand`, `object` or `arm`: what a class is, whatever its side or holder."""
        label = self.labels[class_id]
        if label is Label.BACKGROUND:
            return "background"
        return "arm" if label in ARMS else "hand" if label in HANDS else "object"


EXTENTS = ("wrist", "arm")
_CLASS_LABELS = {"left": Label.LEFT_HAND, "right": Label.RIGHT_HAND}  # the other classes have a label's name


def _task(name: str, public: tuple[str, ...], arms: Mapping[str, str], labels: Mapping[Label, tuple[str, ...]]) -> Task:
    classes = public + tuple(arms)
    ids = {class_name: index for index, class_name in enumerate(classes)}
    everything = frozenset(ids.values())
    sets = {Label.BACKGROUND: frozenset({0}), Label.VOID: everything}
    for label, names in labels.items():
        sets[label] = frozenset(ids[class_name] for class_name in names) if names else everything
    return Task(name, classes, len(public), sets, {ids[arm]: ids[hand] for arm, hand in arms.items()})


def _each(labels: Iterable[Label], *classes: str) -> dict[Label, tuple[str, ...]]:
    return dict.fromkeys(labels, classes)


_SIDED = {
    Label.LEFT_HAND: ("left",),
    Label.RIGHT_HAND: ("right",),
    Label.HAND: ("left", "right"),
    Label.LEFT_ARM: ("left_arm",),
    Label.RIGHT_ARM: ("right_arm",),
    Label.ARM: ("left_arm", "right_arm"),
}

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _task(
            "hand",
            ("background", "hand"),
            {"arm": "hand"},
            {**_each(HANDS, "hand"), **_each(ARMS, "arm"), **_each(OBJECTS | SECOND, "background")},
        ),
        _task(
            "hand-object",
            ("background", "hand", "object"),
            {"arm": "hand"},
            {**_each(HANDS, "hand"), **_each(ARMS, "arm"), **_each(OBJECTS, "object"), **_each(SECOND)},
        ),
        _task(
            "sides",
            ("background", "left", "right", "object"),
            {"left_arm": "left", "right_arm": "right"},
            {**_SIDED, **_each(OBJECTS, "object"), **_each(SECOND)},
        ),
        _task(
            "egohos",
            ("background", "left", "right", "object_left", "object_right", "object_both"),
            {"left_arm": "left", "right_arm": "right"},
            {
                **_SIDED,
                Label.OBJECT_LEFT: ("object_left",),
                Label.OBJECT_RIGHT: ("object_right",),
                Label.OBJECT_BOTH: ("object_both",),
                Label.OBJECT: ("object_left", "object_right", "object_both"),
                **_each(SECOND, "background"),
            },
        ),
    )
}


def task_table(meaning: Meaning, task: Task) -> NDArray[np.uint8]:
    """The set of classes that a pixel may be, for every stored id.

    Returns:
        uint8 [256]: bit c is set where class c is possible. Void: all bits of the task. An id that is no label: 0.
    """
    table = np.zeros(256, dtype=np.uint8)
    for stored in LABELS:
        for label in meaning.labels_of(stored):
            for class_id in task.sets[label]:
                table[stored] |= np.uint8(1 << class_id)
    return table


def fold_sets(fold: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Carry `Task.fold` over from classes to sets of classes.

    Args:
        fold: uint8 [K], class -> public class.

    Returns:
        uint8 [2**K]: bit mask over K classes -> bit mask over public classes.
    """
    masks = np.arange(1 << len(fold))
    folded = np.zeros(len(masks), dtype=np.uint8)
    for class_id, public in enumerate(fold):
        folded |= (((masks >> class_id) & 1) << int(public)).astype(np.uint8)
    return folded


def scored_extent(meaning: Meaning, task: Task, wanted: str) -> str:
    """The extent at which masks of this meaning can score hands: `wanted` if they decide it, else the other one.

    A mask whose hand may be arm (EgoHOS) says nothing of hands that end at the wrist, and one whose background may
    be arm (FreiHAND) nothing of hands with arms: no id may leave open whether a pixel is hand.
    """
    table = task_table(meaning, task)
    full = (1 << len(task.classes)) - 1
    hands = sum(1 << c for c in range(task.public) if task.kind_of(c) == "hand")
    for extent in (wanted, *(extent for extent in EXTENTS if extent != wanted)):
        folded = fold_sets(task.fold(extent))
        sets = [int(folded[table[label]]) for label in LABELS if table[label] != full]
        if not any(members & hands and members & ~hands for members in sets):
            return extent
    return wanted
