"""CIFAR's pickles, read without executing any code that they name.

Whatever a pickle calls is replaced by an inert object that keeps its arguments and state. Arrays are made afterwards,
from checked values: NumPy itself would trust a pickled `dtype` with its memory.
"""

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from ltpa.core.errors import DataError

MOST_OPERATIONS = 2_000_000  # CIFAR-100 has 0.3 million; each may make an object of some 200 bytes
_MOST_KEYS = 16  # each may name the same long text, of which an array is made
_MEMO = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})  # the unpickler allocates memory for all slots below the named one
_DTYPES = frozenset({"b1", "u1", "i1", "i2", "i4", "i8", "f4", "f8"})
_PLAIN = (int, float, str, bytes, type(None))


class _StandIn:
    """Keeps what a pickle hands it. The class defines `__setstate__`, so a pickle cannot alter the class itself."""

    __slots__ = ("arguments", "state")

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype(_StandIn):
    """`numpy.dtype(code, align, copy)`; its state is (version, byte order, subtype, names, fields, ...)."""


class _Array(_StandIn):
    """`_reconstruct(ndarray, shape, code)`; its state is (version, shape, dtype, whether Fortran order, bytes)."""


class _Buffer(_StandIn):
    """`_frombuffer(bytes, dtype, shape, order)`, since protocol 5."""


class _Encoded(_StandIn):
    """`_codecs.encode(text, "latin1")`, with which Python 3 writes bytes in protocols 0 to 2."""


_NAMES: dict[str, type[_StandIn]] = {"numpy.ndarray": _StandIn, "numpy.dtype": _Dtype, "_codecs.encode": _Encoded}
for _core in ("numpy.core", "numpy._core"):
    _NAMES |= {f"{_core}.multiarray._reconstruct": _Array, f"{_core}.numeric._frombuffer": _Buffer}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_StandIn]:
        if f"{module}.{name}" not in _NAMES:
            raise pickle.UnpicklingError(f"calls on {module}.{name}")
        return _NAMES[f"{module}.{name}"]


def load_legacy_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle file: text keys; values are numbers, text, bytes, lists of these, or NumPy arrays.

    Python 2 strings become text by way of Latin-1, as `pickle.load(..., encoding="latin1")` makes them, and so do keys
    that are bytes. Arrays are little-endian, and of Booleans, integers or floats.

    Raises:
        DataError: the file is missing, cut or damaged, or holds anything else.
    """
    try:
        data = Path(path).read_bytes()
        _check_operations(data)
        content = _Unpickler(io.BytesIO(data), encoding="latin1").load()
        if not isinstance(content, dict) or len(content) > _MOST_KEYS:
            raise pickle.UnpicklingError(f"holds no dictionary of at most {_MOST_KEYS} keys")
        return {_key(key): _value(value) for key, value in content.items()}
    except Exception as error:  # a damaged pickle can fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: not a dataset's pickle ({reason}); extract its archive anew") from error


def _check_operations(data: bytes) -> None:
    """Refuse what would take far more memory than the file is long, and objects from the registry of extensions."""
    for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
        if count >= MOST_OPERATIONS or (operation.name in _MEMO and int(argument or 0) >= MOST_OPERATIONS):
            raise pickle.UnpicklingError(f"more than {MOST_OPERATIONS} operations or memo slots")
        if operation.name.startswith("EXT"):
            raise pickle.UnpicklingError("uses the extension registry")


def _key(key: Any) -> str:
    key = _as_bytes(key)
    text = key.decode("latin1") if isinstance(key, bytes) else key
    if not isinstance(text, str):
        raise pickle.UnpicklingError(f"key {key!r} is not text")
    return text


def _value(value: Any) -> Any:
    if isinstance(value, _Array):
        _, shape, dtype, fortran, raw = value.state
        return _array(raw, dtype, shape, "F" if fortran else "C")
    if isinstance(value, _Buffer):
        return _array(*value.arguments)
    if isinstance(value, list):
        value = [_as_bytes(item) for item in value]
    if isinstance(value, _PLAIN) or (isinstance(value, list) and all(isinstance(item, _PLAIN) for item in value)):
        return value
    raise pickle.UnpicklingError(f"holds a {type(value).__name__}")


def _as_bytes(value: Any) -> Any:
    """The bytes that an `_Encoded` stands for; anything else as it is."""
    if not isinstance(value, _Encoded):
        return value
    text, encoding = value.arguments
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"text in encoding {encoding!r}")
    return text.encode("latin1")


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or dtype.arguments[0] not in _DTYPES:
        raise pickle.UnpicklingError("array of another type than plain numbers")
    _, byte_order, subtype, names, fields, *_ = dtype.state
    if byte_order not in ("<", "|", "=") or (subtype, names, fields) != (None, None, None):
        raise pickle.UnpicklingError("array of a structured or big-endian type")
    data = raw.encode("latin1") if isinstance(raw, str) else _as_bytes(raw)
    kind = np.dtype(dtype.arguments[0]).newbyteorder("<")
    if not isinstance(data, bytes | bytearray) or not all(type(side) is int for side in shape):
        raise pickle.UnpicklingError("array without bytes and shape")
    if len(data) != math.prod(shape) * kind.itemsize:
        raise pickle.UnpicklingError(f"array whose bytes do not fill its shape {shape}")
    return np.frombuffer(data, kind).reshape(shape, order=order)
