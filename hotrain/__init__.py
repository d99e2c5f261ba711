"""Training of hand and object segmentation on hodata shards, and its models at work.

import hotrain

predictions = hotrain.load("runs/hand-object").predict(["photo.jpg"])
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotrain.api import Segmenter


def load(path: str | Path, *, device: str = "auto", extent: str = "wrist") -> Segmenter:
    """Open a trained model for images of one's own; see `hotrain.api.Segmenter.predict`.

    Args:
        path: a run's folder (its best checkpoint), one checkpoint, or the `.onnx` file that `hotrain export` wrote,
            which needs onnxruntime but no torch.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        extent: where a hand ends: `wrist`, or `arm` to count arms as hand.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged or of another version; an ONNX file cannot run on the
            device.
        TrainingError: a run cannot run on the device.
    """
    from hotrain.api import load

    return load(Path(path), device=device, extent=extent)
