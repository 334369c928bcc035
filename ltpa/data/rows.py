"""Array files written a block of rows at a time, so that no split has to fit into memory."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from ltpa.core.errors import LtpaError
from ltpa.core.files import write_errors


def draft_path(folder: Path, split: str, field: str) -> Path:
    """Where a field of a split is written before it is complete; `write_prepared` moves it into place."""
    return Path(folder) / f".{split}.{field}.draft.npy"


def remove_drafts(folder: Path) -> None:
    """Remove what an interrupted preparation left in `folder`."""
    for path in Path(folder).glob(".*.draft.npy"):
        path.unlink(missing_ok=True)


class RowWriter:
    """A `.npy` file of any number of rows, written in order. Removed again when the block it manages raises.

    Args:
        path: the file; its folder is made.
        row: shape of one row.
        dtype: of the elements.
    """

    def __init__(self, path: Path, row: tuple[int, ...], dtype: type[np.generic]) -> None:
        self.path, self.row, self.dtype, self.count = path, row, np.dtype(dtype), 0

    def append(self, rows: np.ndarray) -> None:
        """Write (n, *row) elements of the writer's dtype behind those that are there.

        Raises:
            LtpaError: the disk is full.
        """
        if rows.shape[1:] != self.row or rows.dtype != self.dtype:
            raise ValueError(f"{self.path}: rows are {rows.dtype} {rows.shape[1:]}, not {self.dtype} {self.row}")
        with self._explained():
            self._stream.write(np.ascontiguousarray(rows).data)
        self.count += len(rows)

    def _write_header(self) -> None:
        """NumPy pads headers so that they keep their length however many rows there are."""
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count, *self.row)}
        np.lib.format.write_array_header_1_0(self._stream, header)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with write_errors(self.path, draft=self.path):
                yield
        except LtpaError:
            self.path.unlink(missing_ok=True)
            raise

    def __enter__(self) -> Self:
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("wb")
            self._write_header()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stream.close()
            self.path.unlink(missing_ok=True)
            return
        with self._explained(), self._stream:
            self._stream.seek(0)
            self._write_header()
            self._stream.flush()
            os.fsync(self._stream.fileno())
