"""Safetensors files that may come from anywhere: the header is looked at first, and nothing of size is read before it.

What a header claims costs no memory: names, types and shapes are compared with what is expected, and only then are
tensors read, each into memory of its own.
"""

import math
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ltpa.core.errors import ModelError
from ltpa.core.text import shortened

MAX_HEADER = 4_000_000  # bytes; 10,000 tensors take a third of it
MAX_FILE = 2_000_000_000  # bytes; the largest network that ships takes a tenth of it
_BLOCK = 1 << 20
_ANOTHER = "name one that `ltpa train` wrote, or delete it and train again"
_TYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
}


class Stored(NamedTuple):
    """A tensor in a file: its type, its shape, and where its bytes begin."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class TensorFile:
    """The header of a safetensors file.

    Attributes:
        path: the file.
        metadata: the texts of the header by their key.
        tensors: what the file holds, by name.

    Raises:
        ModelError: no such file, no regular file, larger than any network, or not a whole safetensors file.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        try:
            self._start = self._header_end()
            with safe_open(path, framework="numpy") as file:
                self.metadata: dict[str, str] = file.metadata() or {}
                found = [(name, file.get_slice(name)) for name in file.offset_keys()]
                layout = [(name, each.get_dtype(), tuple(each.get_shape())) for name, each in found]
        except FileNotFoundError as error:
            raise ModelError(f"{path}: no such model file; run its training first") from error
        except (SafetensorError, OSError, ValueError) as error:
            raise self.refused(f"not a complete safetensors file ({error})", _ANOTHER) from error
        self.tensors: dict[str, Stored] = {}
        start = self._start
        for name, kind, shape in layout:  # safetensors allows neither gaps nor overlaps
            if kind not in _TYPES:
                raise self.refused(f"tensor {name!r} is of type {kind}, and networks have {', '.join(_TYPES)}")
            self.tensors[name] = Stored(_TYPES[kind], shape, start)
            start += self.tensors[name].size

    def refused(self, reason: object, remedy: str = "delete it and train again") -> ModelError:
        """The error that names the file, a reason, of which as much is shown as fits a line, and the remedy."""
        return ModelError(f"{self.path}: {shortened(reason)}; {remedy}")

    def _header_end(self) -> int:
        """Where the tensors begin."""
        status = self.path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise self.refused("a folder, pipe or device", _ANOTHER)
        if status.st_size > MAX_FILE:
            raise self.refused(f"has {status.st_size} bytes, and files of up to {MAX_FILE} are read", _ANOTHER)
        with open(self.path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
        if length > MAX_HEADER:
            raise ValueError(f"a header of {length} bytes, where at most {MAX_HEADER} are read")
        return 8 + length

    def check(self, expected: Mapping[str, Tensor]) -> None:
        """Raise `ModelError` unless the file holds tensors of these names, types and shapes, and no others."""
        if problem := difference(self.tensors, expected):
            raise self.refused(problem)

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of a tensor, a block at a time."""
        stored = self.tensors[name]
        left = stored.size
        with open(self.path, "rb") as stream:
            stream.seek(stored.start)
            while left and (block := stream.read(min(left, _BLOCK))):
                left -= len(block)
                yield block

    def read(self, name: str) -> Tensor:
        """A tensor, in memory of torch's own choosing: how kernels round depends on where their operands begin."""
        stored = self.tensors[name]
        tensor = torch.empty(stored.shape, dtype=stored.dtype)
        with open(self.path, "rb") as stream:
            stream.seek(stored.start)
            if stored.size and stream.readinto(tensor.reshape(-1).view(torch.uint8).numpy().data) != stored.size:
                raise self.refused("changed while it was read", "start again")
        return tensor


def difference(found: Mapping[str, Tensor | Stored], expected: Mapping[str, Tensor]) -> str:
    """The first difference in names, types and shapes between two sets of tensors; empty where there is none."""
    there, wanted = _kinds(found), _kinds(expected)
    differing = [name for name in {**wanted, **there} if wanted.get(name) != there.get(name)]
    if not differing:
        return ""
    name, more = differing[0], f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
    return f"tensor {name!r} is {there.get(name, 'missing')}, and should be {wanted.get(name, 'left out')}{more}"


def _kinds(tensors: Mapping[str, Tensor | Stored]) -> dict[str, str]:
    """Type and shape of each tensor in words, such as `float32 [4, 3, 3, 3]`."""
    return {name: f"{str(each.dtype).removeprefix('torch.')} {list(each.shape)}" for name, each in tensors.items()}
