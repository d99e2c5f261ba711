"""Reading the pickles of MANO and HO-3D without running them.

A pickle is a program: plain `pickle.load` runs whatever the file asks for. Here every global that a file may name is
answered by a stand-in of this module, and every other one is refused by name. Not even NumPy's own unpickling code
sees the file: arrays, dtypes and scalars are rebuilt from checked shapes and bytes. Neither chumpy (which no current
Python can install) nor the class names of old SciPy releases are needed.

Facts: the globals of MANO_*.pkl and of HO-3D's metas; `chumpy/ch.py` and `chumpy/reordering.py` for what their
instances hold.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable, Collection
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hodata.errors import SampleError

MAX_META_BYTES = 16 << 20
MAX_MODEL_BYTES = 256 << 20
_EXPANSION, _SMALL = 4, 1 << 20  # what a file may stand for: so many times its bytes, and some
_DTYPE = re.compile(r"[<>|=]?(b|i|u|f|S|U|\?|O)(\d{0,6})")


def load_pickle(data: bytes, where: str, *, model: bool = False) -> Any:
    """What a pickle holds: dicts, lists, strings, numbers and NumPy arrays, nothing else.

    Args:
        data: the file.
        where: how errors call it.
        model: a MANO model: chumpy's arrays, sparse matrices and arrays of objects are admitted as well.

    Returns:
        plain Python and NumPy values; sparse matrices and chumpy's arrays as dense float64 arrays.

    Raises:
        SampleError: too large, damaged, or it names something that is not admitted.
    """
    limit = MAX_MODEL_BYTES if model else MAX_META_BYTES
    if len(data) > limit:
        raise SampleError(where, f"is {len(data):,} bytes long, over the limit of {limit:,} for such a file")
    try:
        return _Resolver(model, len(data)).value(_Unpickler(data, model).load())
    except _Refused as refused:
        raise SampleError(
            where, f"{refused}; it is not the file that the authors ship, and may be hostile: do not load it elsewhere"
        ) from None
    except Exception as error:  # a damaged or forged pickle raises anything
        raise SampleError(
            where, f"cannot be read as a pickle ({type(error).__name__}: {error}); copy it again"
        ) from error


class _Refused(Exception):
    """The file asks for something that no such file holds."""


def _word(value: Any) -> str:
    """For messages. Not the text of anything: of a list that holds itself ten times over, that has no end."""
    return repr(value[:40]) if isinstance(value, str) else f"a {type(value).__name__}"


class _Stub:
    """An instance of a class that the file names: its state is kept, nothing is run."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Stub):
    """numpy.ndarray, made empty by `_reconstruct` and filled by its state."""


class _Dtype(_Stub):
    """numpy.dtype: its name, and a state that has the byte order."""

    def __init__(self, name: Any, align: Any = False, copy: Any = False) -> None:
        match = _DTYPE.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            raise _Refused(f"holds an array of type {_word(name)}")
        self.name = match[0]

    def value(self) -> np.dtype[Any]:
        found = np.dtype(self.name)
        order: Any = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else ""
        return found.newbyteorder(order) if order in ("<", ">") else found


class _Scalar:
    """numpy.core.multiarray.scalar."""

    def __init__(self, dtype: Any, data: Any = b"") -> None:
        self.dtype, self.data = dtype, data


class _FromBuffer:
    """numpy.core.numeric._frombuffer, of pickle protocol 5."""

    def __init__(self, data: Any, dtype: Any, shape: Any, order: Any) -> None:
        self.dtype, self.data, self.shape, self.order = dtype, data, shape, order


class _Ch(_Stub):
    """chumpy.ch.Ch: an array in attribute x."""


class _Select(_Stub):
    """chumpy.reordering.Select: a.ravel()[idxs], reshaped."""


class _Csc(_Stub):
    """scipy.sparse.csc_matrix: data, indices, indptr, _shape."""


class _NdarrayName:
    """numpy.ndarray as an argument; nothing can be made of it."""


class _ObjectName:
    """object, the base that `copy_reg._reconstructor` is given."""


def _reconstruct(subtype: Any, shape: Any, kind: Any) -> _Array:
    return _Array()


def _reconstructor(kind: Any, base: Any, state: Any) -> _Stub:
    if not (isinstance(kind, type) and issubclass(kind, _Stub)):
        raise _Refused("builds an object of a kind that it should not")
    return kind.__new__(kind)


def _encode(text: Any, encoding: Any = "") -> bytes:
    """Python 3 writes bytes for old protocols as `_codecs.encode(text, 'latin1')`."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise _Refused(f"calls _codecs.encode with {_word(encoding)}")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    """Python 3 writes b"" for old protocols as `bytes()`."""
    if arguments:
        raise _Refused("calls bytes with arguments")
    return b""


def _hashable(key: Any) -> Any:
    """A key of a dict or set. Tuples of tuples that share their parts take exponential time to hash."""
    for part in key if isinstance(key, tuple) else (key,):
        if not (part is None or isinstance(part, bool | int | float | str | bytes)):
            raise _Refused("has keys that are no names")
    return key


def _set(items: Any = ()) -> set[Any]:
    if not isinstance(items, list | tuple):
        raise _Refused("makes a set of something else")
    return {_hashable(item) for item in items}


def _dict(items: Any = ()) -> dict[Any, Any]:
    if not isinstance(items, list | tuple) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in items
    ):
        raise _Refused("makes a dict of something else")
    return {_hashable(key): value for key, value in items}


def _number(convert: Callable[[Any], Any]) -> Callable[..., Any]:
    def make(value: Any = 0) -> Any:
        if not isinstance(value, bool | int | float | str):
            raise _Refused("makes a number of something else")
        return convert(value)

    return make


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NdarrayName,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "bool_"): _number(bool),
    ("numpy", "float32"): _number(float),
    ("numpy", "float64"): _number(float),
    ("numpy", "int32"): _number(int),
    ("numpy", "int64"): _number(int),
    ("numpy", "str_"): _number(str),
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _dict,
}
for _package in ("numpy.core", "numpy._core"):
    _ADMITTED[f"{_package}.multiarray", "_reconstruct"] = _reconstruct
    _ADMITTED[f"{_package}.multiarray", "scalar"] = _Scalar
    _ADMITTED[f"{_package}.numeric", "_frombuffer"] = _FromBuffer
for _package in ("copy_reg", "copyreg"):
    _ADMITTED[_package, "_reconstructor"] = _reconstructor
for _package in ("__builtin__", "builtins"):
    _ADMITTED |= {(_package, kind.__name__): kind for kind in (list, tuple)}
    _ADMITTED |= {(_package, "set"): _set, (_package, "dict"): _dict}
    _ADMITTED[_package, "object"] = _ObjectName
    _ADMITTED[_package, "bytes"] = _no_bytes
_MODELS_ONLY: dict[tuple[str, str], Any] = {
    ("chumpy.ch", "Ch"): _Ch,
    ("chumpy.reordering", "Select"): _Select,
    ("scipy.sparse.csc", "csc_matrix"): _Csc,
    ("scipy.sparse._csc", "csc_matrix"): _Csc,
}


class _Unpickler(pickle._Unpickler):
    # Python's own, not the C one: that one allots its memo by the largest number a file names, up to 16 GB. What is
    # replaced here takes memory by such a number, or hashes what the file makes.
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, data: bytes, model: bool) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._model, self._bytes = model, len(data)

    def load_bytearray8(self) -> None:
        length = int.from_bytes(self.read(8), "little")
        if length > self._bytes:
            raise _Refused("says that it holds more bytes than it has")
        self.append(bytearray(self.read(length)))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._require(dict)[_hashable(key)] = value

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._require(dict).update({_hashable(key): items[n + 1] for n, key in enumerate(items) if n % 2 == 0})

    def load_additems(self) -> None:
        items = self.pop_mark()
        self._require(set).update(_hashable(item) for item in items)

    def load_frozenset(self) -> None:
        items = self.pop_mark()  # before `append`, which it replaces
        self.append(frozenset(_hashable(item) for item in items))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({_hashable(key): items[n + 1] for n, key in enumerate(items) if n % 2 == 0})

    def load_next_buffer(self) -> None:
        raise _Refused("holds its arrays outside of itself")

    def _require(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise _Refused(f"fills something that is no {kind.__name__}")
        return self.stack[-1]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ADMITTED:
            return _ADMITTED[module, name]
        if self._model and (module, name) in _MODELS_ONLY:
            return _MODELS_ONLY[module, name]
        raise _Refused(f"names {module}.{name}, which no such file needs")

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("refers to objects outside of itself")

    def get_extension(self, code: int) -> Any:
        raise _Refused("refers to the registry of extensions")


for _code, _method in (
    (pickle.BYTEARRAY8, _Unpickler.load_bytearray8),
    (pickle.SETITEM, _Unpickler.load_setitem),
    (pickle.SETITEMS, _Unpickler.load_setitems),
    (pickle.ADDITEMS, _Unpickler.load_additems),
    (pickle.FROZENSET, _Unpickler.load_frozenset),
    (pickle.DICT, _Unpickler.load_dict),
    (pickle.NEXT_BUFFER, _Unpickler.load_next_buffer),
):
    _Unpickler.dispatch[_code[0]] = _method


class _Resolver:
    """Turns stand-ins into values; what is shared stays shared, what contains itself is refused.

    A few bytes that are shared often may stand for any number of values. So what would come out if nothing was shared
    must be in proportion to the file.
    """

    def __init__(self, model: bool, size: int) -> None:
        self._model = model
        self._room = _EXPANSION * size + _SMALL
        self._parts: dict[int, int] = {}  # of a container: the values in it, all that they contain counted
        self._done: dict[int, Any] = {}
        self._open: set[int] = set()

    def value(self, item: Any) -> Any:
        if item is None or isinstance(item, bool | int | float | str | bytes | bytearray):
            return item
        key = id(item)
        if key in self._done:
            return self._done[key]
        if key in self._open:
            raise _Refused("contains itself")
        self._open.add(key)
        self._done[key] = found = self._made(item)
        self._open.discard(key)
        return found

    def _made(self, item: Any) -> Any:
        if isinstance(item, dict):
            made = {_hashable(key): self.value(entry) for key, entry in item.items()}
            self._count(item, item.values())
            return made
        if isinstance(item, list | tuple):
            entries = type(item)([self.value(entry) for entry in item])
            self._count(item, item)
            return entries
        if isinstance(item, set | frozenset):
            return {_hashable(entry) for entry in item}
        if isinstance(item, _Dtype):
            return item.value()
        if isinstance(item, _Array):
            if not isinstance(item.state, tuple) or len(item.state) != 5:
                raise _Refused("holds an array without contents")
            _, shape, dtype, fortran, raw = item.state
            return self._array(raw, dtype, shape, "F" if fortran else "C")
        if isinstance(item, _FromBuffer):
            return self._array(item.data, item.dtype, item.shape, item.order)
        if isinstance(item, _Scalar):
            return self._array(item.data, item.dtype, (), "C")[()]
        if isinstance(item, _Stub):
            state = item.state
            if not isinstance(state, dict):
                raise _Refused(f"holds a {type(item).__name__.lstrip('_')} without attributes")
            return {_Ch: self._ch, _Select: self._select, _Csc: self._csc}[type(item)](state)
        raise _Refused(f"holds a {getattr(item, '__name__', type(item).__name__).lstrip('_')} where a value should be")

    def _count(self, item: Any, entries: Collection[Any]) -> None:
        self._parts[id(item)] = parts = len(entries) + sum(self._parts.get(id(entry), 0) for entry in entries)
        if parts > self._room:
            raise _Refused("holds the same lists too often")

    def _array(self, raw: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
        kind = self.value(dtype)
        if not isinstance(kind, np.dtype):
            raise _Refused("holds an array without a type")
        if not isinstance(shape, tuple) or len(shape) > 8 or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise _Refused("holds an array whose shape is none")
        count = math.prod(shape)
        if kind.hasobject:
            if not self._model:
                raise _Refused("holds an array of Python objects")
            if not isinstance(raw, list) or len(raw) != count:
                raise _Refused("holds an array of objects of another size than it says")
            objects = np.empty(count, dtype=object)
            objects[:] = [self.value(entry) for entry in raw]
            return objects.reshape(shape)
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(data, bytes | bytearray) or not kind.itemsize or len(data) != count * kind.itemsize:
            raise _Refused(f"holds an array of another size than its shape {shape}")
        self._room -= len(data)
        if self._room < 0:
            raise _Refused("holds the same array too often")
        filled = np.frombuffer(bytes(data), dtype=kind)
        # A copy in the machine's byte order, which may be written to.
        return filled.reshape(shape, order="F" if order == "F" else "C").astype(kind.newbyteorder("="))

    def _ch(self, state: dict[Any, Any]) -> NDArray[np.float64]:
        return np.asarray(self.value(state["x"]), dtype=np.float64)

    def _select(self, state: dict[Any, Any]) -> NDArray[np.float64]:
        chosen = np.asarray(self.value(state["a"]), dtype=np.float64).ravel()[np.asarray(self.value(state["idxs"]))]
        shape = self.value(state.get("preferred_shape"))
        return chosen if shape is None else chosen.reshape(shape)

    def _csc(self, state: dict[Any, Any]) -> NDArray[np.float64]:
        from scipy.sparse import csc_matrix

        data, indices, indptr = (np.asarray(self.value(state[name])) for name in ("data", "indices", "indptr"))
        rows, columns = (int(n) for n in self.value(state["_shape"]))
        if rows < 0 or columns < 0 or rows * columns > 1 << 24:
            raise _Refused(f"holds a sparse matrix of {rows} x {columns}")
        matrix = csc_matrix((data, indices, indptr), shape=(rows, columns))
        matrix.check_format(full_check=True)
        return np.asarray(matrix.toarray(), dtype=np.float64)
