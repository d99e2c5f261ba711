"""A builder killed (SIGKILL) at many random moments and run again writes the files of an undisturbed build."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_build import contents
from tiny_freihand import write_freihand

from hodata.shards.reader import ShardIndex

KILLS = 36


def start(root: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hodata.cli", "build", "--source", "freihand", "--root", str(root)]
    command += ["--out", str(out), "--samples-per-shard", "9", "--workers", str(workers)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def written(out: Path) -> int:
    """Changes whenever a file is made, renamed or removed in the folder."""
    return out.stat().st_mtime_ns if out.exists() else 0


def seconds_of_writing(root: Path, out: Path) -> float:
    """From the first file in the folder to the end of an undisturbed build."""
    process = start(root, out, 1)
    while not out.exists():
        time.sleep(0.002)
    begin = time.monotonic()
    assert process.wait() == 0
    return time.monotonic() - begin


@pytest.mark.soak
def test_killed_at_random_moments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_freihand(tmp_path / "raw", bases=90, evaluation=10, views=2)
    span = seconds_of_writing(root, tmp_path / "reference")
    reference = contents(tmp_path / "reference")
    rng = random.Random(11)
    out = tmp_path / "out"
    killed, finished, left = 0, 0, set()
    while killed < KILLS or not finished:
        workers = 1 + killed % 2
        before = written(out)
        process = start(root, out, workers)
        while written(out) == before and process.poll() is None:
            time.sleep(0.002)
        if killed < KILLS:
            time.sleep(rng.uniform(0, 0.9 * span))
            process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            killed += 1
            left |= {path.suffix for path in out.iterdir()}
            for path in out.glob("*-*.index"):  # what looks finished is
                assert len(ShardIndex.open(path.with_suffix(".tar"))) > 0
        else:
            assert process.returncode == 0
            assert contents(out) == reference
            finished += 1
            shutil.rmtree(out)
    with capsys.disabled():
        print(
            f"\nkilled builds: {killed} SIGKILLs during {span:.2f} s of writing, {finished} builds went on to the end, "
            f"{len(reference)} files each with the right sha256; kills left {', '.join(sorted(left))}"
        )
