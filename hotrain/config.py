"""Everything that decides a training run."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from hodata.labels import EXTENTS, TASKS
from hodata.shards.select import read_keys
from hotrain.errors import CheckpointError, TrainingError
from hotrain.input_rule import KINDS as INPUT_RULES
from hotrain.learning.optimizer import OPTIMIZERS, SCHEDULES
from hotrain.order import ORDERS

_TOML_KINDS: dict[str, tuple[type, ...]] = {
    "tuple": (list, str),
    "str": (str,),
    "float": (int, float),
    "int": (int,),
    "bool": (bool,),
    "Mapping": (dict,),
}
MODELS = (  # of torchvision
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "deeplabv3_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large",
)
OPEN_LABELS = ("sets", "ignore", "as-drawn")
ON_CORRUPT = ("error", "skip")
_RECIPES = Path(__file__).with_name("recipes")
PRECISIONS = ("auto", "bf16", "fp32")
# What `--device` takes, in every command, and what is said of anything else.
DEVICES = re.compile(r"auto|cpu|cuda(:\d+)?")
NO_DEVICE = "expected auto, cpu, cuda or cuda:N; nothing else is supported"

# Options that say to how many of the crops something is done.
SHARES = ("blur", "noise", "jpeg", "background", "paste")

# What runs did that were begun before these options were recorded. They hold when such a run goes on, whatever the
# defaults are by then.
UNRECORDED: Mapping[str, Any] = {
    "optimizer": "adamw",
    "schedule": "poly",
    "ema": 0.0,
    "dice": 0.0,
    "hard_pixels": 1.0,
    "clip": 0.0,
    "precision": "auto",
    "sync_batchnorm": False,
    "compile": False,
    "open_labels": "sets",
    **dict.fromkeys(SHARES, 0.0),
}


@dataclass(frozen=True)
class FitConfig:
    """The options of a run.

    Args:
        shards: files, folders or globs; their recorded splits are used.
        out: the run's folder.
        where: expression over the index that chooses samples (`hodata.shards.where`); empty: all.
        exclude: keys of samples to leave out.
        task: name of a `hodata.labels.Task`.
        model: one of `MODELS`.
        weights: `coco`, `none` or a file.
        init: another run's folder, whose weights are the start; takes the place of `weights`.
        epochs: how often `samples_per_epoch` samples are drawn.
        crop: side of a training crop, pixels.
        size: short side of an image as the network sees it, pixels; None: that of the crop.
        aim: share of the crops that are laid over a hand, see `crop.CropRule`.
        even: how far hands of all images are brought to one size, see `crop.CropRule`.
        batch_size: samples of one optimizer step, over all processes and accumulation steps.
        accumulation: forward passes that one optimizer step is made of.
        workers: loading processes of each rank.
        seed: of order, augmentation, dropout and new layers.
        optimizer: one of `hotrain.learning.optimizer.OPTIMIZERS`.
        lr: peak learning rate of the head; None: by optimizer and start, as `OPTIMIZERS` says.
        body_factor: learning rate of the backbone relative to it; None: 1 from scratch, 0.1 from weights, 0.5 from
            another run.
        weight_decay: of weights; None: that of `OPTIMIZERS`.
        schedule: how the learning rate falls, one of `hotrain.learning.optimizer.SCHEDULES`.
        warmup: share of the steps over which the learning rate rises.
        clip: gradients are scaled down to this norm, taken over all parameters; 0: never.
        dropout: probability that a channel before DeepLabv3's last layers is dropped in training; None: torchvision's.
        ema: decay of the average of the weights that is scored and given to users (`averaging`); 0: no average.
        source_weights: source name -> its share of the samples, relative to the others'; a source that is not named
            has the square root of its size.
        jitter: strength of random zoom and colour changes; 0: crops and mirroring alone.
        flip: mirror half of the crops.
        blur, noise, jpeg: shares of the samples, see `degrade.DegradeRule`.
        background, paste: the same, see `composite.CompositeRule`.
        input_rule: how an image enters the network, one of `hotrain.input_rule.KINDS`.
        open_labels: what a pixel teaches whose mask leaves several classes open: `sets`: that it is one of them;
            `ignore`: nothing; `as-drawn`: what its stored id says. See `hotrain.learning.open_labels`.
        balance: how far rare classes weigh more in the loss, see `loss.set_weights`.
        prior: weight of the loss's prior toward background, see `loss.set_loss`.
        dice: weight of soft Dice, see `dice.dice_loss`; 0: none.
        hard_pixels: share of an image's decided pixels that the loss is taken of, the hardest ones; 1: all.
        samples_per_epoch: None: as many as there are training samples.
        val_limit: at most so many validation samples are scored after an epoch, always the same.
        extent: at which the best checkpoint is chosen.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: of the forward pass in training, one of `PRECISIONS`; `auto`: bf16 on CUDA, fp32 on the CPU. The loss
            and the weights are float32 always.
        compile: whether torch.compile translates the model for training.
        sync_batchnorm: whether BatchNorm sees the images of all processes; CUDA only.
        order: `shuffle`: all samples of a source are mixed; `blocks`: those of a few shards at a time.
        checkpoint_every: minutes between checkpoints within an epoch; 0: after every step.
        on_corrupt: `error`: a sample that cannot be read ends the run; `skip`: it is left out and named.
        max_corrupt: so many may be left out.
    """

    shards: tuple[str, ...]
    out: str
    where: str = ""
    exclude: tuple[str, ...] = ()
    task: str = "hand"
    model: str = "deeplabv3_resnet50"
    weights: str = "coco"
    init: str | None = None
    epochs: float = 30
    crop: int = 480
    size: int | None = None
    aim: float = 0.0
    even: float = 0.0
    batch_size: int = 16
    accumulation: int = 1
    workers: int = 2
    seed: int = 0
    optimizer: str = "adamw"
    lr: float | None = None
    body_factor: float | None = None
    weight_decay: float | None = None
    schedule: str = "poly"
    warmup: float = 0.05
    clip: float = 0.0
    dropout: float | None = None
    ema: float = 0.0
    source_weights: Mapping[str, float] = field(default_factory=dict)
    jitter: float = 1.0
    flip: bool = True
    blur: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0
    background: float = 0.0
    paste: float = 0.0
    input_rule: str = "short-side"
    open_labels: str = "sets"
    balance: float = 0.25
    prior: float = 0.1
    dice: float = 0.0
    hard_pixels: float = 1.0
    samples_per_epoch: int | None = None
    val_limit: int = 1000
    extent: str = "wrist"
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    sync_batchnorm: bool = False
    order: str = "shuffle"
    checkpoint_every: float = 10.0
    on_corrupt: str = "error"
    max_corrupt: int = 100

    def __post_init__(self) -> None:
        """Raise TrainingError on options that no run can have, whoever made them."""
        rules: dict[str, tuple[bool, str]] = {
            "task": (self.task in TASKS, f"one of {', '.join(TASKS)}"),
            "extent": (self.extent in EXTENTS, f"one of {', '.join(EXTENTS)}"),
            "epochs": (self.epochs > 0, "more than 0"),
            "crop": (self.crop >= 32, "32 or more"),
            "size": (self.size is None or self.size >= 32, "32 or more"),
            "aim": (0 <= self.aim <= 1, "0 to 1"),
            "even": (0 <= self.even <= 1, "0 to 1"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "accumulation": (self.accumulation >= 1, "1 or more"),
            "samples_per_epoch": (self.samples_per_epoch is None or self.samples_per_epoch >= 1, "1 or more"),
            "input_rule": (self.input_rule in INPUT_RULES, f"one of {', '.join(INPUT_RULES)}"),
            "open_labels": (self.open_labels in OPEN_LABELS, f"one of {', '.join(OPEN_LABELS)}"),
            "seed": (0 <= self.seed < 2**63, "0 to 2**63 - 1"),
            "workers": (self.workers >= 0, "0 or more"),
            "optimizer": (self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
            "schedule": (self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            "weight_decay": (self.weight_decay is None or self.weight_decay >= 0, "0 or more"),
            "warmup": (0 <= self.warmup <= 1, "0 to 1"),
            "clip": (self.clip >= 0, "0 or more"),
            "dropout": (self.dropout is None or 0 <= self.dropout < 1, "0 or more and less than 1"),
            "ema": (0 <= self.ema < 1, "0 or more and less than 1"),
            "dice": (self.dice >= 0, "0 or more"),
            "hard_pixels": (0 < self.hard_pixels <= 1, "more than 0 and at most 1"),
            "precision": (self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            **{name: (0 <= getattr(self, name) <= 1, "0 to 1") for name in SHARES},
            "paste": (self.paste + self.background <= 1, "at most 1 together with background: no sample is both"),
            "order": (self.order in ORDERS, f"one of {', '.join(ORDERS)}"),
            "checkpoint_every": (self.checkpoint_every >= 0, "0 or more minutes"),
            "on_corrupt": (self.on_corrupt in ON_CORRUPT, f"one of {', '.join(ON_CORRUPT)}"),
            "max_corrupt": (self.max_corrupt >= 0, "0 or more"),
        }
        for name, (holds, what) in rules.items():
            if not holds:
                raise TrainingError(f"{name} is {getattr(self, name)!r}, expected {what}")

    def to_json(self) -> dict[str, Any]:
        lists = {"shards": list(self.shards), "exclude": list(self.exclude)}
        return {**asdict(self), **lists, "source_weights": dict(self.source_weights)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FitConfig:
        """The inverse of `to_json`; raises CheckpointError on options that this version does not know."""
        unknown = sorted(set(data) - {item.name for item in fields(cls)})
        if unknown or not {"shards", "out"} <= set(data):
            raise CheckpointError(
                f"the stored options do not fit this version (unknown: {unknown}, found: {sorted(data)}); "
                "use the program that started the run"
            )
        return cls(**{**UNRECORDED, **data, "shards": tuple(data["shards"]), "exclude": tuple(data.get("exclude", ()))})


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in _RECIPES.glob("*.toml"))


def read_recipe(path: Path) -> dict[str, Any]:
    """Options of a run from a TOML file: the names of `FitConfig`'s fields, dashes allowed for underscores.

    Args:
        path: a file, or the name of a recipe that comes with the package: `cpu`.

    Raises:
        TrainingError: it cannot be read, or names no option of a run.
    """
    if str(path) in recipe_names() and not path.is_file():
        path = _RECIPES / f"{path}.toml"
    elif not path.suffix and not path.exists():
        raise TrainingError(f"{path}: no such file, and no recipe has that name; there are {', '.join(recipe_names())}")
    try:
        recipe = {name.replace("-", "_"): value for name, value in tomllib.loads(path.read_text("utf-8")).items()}
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: cannot be read as a recipe ({error})") from error
    known = {item.name: item.type for item in fields(FitConfig)}
    for name, value in recipe.items():
        if name not in known:
            raise TrainingError(f"{path}: {name!r} is no option of a run; there are {', '.join(known)}")
        expected = str(known[name])
        kinds = next(kinds for text, kinds in _TOML_KINDS.items() if expected.startswith(text))
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise TrainingError(f"{path}: {name} is {value!r}, expected {expected}")
    if isinstance(recipe.get("shards"), str):
        recipe["shards"] = [recipe["shards"]]
    if isinstance(recipe.get("exclude"), str):  # a file, as on the command line; a list holds the keys themselves
        recipe["exclude"] = read_keys(Path(recipe["exclude"]))
    return recipe | {name: tuple(recipe[name]) for name in ("shards", "exclude") if name in recipe}
