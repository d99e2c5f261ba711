"""Which of HO-3D's sequences a miniature has, who handles what in them, and which cameras film a recording."""

from __future__ import annotations

from dataclasses import dataclass

from hodata.errors import HodataError
from hodata.synth.stage_table import Plot
from hodata.synth.streams import stream

STEP = (2, 10)  # smallest and largest distance of frame numbers
FIRST, LAST = 120, 9999  # the first frame's number is below the one, every number at most the other: four digits
SPAN = 210  # frame numbers that a sequence should cover: one period of a `lift`

# Recordings of several cameras, by name without the camera's digit: the digits there are.
CAMERAS = {
    "ABF1": (0, 1, 2, 3, 4), "BB1": (0, 1, 2, 3, 4), "GPMF1": (0, 1, 2, 3, 4), "GSF1": (0, 1, 2, 3, 4),
    "MDF1": (0, 1, 2, 3, 4), "SB1": (0, 1, 2, 3, 4), "ShSu1": (0, 2, 3, 4), "SiBF1": (0, 1, 2, 3, 4),
    "SMu4": (0, 1, 2), "MPM1": (0, 1, 2, 3, 4), "AP1": (0, 1, 2, 3, 4),
}  # fmt: skip


@dataclass(frozen=True)
class Sequence:
    """One sequence: its folder name, `train` or `evaluation`, the YCB object, what is done with it, by whom."""

    name: str
    subset: str
    thing: str
    action: str
    subject: str

    @property
    def recording(self) -> str:
        """The name without the camera's digit where several cameras filmed it."""
        return self.name[:-1] if self.name[:-1] in CAMERAS else self.name

    @property
    def camera(self) -> int:
        """The camera's digit; 0 where there was one camera."""
        return int(self.name[-1]) if self.recording != self.name else 0

    def plot(self, seed: int) -> Plot:
        return Plot(seed, self.recording, self.subject, self.thing, self.action)


# In the order in which a larger miniature gets them. SB10 (train) and SB11 (evaluation) are one recording: the leak.
SEQUENCES = tuple(
    Sequence(*row)
    for row in (
        ("ABF10", "train", "021_bleach_cleanser", "hold", "A"),
        ("SB10", "train", "021_bleach_cleanser", "hold", "S"),
        ("SB11", "evaluation", "021_bleach_cleanser", "hold", "S"),
        ("MC1", "train", "003_cracker_box", "lift", "M"),
        ("SM1", "evaluation", "006_mustard_bottle", "lift", "S"),
        ("GPMF10", "train", "010_potted_meat_can", "hold", "G"),
        ("ABF13", "train", "021_bleach_cleanser", "hold", "A"),
        ("AP10", "evaluation", "019_pitcher_base", "hold", "A"),
        ("SS1", "train", "004_sugar_box", "lift", "S"),
        ("ND2", "train", "035_power_drill", "hold", "N"),
        ("SMu1", "train", "025_mug", "rest", "S"),
        ("MPM10", "evaluation", "010_potted_meat_can", "hold", "M"),
        ("BB10", "train", "011_banana", "hold", "B"),
        ("GSF11", "train", "037_scissors", "hold", "G"),
        ("SM2", "train", "006_mustard_bottle", "hold", "S"),
        ("AP13", "evaluation", "019_pitcher_base", "hold", "A"),
        ("SMu40", "train", "025_mug", "hold", "S"),
        ("SB14", "train", "021_bleach_cleanser", "hold", "S"),
        ("ShSu12", "train", "004_sugar_box", "hold", "Sh"),
        ("MDF14", "train", "035_power_drill", "hold", "M"),
        ("GPMF12", "train", "010_potted_meat_can", "hold", "G"),
        ("SiBF11", "train", "011_banana", "hold", "Si"),
        ("MC4", "train", "003_cracker_box", "hold", "M"),
        ("SB13", "evaluation", "021_bleach_cleanser", "hold", "S"),
        ("SS3", "train", "004_sugar_box", "hold", "S"),
        ("SB12", "train", "021_bleach_cleanser", "hold", "S"),
        ("SM3", "train", "006_mustard_bottle", "lift", "S"),
        ("MC2", "train", "003_cracker_box", "hold", "M"),
        ("SS2", "train", "004_sugar_box", "hold", "S"),
        ("SM4", "train", "006_mustard_bottle", "hold", "S"),
        ("MC5", "train", "003_cracker_box", "lift", "M"),
        ("SM5", "train", "006_mustard_bottle", "hold", "S"),
        ("MC6", "train", "003_cracker_box", "hold", "M"),
        ("SiS1", "train", "004_sugar_box", "hold", "Si"),
    )
)


@dataclass(frozen=True)
class Job:
    """Frames of one sequence: number -> state; `number` is the sequence's place in `SEQUENCES`, `leads`
    says that it is the first one of its recording.

    States: `annotated`; `none` (listed, but the annotation's fields are None); `missing` (listed, but there is no
    annotation file); `unlisted` (not in the list file, fields None).
    """

    number: int
    frames: tuple[tuple[int, str], ...]
    leads: bool

    @property
    def sequence(self) -> Sequence:
        return SEQUENCES[self.number]


_FLAWS = {3: "none", 6: "missing", 9: "unlisted"}  # of every 41 training frames


def plan_sequences(frames: int, seed: int) -> list[Job]:
    """`frames` pictures in 8 sequences or more, about 18 in each. Cameras of a recording share frame numbers.

    Pictures of one sequence are near twins, and what a model makes of a recording that it never saw hangs on how many
    it did see: the real dataset has 68. About a sixth of the pictures are for evaluation; there 11,524 of 77,558 are.

    Raises:
        HodataError: more pictures than names of four digits.
    """
    count = min(max(frames // 18, 8), len(SEQUENCES))
    spread = max(frames - count, 0)  # after one for each
    if FIRST + STEP[0] * (spread // count + 1) >= LAST:
        raise HodataError(
            f"synth: ho3d has room for at most {count * ((LAST - FIRST) // STEP[0]):,} pictures, not {frames:,}; "
            "lower --frames"
        )
    jobs: list[Job] = []
    train = 0
    for k, sequence in enumerate(SEQUENCES[:count]):
        own = 1 + spread * (k + 1) // count - spread * k // count
        usual = 1 + spread // count  # the same for all cameras of a recording
        step = min(max(SPAN // usual, STEP[0]), STEP[1])
        first = int(stream(seed, "ho3d", sequence.recording, "first").integers(0, FIRST))
        states = []
        for _ in range(own):
            flaw = _FLAWS.get(train % 41) if sequence.subset == "train" else None
            train += sequence.subset == "train"
            states.append(flaw or "annotated")
        leads = all(job.sequence.recording != sequence.recording for job in jobs)
        jobs.append(Job(k, tuple((first + step * n, state) for n, state in enumerate(states)), leads))
    return jobs
