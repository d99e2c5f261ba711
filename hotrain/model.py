"""torchvision's segmentation models with a last layer for the classes of a task.

Shapes: B batch, K classes, H W pixels. A model maps float32 [B, 3, H, W] to {"out": logits [B, K, H, W]} and, where
it has an auxiliary head, {"aux": the same}. Its state dict has torchvision's own names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from hotrain.config import MODELS
from hotrain.errors import WeightsError

AUX_WEIGHT = 0.4  # of the auxiliary head's loss, as in PSPNet (arXiv:1612.01105, section 3.2)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_BATCHNORM_MOMENTUM = 0.1
_STRIDE = 16  # the coarsest of the models' maps: MobileNet 16, ResNet (dilated) 8


def create_model(name: str, classes: int) -> nn.Module:
    """A model with random weights.

    Args:
        name: one of `config.MODELS`.
        classes: K.

    Raises:
        WeightsError: an unknown name.
    """
    if name not in MODELS:
        raise WeightsError(f"unknown model {name!r}; there are {', '.join(MODELS)}")
    options: dict[str, Any] = {}
    if name.startswith("deeplabv3"):
        options["aux_loss"] = "resnet" in name
    model: nn.Module = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=classes, **options
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # torchvision's MobileNet has 0.01: after a short run its running statistics are still those of the random
            # start, and the model evaluates to nothing (IoU 0.000 at a training loss of 0.12).
            module.momentum = _BATCHNORM_MOMENTUM
        if type(module) is nn.Conv2d and module.kernel_size == (3, 3) and module.dilation[0] > 2:
            module.__class__ = _DilatedConv
            _silence_outer_taps(module)
        elif type(module) is nn.Conv2d and module.groups == module.in_channels > 1:
            module.__class__ = _DepthwiseConv
    return model


def logits_of(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Apply a model so that its answer lies where it was seen, whatever the image's size.

    torchvision enlarges a map of ceil(side / 16) cells to the image's side. For a side that 16 does not divide, the
    cells then lie elsewhere than for one that it does: a model trained on crops of 160 answers 4 pixels beside the
    truth on images of 213. So the image is padded to a multiple of 16 (zeros: the mean colour) and the answer is cut
    back.

    Args:
        model: as `create_model` makes it, or the same wrapped.
        image: float32 [B, 3, H, W], normalised.

    Returns:
        {"out": [B, K, H, W]} and, where there is one, "aux".
    """
    height, width = image.shape[-2:]
    padded = functional.pad(image, (0, -width % _STRIDE, 0, -height % _STRIDE))
    outputs: dict[str, Tensor] = model(padded.contiguous(memory_format=torch.channels_last))
    return {name: logits[..., :height, :width] for name, logits in outputs.items()}


def load_coco(model: nn.Module, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Load torchvision's COCO weights (classes of VOC) into everything but the last layers.

    Returns:
        mean and std that these weights were trained with, RGB in 0..1.

    Raises:
        WeightsError: not at hand and cannot be downloaded; the message names the file, its address and its place.
    """
    weights = torchvision.models.get_model_weights(name)["COCO_WITH_VOC_LABELS_V1"]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = weights.url.rsplit("/", 1)[1]
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"the COCO weights of {name} are not at hand and cannot be downloaded ({error}). Put the file {file} "
            f"from {weights.url} into {folder}, or give --weights FILE, or train from scratch with --weights none"
        ) from error
    load_body(model, state, str(folder / file))
    preset = weights.transforms()
    return tuple(preset.mean), tuple(preset.std)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.safetensors` or `.pth` file; nothing in it is ever run.

    Raises:
        WeightsError: missing, damaged, or holding something else.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file (--weights takes coco, none or a .pth or .safetensors file)")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise many kinds on bytes that are something else
        raise WeightsError(f"{path}: cannot be read as weights ({_first_line(error)})") from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]  # as torchvision's reference scripts save it
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds no state dict (tensors by name)")
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_body(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load everything but the last layers; an auxiliary head is optional on both sides.

    Raises:
        WeightsError: tensors are missing or of another shape: they belong to another model.
    """
    last = set(last_layers(model))
    wanted = {name: value for name, value in model.state_dict().items() if _layer(name) not in last}
    missing = [name for name in wanted if name not in state and not name.startswith("aux_classifier.")]
    if missing:
        raise WeightsError(
            f"{where}: lacks {len(missing)} of the model's {len(wanted)} tensors, {missing[0]} first; "
            "are these weights of another --model?"
        )
    loaded = {name: state[name] for name in wanted if name in state}
    for name, value in loaded.items():
        if value.shape != wanted[name].shape:
            raise WeightsError(
                f"{where}: {name} is {list(value.shape)}, this model needs {list(wanted[name].shape)}; "
                "are these weights of another --model?"
            )
    model.load_state_dict(loaded, strict=False)


def carry_over(
    model: nn.Module, classes: Sequence[str], state: Mapping[str, Tensor], known: Sequence[str], where: str
) -> list[str]:
    """Start from another run: its body, and of its last layers the rows of the classes that both know.

    Args:
        model: a fresh one, for `classes`.
        classes: names, index = class id.
        state: the other run's weights.
        known: its class names.
        where: names the other run in errors.

    Returns:
        the classes whose rows were carried over.

    Raises:
        WeightsError: the other run trained another model.
    """
    load_body(model, state, where)
    shared = [name for name in classes if name in known]
    to = torch.tensor([classes.index(name) for name in shared])
    of = torch.tensor([known.index(name) for name in shared])
    own = model.state_dict()
    with torch.no_grad():
        for layer in last_layers(model):
            for name in (f"{layer}.weight", f"{layer}.bias"):
                if name in state:
                    own[name][to] = state[name][of].to(own[name].dtype)
    return shared


def set_dropout(model: nn.Module, probability: float) -> int:
    """Set the dropout of the head, not of the auxiliary one; returns how many layers have one (LR-ASPP: 0)."""
    layers = [module for module in model.get_submodule("classifier").modules() if isinstance(module, nn.Dropout)]
    for layer in layers:
        layer.p = probability
    return len(layers)


def last_layers(model: nn.Module) -> tuple[str, ...]:
    """Names of the convolutions whose output channels are classes."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    if any(name == "classifier.low_classifier" for name in names):  # LR-ASPP adds two maps of logits
        return "classifier.low_classifier", "classifier.high_classifier"
    heads = [[name for name in names if name.startswith(head)] for head in ("classifier.", "aux_classifier.")]
    return tuple(head[-1] for head in heads if head)


class _DilatedConv(nn.Conv2d):
    """A 3x3 convolution that leaves out taps which see nothing but padding.

    On a map no larger than the dilation only the middle tap lies inside, wherever it is applied: the result is that of
    a 1x1 convolution, and the gradient of the other taps is 0. Crops of 160 make ASPP's three rates such cases, which
    are a third of a training step on the CPU.
    """

    def forward(self, input: Tensor) -> Tensor:
        if min(self.dilation) < max(input.shape[-2:]):
            return super().forward(input)
        return functional.conv2d(input, self.weight[:, :, 1:2, 1:2], self.bias, groups=self.groups)


@torch.no_grad()
def _silence_outer_taps(conv: nn.Conv2d) -> None:
    """Set the outer taps of a 3x3 convolution to 0, from where they learn wherever training meets them.

    Random ones that training's crops never reach would answer as soon as a larger or wider image does reach them: crops
    of 160 make maps of 10 x 10, pictures of 213 x 160 ones of 14 x 10, and ASPP's first rate is 12.
    """
    middle = conv.weight[:, :, 1, 1].clone()
    conv.weight.zero_()
    conv.weight[:, :, 1, 1] = middle


class _DepthwiseConv(nn.Conv2d):
    """A depthwise convolution as the CPU computes it fastest: in float32 where others are in bfloat16, and undilated.

    torch's backward pass through it takes twice as long in bfloat16, which eats all that the others gain, and half as
    long again with a dilation of 2.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu":
            return super().forward(input)
        if torch.is_autocast_enabled("cpu"):
            input = input.float()
        with torch.autocast("cpu", enabled=False):
            return self._undilated(input) if torch.is_grad_enabled() else super().forward(input)

    def _undilated(self, input: Tensor) -> Tensor:
        """The same sums, over every second pixel in each direction: four small pictures in place of one with gaps."""
        batch, channels, height, width = input.shape
        if self.dilation != (2, 2) or self.stride != (1, 1) or height % 2 or width % 2:
            return super().forward(input)
        rows = input.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2, 2, channels)
        parts = rows.permute(0, 2, 4, 1, 3, 5).reshape(batch * 4, height // 2, width // 2, channels).permute(0, 3, 1, 2)
        padding = (int(self.padding[0]) // 2, int(self.padding[1]) // 2)
        found = functional.conv2d(parts, self.weight, self.bias, padding=padding, groups=self.groups)
        found = found.permute(0, 2, 3, 1)
        whole = found.reshape(batch, 2, 2, height // 2, width // 2, channels).permute(0, 3, 1, 4, 2, 5)
        return whole.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


def _layer(name: str) -> str:
    return name.rsplit(".", 1)[0]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
