"""CIFAR's Python 2 pickles, read without executing anything they say.

The only names they may call on are those that rebuild a NumPy array, and these lead to stand-ins of this module, which
check every value. All else is refused: other names, other types, object arrays.
"""

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ltpa.core.errors import DataError

_DTYPES = frozenset({"b1", "u1", "i1", "i2", "i4", "i8", "f4", "f8"})
_MEMO = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_PLAIN = (int, float, str, bytes, type(None))


def load_legacy_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle file: text keys; values are numbers, text, lists of these, or NumPy arrays.

    Python 2 strings become text by way of Latin-1, as `pickle.load(..., encoding="latin1")` makes them. Arrays are
    read-only, little-endian, and of Booleans, integers or floats.

    Raises:
        DataError: the file is missing, cut or damaged, or holds anything else.
    """
    try:
        data = Path(path).read_bytes()
        _check_memo(data)
        content = _Unpickler(io.BytesIO(data), encoding="latin1").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError(f"holds {type(content).__name__}, not a dictionary")
        return {_key(key): _value(value) for key, value in content.items()}
    except Exception as error:  # a damaged pickle can fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: not a dataset's pickle ({reason}); extract its archive anew") from error


def _check_memo(data: bytes) -> None:
    """Refuse memo slots beyond the file's length: the unpickler would allocate memory for all below them."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _MEMO and int(argument or 0) > len(data):
            raise pickle.UnpicklingError(f"memo slot {argument}")


class _Call:
    """A stand-in for a callable, which a pickle can call but not alter."""

    __slots__ = ("_function",)

    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("alters a function")


class _Dtype:
    """A stand-in for `numpy.dtype`: plain numbers in little-endian or single bytes."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *flags: Any) -> None:
        if code not in _DTYPES:
            raise pickle.UnpicklingError(f"array of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        _, order, subdtype, names, fields, *_ = state
        if order not in ("<", "|", "=") or (subdtype, names, fields) != (None, None, None):
            raise pickle.UnpicklingError("array of a structured or big-endian type")
        self.dtype = self.dtype.newbyteorder("<")


class _Array:
    """A stand-in for `numpy.ndarray`, empty until its state is set."""

    __slots__ = ("value",)

    def __init__(self, *arguments: Any) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or not all(type(side) is int for side in shape):
            raise pickle.UnpicklingError("array without a plain type and shape")
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.dtype.itemsize:
            raise pickle.UnpicklingError(f"array whose bytes do not fill its shape {shape}")
        self.value = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C")


def _encode(text: Any, encoding: Any) -> bytes:
    """`_codecs.encode`, with which Python 3 writes bytes into old pickles."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"text in encoding {encoding!r}")
    return text.encode("latin1")


_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _Call(_Array),
    ("numpy._core.multiarray", "_reconstruct"): _Call(_Array),
    ("numpy", "ndarray"): _Call(_Array),
    ("numpy", "dtype"): _Call(_Dtype),
    ("_codecs", "encode"): _Call(_encode),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"calls on {module}.{name}")
        return _NAMES[module, name]


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise pickle.UnpicklingError(f"key {key!r} is not text")
    return key


def _value(value: Any) -> Any:
    if isinstance(value, _Array) and value.value is not None:
        return value.value
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, list) and all(isinstance(item, _PLAIN) for item in value):
        return value
    raise pickle.UnpicklingError(f"holds a {type(value).__name__}")
