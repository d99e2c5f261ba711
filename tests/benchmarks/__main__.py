"""`make bench`: run every bench_*.py beside this file, one after the other, each in a process of its own.

python tests/benchmarks [NAME...]        only those whose file name contains a NAME
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(names: list[str]) -> int:
    chosen = [p for p in sorted(HERE.glob("bench_*.py")) if not names or any(name in p.stem for name in names)]
    if not chosen:
        print(f"no benchmark is called {' or '.join(names)}: {', '.join(p.stem for p in HERE.glob('bench_*.py'))}")
        return 2
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    failed = []
    for script in chosen:
        print(f"== {script.stem}", flush=True)
        if subprocess.run([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path}).returncode:
            failed.append(script.stem)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
