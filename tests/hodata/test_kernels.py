"""numba's kernels where nothing can be kept on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hodata.pose.zbuffer import draw

ROOT = Path(__file__).parents[2]

# numba looks for a folder when a function is decorated: on import, or when decide's kernel is first asked for.
CODE = """
import importlib, sys
import numpy as np
for name in sys.argv[1:]:
    importlib.import_module(name)
from hodata.pose.contact import surface_of
from hodata.pose.mesh import Mesh
from hotrain.decide import _kernel
_kernel()
triangle = Mesh(np.array([[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]]), np.array([[0, 1, 2]], dtype=np.int32))
print(surface_of(triangle).nearest([[0.02, 0.02, 0.03]]))
"""


def test_kernels_run_where_no_folder_can_keep_them() -> None:
    files = [path for package in ("hodata", "hotrain") for path in (ROOT / package).rglob("*.py")]
    texts = {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text() for path in files}
    with_kernels = sorted(name for name, text in texts.items() if "@njit" in text)
    assert len(with_kernels) > 8
    assert [name for name, text in texts.items() if "numba.njit" in text or "import numba" in text] == [
        "hodata.kernels"
    ]
    # Of numba's ways to find a folder, the one left is for notebooks alone.
    environment = os.environ | {"NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *with_kernels], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == 0.03


def test_kernels_are_kept_on_disk_where_a_folder_can_keep_them() -> None:
    assert draw.stats.cache_path
