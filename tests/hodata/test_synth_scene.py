"""Scenes: the same on every run, true in every pixel, not to be told apart by colour."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from hodata.labels import ARMS, HANDS, OBJECTS, SECOND, Label
from hodata.pose.camera import project, transform
from hodata.pose.rasterize import rasterize
from hodata.synth.hand_model import hand_model
from hodata.synth.scene import compose, render_scene

SIZES = {"studio": (160, 160), "ego": (240, 160), "game": (240, 136), "table": (240, 180)}
KINDS = tuple(SIZES)


def scenes(kind: str, recordings: range, frames: int = 2):
    return [render_scene(kind, 7, r, f, SIZES[kind]) for r in recordings for f in range(frames)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_depends_on_its_names_only(kind):
    def digest(scene) -> str:
        return hashlib.sha256(scene.image.tobytes() + scene.truth.tobytes() + scene.owner.tobytes()).hexdigest()

    first = digest(render_scene(kind, 1, 3, 5, SIZES[kind]))
    others = [digest(render_scene(kind, *names, SIZES[kind])) for names in ((1, 3, 6), (1, 4, 5), (2, 3, 5))]
    assert digest(render_scene(kind, 1, 3, 5, SIZES[kind])) == first
    assert len({first, *others}) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_hands_are_where_their_numbers_say(kind):
    """Pose numbers give the vertices; the vertices, drawn alone, cover exactly the labelled hand or hide behind."""
    width, height = SIZES[kind]
    for scene in scenes(kind, range(3)):
        assert scene.image.shape == (height, width, 3) and scene.truth.shape == (height, width)
        for hand in scene.hands:
            model = hand_model(hand.side)
            vertices, joints = model.pose(hand.pose, hand.betas, hand.translation)
            np.testing.assert_allclose(vertices, hand.vertices, atol=1e-9)
            np.testing.assert_allclose(joints, hand.joints, atol=1e-9)
            np.testing.assert_array_equal(model.keypoints(hand.vertices, hand.joints), hand.keypoints)
        silhouette = np.zeros((height, width), dtype=bool)
        for hand in scene.hands:
            silhouette |= rasterize(hand.vertices, hand_model(hand.side).faces, scene.K, (width, height)).face >= 0
        labelled = np.isin(scene.truth, [int(x) for x in HANDS])
        assert not (labelled & ~silhouette).any()
        hidden = silhouette & ~labelled
        assert not (hidden & (scene.truth == Label.BACKGROUND)).mean() > 0.03  # behind table edge or unheld things
        skin = np.isin(scene.truth, [int(x) for x in HANDS | ARMS])
        np.testing.assert_array_equal(scene.owner > 0, skin)


@pytest.mark.parametrize("kind", ["studio", "ego", "game"])
def test_labelled_things_are_touched_and_others_are_not(kind):
    held = lying = 0
    for r in range(6):
        view = compose(kind, 11, r, 0, SIZES[kind]).view
        skin = np.concatenate([hand.vertices for hand in view.world.hands])
        for item in view.world.objects:
            surface = item.mesh.vertices[item.mesh.faces]
            points = np.concatenate([surface.reshape(-1, 3), surface.mean(axis=1)]) @ item.R.T + item.t
            # Nearest skin vertex to the mesh's own points: coarse, so only the far side is sharp.
            near = min(np.linalg.norm(points - p, axis=1).min() for p in skin[::5])
            if item.label in OBJECTS:
                held += 1
                assert near < 0.05
            elif item.label is Label.BACKGROUND:
                lying += 1
                assert near > 0.002
            else:
                assert item.label in SECOND
    assert held >= 3
    assert kind == "studio" or lying >= 6


def test_cameras_of_one_instant_see_one_world():
    a, b = (compose("studio", 5, 2, 9, SIZES["studio"], camera).view for camera in (0, 1))
    np.testing.assert_array_equal(a.world.hands[0].vertices, b.world.hands[0].vertices)
    assert not np.allclose(a.T_camera_from_world, b.T_camera_from_world)
    back = transform(np.linalg.inv(a.T_camera_from_world), a.vertices)
    np.testing.assert_allclose(back, transform(np.linalg.inv(b.T_camera_from_world), b.vertices), atol=1e-9)
    for view in (a, b):
        knuckle = project(transform(view.T_camera_from_world, view.world.hands[0].joints[4]), view.K)
        assert np.abs(knuckle - 80).max() < 30


def test_a_table_recording_moves_smoothly_and_holds_what_it_holds():
    """Action by action: nothing jumps between frames, what is held turns with the hand, what is not lies still."""
    for recording, action in ((0, "hold"), (1, "lift"), (3, "rest")):
        labels, holds = set(), []
        for frame in range(0, 210, 10):
            worlds = [compose("table", 2, recording, frame + k, (16, 12)).view.world for k in (0, 1)]
            (hand, then), (thing, was) = ([w.hands[0] for w in worlds], [w.objects[0] for w in worlds])
            labels.add(thing.label)
            assert np.linalg.norm(hand.vertices - then.vertices, axis=1).max() < 0.03
            move = np.linalg.norm(thing.t - was.t)
            assert move < 0.025
            if thing.label is was.label is Label.OBJECT:
                assert move < (0.003 if action == "lift" else 1e-12)
            holds.append(np.append(hand.R.T @ thing.R, hand.R.T @ (thing.t - hand.wrist)[:, None]))
            surface = thing.mesh.vertices @ thing.R.T + thing.t
            assert min(hand.vertices[:, 2].min(), surface[:, 2].min()) > -0.001, "nothing reaches into the table"
        if action == "hold":
            np.testing.assert_allclose(holds, np.tile(holds[0], (len(holds), 1)), atol=1e-9)
        wanted = {"hold": {Label.OBJECT_RIGHT}, "rest": {Label.OBJECT}, "lift": {Label.OBJECT, Label.OBJECT_RIGHT}}
        assert labels == wanted[action], action


def test_versions_share_geometry_but_not_colour():
    shot = compose("studio", 5, 4, 1, SIZES["studio"])
    pictures = shot.images(4)
    assert len({p.tobytes() for p in pictures}) == 4
    green, *others = [p[shot.view.truth == Label.BACKGROUND].astype(int) for p in pictures]
    assert (green[:, 1] > green[:, 0] + 20).mean() > 0.95 and (green[:, 1] > green[:, 2] + 20).mean() > 0.95
    assert all((p[:, 1] > p[:, 0] + 20).mean() < 0.9 for p in others)


def test_every_kind_of_label_turns_up_in_reasonable_amounts():
    truths = [scene.truth for scene in scenes("ego", range(24), 2)]
    share = {label: np.mean([(t == label).mean() for t in truths]) for label in Label}
    assert 0.04 < sum(share[x] for x in HANDS) < 0.25
    assert 0.025 < sum(share[x] for x in OBJECTS) < 0.2
    for label in (Label.LEFT_ARM, Label.RIGHT_ARM, Label.OBJECT_LEFT, Label.OBJECT_RIGHT, Label.OBJECT_BOTH):
        assert share[label] > 0.002, label
    assert share[Label.SECOND_RIGHT] > 0
    assert sum(share[x] for x in HANDS | ARMS | OBJECTS | SECOND) + share[Label.BACKGROUND] == pytest.approx(1)


@pytest.mark.parametrize("kind", ["studio", "ego"])
def test_colour_alone_does_not_find_hands(kind):
    """The best threshold on P(hand | colour), fitted on other recordings in 32,768 colour cells."""
    size, hands = (96, 96), [int(x) for x in HANDS]

    def pixels(recordings: range):
        cells, truth = [], []
        for r in recordings:
            shot = compose(kind, 3, r, r, size)
            cells.append((shot.images(2)[1] if kind == "studio" else shot.images()[0]).reshape(-1, 3) >> 3)
            truth.append(np.isin(shot.view.truth, hands).ravel())
        return np.concatenate(cells) @ np.array([1024, 32, 1]), np.concatenate(truth)

    cell, hand = pixels(range(40))
    share = np.bincount(cell, hand, 32768) / np.maximum(np.bincount(cell, minlength=32768), 1)
    other, truth = pixels(range(100, 120))
    best = 0.0
    for threshold in np.linspace(0.05, 0.6, 12):
        found = share[other] > threshold
        best = max(best, (found & truth).sum() / (found | truth).sum())
    assert 0.02 < best < 0.35


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="studio, ego, game"):
        compose("moon", 0, 0, 0, (10, 10))
