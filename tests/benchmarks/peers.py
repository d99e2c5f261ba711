"""The environment of the programs that we are compared with: made once, apart from the project's own."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / ".venv-bench"


def peer_python() -> Path:
    """The interpreter of `.venv-bench`, with every line of peers.txt installed that can be.

    A line that cannot be installed is named on stderr and left out, and tried again the next time: the benchmark
    reports its peer as missing.
    """
    python = FOLDER / "bin" / "python"
    wanted = (HERE / "peers.txt").read_text()
    done = FOLDER / "peers.txt"
    if done.exists() and done.read_text() == wanted:
        return python
    print(f"installing peers into {FOLDER.name} (over 1 GB; a few minutes)", file=sys.stderr, flush=True)
    venv.create(FOLDER, with_pip=True)
    failed = False
    for line in wanted.splitlines():
        if line and not line.startswith("#"):
            command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", line]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                failed = True
                print(f"cannot install {line}: {result.stderr.strip()[-300:]}", file=sys.stderr, flush=True)
    if not failed:
        done.write_text(wanted)
    return python
