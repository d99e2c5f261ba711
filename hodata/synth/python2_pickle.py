"""Pickles as Python 2 wrote them (protocol 2), for files whose real ones come from there.

Python 3 writes text as unicode and bytes through `_codecs.encode`; Python 2 wrote one kind of string for both. The
classes of chumpy and old SciPy are only named, never imported. Opcodes: Lib/pickletools.py.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Instance:
    """An object of a class that need not exist here: `module.name` and the state that its reader gets."""

    module: str
    name: str
    state: Mapping[str, Any]


def dumps(value: Any) -> bytes:
    """Pickle None, booleans, numbers, text, bytes, lists, tuples, sets, dicts, NumPy arrays and scalars, `Instance`.

    Raises:
        TypeError: anything else.
        OverflowError: an integer beyond 64 bits.
    """
    out = bytearray(pickle.PROTO + b"\x02")
    _save(out, value)
    return bytes(out + pickle.STOP)


def _save(out: bytearray, value: Any) -> None:
    if value is None:
        out += pickle.NONE
    elif isinstance(value, bool):
        out += pickle.NEWTRUE if value else pickle.NEWFALSE
    elif isinstance(value, Instance):
        _save_global(out, value.module, value.name)
        out += pickle.EMPTY_TUPLE + pickle.NEWOBJ
        _save(out, dict(value.state))
        out += pickle.BUILD
    elif isinstance(value, np.ndarray):
        _save_array(out, value)
    elif isinstance(value, np.generic):
        _save_global(out, "numpy.core.multiarray", "scalar")
        _save_dtype(out, value.dtype)
        _save(out, value.tobytes())
        out += pickle.TUPLE2 + pickle.REDUCE
    elif isinstance(value, int):
        _save_int(out, value)
    elif isinstance(value, float):
        out += pickle.BINFLOAT + struct.pack(">d", value)
    elif isinstance(value, str | bytes):
        data = value.encode("latin1") if isinstance(value, str) else value
        short = len(data) < 256
        out += pickle.SHORT_BINSTRING + bytes([len(data)]) if short else pickle.BINSTRING + struct.pack("<i", len(data))
        out += data
    elif isinstance(value, tuple):
        out += pickle.MARK
        for item in value:
            _save(out, item)
        out += pickle.TUPLE
    elif isinstance(value, list):
        out += pickle.EMPTY_LIST + pickle.MARK
        for item in value:
            _save(out, item)
        out += pickle.APPENDS
    elif isinstance(value, set):
        _save_global(out, "__builtin__", "set")
        _save(out, (sorted(value),))
        out += pickle.REDUCE
    elif isinstance(value, dict):
        out += pickle.EMPTY_DICT + pickle.MARK
        for key, item in value.items():
            _save(out, key)
            _save(out, item)
        out += pickle.SETITEMS
    else:
        raise TypeError(f"python2_pickle: cannot write a {type(value).__name__}")


def _save_global(out: bytearray, module: str, name: str) -> None:
    out += pickle.GLOBAL + f"{module}\n{name}\n".encode("ascii")


def _save_int(out: bytearray, value: int) -> None:
    if 0 <= value < 256:
        out += pickle.BININT1 + bytes([value])
    elif -(2**31) <= value < 2**31:
        out += pickle.BININT + struct.pack("<i", value)
    else:
        out += pickle.LONG1 + b"\x08" + value.to_bytes(8, "little", signed=True)


def _save_array(out: bytearray, array: NDArray[Any]) -> None:
    """`ndarray.__reduce__`: an empty array, then (version, shape, dtype, Fortran order, bytes) as its state."""
    _save_global(out, "numpy.core.multiarray", "_reconstruct")
    _save_global(out, "numpy", "ndarray")
    _save(out, (0,))
    _save(out, "b")
    out += pickle.TUPLE3 + pickle.REDUCE + pickle.MARK
    _save(out, 1)
    _save(out, array.shape)
    _save_dtype(out, array.dtype)
    _save(out, False)
    _save(out, array.tobytes())
    out += pickle.TUPLE + pickle.BUILD


def _save_dtype(out: bytearray, dtype: np.dtype[Any]) -> None:
    order = "|" if dtype.itemsize == 1 else "<"
    _save_global(out, "numpy", "dtype")
    _save(out, (f"{dtype.kind}{dtype.itemsize}", 0, 1))
    out += pickle.REDUCE
    _save(out, (3, order, None, None, None, -1, -1, 0))
    out += pickle.BUILD
