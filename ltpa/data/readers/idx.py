"""MNIST: gzipped idx files, grey pixels and labels apart."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from ltpa.core.errors import DataError
from ltpa.data.listing import Listing
from ltpa.data.source import Source

_UNSIGNED_BYTES = 8


def read(root: Path, source: Source) -> dict[str, Listing]:
    """List every split; `root` holds the four files.

    Raises:
        DataError: a file is missing or damaged, or pixels and labels differ in number.
    """
    listings = {}
    for split, declaration in source.splits.items():
        images, labels = (_idx(root / declaration[key]) for key in ("images", "labels"))
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise DataError(f"{root / declaration['images']}: {images.shape} pixels for {labels.shape} labels")
        ids = [f"{split}/{index:05d}" for index in range(len(labels))]
        listings[split] = Listing(images, labels.astype(np.int64), ids)
    return listings


def _idx(path: Path) -> np.ndarray:
    try:
        content = gzip.decompress(path.read_bytes())
        zero, kind, axes = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{axes}I", content, 4)
        if (zero, kind) != (0, _UNSIGNED_BYTES):
            raise ValueError("not an idx file of bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError, struct.error) as error:
        raise DataError(f"{path}: not a readable gzipped idx file ({error}); fetch it anew") from error
