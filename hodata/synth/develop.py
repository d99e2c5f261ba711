"""From linear light to a picture file's bytes: lens blur, vignette, gamma, sensor noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hodata.kernels import njit
from hodata.synth.textures import lattice_hash


def develop(
    linear: NDArray[np.float32], exposure: float, blur: float, noise: float, vignette: float, seed: int
) -> NDArray[np.uint8]:
    """sRGB uint8 [H, W, 3]: lens blur (0 to 1 of a 3x3 binomial, twice beyond 1), vignette, gamma, sensor noise."""
    out = np.empty(linear.shape, dtype=np.uint8)
    source = np.ascontiguousarray(linear, dtype=np.float32)
    for strength in (min(blur, 1.0), min(max(blur - 1.0, 0.0), 1.0)):
        if strength > 0:
            source = _blur(source, np.float32(strength))
    _develop(source, np.float32(exposure), np.float32(noise), np.float32(vignette), np.uint32(seed), _GAMMA, out)
    return out


def linear_from_srgb(color: object) -> NDArray[np.float64]:
    """Linear RGB in [0, 1] of sRGB values 0-255 (IEC 61966-2-1)."""
    c = np.asarray(color, dtype=np.float64) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def _gamma_table() -> NDArray[np.float32]:
    x = np.arange(4096) / 4095
    return (255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(np.float32)


_GAMMA = _gamma_table()


@njit(error_model="numpy")
def _blur(source, strength):  # type: ignore[no-untyped-def]
    """A mix of the picture and its 3x3 binomial blur."""
    height, width, _ = source.shape
    side = np.float32(0.25) * strength
    middle = np.float32(1.0) - 2 * side
    across = np.empty_like(source)
    out = np.empty_like(source)
    for y in range(height):
        for x in range(width):
            a, b = max(x - 1, 0), min(x + 1, width - 1)
            for c in range(3):
                across[y, x, c] = middle * source[y, x, c] + side * (source[y, a, c] + source[y, b, c])
    for y in range(height):
        a, b = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            for c in range(3):
                out[y, x, c] = middle * across[y, x, c] + side * (across[a, x, c] + across[b, x, c])
    return out


@njit(error_model="numpy")
def _develop(source, exposure, noise, vignette, seed, gamma, out):  # type: ignore[no-untyped-def]
    height, width, _ = source.shape
    for y in range(height):
        dy = np.float32(2.0 * y / height - 1.0)
        for x in range(width):
            dx = np.float32(2.0 * x / width - 1.0)
            gain = exposure * (1 - vignette * (dx * dx + dy * dy))
            grey = lattice_hash(x, y, 0, seed)
            # Further digits of one hash serve as further random numbers.
            more = np.uint32(grey * np.float32(16777216.0))
            grey += np.float32(more & np.uint32(0xFFF)) * np.float32(1 / 4096) - np.float32(1.0)
            for c in range(3):
                value = source[y, x, c] * gain
                # A soft shoulder instead of clipped highlights.
                if value > np.float32(0.7):
                    value = np.float32(1.0) - np.float32(0.3) * np.exp((np.float32(0.7) - value) / np.float32(0.3))
                level = gamma[min(max(int(value * np.float32(4095) + np.float32(0.5)), 0), 4095)]
                own = np.float32((more >> np.uint32(5 * c)) & np.uint32(0x1FF)) * np.float32(1 / 512) - np.float32(0.5)
                level += noise * (grey + np.float32(0.7) * own)
                out[y, x, c] = np.uint8(min(max(level + np.float32(0.5), 0.0), 255.0))
