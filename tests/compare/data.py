"""The miniatures and their shards, made by the public commands; what is there already is kept."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from compare.runs import CompareError

SOURCES = ("freihand", "egohos", "egohands", "ho3d")
# Of each source: twice the usual, for twice as many recordings of EgoHOS and people of FreiHAND to score on.
FRAMES = 1_200
_SKIPPED = 3  # exit code: done, but some input was left out; some HO-3D frames have no annotation


def make(out: Path, say: Callable[[str], None] = print) -> tuple[Path, str]:
    """Draw and build all four sources.

    Returns:
        the folder of raw data, and a glob of the shards.
    """
    raw, shards = out / "raw", out / "shards"
    if not (raw / "ycb").is_dir():  # written last
        say(f"miniature datasets into {raw}")
        wanted = [part for name in (*SOURCES, "mano", "ycb") for part in ("--source", name)]
        _hodata("synth", "--out", str(raw), "--frames", str(FRAMES), *wanted)
    for source in SOURCES:
        say(f"shards of {source} into {shards}")
        _hodata("build", "--source", source, "--root", str(raw / source), "--out", str(shards))
    return raw, str(shards / "*.tar")


def _hodata(*arguments: str) -> None:
    result = subprocess.run([sys.executable, "-m", "hodata.cli", *arguments], capture_output=True, text=True)
    if result.returncode not in (0, _SKIPPED):
        raise CompareError(f"hodata {' '.join(arguments)} failed:\n{result.stderr[-2000:]}")
