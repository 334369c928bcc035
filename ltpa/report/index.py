"""The index beside drawn figures: their digests, what stands below them, and the files that they were drawn from."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ltpa.core.errors import RecordError
from ltpa.core.facts import Sha256
from ltpa.core.hashing import sha256_file
from ltpa.core.schema import PlainData
from ltpa.core.sealed import read_sealed, write_sealed

NAME = "index.json"


class Index(PlainData):
    """What an index holds.

    Attributes:
        files: SHA-256 of each picture, by path below the folder of the index.
        captions: what stands below the pictures.
        drawn_from: SHA-256 of the records, histories, networks and manifests behind them, by path below the folder of
            the scale.
        missing: why figures are left out.
    """

    files: dict[str, Sha256]
    captions: dict[str, str]
    drawn_from: dict[str, Sha256]
    missing: dict[str, str] = {}


def write_index(
    folder: Path,
    pictures: Iterable[Path],
    captions: Mapping[str, str],
    results: Path,
    sources: Iterable[Path],
    missing: Mapping[str, str] | None = None,
) -> None:
    """Write the index of `pictures` in `folder`, which were drawn from the files `sources` below `results`."""
    index = Index(
        files={path.relative_to(folder).as_posix(): sha256_file(path) for path in pictures},
        captions=dict(captions),
        drawn_from={path.relative_to(results).as_posix(): sha256_file(path) for path in sorted(set(sources))},
        missing=dict(missing or {}),
    )
    write_sealed(folder / NAME, index.model_dump())


def read_index(folder: Path) -> Index:
    """Read the index in `folder`.

    Raises:
        RecordError: it is missing, damaged, edited, or not of this version.
    """
    path = Path(folder) / NAME
    return read_sealed(
        path, Index, RecordError, missing="no such index of figures", remedy=f"draw them anew (rm {path})"
    )
