"""CIFAR-10 and CIFAR-100, Python version: pickled batches, each image as its red, green and blue plane."""

from pathlib import Path

import numpy as np

from ltpa.archives.legacy_pickle import load_legacy_pickle
from ltpa.core.errors import DataError
from ltpa.data.listing import Listing
from ltpa.data.source import Source

_SIDE = 32


def read(root: Path, source: Source) -> dict[str, Listing]:
    """List every split: the batches of its `files`, one after the other. The layout names the keys.

    Raises:
        DataError: a batch is damaged or incomplete, or the class names are others.
    """
    _refuse_binary(root, source)
    folder, layout = source.folder(root), source.layout
    names = folder / layout["names"]
    source.check_classes(names, [_text(name) for name in load_legacy_pickle(names).get(layout["names_key"], [])])
    listings = {}
    for split, declaration in source.splits.items():
        batches = [_batch(folder / file, layout["labels_key"]) for file in declaration["files"]]
        listings[split] = Listing(
            images=np.concatenate([images for images, _, _ in batches]),
            labels=[label for _, labels, _ in batches for label in labels],
            ids=[name for _, _, names in batches for name in names],
        )
    return listings


def _refuse_binary(root: Path, source: Source) -> None:
    """Raise `DataError` where only the files of the version for C programs are there, which names no images."""
    files = [file for split in source.splits.values() for file in split["files"]]
    python, binary = ([path for file in files for path in _found(root, file + end)] for end in ("", ".bin"))
    if binary and not python:
        raise DataError(
            f"{binary[0]}: of the binary version of {source.name}; get its Python version, whose archive holds a "
            f"folder {source.layout['folder']}"
        )


def _found(root: Path, name: str) -> list[Path]:
    return [*root.glob(name), *root.glob(f"*/{name}"), *root.glob(f"*/*/{name}")]


def _batch(path: Path, labels_key: str) -> tuple[np.ndarray, list[int], list[str]]:
    content = load_legacy_pickle(path)
    try:
        planes = content["data"].reshape(-1, 3, _SIDE, _SIDE)
        labels, names = content[labels_key], [f"{path.name}/{_text(name)}" for name in content["filenames"]]
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: not a batch of images ({error!r}); extract its archive anew") from error
    if planes.dtype != np.uint8 or not len(planes) == len(labels) == len(names):
        raise DataError(f"{path}: {len(planes)} images, {len(labels)} labels, {len(names)} names; extract it anew")
    return planes.transpose(0, 2, 3, 1), labels, names


def _text(name: str | bytes) -> str:
    """A name, which is bytes where a batch was read with `encoding="bytes"` and written anew."""
    return name.decode("latin1") if isinstance(name, bytes) else name
