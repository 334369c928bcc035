"""STL-10: raw bytes, each colour plane stored column by column, labels counted from 1."""

from pathlib import Path

import numpy as np

from ltpa.core.errors import DataError
from ltpa.data.listing import Listing
from ltpa.data.source import Source

_SIDE = 96


def read(root: Path, source: Source) -> dict[str, Listing]:
    """List the labelled splits; `root` holds the extracted archive. Labels are the dataset's own, counted from 0.

    Raises:
        DataError: a file is missing, has an impossible size, or lists other classes.
    """
    folder = source.folder(root)
    names = folder / "class_names.txt"
    source.check_classes(names, names.read_text(encoding="utf-8-sig").split())
    listings = {}
    for split in source.splits:
        labels = np.fromfile(folder / f"{split}_y.bin", dtype=np.uint8).astype(np.int64) - 1
        path = folder / f"{split}_X.bin"
        if path.stat().st_size != len(labels) * 3 * _SIDE**2:
            raise DataError(f"{path}: {path.stat().st_size} bytes do not hold {len(labels)} images; extract it anew")
        columns_first = np.memmap(path, dtype=np.uint8, mode="r", shape=(len(labels), 3, _SIDE, _SIDE))
        ids = [f"{path.name}/{index:05d}" for index in range(len(labels))]
        listings[split] = Listing(columns_first.transpose(0, 3, 2, 1), labels, ids)
    return listings
