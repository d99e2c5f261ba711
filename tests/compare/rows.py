"""The rows of the comparison, the runs that they are made of, and the command of each run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

EPOCHS = 4  # validations; the best of them is scored, in every row
RATES = ("1e-4", "3e-4", "1e-3", "3e-3")  # the first one is the published one
OURS = Path(__file__).with_name("ours.toml")


def precision(cpu: str) -> str:
    """What the processor computes fastest in: `bf16` where it has instructions for it, `fp32` elsewhere.

    Args:
        cpu: the text of /proc/cpuinfo.
    """
    return "bf16" if re.search(r"\b(avx512_bf16|amx_bf16)\b", cpu) else "fp32"


_CPUINFO = Path("/proc/cpuinfo")
PRECISION = precision(_CPUINFO.read_text() if _CPUINFO.exists() else "")


@dataclass(frozen=True)
class Setting:
    """What is the same in every row: the model, from random weights, and what it computes on.

    Args:
        model: of `hotrain.model.MODELS`.
        side: of the images as the network sees them, pixels.
        device: `cpu`, or `cuda`: the first visible GPU, however many there are.
        workers: loading processes of a run.
        batch: images of a step.
    """

    model: str = "deeplabv3_mobilenet_v3_large"
    side: int = 160
    device: str = "cpu"
    workers: int = 0
    batch: int = 8

    @property
    def precision(self) -> str:
        """bf16 wherever there are instructions for it."""
        return "bf16" if self.device == "cuda" else PRECISION

    def epoch_images(self, images: int) -> int:
        """Images of one epoch of a run: whole batches, at least one, together at most `images`."""
        return max(images // (EPOCHS * self.batch), 1) * self.batch

    def run_images(self, images: int) -> int:
        """Images of a run."""
        return EPOCHS * self.epoch_images(images)

    def options(self) -> tuple[str, ...]:
        """Of `hotrain fit`."""
        device = "cuda:0" if self.device == "cuda" else self.device
        return (
            *("--model", self.model, "--weights", "none"),
            *("--batch-size", str(self.batch), "--workers", str(self.workers)),
            *("--device", device, "--precision", self.precision, "--crop", str(self.side)),
        )


CPU = Setting()


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    Args:
        name: of its runs' folders, without the seed.
        config: `--config`.
        options: that win over it.
        by_size: sources are drawn in proportion to their sizes, as a shuffled pool of all files does.
    """

    name: str
    config: str
    options: tuple[str, ...] = ()
    by_size: bool = False


@dataclass(frozen=True)
class Run:
    """A recipe with a seed."""

    recipe: Recipe
    seed: int

    @property
    def name(self) -> str:
        return f"{self.recipe.name}-{self.seed}"


def reference(rate: str) -> Recipe:
    """The reference project's recipe at some learning rate."""
    return Recipe(f"reference-{rate}", "reference", ("--lr", rate), by_size=True)


def weights(shares: Mapping[str, int]) -> tuple[str, ...]:
    """Options of `hotrain fit`: source -> its share of the samples."""
    return tuple(f"--source-weight={name}={share}" for name, share in shares.items())


PUBLISHED = reference(RATES[0])
OURS_ANYWHERE = Recipe("ours", str(OURS))
# Two of three samples are from the sources that say what an object is, which is what is hardest to learn.
OUR_SHARES = weights({"egohos": 85, "ho3d_v3": 50, "egohands": 40, "freihand": 25})
OUR_RECIPES = {
    "sets": Recipe("ours", str(OURS), OUR_SHARES),
    "ignore": Recipe("ours-ignore", str(OURS), (*OUR_SHARES, "--open-labels", "ignore")),
    "as-drawn": Recipe("ours-as-drawn", str(OURS), (*OUR_SHARES, "--open-labels", "as-drawn")),
}


def our_runs(seeds: int) -> list[Run]:
    """Ours with each kind of open labels."""
    return [Run(recipe, seed) for seed in range(seeds) for recipe in OUR_RECIPES.values()]


def first_runs(seeds: int) -> list[Run]:
    """Every run that needs no tuning first; those that tune come first."""
    tuning = [Run(reference(rate), 0) for rate in RATES]
    others = [Run(PUBLISHED, seed) for seed in range(seeds)] + our_runs(seeds)
    return [*tuning, *(run for run in others if run not in tuning)]


def tuned_runs(best: str, seeds: int) -> list[Run]:
    """The runs of the tuned row, those that are made already among them."""
    return [Run(reference(best), seed) for seed in range(seeds)]


def best_rate(jaccard: Mapping[str, float]) -> str:
    """The learning rate with the highest Jaccard on validation; among equals the lower one.

    Args:
        jaccard: rate -> mean IoU of hand and object of its seed 0.
    """
    return max(sorted(jaccard, key=float), key=lambda rate: jaccard[rate])


def fit_arguments(
    run: Run,
    shards: str,
    folder: Path,
    images: int,
    sizes: Mapping[str, int],
    task: str = "hand-object",
    setting: Setting = CPU,
    extent: str = "wrist",
) -> list[str]:
    """The arguments of `hotrain` for one run.

    Args:
        run: what to train.
        shards: a glob.
        folder: of the run.
        images: that it sees, rounded down to whole batches of each epoch.
        sizes: source -> training samples.
        task: what to learn.
        setting: what all rows share.
        extent: at which validation chooses the best checkpoint.
    """
    shares = weights(sizes) if run.recipe.by_size else ()
    course = ["--epochs", str(EPOCHS), "--samples-per-epoch", str(setting.epoch_images(images))]
    given: Sequence[str] = (
        "--task",
        task,
        *setting.options(),
        *(() if extent == "wrist" else ("--extent", extent)),
        *course,
        *run.recipe.options,
        *shares,
        "--seed",
        str(run.seed),
    )
    return ["fit", "--config", run.recipe.config, "--shards", shards, "--out", str(folder), *given]
