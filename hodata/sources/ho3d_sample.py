"""What an HO-3D sample says besides its mask: the hand, the instances, and what is open where no hand is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SampleError
from hodata.labels import Label
from hodata.pose.camera import project
from hodata.pose.keypoints import in_front
from hodata.pose.render import Rendering
from hodata.sample import Hand, Instance, Sample, encode_rle, instance_of
from hodata.sources.ho3d_frame import THING, Frame
from hodata.sources.ho3d_meta import Meta

_DECIMALS = 3  # of pixels


def hand_of(frame: Frame, K: NDArray[np.float64], drawn: Rendering) -> Hand:
    assert frame.keypoints is not None and frame.loop is not None
    hand = Hand(
        side="right",
        keypoints_m=np.round(frame.keypoints, 6).tolist(),
        valid=[True] * len(frame.keypoints),
        in_front=in_front(frame.keypoints, drawn.depth, K).tolist(),
        # Without a residual nothing was annotated: they are the posed model's own.
        definition="ho3d" if "residual_joints_mm" in frame.quality else "ho3d-posed",
    )
    if (frame.keypoints[:, 2] > 0).all():
        hand.keypoints_px = np.round(project(frame.keypoints, K), _DECIMALS).tolist()
    if (frame.loop[:, 2] > 0).all():
        hand.wrist_loop = np.round(project(frame.loop, K), _DECIMALS).tolist()
    return hand


def rendered_instance(mask: NDArray[np.uint8], drawn: Rendering, number: int, label: Label) -> Instance:
    """A rendered thing: what is stored of it, its whole silhouette, and how much of that is seen."""
    x0, y0, x1, y1 = drawn.boxes[number].tolist()
    found = instance_of(mask[y0 : y1 + 1, x0 : x1 + 1] == label, int(label))
    if found.area:
        found.box = [found.box[0] + x0, found.box[1] + y0, found.box[2] + x0, found.box[3] + y0]
    found.visible_fraction = round(float(drawn.visible_fraction[number]), 4)
    found.amodal_rle = encode_rle(drawn.amodal[number])
    return found


def leave_hand_open(sample: Sample, meta: Meta, drawn: Rendering, where: str) -> None:
    """No hand is known: what of the object lies in the hand's box may be a finger in front of it."""
    if meta.hand_box is None:
        raise SampleError(where, "lacks handBoundingBox, without which nothing says where the hand may be")
    thing = drawn.part == THING
    x0, y0 = np.maximum(np.floor(meta.hand_box[:2]), 0).astype(int)
    x1, y1 = np.maximum(np.ceil(meta.hand_box[2:]) + 1, 0).astype(int)
    sample.mask[thing] = Label.OBJECT
    sample.mask[y0:y1, x0:x1][thing[y0:y1, x0:x1]] = Label.OBJECT_RIGHT
    sample.meaning = "object-amodal"
    instance = instance_of(thing, int(Label.OBJECT))
    instance.amodal_rle = encode_rle(thing)
    sample.instances = [instance]
