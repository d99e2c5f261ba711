"""EgoHands' kind of picture: two people play at a table; one wears the camera, the other sits opposite."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hodata.labels import Label
from hodata.pose.camera import intrinsics, look_at, rodrigues
from hodata.synth import appearance, shade, textures
from hodata.synth.body import Person, draw_person
from hodata.synth.holding import Reach, Thing, draw_thing, empty, lay_down, lift, lowest, put, take
from hodata.synth.scene import Shot
from hodata.synth.solids import box_mesh, make_solid, unit_ball
from hodata.synth.stage_ego import UP, add_table, arm_of
from hodata.synth.streams import stream
from hodata.synth.world import OWNER_OTHER, OWNER_SELF, World

Array = NDArray[np.float64]

GAMES = {"CARDS": "card", "CHESS": "pawn", "JENGA": "block", "PUZZLE": "block"}
DEPTH = 0.78  # the partner's seat is the wearer's, turned about the middle of the table
ACROSS = rodrigues([0.0, 0.0, np.pi])


@dataclass(frozen=True)
class Game:
    """A place and what is played there, the same for both players' cameras."""

    pieces: list[Thing]
    others: list[Thing]
    board: Array | None
    table: Array
    room: NDArray[np.float32]
    light: shade.Light


@lru_cache(maxsize=4)
def _game(seed: int, activity: str, location: str) -> Game:
    rng = stream(seed, "game", activity, location)
    place = stream(seed, "game", activity, location, "place")
    kind = GAMES[activity]
    looks = [[appearance.thing_material(rng, 0.03) for _ in range(2)] for _ in range(3)]
    pieces = [Thing(make_solid(kind, rng), looks[int(rng.integers(3))]) for _ in range(14)]
    board = None
    if activity in ("CHESS", "PUZZLE"):
        kind_of = textures.CHECKS if activity == "CHESS" else textures.PRINT
        board = appearance.material(
            kind_of, appearance.any_color(rng), appearance.any_color(rng), scale=22.0, grain=0.2, seed=3
        )
    others = [draw_thing(rng) for _ in range(3)]
    return Game(
        pieces, others, board, appearance.table_material(place), appearance.backdrop(place, (150, 260), 28),
        appearance.draw_light(place, np.array([0.0, -1.0, 0.0]), UP),
    )  # fmt: skip


@lru_cache(maxsize=8)
def player(seed: int, name: str, location: str, activity: str) -> Person:
    """A player at one game. A letter stands for somebody else at each game: four people would be too few to learn."""
    return draw_person(stream(seed, "player", name, location, activity))


def compose(seed: int, recording: int, frame: int, size: tuple[int, int], camera: int) -> Shot:
    """A frame of a made-up game; `compose_game` takes EgoHands' own words."""
    names = list(GAMES)
    return compose_game(seed, names[recording % 4], ("OFFICE", "COURTYARD")[recording // 4 % 2], "B", "T", frame, size)


def compose_game(
    seed: int, activity: str, location: str, viewer: str, partner: str, frame: int, size: tuple[int, int]
) -> Shot:
    """A frame of a game as `viewer` sees it."""
    game = _game(seed, activity, location)
    rng = stream(seed, "game", activity, location, viewer, partner, frame)
    world = World()
    me, you = (player(seed, name, location, activity) for name in (viewer, partner))
    for person, owner in ((me, OWNER_SELF), (you, OWNER_OTHER)):
        for reach, label in _hands(game, person, rng):
            if owner == OWNER_OTHER:
                _turn_across(reach)
            put(world, reach, person, owner, label, rng)
    if game.board is not None:
        _add_board(world, game.board)
    on_table = [game.pieces[int(k)] for k in rng.permutation(len(game.pieces))[: int(rng.integers(5, 13))]]
    lay_down(world, on_table, rng, (-0.24, 0.24, 0.18, 0.60), 0.006)
    lay_down(world, game.others[: int(rng.integers(1, 4))], rng, (-0.40, 0.40, 0.3, 0.8), 0.03)
    _add_partner(world, you, seed, partner, location, rng)
    add_table(world, game.table, np.array([0.55, 0.50]), (0.0, DEPTH / 2))
    eye = np.array([rng.normal(0, 0.02), -0.15 + rng.normal(0, 0.02), 0.52 + rng.normal(0, 0.025)])
    T = look_at(eye, np.array([rng.normal(0, 0.03), 0.39 + rng.normal(0, 0.03), 0.03]), roll=rng.normal(0, 0.05))
    K = intrinsics(size[0] * rng.uniform(1.0, 1.15), size)
    return Shot(
        world.view(T, K, size), game.light, lambda version: game.room, np.array([0.0, DEPTH / 2, 0.05]), 0.5,
        exposure=rng.uniform(0.9, 1.15), blur=1.0, noise=4.0, vignette=0.08, noise_seed=int(rng.integers(1 << 30)),
    )  # fmt: skip


def _hands(game: Game, person: Person, rng: np.random.Generator) -> list[tuple[Reach, Label | None]]:
    """None to two hands of one player, in the wearer's seat."""
    found: list[tuple[Reach, Label | None]] = []
    for side, label in (("right", Label.OBJECT_RIGHT), ("left", Label.OBJECT_LEFT)):
        if rng.uniform() < 0.12:
            continue
        at, elbow, R = arm_of(side, rng, spread=1.2)
        at = at + np.array([0.0, rng.uniform(-0.06, 0.0), 0.0])
        if rng.uniform() < 0.5:
            reach = take(side, person, game.pieces[int(rng.integers(len(game.pieces)))], R, at, elbow, rng)
        else:
            reach = empty(side, R, at, elbow, rng)
        low = lowest(reach, person)
        if low < 0.003 or rng.uniform() < 0.5:
            lift([reach], rng.uniform(0.003, 0.03) - low)
        found.append((reach, label if reach.thing else None))
    return found


def _turn_across(reach: Reach) -> None:
    seat = np.array([0.0, DEPTH, 0.0])
    reach.R = ACROSS @ reach.R
    reach.wrist, reach.elbow = ACROSS @ reach.wrist + seat, ACROSS @ reach.elbow + seat
    if reach.thing is not None:
        thing, R, t = reach.thing
        reach.thing = (thing, ACROSS @ R, ACROSS @ t + seat)


def _add_board(world: World, material: Array) -> None:
    half = np.array([0.17, 0.17, 0.002])
    mesh = box_mesh(np.array([0.0, DEPTH / 2, 0.002]), half, 0)
    world.add(mesh.vertices, mesh.normals, mesh.vertices, [(mesh.faces, material, Label.BACKGROUND)], casts=False)


def _add_partner(world: World, you: Person, seed: int, name: str, location: str, rng: np.random.Generator) -> None:
    """The partner's body and face: neither hand nor arm, and very much the colour of one."""
    unit, faces = unit_ball()
    cloth = stream(seed, "player", name, location, "shirt")
    shirt = you.sleeve[0] if you.sleeve is not None else appearance.cloth_material(cloth)
    lean = np.array([rng.normal(0, 0.03), rng.normal(0, 0.03), 0.0])
    face = appearance.material(
        textures.FACE, you.skin[1:4], np.array([0.05, 0.035, 0.03]), grain=0.1, gloss=0.02, seed=int(cloth.integers(99))
    )
    for center, half, row, texture in (
        (np.array([0.0, DEPTH + 0.24, 0.10]), np.array([0.21, 0.13, 0.36]), shirt, unit * 0.3),
        (np.array([0.0, DEPTH + 0.18, 0.52]), np.array([0.075, 0.095, 0.115]), face, unit),
    ):
        normals = unit / half
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        world.add(unit * half + center + lean, normals, texture, [(faces, row, Label.BACKGROUND)])
