"""One `.npz` per split: JPEG files end to end in `blob`, where each begins in `offsets` (N + 1), and `labels`."""

import itertools
from pathlib import Path

import numpy as np

from ltpa.core.errors import DataError
from ltpa.data.listing import Listing
from ltpa.data.source import Source


def read(root: Path, source: Source) -> dict[str, Listing]:
    """List every split; `root` holds the files.

    Raises:
        DataError: a file is damaged.
    """
    listings = {}
    for split, declared in source.splits.items():
        path = root / declared["file"]
        try:
            with np.load(path, allow_pickle=False) as content:
                blob, offsets, labels = (content[key] for key in ("blob", "offsets", "labels"))
        except (ValueError, KeyError) as error:
            raise DataError(f"{path}: not readable ({error}); put the right file there") from error
        images = [blob[start:end].tobytes() for start, end in itertools.pairwise(offsets)]
        if len(images) != len(labels):
            raise DataError(f"{path}: {len(images)} images for {len(labels)} labels; put the right file there")
        ids = [f"{split}/{index:05d}" for index in range(len(labels))]
        listings[split] = Listing(images, labels.astype(np.int64), ids)
    return listings
