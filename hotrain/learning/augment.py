"""Colour changes of training images, on the device, and normalisation.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hotrain.order import uniforms

PHOTOMETRIC = 1  # purpose of the random numbers drawn here, see `order.uniforms`
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass(frozen=True)
class ColorRule:
    """How far colours may move; 0 leaves them alone.

    Args:
        brightness: factor 1 - x .. 1 + x.
        contrast: the same, about the mean of the image.
        saturation: the same, about the grey of each pixel.
        hue: turn about the grey axis, -x .. x in turns.
        balance: each channel by 1 - x .. 1 + x on its own (white balance).
        gamma: exponent exp(-x) .. exp(x).
        gray: share of images without colour: skin colour alone should not decide.
    """

    brightness: float = 0.35
    contrast: float = 0.35
    saturation: float = 0.5
    hue: float = 0.04
    balance: float = 0.1
    gamma: float = 0.3
    gray: float = 0.05

    @classmethod
    def of_strength(cls, strength: float) -> ColorRule:
        """The defaults times a factor; factors on colours stay below 1, so that no image turns black."""
        return cls(**{name: min(limit * strength, 0.9) for name, limit in asdict(cls()).items()})


def normalize(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 [B, 3, H, W]: (image / 255 - mean) / std per channel."""
    scale = torch.tensor(std).to(image.device, non_blocking=True).reciprocal()[:, None, None]
    shift = torch.tensor(mean).to(image.device, non_blocking=True)[:, None, None] * scale
    return image.float() * (scale / 255) - shift


def jitter_colors(image: Tensor, seed: int, position: Tensor, rule: ColorRule) -> Tensor:
    """Move the colours of each image by its own numbers: the same for a position, whatever the batch.

    Args:
        image: uint8 [B, 3, H, W].
        seed: of the run.
        position: int64 [B], on the CPU.
        rule: how far.

    Returns:
        uint8 [B, 3, H, W], on the image's device.
    """
    draws = [uniforms(seed, int(p), PHOTOMETRIC, 9) for p in position]
    matrices = torch.from_numpy(np.stack([_matrix(draw, rule) for draw in draws]).astype(np.float32))
    matrices = matrices.to(image.device, non_blocking=True)
    scalars = [(1 + rule.contrast * (2 * draw[0] - 1), math.exp(rule.gamma * (2 * draw[1] - 1))) for draw in draws]
    contrast, gamma = torch.tensor(scalars, dtype=torch.float32).to(image.device, non_blocking=True).unbind(1)
    batch, _, height, width = image.shape

    # Channels last, as the images come and as the network takes them: nothing is copied to change places.
    pixels = image.permute(0, 2, 3, 1).reshape(batch, -1, 3).float() * (1 / 255)
    pixels = pixels.clamp_(1e-4).pow_(gamma[:, None, None])
    # Contrast about the mean of the image that the matrix makes, which is the matrix applied to the mean of this one.
    middle = torch.bmm(pixels.mean(1, keepdim=True), matrices.mT).mean(2, keepdim=True)
    pixels = torch.baddbmm((1 - contrast)[:, None, None] * middle, pixels, contrast[:, None, None] * matrices.mT)
    return pixels.clamp_(0, 1).mul_(255).round_().byte().view(batch, height, width, 3).permute(0, 3, 1, 2)


def _matrix(draw: NDArray[np.float64], rule: ColorRule) -> NDArray[np.float64]:
    """float64 [3, 3]: brightness, white balance, saturation and hue as one linear map of RGB."""
    spread = 2 * draw - 1
    saturation = 0.0 if draw[8] < rule.gray else 1 + rule.saturation * spread[2]
    gray = np.tile(_LUMA, (3, 1))
    turned = _turn_hue(2 * math.pi * rule.hue * spread[3])
    gains = (1 + rule.brightness * spread[4]) * (1 + rule.balance * spread[5:8])
    return np.asarray(gains[:, None] * ((saturation * np.eye(3) + (1 - saturation) * gray) @ turned))


def _turn_hue(angle: float) -> NDArray[np.float64]:
    """Rotation about the grey axis (1, 1, 1) by `angle` radians (Rodrigues)."""
    cosine, sine = math.cos(angle), math.sin(angle) / math.sqrt(3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    return np.asarray(cosine * np.eye(3) + sine * cross + (1 - cosine) / 3 * np.ones((3, 3)))
