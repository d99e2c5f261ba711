"""What can go wrong in training and evaluation, in words for the person at the keyboard."""

from __future__ import annotations

from hodata.errors import HodataError


class SelectionError(HodataError):
    """The selected samples cannot train or score what was asked."""


class PredictionError(HodataError):
    """A folder of predicted masks does not fit the samples, or nothing says what its values mean."""


class CheckpointError(HodataError):
    """A checkpoint is missing, damaged, or was made for something else."""


class WeightsError(HodataError):
    """Pretrained weights are missing or do not fit the model."""


class TrainingError(HodataError):
    """A run cannot start as configured, or cannot go on."""


class AnnotateError(HodataError):
    """New images cannot be annotated as asked: no frames, an output of something else, or a missing library."""


class FrameError(HodataError):
    """One frame cannot be annotated; it is reported and counted, the others go on.

    Args:
        what: what is wrong, why, and what to do; the frame's name is put before it where it is reported.
    """


class ExportError(HodataError):
    """A model cannot be exported, or the exported one answers differently."""


NOT_FINITE = (
    "the network answers with numbers that are not finite: its training went astray, or its weights are damaged; use "
    "an earlier checkpoint, or train again with a lower --lr"
)
LOADING_DIED = "if it was killed, memory is short: lower --workers, --batch-size or --crop"


def in_words(error: Exception) -> str | None:
    """What to tell people of an error that they can cure: ours, and two of torch's (a GPU's memory is full, a loading
    process was killed); None of any other one, which keeps its traceback. Needs no torch.
    """
    if isinstance(error, HodataError):
        return str(error)
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid"):
        return f"{error} ({LOADING_DIED})"
    if type(error).__name__ != "OutOfMemoryError":
        return None
    said = ". ".join(str(error).split(". ")[:2])  # what follows is advice on torch's allocator
    return (
        f"{said}. In fit raise --accumulation (the same step in smaller passes; --resume may have another one), or "
        "lower --batch-size or --crop, or take a smaller --model; in eval and annotate lower --batch-size. nvidia-smi "
        "says who else uses the GPU"
    )


class Interrupted(Exception):
    """SIGTERM or SIGINT arrived and a complete checkpoint was saved (exit 75).

    Args:
        checkpoint: where it is.
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__(checkpoint)
        self.checkpoint = checkpoint
