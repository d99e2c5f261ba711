"""FreiHAND's annotation tables: `training_K.json` and so on, one row for each base picture.

Facts: `load_db_annotation` in utils/fh_utils.py of lmb-freiburg/freihand. A partial download may have none of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SourceError
from hodata.pose.mano import VERTICES
from hodata.sources.big_tables import is_converted, table

Array = NDArray[np.float64]

SUBSETS = ("training", "evaluation")
POSE_DECIMALS = 4  # to which views of one instant agree
MANO_NUMBERS = 61  # 48 pose, 10 shape, 2 root (pixels), 1 scale
LONG = 100 * 2**20  # bytes of text that take long enough to show progress
_MB = 2**20


@dataclass(frozen=True)
class _Kind:
    """Shape of a row; `finite` where one bad row spoils the table, and not only its own sample."""

    row_shape: tuple[int, ...]
    dtype: str = "<f8"
    finite: bool = False


_KINDS = {
    "K": _Kind((3, 3)),
    "xyz": _Kind((21, 3)),
    "verts": _Kind((VERTICES, 3), "<f4"),  # to 0.1 micrometre, half the memory
    "mano": _Kind((1, MANO_NUMBERS), finite=True),  # the groups are made of it
    "scale": _Kind(()),
}


@dataclass(frozen=True)
class Annotation:
    """What the tables say of one picture; None where there is no table. NaN in a table is NaN here.

    Args:
        K: [3, 3] pixels.
        xyz: [21, 3] key points in OpenPose order, OpenCV camera frame, metres.
        vertices: [778, 3] of MANO's mesh, same frame.
        mano: [61] = 48 pose (3 global, 45 relative to `hands_mean`), 10 shape, 2 root (pixels), 1 scale.
        scale: length of the middle finger's first bone (|xyz[9] - xyz[10]|), metres.
    """

    K: Array | None = None
    xyz: Array | None = None
    vertices: Array | None = None
    mano: Array | None = None
    scale: float | None = None


class Tables:
    """The tables that there are, mapped on first use in every process.

    Args:
        root: FreiHAND's folder.
        with_vertices: whether `*_verts.json` are wanted; they are by far the largest.

    Raises (all methods):
        SourceError: a table is damaged, or two of one subset have different numbers of rows.
    """

    def __init__(self, root: Path, with_vertices: bool) -> None:
        self.root = root
        self.names = tuple(name for name in _KINDS if with_vertices or name != "verts")
        self._open: dict[tuple[str, str], np.memmap[Any, Any] | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A memory map is pickled with all its bytes; a worker maps the file again.
        return {**self.__dict__, "_open": {}}

    def prepare(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Convert what is not converted yet; `progress` is called with (megabytes done, in all) if it takes long."""
        missing = [path.stat().st_size for path, kind in self._files() if not is_converted(path, **vars(kind))]
        done, total = 0, sum(missing)

        def report(read: int) -> None:
            nonlocal done
            before, done = done, done + read
            if progress and total >= LONG and done // _MB > before // _MB:
                progress(done // _MB, total // _MB)

        for subset in SUBSETS:
            counts = {}
            for name in self.names:
                rows = self._table(subset, name, report)
                if rows is not None:
                    counts[f"{subset}_{name}.json"] = len(rows)
            if len(set(counts.values())) > 1:
                listed = ", ".join(f"{name} has {count:,}" for name, count in counts.items())
                raise SourceError(
                    f"{self.root}: the tables have different numbers of rows ({listed}); they are of different "
                    "versions of FreiHAND, or one is damaged: unpack FreiHAND_pub_v2.zip again"
                )

    def found(self) -> list[str]:
        """File names of the tables in use."""
        return [path.name for path, _ in self._files()]

    def has(self, subset: str, row: int, *names: str) -> bool:
        """Whether each of these tables exists and has this row."""
        return all((rows := self._table(subset, name)) is not None and row < len(rows) for name in names)

    def pose_groups(self) -> list[str]:
        """Group name of each training row; empty without `training_mano.json`.

        Views of one instant share finger pose and shape, `mano[3:48]` and `mano[48:58]`. The global rotation (first
        three numbers) differs between views, so it is left out.
        """
        table = self._table("training", "mano")
        if table is None:
            return []
        # Adding 0 turns -0.0 into 0.0: both print alike and must hash alike.
        shared = np.round(table[:, 0, 3:58], POSE_DECIMALS) + 0.0
        return [hashlib.sha256(row.astype("<f8").tobytes()).hexdigest()[:16] for row in shared]

    def annotation(self, subset: str, row: int) -> Annotation:
        """One row of every table."""

        def read(name: str) -> Array | None:
            rows = self._table(subset, name) if name in self.names else None
            return np.array(rows[row], dtype=np.float64) if rows is not None and row < len(rows) else None

        mano, scale = read("mano"), read("scale")
        return Annotation(
            K=read("K"),
            xyz=read("xyz"),
            vertices=read("verts"),
            mano=None if mano is None else mano[0],
            scale=None if scale is None else float(scale),
        )

    def _files(self) -> Iterator[tuple[Path, _Kind]]:
        for subset in SUBSETS:
            for name in self.names:
                path = self.root / f"{subset}_{name}.json"
                if path.exists():
                    yield path, _KINDS[name]

    def _table(self, subset: str, name: str, report: Callable[[int], None] | None = None) -> np.memmap[Any, Any] | None:
        key = (subset, name)
        if key not in self._open:
            path, kind = self.root / f"{subset}_{name}.json", _KINDS[name]
            self._open[key] = table(path, **vars(kind), report=report) if path.exists() else None
        return self._open[key]
