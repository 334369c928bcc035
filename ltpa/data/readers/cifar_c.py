"""CIFAR-10-C: one `.npy` of images for each kind of corruption, the five severities one after the other."""

from pathlib import Path

import numpy as np

from ltpa.core.errors import DataError
from ltpa.data.listing import Listing
from ltpa.data.source import Source


def read(root: Path, source: Source) -> dict[str, Listing]:
    """List every split, which is a kind; the layout names the folder and the file of labels, the same for all kinds.

    Raises:
        DataError: a file is damaged, or images and labels differ in number.
    """
    folder = source.folder(root)
    labels = _array(folder / source.layout["labels"], 1)
    listings = {}
    for split, declaration in source.splits.items():
        path = folder / declaration["file"]
        images = _array(path, 4)
        if len(images) != len(labels):
            raise DataError(f"{path}: {len(images)} images for {len(labels)} labels; extract its archive anew")
        ids = [f"{split}/{index:05d}" for index in range(len(labels))]
        listings[split] = Listing(images, labels.astype(np.int64), ids)
    return listings


def _array(path: Path, axes: int) -> np.ndarray:
    """An array of bytes on disk, memory-mapped."""
    try:
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: not readable ({error}); extract its archive anew") from error
    if found.ndim != axes or found.dtype != np.uint8:
        raise DataError(f"{path}: {found.dtype} {found.shape}, not bytes; extract its archive anew")
    return found
