"""`honnotate`: a drop-in for HOnnotate's own segmentation (shreyashampali/HOnnotate, inference_seg.py).

    <sequence>/segmentation/<camera>/raw_seg_results/<stem>.png       8-bit, one channel: 0, 1 object, 2 hand
    <sequence>/segmentation/<camera>/visualization/<stem>_image.png, <stem>_prediction.png   with --visualise

Its next steps put a box round every pixel of value 2 (utils/predictSegHandObject.py), so a forearm or a stray pixel
spoils the crop: hands end at the wrist, and only the largest hand and the object's parts that touch it are written.
Its config's `objLabel` is 1; `commonDS.segIndex` in its code says otherwise and is not what the files hold.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hodata.labels import Task
from hodata.shards.png import encode_mask
from hotrain.annotate.components import trusted
from hotrain.annotate.formats.base import Answer, Format, Options
from hotrain.annotate.statistics import kind_masks
from hotrain.pictures import png_bytes

_OBJECT, _HAND = 1, 2
_DEFAULT_CAMERA = "0"
_COLORS = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], dtype=np.uint8)  # RGB of ids 0, 1, 2 in its pictures


class HOnnotate(Format):
    name = "honnotate"
    by_camera = True

    def __init__(self, task: Task, options: Options) -> None:
        super().__init__(task, options)
        self.needs_image = options.visualise

    def files(self, answer: Answer) -> Iterator[tuple[str, bytes]]:
        masks = answer.masks if answer.wrist is answer.classes else kind_masks(answer.wrist, self.task)
        hand, thing = masks["hand"], masks.get("object", np.zeros_like(masks["hand"]))
        if not self.options.keep_all:
            hand, thing = trusted(hand, thing)
        ids = thing * np.uint8(_OBJECT)
        ids[hand] = _HAND
        frame = answer.frame
        folder = "/".join(filter(None, (frame.sequence, "segmentation", frame.camera or _DEFAULT_CAMERA)))
        yield f"{folder}/raw_seg_results/{frame.stem}.png", encode_mask(ids)
        if self.options.visualise and answer.image is not None:
            yield f"{folder}/visualization/{frame.stem}_image.png", png_bytes(answer.image)
            yield f"{folder}/visualization/{frame.stem}_prediction.png", png_bytes(_COLORS[ids])
