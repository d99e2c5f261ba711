"""numba's compiler, as every kernel of `hodata` and `hotrain` is given to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` that keeps what it compiled on disk, where numba finds a folder for it.

    Numba tries NUMBA_CACHE_DIR, a folder beside the module, and the user's cache folder. Where none of them can be
    written (a package of root's, and no home folder), `cache=True` is an error on import: without it, every process
    compiles for itself.

    Args:
        options: of `numba.njit`, all but `cache`.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            return numba.njit(**options)(function)

    return compiled
