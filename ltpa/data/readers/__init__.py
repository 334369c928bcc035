"""Readers of real datasets, one per layout on disk: extracted files in, a listing of each split out.

A reader looks at lists, labels and names; images are decoded later (`ltpa.data.shards`).
"""

from collections.abc import Callable
from pathlib import Path

from ltpa.core.errors import DataError
from ltpa.data.listing import Listing
from ltpa.data.readers import action40, cifar, cub, dogs, folders, idx, jpeg_npz, objectdiscovery, stl, svhn
from ltpa.data.source import Source

READERS: dict[str, Callable[[Path, Source], dict[str, Listing]]] = {
    "action40": action40.read,
    "cifar": cifar.read,
    "cub": cub.read,
    "dogs": dogs.read,
    "folders": folders.read,
    "idx": idx.read,
    "jpeg-npz": jpeg_npz.read,
    "objectdiscovery": objectdiscovery.read,
    "stl": stl.read,
    "svhn": svhn.read,
}
"""By the `reader` of a declaration, one of these."""


def read_listings(reader: str, root: Path, source: Source) -> dict[str, Listing]:
    """List every split of a dataset whose extracted files lie in `root`; `reader` is a key of `READERS`.

    Raises:
        DataError: a file is missing, or not what it should be.
    """
    try:
        return READERS[reader](root, source)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}; extract the archives of {source.name} anew") from error
