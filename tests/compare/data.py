"""The miniatures and their shards, made by the public commands; what is there already is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compare.runs import CompareError
from hodata.synth.miniatures import MARKER
from hodata.synth.scene import SCENE_VERSION

SOURCES = ("freihand", "egohos", "egohands", "ho3d")
# Of each source: twice the usual, for twice as many recordings of EgoHOS and people of FreiHAND to score on.
FRAMES = 1_200
# Four recordings of HO-3D hold half of the object pixels of a test split, and one of them can decide a comparison. So
# the test splits of further sets are scored on as well: other recordings, people, hands and objects.
FURTHER_SEEDS = (3, 4)
FURTHER_FRAMES = 400
_SKIPPED = 3  # exit code: done, but some input was left out; some HO-3D frames have no annotation


@dataclass(frozen=True)
class Drawn:
    """Miniatures of all sources, and what was built of them.

    Args:
        name: of what is scored on them; empty: those that are trained on.
        raw: the folder of raw data.
        shards: a glob.
    """

    name: str
    raw: Path
    shards: str


def make(out: Path, say: Callable[[str], None] = print) -> Drawn:
    """Draw and build what is trained on, chosen by and scored on."""
    return _make(Drawn("", out / "raw", str(out / "shards" / "*.tar")), FRAMES, 0, say)


def make_further(out: Path, say: Callable[[str], None] = print) -> list[Drawn]:
    """Draw and build what is scored on only."""
    sets = []
    for seed in FURTHER_SEEDS:
        folder = out / f"further-{seed}"
        drawn = Drawn(folder.name, folder / "raw", str(folder / "shards" / "*.tar"))
        sets.append(_make(drawn, FURTHER_FRAMES, seed, say))
    return sets


def _make(drawn: Drawn, frames: int, seed: int, say: Callable[[str], None]) -> Drawn:
    raw, shards = drawn.raw, Path(drawn.shards).parent
    if (raw / "ycb").is_dir():  # written last
        require_drawn(raw, frames, seed)
    else:
        say(f"miniature datasets into {raw}")
        wanted = [part for name in (*SOURCES, "mano", "ycb") for part in ("--source", name)]
        _hodata("synth", "--out", str(raw), "--frames", str(frames), "--seed", str(seed), *wanted)
    for source in SOURCES:
        say(f"shards of {source} into {shards}")
        _hodata("build", "--source", source, "--root", str(raw / source), "--out", str(shards))
    return drawn


def require_drawn(raw: Path, frames: int, seed: int) -> None:
    """Raise CompareError where a folder holds miniatures of another number, seed or version of the scenes."""
    wanted = {"scene_version": SCENE_VERSION, "frames": frames, "seed": seed}
    for source in SOURCES:
        path = raw / source / MARKER
        try:
            facts = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise CompareError(
                f"{path}: cannot be read ({error}); remove {raw.parent}, or give another --out"
            ) from error
        other = {name: facts.get(name) for name, value in wanted.items() if facts.get(name) != value}
        if "files" not in facts:  # earlier ones had other numbers beside the same pictures
            other["files"] = None
        if other:
            raise CompareError(f"{raw / source}: was drawn otherwise ({other}, {wanted} now); give another --out")


def _hodata(*arguments: str) -> None:
    result = subprocess.run([sys.executable, "-m", "hodata.cli", *arguments], capture_output=True, text=True)
    if result.returncode not in (0, _SKIPPED):
        raise CompareError(f"hodata {' '.join(arguments)} failed:\n{result.stderr[-2000:]}")
