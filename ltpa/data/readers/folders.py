"""Datasets with a folder of images per class: Caltech-101 and -256, Event-8, Scene-67."""

import fnmatch
from pathlib import Path

from ltpa.core.errors import DataError
from ltpa.core.files import is_hidden
from ltpa.data.listing import Listing
from ltpa.data.pictures import images_in
from ltpa.data.source import Source


def read(root: Path, source: Source) -> dict[str, Listing]:
    """List every split: all images of the class folders by class and name, or the lines of the split's `list`.

    Other files and folders among the images are passed over and named. A `list` names one `<class>/<file>` per line.

    Raises:
        DataError: a class has no folder, there is a folder of no known class, or a list names something else.
    """
    folder = source.folder(root)
    known = set(source.classes)
    for entry in sorted(folder.iterdir()):
        excluded = any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in source.layout.get("exclude", []))
        if entry.is_dir() and entry.name not in known and not excluded and not is_hidden(entry.name):
            raise DataError(f"{entry}: not a class of {source.name}; remove it or declare it in `exclude`")
    listings = {}
    for split, declaration in source.splits.items():
        names, others = (
            (_listed(root / declaration["list"], known), []) if "list" in declaration else _found(folder, source)
        )
        labels = [source.classes.index(name.split("/")[0]) for name in names]
        listings[split] = Listing([folder / name for name in names], labels, names, passed_over=others)
    return listings


def _found(folder: Path, source: Source) -> tuple[list[str], list[str]]:
    """The images of the class folders, and what else there is in and beside these."""
    names = []
    others = [entry.name for entry in sorted(folder.iterdir()) if not entry.is_dir() or is_hidden(entry.name)]
    for label in source.classes:
        if (folder / label).is_dir():
            images, more = images_in(folder / label, source.options.paper_subset)
            names += [f"{label}/{name}" for name in images]
            others += [f"{label}/{name}" for name in more]
        elif not source.options.partial:
            raise DataError(f"{folder / label}: no such folder; extract the archives of {source.name} anew")
    return names, others


def _listed(path: Path, known: set[str]) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8-sig").splitlines()  # names may hold spaces
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a readable list ({error}); fetch it anew") from error
    for name in names:
        if name.count("/") != 1 or name.split("/")[0] not in known or ".." in name:
            raise DataError(f"{path}: {name!r} is not the name of an image; fetch it anew")
    return names
