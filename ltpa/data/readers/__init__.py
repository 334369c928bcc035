"""Readers of real datasets, one per layout on disk: extracted files in, a listing of each split out.

A reader looks at lists, labels and names; images are decoded later (`ltpa.data.shards`).
"""

import struct
import zipfile
import zlib
from pathlib import Path

from ltpa.core.errors import DataError
from ltpa.data.listing import Listing
from ltpa.data.registry import load_reader
from ltpa.data.source import Source

# What parsers of text, NumPy, zip and pickle raise for a damaged file, or for one that claims a size it does not have.
_DAMAGE = (ValueError, TypeError, LookupError, AttributeError, EOFError, OverflowError, RuntimeError, MemoryError,
           zipfile.BadZipFile, zlib.error, struct.error)  # fmt: skip


def read_listings(reader: str, root: Path, source: Source) -> dict[str, Listing]:
    """List every split of a dataset whose extracted files lie in `root`; `reader` as for `load_reader`.

    Raises:
        DataError: a file is missing, or not what it should be.
    """
    read = load_reader(reader)
    listings: dict[str, Listing]
    try:
        listings = read(root, source)
    except OSError as error:
        where, what = error.filename or root, error.strerror or error
        raise DataError(f"{where}: {what}; extract the archives of {source.name} anew") from error
    except _DAMAGE as error:
        raise DataError(
            f"{root}: a file of dataset {source.name} is damaged or another than expected ({error!r}); extract its "
            "archives anew"
        ) from error
    return listings
