"""python tests/compare [--images N] [--seeds N] ...: see `python tests/compare --help`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:2], os.environ.get("PYTHONPATH", "")])  # for child processes
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command sets it

if __name__ == "__main__":
    from compare.main import main

    raise SystemExit(main(sys.argv[1:]))
