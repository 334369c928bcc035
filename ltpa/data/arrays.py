"""Prepared datasets on disk: one `.npy` file per split and field, and a sealed manifest written last.

A folder with a manifest is complete. The manifest holds size, SHA-256, shape and dtype of every file, the classes, and
the number of images per split and class.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from ltpa.core import layout
from ltpa.core.errors import DataError
from ltpa.core.files import atomic_path
from ltpa.core.hashing import sha256_file
from ltpa.data.manifest import ArrayEntry, Manifest, SplitEntry, data_hash, read_manifest, remedy, write_manifest
from ltpa.data.masks import OBJECT, VOID, Masks, RaggedMasks
from ltpa.data.rows import draft_path

_RAGGED = {"mask_pixels", "mask_sizes"}
HASHED_BELOW = 16 * 2**20  # bytes; larger datasets are checked by file size, shape and dtype alone when opened


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images of one split, and what is known about each. All arrays have N rows.

    Attributes:
        images: (N, S, S, 3) uint8, RGB.
        labels: (N,) int64, indices into the dataset's classes.
        ids: (N,) fixed-width unicode; where each image comes from.
        masks: uint8, 1 on the object, 0 beside it, 255 where the annotation says nothing (`ltpa.data.masks`), over the
            whole image: (N, M, M), where M is S or greater to keep detail, or each of the size its file has; None where
            unknown.
        boxes: (N, 4) float32, x0, y0, x1, y1 of the object in pixels, last edges exclusive; None where unknown.
        parts: (N, 4) float32, box of the discriminative part, laid out like `boxes`; not numbers where it is hidden
            in an image, None where unknown.
        groups: (N,) int64, images of one group share sources and must not be divided by cross-validation; None where
            every image stands for itself.
        more: what only one maker and its users know, by name: whole numbers or float32, (N, ...).
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    masks: Masks | None = None
    boxes: np.ndarray | None = None
    parts: np.ndarray | None = None
    groups: np.ndarray | None = None
    more: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are known, by name: fields, `more`, and `mask_pixels` and `mask_sizes` for ragged masks."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "more"}
        if isinstance(ragged := fields["masks"], RaggedMasks):
            fields |= {"masks": None, "mask_pixels": ragged.pixels, "mask_sizes": ragged.sizes}
        return {name: array for name, array in {**fields, **self.more}.items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The split whose `arrays` these are."""
        known = {field.name for field in dataclasses.fields(cls)} | _RAGGED
        plain = {name: array for name, array in arrays.items() if name in known - _RAGGED}
        more = {name: array for name, array in arrays.items() if name not in known}
        if "mask_pixels" not in arrays:
            return cls(**plain, more=more)
        return cls(**plain, more=more, masks=RaggedMasks(arrays["mask_pixels"], arrays["mask_sizes"]))


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedDataset:
    """A prepared dataset. Opened from disk its arrays are memory-mapped and read-only.

    Attributes:
        name: the dataset's name.
        classes: class names; labels are indices into them.
        splits: the splits by name, in the order they were written.
        data_hash: SHA-256 over the classes and the hashes of all files.
        facts: further small facts the preparation recorded.
    """

    name: str
    classes: list[str]
    splits: dict[str, Split]
    data_hash: str
    facts: dict[str, Any]

    @classmethod
    def open(cls, folder: Path, verify: bool = False) -> Self:
        """Open a folder written by `write_prepared`.

        Every file's size, shape and dtype are checked, and its SHA-256 where the dataset is below `HASHED_BELOW` bytes
        or `verify` asks for it.

        Raises:
            DataError: a file is missing, truncated or edited; the message names it and the remedy.
        """
        folder = Path(folder)
        manifest = read_manifest(folder / layout.MANIFEST)
        hashed = verify or sum(entry.bytes for entry in manifest.entries()) < HASHED_BELOW
        splits = {
            name: Split.from_arrays({key: _open_array(folder, entry, hashed) for key, entry in split.arrays.items()})
            for name, split in manifest.splits.items()
        }
        return cls(manifest.name, manifest.classes, splits, manifest.data_hash, manifest.facts)

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return next(iter(self.splits.values())).images.shape[1]

    def split(self, name: str) -> Split:
        """The split called `name`.

        Raises:
            DataError: there is none; the message lists those there are.
        """
        if name not in self.splits:
            raise DataError(f"dataset {self.name} has no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]

    def pooled(self) -> Split:
        """All splits one after the other, in memory; fields that some split lacks are None."""
        parts = [split.arrays() for split in self.splits.values()]
        common = [field for field in parts[0] if all(field in part for part in parts)]
        return Split.from_arrays({field: np.concatenate([part[field] for part in parts]) for field in common})


def write_prepared(
    folder: Path, name: str, classes: list[str], splits: Mapping[str, Split], facts: dict[str, Any]
) -> None:
    """Write a prepared dataset into `folder`: the arrays first, the manifest last. `facts` must be plain JSON.

    An older manifest is removed first, so that no manifest ever describes a mixture of old and new arrays. An array
    that is the memory-mapped draft of its own file (`ltpa.data.rows.draft_path`) is moved into place, not copied.

    Raises:
        DataError: arrays have the wrong shape, dtype or range, or splits differ in image size.
    """
    folder = Path(folder)
    if not splits:
        raise DataError(f"dataset {name}: no splits to write")
    size = next(iter(splits.values())).images.shape[1]
    for split_name, split in splits.items():
        _check_split(f"dataset {name}, split {split_name}", split, len(classes), size)
    (folder / layout.MANIFEST).unlink(missing_ok=True)
    entries = {}
    for split_name, split in splits.items():
        arrays = {field: _write_array(folder, split_name, field, array) for field, array in split.arrays().items()}
        per_class = np.bincount(split.labels, minlength=len(classes)).tolist()
        entries[split_name] = SplitEntry(count=len(split), per_class=per_class, arrays=arrays)
    hashed = data_hash(list(classes), entries)
    write_manifest(folder, Manifest(name=name, classes=list(classes), facts=facts, splits=entries, data_hash=hashed))


def _check_split(where: str, split: Split, classes: int, size: int) -> None:
    count = len(split)
    arrays = split.arrays()
    mask_size = arrays["masks"].shape[-1] if "masks" in arrays else size
    mask_area = int(arrays["mask_sizes"].prod(axis=-1).sum()) if "mask_sizes" in arrays else 0
    expected = {
        "images": ((count, size, size, 3), "u1"),
        "labels": ((count,), "i8"),
        "ids": ((count,), "U"),
        "masks": ((count, mask_size, mask_size), "u1"),
        "mask_pixels": ((mask_area,), "u1"),
        "mask_sizes": ((count, 2), "i8"),
        "boxes": ((count, 4), "f4"),
        "parts": ((count, 4), "f4"),
        "groups": ((count,), "i8"),
    }
    for field, array in arrays.items():
        shape, kind = expected.get(field, ((count, *array.shape[1:]), "f4"))
        whole = field in split.more and array.dtype.kind in "iu"
        if array.shape != shape or not (whole or array.dtype.kind == kind or array.dtype.str[1:] == kind):
            raise DataError(f"{where}: {field} is {array.dtype} {array.shape}, expected {kind} {shape}")
    if count == 0:
        raise DataError(f"{where}: no images")
    if split.labels.min() < 0 or split.labels.max() >= classes:
        raise DataError(f"{where}: labels {split.labels.min()} to {split.labels.max()} with {classes} classes")
    if "mask_sizes" in arrays and arrays["mask_sizes"].min() < 1:
        raise DataError(f"{where}: a mask has no pixels")
    marks = [arrays[field] for field in ("masks", "mask_pixels") if field in arrays]
    if any(((mask > OBJECT) & (mask != VOID)).any() for mask in marks):
        raise DataError(f"{where}: masks hold values other than 0, {OBJECT} and {VOID}")


def _write_array(folder: Path, split: str, field: str, array: np.ndarray) -> ArrayEntry:
    path, draft = folder / f"{split}.{field}.npy", draft_path(folder, split, field)
    if isinstance(array, np.memmap) and array.filename == draft.resolve():
        draft.replace(path)
    else:
        with atomic_path(path, array.nbytes) as temporary:
            np.save(temporary, np.ascontiguousarray(array), allow_pickle=False)
    return ArrayEntry(
        file=path.name,
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
        shape=list(array.shape),
        dtype=array.dtype.str,
    )


def _open_array(folder: Path, entry: ArrayEntry, hashed: bool) -> np.ndarray:
    path = folder / entry.file
    try:
        size = path.stat().st_size
        if size != entry.bytes:
            raise DataError(f"{path}: {size} bytes, manifest says {entry.bytes}; {remedy(folder)}")
        if hashed and sha256_file(path) != entry.sha256:
            raise DataError(f"{path}: content does not match its SHA-256 in the manifest; {remedy(folder)}")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; {remedy(folder)}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable ({error}); {remedy(folder)}") from error
    if list(array.shape) != entry.shape or array.dtype.str != entry.dtype:
        raise DataError(f"{path}: {array.dtype} {array.shape}, manifest says otherwise; {remedy(folder)}")
    return array
