"""Datasets with a folder of images per class: Caltech-101 and -256, Event-8, Scene-67."""

import fnmatch
from pathlib import Path

from ltpa.core.errors import DataError
from ltpa.data.listing import Listing
from ltpa.data.source import Source

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


def read(root: Path, source: Source) -> dict[str, Listing]:
    """List every split: all images of the class folders by class and name, or the lines of the split's `list`.

    Other files and folders among the images are passed over. A `list` names one `<class>/<file>` per line.

    Raises:
        DataError: a class has no folder, there is a folder of no known class, or a list names something else.
    """
    folder = source.folder(root)
    known = set(source.classes)
    for entry in sorted(folder.iterdir()):
        excluded = any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in source.layout.get("exclude", []))
        if entry.is_dir() and entry.name not in known and not excluded:
            raise DataError(f"{entry}: not a class of {source.name}; remove it or declare it in `exclude`")
    listings = {}
    for split, declared in source.splits.items():
        names = _listed(root / declared["list"], known) if "list" in declared else _found(folder, source)
        labels = [source.classes.index(name.split("/")[0]) for name in names]
        listings[split] = Listing([folder / name for name in names], labels, names)
    return listings


def images_in(folder: Path, lower_case_only: bool) -> list[str]:
    """Names of the images directly in a folder, in plain character order.

    `lower_case_only` takes `*.jpg` alone, as a case-sensitive shell pattern does.
    """
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    if lower_case_only:
        return [name for name in names if name.endswith(".jpg")]
    return [name for name in names if name.lower().endswith(SUFFIXES)]


def _found(folder: Path, source: Source) -> list[str]:
    names = []
    for label in source.classes:
        if (folder / label).is_dir():
            names += [f"{label}/{name}" for name in images_in(folder / label, source.options.paper_subset)]
        elif not source.options.partial:
            raise DataError(f"{folder / label}: no such folder; extract the archives of {source.name} anew")
    return names


def _listed(path: Path, known: set[str]) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8").splitlines()  # names may hold spaces
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a readable list ({error}); fetch it anew") from error
    for name in names:
        if name.count("/") != 1 or name.split("/")[0] not in known or ".." in name:
            raise DataError(f"{path}: {name!r} is not the name of an image; fetch it anew")
    return names
