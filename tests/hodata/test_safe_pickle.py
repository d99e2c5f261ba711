"""Pickles: what MANO and HO-3D hold comes through, everything else is refused by name and never run."""

from __future__ import annotations

import contextlib
import os
import pickle
import pickletools
import struct
import time
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hodata.errors import SampleError
from hodata.pose.safe_pickle import MAX_META_BYTES, load_pickle

META = {
    "handPose": np.arange(48, dtype=np.float32),
    "handTrans": np.array([0.1, -0.2, 0.5]),
    "big_endian": np.arange(5, dtype=">f8"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "contact": np.array([True, False, True]),
    "objLabel": 3,
    "scalar": np.float32(2.5),
    "integer": np.int64(-7),
    "flag": np.bool_(True),
    "text": np.str_("ABF1"),
    "zero_d": np.array(4.25),
    "empty": np.zeros((0, 3)),
    "names": np.array(["a", "bcd"]),
    "objName": "021_bleach_cleanser",
    "camIDList": ["0", "1"],
    "camMat": [[600.0, 0.0, 320.0], [0.0, 600.0, 240.0], [0.0, 0.0, 1.0]],
    "nothing": None,
    "raw": b"\x00\xff",
    "set": {1, 2},
    "ordered": OrderedDict([("a", 1)]),
    "nested": {"x": (1, (2.0, "3"))},
}


def same(a: Any, b: Any) -> bool:
    if isinstance(b, np.ndarray):
        return (
            isinstance(a, np.ndarray)
            and a.shape == b.shape
            and bool((a == b).all())
            and a.dtype == b.dtype.newbyteorder("=")
        )
    if isinstance(b, dict):
        return set(a) == set(b) and all(same(a[key], b[key]) for key in b)
    return bool(a == b)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_everything_a_meta_may_hold_comes_through(protocol: int) -> None:
    found = load_pickle(pickle.dumps(META, protocol), "meta.pkl")
    for key, value in META.items():
        assert same(found[key], value), key


@pytest.mark.parametrize("protocol", range(4, pickle.HIGHEST_PROTOCOL + 1))  # the first with a code for frozen sets
def test_sets_and_dicts_come_through_among_others(protocol: int) -> None:
    value = ("x", frozenset({1, "a"}), {2}, {"a": frozenset({(1, 2)}), "b": {"c": 1}}, OrderedDict(d=2), "y", "z")
    assert load_pickle(pickle.dumps(value, protocol), "meta.pkl") == value


def test_arrays_are_writable_copies() -> None:
    found = load_pickle(pickle.dumps(np.arange(4.0)), "meta.pkl")
    found[0] = 5
    assert found.flags.owndata or found.base.flags.owndata


def test_shared_parts_stay_shared_and_cost_nothing() -> None:
    shared: Any = ["x"]
    for _ in range(15):
        shared = [shared, shared]
    found = load_pickle(pickle.dumps(shared), "meta.pkl")
    assert found[0] is found[1]


def test_what_is_shared_too_often_is_refused() -> None:
    """Whoever turns it into an array or into text would never end."""
    bomb: Any = ["x"]
    for _ in range(60):
        bomb = [bomb, bomb]
    with pytest.raises(SampleError, match="the same lists too often"):
        load_pickle(pickle.dumps({"camIDList": bomb}), "meta.pkl")
    raw, kind = b"\0" * 100_000, np.dtype("u1")
    arrays = [np.frombuffer(raw, kind) for _ in range(20)]

    class Shared:
        """Arrays that all name one string of bytes."""

        def __reduce__(self) -> Any:
            return _make_empty, (np.ndarray, (0,), b"b"), (1, (len(raw),), kind, False, raw)

    _make_empty = arrays[0].__reduce__()[0]
    data = pickle.dumps([Shared() for _ in range(2)], protocol=4)
    assert len(data) < 110_000 and len(load_pickle(data, "meta.pkl")) == 2
    with pytest.raises(SampleError, match="the same array too often"):
        load_pickle(pickle.dumps([Shared() for _ in range(200)], protocol=4), "meta.pkl")


class Runs:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


MARK = "hodata_was_run"
HOSTILE = {
    "os.system": pickle.dumps(Runs(os.system, f"touch {MARK}")),
    "builtins.eval": pickle.dumps(Runs(eval, f"open('{MARK}', 'w')")),
    "builtins.exec": pickle.dumps(Runs(exec, "pass"), 0),
    "builtins.getattr": pickle.dumps(Runs(getattr, dict, "fromkeys")),
    "numpy.load": b"cnumpy\nload\n(S'x'\ntR.",
    "numpy.f2py.crackfortran": b"cnumpy.f2py.crackfortran\nmyeval\n(S'1'\ntR.",
    "numpy.core.multiarray.fromfile": b"cnumpy.core.multiarray\nfromfile\n(S'/etc/passwd'\ntR.",
    "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93.",
    "codecs with another encoding": b"c_codecs\nencode\n(VABC\nVrot13\ntR.",
    "runpy": b"crunpy\nrun_path\n(S'x.py'\ntR.",
    "an instance of object": b"c__builtin__\nobject\n)\x81.",
    "persistent id": b"Psomewhere\n.",
    "extension registry": b"\x80\x02\x82\x01.",
    "chumpy in a meta": b"cchumpy.ch\nCh\n)\x81}(S'x'\nI1\nsb.",
    "reconstructor of a list": b"ccopy_reg\n_reconstructor\n(c__builtin__\nlist\nc__builtin__\nobject\nNtR.",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_pickles_are_refused_and_named(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SampleError, match=r"train/ABF10/meta/0001\.pkl"):
        load_pickle(HOSTILE[what], "train/ABF10/meta/0001.pkl")
    assert not (tmp_path / MARK).exists()


def test_the_refusal_names_what_was_asked_for() -> None:
    with pytest.raises(SampleError, match=r"names (posix|nt)\.system"):
        load_pickle(HOSTILE["os.system"], "meta.pkl")


def test_a_global_anywhere_is_refused_even_if_it_is_not_called() -> None:
    for module, name in (("subprocess", "Popen"), ("numpy", "memmap"), ("builtins", "type"), ("numpy", "ndarray ")):
        with pytest.raises(SampleError):
            load_pickle(f"(dS'a'\nc{module}\n{name}\ns.".encode(), "meta.pkl")
    with pytest.raises(SampleError, match="where a value should be"):
        load_pickle(b"cnumpy\nndarray\n.", "meta.pkl")


def array_pickle(shape: tuple[int, ...], dtype: str, raw: Any, order: bool = False) -> bytes:
    """A hand-made array: what it says of itself need not be true."""

    class Kind:
        def __reduce__(self) -> Any:
            return np.dtype, (dtype, False, True), (3, "<", None, None, None, -1, -1, 0)

    class Made:
        def __reduce__(self) -> Any:
            reconstruct = np.zeros(1).__reduce__()[0]
            return reconstruct, (np.ndarray, (0,), b"b"), (1, shape, Kind(), order, raw)

    return pickle.dumps(Made(), 2)


def test_arrays_that_lie_about_their_size_or_type_are_refused() -> None:
    assert load_pickle(array_pickle((2,), "f8", struct.pack("<2d", 1, 2)), "m").tolist() == [1, 2]
    for shape, dtype, raw in (
        ((1 << 40,), "f8", b"\0" * 16),
        ((-1,), "f8", b""),
        ((2,), "f8", b"\0" * 15),
        ((1,), "O", [1]),
        ((1,), "V8", b"\0" * 8),
        ((1,), "M8", b"\0" * 8),
        ((1,), "f8,f8", b"\0" * 16),
        ((1 << 40,), "S0", b""),
        ((1,) * 40, "u1", b"\0"),
    ):
        with pytest.raises(SampleError):
            load_pickle(array_pickle(shape, dtype, raw), "meta.pkl")


def test_memory_is_not_allotted_by_numbers_that_the_file_names() -> None:
    tracemalloc.start()
    try:
        for data in (
            b"N" + b"r" + struct.pack("<I", 0xFFFFFFF0) + b".",  # memo slot
            b"\x8e" + struct.pack("<Q", 1 << 60) + b"x.",  # bytes
            b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b"x.",  # bytearray
            b"\x80\x05\x96" + struct.pack("<Q", 600 << 20) + b".",  # one that this machine would give
            b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",  # frame
            b"I" + b"9" * 100_000 + b"\n.",  # an integer that takes long to read
        ):
            with contextlib.suppress(SampleError):
                load_pickle(data, "meta.pkl")
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def _doubled(depth: int) -> bytes:
    """A tuple of twice the same tuple, and so on: as many parts as 2 to the power of the depth."""
    return b"(K\x01t" + b"".join(b"\x94h" + bytes([n]) + b"\x86" for n in range(depth))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04}" + _doubled(40) + b"K\x01s.",  # the key of a dict
        b"\x80\x04\x8f(" + _doubled(40) + b"\x90.",  # a member of a set
        b"\x80\x04(" + _doubled(40) + b"\x91.",  # of a frozenset
        b"cnumpy\ndtype\n(" + _doubled(40) + b"tR.",  # an argument that an error would show
        b"c_codecs\nencode\n(Vx\n" + _doubled(40) + b"tR.",
        b"\x80\x04c__builtin__\nset\n(]" + _doubled(40) + b"atR.",
        b"\x80\x04c__builtin__\ndict\n(](" + _doubled(40) + b"K\x01tatR.",
    ],
)
def test_no_pickle_of_a_few_bytes_takes_time_without_end(data: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(SampleError):
        load_pickle(data, "meta.pkl")
    assert time.perf_counter() - began < 5  # 2 to the power of 40 parts would take hours


def test_every_prefix_and_every_flipped_byte_gives_a_value_or_a_clear_error() -> None:
    data = pickle.dumps({"handPose": np.arange(4.0), "objName": "003", "camIDList": [1, 2]}, 2)
    for end in range(len(data)):
        with pytest.raises(SampleError):
            load_pickle(data[:end], "meta.pkl")
    rng = np.random.default_rng(0)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(SampleError):
            load_pickle(bytes(damaged), "meta.pkl")


def test_what_contains_itself_is_refused() -> None:
    knot: list[Any] = []
    knot.append(knot)
    with pytest.raises(SampleError, match="contains itself"):
        load_pickle(pickle.dumps(knot), "meta.pkl")
    deep: Any = 1
    for _ in range(100_000):
        deep = (deep,)
    opcodes = b"I1\n" + b"\x85" * 100_000 + b"."
    with pytest.raises(SampleError):
        load_pickle(opcodes, "meta.pkl")


def test_large_files_are_refused_before_they_are_read() -> None:
    with pytest.raises(SampleError, match="over the limit"):
        load_pickle(b"\0" * (MAX_META_BYTES + 1), "meta.pkl")


def test_the_globals_of_the_stand_in_model_are_the_real_ones(tmp_path: Path) -> None:
    from hodata.synth import native_mano

    native_mano.write("right", tmp_path, 0)
    data = (tmp_path / "models/MANO_RIGHT.pkl").read_bytes()
    names = {argument for opcode, argument, _ in pickletools.genops(data) if opcode.name == "GLOBAL"}
    assert names == {
        "numpy.core.multiarray _reconstruct",
        "numpy ndarray",
        "numpy dtype",
        "scipy.sparse.csc csc_matrix",
        "chumpy.ch Ch",
        "chumpy.reordering Select",
        "__builtin__ set",
    }
    with pytest.raises(SampleError, match=r"names (chumpy|scipy)"):
        load_pickle(data, "MANO_RIGHT.pkl")  # a meta may not
    assert load_pickle(data, "MANO_RIGHT.pkl", model=True)["shapedirs"].shape == (778, 3, 10)
