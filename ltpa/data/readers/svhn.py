"""SVHN, format 2: MATLAB files with pixels (32, 32, 3, N) and labels 1 to 10, where 10 is the digit 0."""

from pathlib import Path

import numpy as np

from ltpa.core.errors import DataError
from ltpa.data.listing import Listing
from ltpa.data.matlab import read_matlab
from ltpa.data.source import Source


def read(root: Path, source: Source) -> dict[str, Listing]:
    """List every split; `root` holds the .mat files.

    Raises:
        DataError: a file is missing or not what it should be.
    """
    listings = {}
    for split, declaration in source.splits.items():
        path = root / declaration["file"]
        content = read_matlab(path, "X", "y")
        pixels, digits = content["X"], content["y"].reshape(-1)
        if pixels.ndim != 4 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise DataError(f"{path}: X is {pixels.dtype} {pixels.shape}, not colour images; fetch it anew")
        if pixels.shape[3] != len(digits) or not np.isin(digits, range(1, 11)).all():
            raise DataError(
                f"{path}: y does not give a label from 1 to 10 for each of {pixels.shape[3]} images of X; fetch it anew"
            )
        labels = digits.astype(np.int64) % 10
        ids = [f"{path.stem}/{index:06d}" for index in range(len(labels))]
        listings[split] = Listing(pixels.transpose(3, 0, 1, 2), labels, ids)
    return listings
