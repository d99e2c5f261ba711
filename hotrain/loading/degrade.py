"""What a camera does to a picture: blur, sensor noise, JPEG. In the loading process, on uint8, labels untouched.

In the order in which a camera does it, each drawn on its own from the numbers of the sample's position. Pixels are
whole numbers throughout, so nothing depends on the batch, the worker or the device.

Here and not on the device: torch has no random numbers per sample, and on a CPU it takes four to eight times as long
(docs/benchmarks.md).

Shapes: S side of a crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hotrain.order import raw_words, uniforms

DEGRADE, GRAIN = 11, 12  # purposes of the random numbers drawn here, see `order.uniforms`
_SIGMA = 0.5, 1 / 160  # Gaussian blur, standard deviation: from so many pixels to so much of the side
_TRAVEL = 3.0, 1 / 30  # motion blur, length of the path: the same
_NOISE = 1.5, 14.0  # standard deviation of the noise at grey 128, in grey levels
_QUALITY = 25, 95  # of JPEG


@dataclass(frozen=True)
class DegradeRule:
    """Shares of the samples, 0..1, each drawn on its own.

    Args:
        blur: half of them Gaussian (out of focus), half along a line (moving).
        noise: of the sensor.
        jpeg: compressed once more.
    """

    blur: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0


class Faults(NamedTuple):
    """What befalls one picture; None where nothing does.

    Args:
        sigma: of a Gaussian blur, pixels.
        motion: length in pixels and angle in radians of a motion blur.
        noise: standard deviation at grey 128 in grey levels, and the share of its variance that is shot noise.
        quality: of JPEG, 1 to 100.
    """

    sigma: float | None = None
    motion: tuple[float, float] | None = None
    noise: tuple[float, float] | None = None
    quality: int | None = None

    def __str__(self) -> str:
        words = []
        if self.sigma:
            words.append(f"blur {self.sigma:.1f}")
        if self.motion:
            words.append(f"motion {self.motion[0]:.0f}")
        if self.noise:
            words.append(f"noise {self.noise[0]:.0f}")
        if self.quality:
            words.append(f"jpeg {self.quality}")
        return ", ".join(words)


def draw_faults(seed: int, position: int, rule: DegradeRule, side: int) -> Faults:
    """What the rule does to the picture at a position of the run.

    Args:
        seed: of the run.
        position: in the run.
        rule: how often.
        side: of the picture, pixels: blur grows with it.
    """
    draw = uniforms(seed, position, DEGRADE, 9).tolist()
    faults = Faults()
    if draw[0] < rule.blur and draw[1] < 0.5:
        faults = faults._replace(sigma=_between(_SIGMA[0], max(side * _SIGMA[1], 1.0), draw[2]))
    elif draw[0] < rule.blur:
        length = _between(_TRAVEL[0], max(side * _TRAVEL[1], 4.0), draw[2])
        faults = faults._replace(motion=(length, math.pi * draw[3]))
    if draw[4] < rule.noise:
        faults = faults._replace(noise=(_between(*_NOISE, draw[5]), draw[6]))
    if draw[7] < rule.jpeg:
        low, high = _QUALITY
        faults = faults._replace(quality=low + int(draw[8] * (high - low + 1)))
    return faults


def degrade(image: NDArray[np.uint8], seed: int, position: int, rule: DegradeRule) -> None:
    """Change one picture, uint8 [S, S, 3], in place, as its position in the run says; arguments of `draw_faults`."""
    if rule == DegradeRule():
        return
    faults = draw_faults(seed, position, rule, len(image))
    if faults.sigma:
        image[:] = gaussian_blur(image, faults.sigma)
    if faults.motion:
        image[:] = motion_blur(image, *faults.motion)
    if faults.noise:
        words = raw_words(seed, position, GRAIN, -(-image.size // 8))
        grain = words.astype("<u8").view(np.uint8)[: image.size].reshape(image.shape)
        image[:] = add_noise(image, grain, *faults.noise)
    if faults.quality:
        image[:] = recompress(image, faults.quality)


def gaussian_blur(image: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Blur uint8 [H, W, 3] with a Gaussian of `sigma` pixels, cut off at 3 sigma; borders are repeated."""
    reach = max(math.ceil(3 * sigma), 1)
    bells = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights = _in_256ths(bells)
    down = _weighted(image, [(k - reach, 0) for k in range(2 * reach + 1)], weights)
    return _weighted(down, [(0, k - reach) for k in range(2 * reach + 1)], weights)


def motion_blur(image: NDArray[np.uint8], length: float, angle: float) -> NDArray[np.uint8]:
    """The mean of uint8 [H, W, 3] along a straight path: `length` pixels, `angle` radians from the x axis, centred."""
    reach = max(round(length / 2 * max(abs(math.cos(angle)), abs(math.sin(angle)))), 1)  # in steps of a whole pixel
    steps = np.arange(-reach, reach + 1) * (length / 2 / reach)
    path = [(round(step * math.sin(angle)), round(step * math.cos(angle))) for step in steps]
    return _weighted(image, path, _in_256ths(np.ones(len(path))))


def add_noise(image: NDArray[np.uint8], grain: NDArray[np.uint8], deviation: float, shot: float) -> NDArray[np.uint8]:
    """Noise of a sensor: Gaussian, its variance linear in the grey level (Foi et al. 2008, 10.1109/TIP.2008.2001399).

    Args:
        image: uint8 [H, W, 3].
        grain: uint8 [H, W, 3], uniform random numbers: each picks one of 256 equally likely values of the noise.
        deviation: at grey 128, in grey levels.
        shot: share of the variance there that grows with the light, 0..1; the rest is the same everywhere.

    Returns:
        uint8 [H, W, 3], rounded and clipped.
    """
    level = np.arange(256)
    spread = deviation * np.sqrt(1 - shot + shot * level / 128)
    seen = np.rint(level[:, None] + spread[:, None] * _quantiles()).clip(0, 255).astype(np.uint8)
    place = image.astype(np.uint16)
    place <<= 8
    place |= grain
    return seen.ravel().take(place)


def recompress(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] as a JPEG of this quality gives it back, with halved colour resolution, as cameras write it."""
    import simplejpeg

    data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorsubsampling="420")
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=True, fastupsample=True)
    return pixels


def _weighted(image: NDArray[np.uint8], shifts: list[tuple[int, int]], weights: list[int]) -> NDArray[np.uint8]:
    """Sum of shifted copies, (down, across) pixels each; the weights are 256ths, 256 together, so 16 bits hold it."""
    height, width = image.shape[:2]
    down, across = (max(abs(shift[axis]) for shift in shifts) for axis in (0, 1))
    padded = np.pad(image, ((down, down), (across, across), (0, 0)), mode="edge")
    total = np.full(image.shape, 128, dtype=np.uint16)  # to round
    for (y, x), weight in zip(shifts, weights, strict=True):
        copy = padded[down + y : down + y + height, across + x : across + x + width]
        total += np.multiply(copy, weight, dtype=np.uint16)
    total >>= 8
    return total.astype(np.uint8)


def _in_256ths(weights: NDArray[np.float64]) -> list[int]:
    """Symmetric weights of an odd number of places as whole numbers that sum to 256; the middle takes what is left."""
    middle = len(weights) // 2
    half = np.rint(256 * weights[:middle] / weights.sum()).astype(int).tolist()
    return [*half, 256 - 2 * sum(half), *half[::-1]]


@cache
def _quantiles() -> NDArray[np.float64]:
    """float64 [256]: the normal distribution's values at the middles of 256 equal shares."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((number + 0.5) / 256) for number in range(256)])


def _between(low: float, high: float, number: float) -> float:
    """Log-uniform from a number in [0, 1)."""
    return low * (high / low) ** float(number)
