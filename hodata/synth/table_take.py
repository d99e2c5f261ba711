"""A recording at a table: who handles which object in which grasp, and where hand and object are at any time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hodata.pose.camera import rodrigues
from hodata.synth import appearance, shade
from hodata.synth.body import Person, draw_person
from hodata.synth.grasp import Grasp, free_pose, grasp_at
from hodata.synth.hand_model import hand_model
from hodata.synth.holding import PALM, hand_axes
from hodata.synth.streams import stream
from hodata.synth.ycb_shapes import Stand, stand_in

Array = NDArray[np.float64]

UP = np.array([0.0, 0.0, 1.0])
ACTIONS = ("hold", "lift", "rest")
RATE = 30.0  # frames a second
PERIOD = 7.0  # seconds of a `lift`, from one reach to the next


@dataclass(frozen=True)
class Plot:
    """What a recording is about: everything else hangs on these words.

    Args:
        recording, subject: names; a subject has the same hands and skin in all recordings.
        thing: a YCB object.
        action: one of `ACTIONS`.
    """

    seed: int
    recording: str
    subject: str
    thing: str
    action: str

    def stream(self, *path: int | str) -> np.random.Generator:
        return stream(self.seed, "table", self.recording, *path)


@dataclass(frozen=True)
class Take:
    """What stays the same in a recording.

    Args:
        grasp: the object in the hand's frame.
        R, wrist: the hand's axes and wrist before it moves. `R_object`, `t_object`: the object on the table.
        beats: [12, 3] amplitude, frequency (Hz) and phase of slow movements: 3 turns, 3 shifts, twice.
        fingers: [45, 2] frequency (Hz) and phase of their small movements.
        look: exposure, blur, noise.
    """

    action: str
    person: Person
    shirt: Array
    stand: Stand
    materials: list[Array]
    grasp: Grasp
    R: Array
    wrist: Array
    R_object: Array
    t_object: Array
    beats: Array
    fingers: Array
    table: Array
    light: shade.Light
    look: tuple[float, float, float]


@lru_cache(maxsize=4)
def take_of(plot: Plot) -> Take:
    part = plot.stream
    person = draw_person(stream(plot.seed, "table", "subject", plot.subject))
    clothes = draw_person(part("clothes"))
    sleeve = None if clothes.sleeve is None else (clothes.sleeve[0], max(clothes.sleeve[1], 0.02))
    person = replace(person, sleeve=sleeve, watch=clothes.watch)
    shirt = sleeve[0] if sleeve is not None else appearance.cloth_material(part("shirt"))
    stand = stand_in(plot.thing)
    paint = stream(plot.seed, "table", "object", plot.thing)
    height = float(np.abs(stand.surface.vertices[:, 2]).max())
    materials = [appearance.thing_material(paint, height) for _ in range(2)]
    rng = part("pose")
    grasp = _best_grasp(stand, person, plot.action == "lift", part("grasp"))
    R_object, t_object = _stand_on_table(stand, rng)
    if plot.action == "lift":
        # The hand comes in from the elbow's side: turn the object until the fingers point away from it.
        forward = R_object @ grasp.R.T[:, 0]
        turn = np.arctan2(0.9, -0.35 + rng.normal(0, 0.3)) - np.arctan2(forward[1], forward[0])
        R_object = rodrigues([0.0, 0.0, turn]) @ R_object
        R = R_object @ grasp.R.T
        wrist = t_object - R @ grasp.t
    else:
        at = np.array([rng.uniform(0.0, 0.10), rng.uniform(0.24, 0.33), rng.uniform(0.13, 0.20)])
        forward = np.array([rng.normal(-0.45, 0.25), 0.8, rng.normal(0.1, 0.2)])
        R = hand_axes(forward, UP, "right", rng.uniform(0.0, 1.9))
        wrist = at - R @ PALM
        if plot.action == "rest":
            grasp = replace(grasp, pose=free_pose("right", rng))
            t_object = t_object + np.array([-0.19, 0.06, 0.0])
    amplitudes = np.array([0.32, 0.32, 0.45, 0.04, 0.035, 0.025] * 2) * np.repeat([1.0, 0.35], 6)
    speeds = np.concatenate([rng.uniform(0.12, 0.30, 6), rng.uniform(0.4, 0.7, 6)])
    beats = np.column_stack([amplitudes * rng.uniform(0.6, 1.3, 12), speeds, rng.uniform(0, 2 * np.pi, 12)])
    fingers = np.column_stack([rng.uniform(0.2, 0.8, 45), rng.uniform(0, 2 * np.pi, 45)])
    look = part("look")
    return Take(
        plot.action, person, shirt, stand, materials, grasp, R, wrist, R_object, t_object, beats, fingers,
        appearance.table_material(part("table")),
        appearance.draw_light(part("light"), np.array([0.0, 1.0, 0.0]), UP),
        (look.uniform(0.85, 1.2), look.uniform(0.4, 1.1), look.uniform(2, 6)),
    )  # fmt: skip


def _best_grasp(stand: Stand, person: Person, lying: bool, rng: np.random.Generator) -> Grasp:
    """Of some ways to take the object the one that touches it most and enters it least."""
    best, best_score = None, -np.inf
    for _ in range(6):
        holds = stand.holds
        if lying:  # the forearm must be able to lie level, the palm must not look up
            holds = tuple(h for h in holds if abs(np.cross(h.thumb, h.inward)[2]) < 0.3 and h.inward[2] < 0.1)
        hold = holds[int(rng.integers(len(holds)))]
        y, z = -np.array(hold.inward), -np.array(hold.thumb)
        axes = np.stack([np.cross(y, z), y, z]) / np.linalg.norm(np.stack([np.cross(y, z), y, z]), axis=1)[:, None]
        R = rodrigues([rng.normal(0, 0.06), rng.normal(-0.05, 0.16), rng.normal(0, 0.05)]) @ axes
        x = 0.072 + 0.25 * min(hold.grip, 0.03) + rng.uniform(-0.005, 0.005)
        t = np.array([x, -0.22, rng.uniform(-0.004, 0.004)]) - R @ np.array(hold.at)
        g = grasp_at(person.betas, stand.solid, R, t, 0.0, rng)
        vertices, _ = hand_model("right").pose(g.pose, person.betas)
        gap = stand.solid.distance((vertices - g.t) @ g.R)
        too_deep = max(-0.004 - float(gap.min()), 0.0) / 0.001
        score = float((np.abs(gap) < 0.003).sum()) - 15.0 * float((gap < -0.003).sum()) - 200.0 * too_deep
        if score > best_score or best is None:
            best, best_score = g, score
    assert best is not None
    return best


def _stand_on_table(stand: Stand, rng: np.random.Generator) -> tuple[Array, Array]:
    """Where the object stands (R, t) when nobody holds it: on the table as its mesh does, any way round."""
    R = rodrigues([0.0, 0.0, rng.uniform(0, 2 * np.pi)])
    bottom = float(stand.surface.vertices[:, 2].min())
    return R, np.array([rng.uniform(0.0, 0.08), rng.uniform(0.26, 0.34), 0.0005 - bottom])


def _ease(t: float) -> float:
    t = min(max(t, 0.0), 1.0)
    return t * t * (3 - 2 * t)


@dataclass(frozen=True)
class Instant:
    """Hand and object at one time; `pose` [48] with the first three 0."""

    R: Array
    wrist: Array
    pose: Array
    R_object: Array
    t_object: Array


def instant(take: Take, frame: int) -> Instant:
    seconds = frame / RATE
    waves = (take.beats[:, 0] * np.sin(2 * np.pi * take.beats[:, 1] * seconds + take.beats[:, 2])).reshape(2, 6).sum(0)
    away, up = 0.0, 1.0
    if take.action == "lift":
        u = (seconds / PERIOD + 0.02) % 1.0
        away = 0.16 * (1 - _ease(u / 0.2) + _ease((u - 0.88) / 0.12))
        up = _ease((u - 0.2) / 0.16) - _ease((u - 0.74) / 0.12)
        waves = waves * up + np.array([0, 0, 0, 0, 0, 0.10]) * up
    W, shift = rodrigues(waves[:3]), waves[3:]
    pivot = take.wrist + take.R @ PALM
    R = W @ take.R
    wrist = W @ (take.wrist - pivot) + pivot + shift
    if take.action == "rest":
        R_object, t_object = take.R_object, take.t_object
    else:
        R_object, t_object = R @ take.grasp.R, R @ take.grasp.t + wrist
    pose = take.grasp.pose.copy()
    pose[3:] += 0.010 * np.sin(2 * np.pi * take.fingers[:, 0] * seconds + take.fingers[:, 1])
    if away > 0:  # the hand opens, then leaves backward and off the palm
        pose *= 1 - 0.75 * min(away / 0.06, 1.0)
        wrist = wrist + away * R @ np.array([-0.75, 0.62, 0.0]) + np.array([0.0, 0.0, 0.1 * away])
    hand = hand_model("right").pose(pose, take.person.betas)[0] @ R.T + wrist
    low = float(hand[:, 2].min())
    if take.action == "hold" or (take.action == "lift" and up > 0):
        low = min(low, float((take.stand.surface.vertices @ R_object.T + t_object)[:, 2].min()))
    rise = max(0.004 - low, 0.0) if take.action != "lift" else max(0.0005 - low, 0.0)
    lift = np.array([0.0, 0.0, rise])
    moves = take.action != "rest" and away == 0
    return Instant(R, wrist + lift, pose, R_object, t_object + lift if moves else t_object)
