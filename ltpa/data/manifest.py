"""The manifest of a prepared dataset: typed, and sealed with its own SHA-256. It is written last."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltpa.core import layout
from ltpa.core.errors import DataError
from ltpa.core.facts import Sha256
from ltpa.core.hashing import digest
from ltpa.core.schema import PlainData
from ltpa.core.sealed import read_sealed, write_sealed

FORMAT = 1


class ArrayEntry(PlainData):
    """One `.npy` file: its name, size in bytes, SHA-256, shape and dtype (as NumPy spells it, `|u1`)."""

    file: str
    bytes: int
    sha256: Sha256
    shape: list[int]
    dtype: str


class SplitEntry(PlainData):
    """One split: its number of images, in all and per class, and its arrays by field."""

    count: int
    per_class: list[int]
    arrays: dict[str, ArrayEntry]


class Manifest(PlainData):
    """What a folder of prepared arrays holds. `facts` is what its preparation recorded besides."""

    name: str
    classes: list[str]
    facts: dict[str, Any]
    splits: dict[str, SplitEntry]
    data_hash: Sha256

    def entries(self) -> list[ArrayEntry]:
        """Every file, split by split."""
        return [entry for split in self.splits.values() for entry in split.arrays.values()]


def data_hash(classes: list[str], splits: Mapping[str, SplitEntry]) -> str:
    """SHA-256 over the classes and the hashes of all files."""
    files = {entry.file: entry.sha256 for split in splits.values() for entry in split.arrays.values()}
    return digest({"classes": classes, "files": files})


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into `folder`."""
    write_sealed(Path(folder) / layout.MANIFEST, {"format": FORMAT, **manifest.model_dump()})


def read_manifest(path: Path) -> Manifest:
    """Read a manifest and check its seal, its types, and that it is of the folder that it lies in.

    Raises:
        DataError: it is missing, truncated, edited, of another format or of another dataset; the message names the
            file and the remedy.
    """
    path = Path(path)
    missing = f"no such file; prepare the dataset first: ltpa prepare {path.parent.name}"
    return read_sealed(path, Manifest, DataError, version=FORMAT, missing=missing, remedy=remedy(path.parent))


def remedy(folder: Path) -> str:
    """What to do about a folder that is damaged."""
    return f"delete {Path(folder) / layout.MANIFEST} and prepare the dataset again"
