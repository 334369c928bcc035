"""Stanford Dogs: a folder of images per breed; MATLAB lists with file names and labels counted from 1."""

from pathlib import Path

import numpy as np

from ltpa.core.errors import DataError
from ltpa.data.listing import Listing
from ltpa.data.matlab import read_matlab
from ltpa.data.source import Source


def read(root: Path, source: Source) -> dict[str, Listing]:
    """List the splits in the order of their lists.

    Raises:
        DataError: a list is missing or damaged, or a label does not fit the image's folder.
    """
    listings = {}
    for split, declaration in source.splits.items():
        path = root / declaration["list"]
        content = read_matlab(path, "file_list", "labels")
        names = [str(cell.item()) for cell in content["file_list"].reshape(-1)]
        labels = content["labels"].reshape(-1).astype(np.int64) - 1
        if len(names) != len(labels):
            raise DataError(f"{path}: {len(names)} names for {len(labels)} labels; extract it anew")
        for name, label in zip(names, labels.tolist(), strict=True):
            if not 0 <= label < len(source.classes) or name.split("/")[0] != source.classes[label]:
                raise DataError(f"{path}: {name} has label {label + 1}, which is another breed; extract it anew")
        listings[split] = Listing([root / "Images" / name for name in names], labels, names)
    return listings
