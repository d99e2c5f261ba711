"""A run with random weights that nevertheless answers every class of drawn pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from drawn import scene
from test_api import save_run

from hodata.labels import TASKS
from hotrain import checkpoint
from hotrain.model import create_model


def varied_run(folder: Path, task: str = "hand-object", size: int = 64) -> Path:
    """As random weights are drawn, one class wins everywhere: here every class has mean 0 and deviation 1."""
    found = checkpoint.find(save_run(folder, task, size))
    model = create_model(found.facts["model"], len(TASKS[task].classes))
    model.load_state_dict(found.weights())
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    rng = np.random.default_rng(0)
    pictures = [scene(number)[0] + rng.integers(0, 30, (48, 64, 3), dtype=np.uint8) for number in range(8)]
    mean, std = (torch.tensor(found.facts[name])[:, None, None] for name in ("mean", "std"))
    images = (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        model.train()(images)
        logits = model.eval()(images)["out"]
        spread = logits.std((0, 2, 3))
        for head in (model.classifier.low_classifier, model.classifier.high_classifier):
            head.weight /= spread[:, None, None, None]
            head.bias /= spread
        head.bias -= (logits / spread[:, None, None]).mean((0, 2, 3))
    checkpoint.save(folder, position=2, weights=model.state_dict(), optimizer={}, facts=found.facts)
    return folder
