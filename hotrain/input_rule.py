"""How an image enters the network. A run stores its rule; fit, eval and previews apply that one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotrain.errors import CheckpointError, FrameError

KINDS = ("short-side", "squash")
_MOST_PIXELS = 8_000_000  # of one image as a network sees it; a usual one has half a million


@dataclass(frozen=True)
class InputRule:
    """The size at which the network sees an image.

    Args:
        size: pixels.
        kind: `short-side`: the shorter side becomes `size` and the aspect is kept; `squash`: both sides become it.
    """

    size: int
    kind: str = "short-side"

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of an image of this size as the network sees it."""
        if self.kind == "squash":
            return self.size, self.size
        scale = self.size / min(width, height)
        return max(round(width * scale), 1), max(round(height * scale), 1)

    def refuse_long(self, width: int, height: int) -> None:
        """Raise FrameError on an image that is so long and narrow that no memory would hold what the network makes of
        it."""
        across, down = self.network_size(width, height)
        most = max(_MOST_PIXELS, 8 * self.size**2)
        if across * down > most:
            raise FrameError(
                f"is {width}x{height}: the network would see it at {across}x{down}, more than {most:,} pixels; cut it "
                "into parts"
            )

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] -> uint8 [h, w, 3] at the network's size; antialiased."""
        from PIL import Image

        height, width = image.shape[:2]
        size = self.network_size(width, height)
        if size == (width, height):
            return image
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "size": self.size}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> InputRule:
        """The inverse of `to_json`; raises CheckpointError on an unknown kind."""
        if data.get("kind") not in KINDS or not isinstance(data.get("size"), int):
            raise CheckpointError(f"unknown input rule {data}; this version knows {', '.join(KINDS)}")
        return cls(size=data["size"], kind=data["kind"])
