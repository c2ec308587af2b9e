"""Pickles of numbers, read without running anything that they hold. No torch.

A pickle can run code, and even its arrays can carry malformed state. So this reader knows the
operations and resolves the names that a motion template needs, to stand-ins of its own which
accept plain numbers only, and refuses all others.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

_DTYPES: Final = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}


def read_pickle(data: bytes) -> object:
    """Dicts with text keys, lists, tuples, numbers, text, bytes, and each array a `PickledArray`.

    Raises:
        Exception: of whatever kind a hostile pickle makes the reader stumble over.
    """
    content: object = _Reader(io.BytesIO(data)).load()
    return content


class _Dtype:
    """Stands in for numpy.dtype: plain numbers only."""

    def __init__(self, name: str, *_flags: object) -> None:
        if name not in _DTYPES:
            raise pickle.UnpicklingError("an array of something else than numbers")
        self.value = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class PickledArray:
    """Stands in for numpy.ndarray: checks its state before it believes it.

    Its numbers stay where the pickle has them, so that many arrays over the same bytes cost
    no more than those bytes.
    """

    value: npt.NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, fortran, data = state
        if not (isinstance(dtype, _Dtype) and isinstance(data, bytes)):
            raise pickle.UnpicklingError("an array of objects")
        if len(data) != math.prod(shape) * dtype.value.itemsize:
            raise pickle.UnpicklingError("an array whose data do not fit its shape")
        flat = np.frombuffer(data, dtype.value)
        self.value = flat.reshape(shape, order="F" if fortran else "C")


class _Name:
    """What a name in a pickle means: to be called or passed on, and never to be changed.

    Args:
        make: what calling it does; None where it is only an argument.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., object] | None) -> None:
        self._make = make

    def __call__(self, *arguments: object) -> object:
        if self._make is None:
            raise pickle.UnpicklingError("a call of something that is no function")
        return self._make(*arguments)


def _reconstruct(*_arguments: object) -> PickledArray:
    """Stands in for numpy's function of that name, whose shape is always replaced later."""
    return PickledArray()


def _refuse(_reader: Any) -> None:
    raise pickle.UnpicklingError("an operation that no template needs")


def _with_plain_key(reader: Any) -> None:
    _check_keys(reader.stack[-2:-1])
    pickle._Unpickler.dispatch[pickle.SETITEM[0]](reader)


def _with_plain_keys(reader: Any) -> None:
    _check_keys(reader.stack[::2])
    pickle._Unpickler.dispatch[pickle.SETITEMS[0]](reader)


def _check_keys(keys: list[object]) -> None:
    """Hashing a deeply nested tuple would overflow the C stack and end the process."""
    if not all(type(key) is str for key in keys):
        raise pickle.UnpicklingError("a dict whose keys are no text")


# What protocols 2 to 4 write for dicts, lists, tuples, numbers, text, bytes and arrays.
_OPERATIONS: Final = (
    "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "APPEND", "APPENDS",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
)  # fmt: skip


class _Reader(pickle._Unpickler):
    """The unpickler that is written in Python: its table of operations can be cut down.

    It also keeps its memo in a dict; the one in C grows an array to whatever index a file names.
    """

    _NAMES: Final[Mapping[tuple[str, str], Callable[..., object] | None]] = {
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): _Dtype,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    }
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **dict.fromkeys(range(256), _refuse),
        **{
            getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
            for name in _OPERATIONS
        },
        pickle.SETITEM[0]: _with_plain_key,
        pickle.SETITEMS[0]: _with_plain_keys,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Only the names above."""
        if (module, name) not in self._NAMES:
            raise pickle.UnpicklingError(f"the name {module}.{name}")
        return _Name(self._NAMES[module, name])
