"""A dataset's declaration, typed: what a reader needs to find its images, and how they are decoded and counted."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from ltpa.core.declared import near_matches
from ltpa.core.errors import ConfigError, DataError
from ltpa.data.listing import Listing

RESIZES = ("antialias", "area", "nearest")
CROPS = ("none", "box")
PARTS = ("none", "head")
NATIVE = "native"
MAX_MASK = 4096  # side of the largest prepared mask in pixels


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices a declaration makes and a configuration may change (key `data` of the configuration).

    Attributes:
        resize: `antialias` (bilinear over the source area of a pixel), `area` (mean of that area) or `nearest`.
        reduced: decode JPEG files at 1/2, 1/4 or 1/8 where that keeps three times the wanted size; differs from full
            decoding by a few tenths of a grey level on average (`ltpa.data.decode`).
        upright: turn images as their cameras say (EXIF); boxes then count in turned pixels.
        crop: `box` cuts each image to its box before it is resized.
        mask_size: side of the prepared masks in pixels, or `native` for the size each has in its file; that of the
            images where it is not given.
        parts: `head` takes a box around the head of each bird from the part files (reader `cub`).
        skip_corrupt: leave out images that cannot be decoded, and list them, instead of stopping.
        paper_subset: only files whose name ends in lower-case `.jpg`, as the paper's counts suggest.
        partial: accept a part of the dataset; counts are reported and not enforced, folders may be missing.
        splits: the splits to prepare; all but optional ones where it is not given.
    """

    resize: str = "antialias"
    reduced: bool = True
    upright: bool = False
    crop: str = "none"
    mask_size: int | str | None = None
    parts: str = "none"
    skip_corrupt: bool = False
    paper_subset: bool = False
    partial: bool = False
    splits: list[str] | None = None

    def __post_init__(self) -> None:
        for key, value, allowed in (
            ("resize", self.resize, RESIZES),
            ("crop", self.crop, CROPS),
            ("parts", self.parts, PARTS),
        ):
            if value not in allowed:
                raise ConfigError(f"option {key!r} is {value!r}; choose one of {', '.join(allowed)}")
        size, splits = self.mask_size, self.splits
        if size not in (None, NATIVE) and (
            isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_MASK
        ):
            raise ConfigError(
                f"option 'mask_size' is {self.mask_size!r}; it is a number of pixels up to {MAX_MASK}, or {NATIVE}"
            )
        if splits is not None and not (
            isinstance(splits, list) and splits and all(isinstance(split, str) for split in splits)
        ):
            raise ConfigError(f"option 'splits' is {splits!r}; it is a list of names of splits")
        for key in ("reduced", "upright", "skip_corrupt", "paper_subset", "partial"):
            if not isinstance(getattr(self, key), bool):
                raise ConfigError(f"option {key!r} is {getattr(self, key)!r}; it is true or false")


@dataclasses.dataclass(frozen=True)
class Source:
    """One dataset that is read from files.

    Attributes:
        name: the dataset's name.
        classes: class names, in label order.
        image_size: side of the prepared images in pixels.
        splits: the declaration of each split that is to be prepared.
        layout: where the reader finds things below the extracted archives.
        options: how images are chosen and decoded.
    """

    name: str
    classes: list[str]
    image_size: int
    splits: dict[str, dict[str, Any]]
    layout: dict[str, Any]
    options: Options

    @classmethod
    def from_declaration(cls, name: str, declaration: Mapping[str, Any]) -> Self:
        """Read a declaration of `config/datasets/`.

        Raises:
            ConfigError: a key is missing, or an option or split is unknown or wrong.
        """
        if missing := [key for key in ("classes", "image_size", "splits") if key not in declaration]:
            raise ConfigError(f"dataset {name}: its declaration lacks {', '.join(missing)}; add it to config/datasets")
        options = dict(declaration.get("options", {}))
        known = [field.name for field in dataclasses.fields(Options)]
        for key in options:
            if key not in known:
                raise ConfigError(f"dataset {name}: unknown option {key!r}; {near_matches(key, known)}")
        try:
            chosen = Options(**options)
        except ConfigError as error:
            raise ConfigError(f"dataset {name}: {error}") from error
        splits = declaration["splits"]
        wanted = chosen.splits or [split for split, values in splits.items() if not values.get("optional")]
        for split in wanted:
            if split not in splits:
                raise ConfigError(f"dataset {name}: unknown split {split!r}; {near_matches(split, splits)}")
        return cls(
            name,
            list(declaration["classes"]),
            declaration["image_size"],
            {split: dict(splits[split]) for split in wanted},
            dict(declaration.get("layout", {})),
            chosen,
        )

    @property
    def mask_size(self) -> int | None:
        """Side of the prepared masks in pixels; None where each keeps its own size."""
        size = self.options.mask_size
        return None if isinstance(size, str) else size or self.image_size

    def folder(self, root: Path, key: str = "folder") -> Path:
        """The folder that the layout names, below `root`. Leading parts of it may be missing on disk.

        Raises:
            DataError: there is none.
        """
        parts = Path(self.layout[key]).parts
        for start in range(len(parts)):
            if (folder := root.joinpath(*parts[start:])).is_dir():
                return folder
        raise DataError(f"{root}: no folder {self.layout[key]} of dataset {self.name} here; extract its archives anew")

    def check_classes(self, path: Path, names: list[str]) -> None:
        """Check that the class names read from the dataset's own file `path` are the declared ones.

        Raises:
            DataError: they differ; with the option `partial`, fewer are accepted.
        """
        expected = self.classes[: len(names)] if self.options.partial else self.classes
        if names != expected:
            raise DataError(
                f"{path}: lists {len(names)} classes from {', '.join(names[:2])} on, {self.name} is declared with "
                f"{len(expected)} from {', '.join(expected[:2])} on; extract the archives anew"
            )


def check_counts(source: Source, listings: Mapping[str, Listing]) -> dict[str, dict[str, Any]]:
    """Check the number of images of every split, and of its classes, against the declaration.

    Returns:
        By split: `expected` (null where nothing is declared) and `found`, for the manifest.

    Raises:
        DataError: they differ, the message has both numbers; or a label is not that of a class.
    """
    facts = {}
    for split, listing in listings.items():
        _check_labels(source, split, listing)
        declaration = source.splits[split]
        subset = source.options.paper_subset and "paper_count" in declaration
        expected = declaration["paper_count"] if subset else declaration.get("count")
        slack = declaration.get("paper_slack", 0) if subset else 0
        facts[split] = {"expected": expected, "found": len(listing)}
        if source.options.partial:
            continue
        where = f"dataset {source.name}, split {split}"
        if expected is not None and abs(len(listing) - expected) > slack:
            raise DataError(f"{where}: {len(listing)} images found, {expected} declared; {_REMEDY}")
        if not subset and "per_class" in declaration:
            _check_per_class(where, source.classes, listing, declaration["per_class"])
    return facts


def _check_labels(source: Source, split: str, listing: Listing) -> None:
    count = len(source.classes)
    for label, name in zip(listing.labels, listing.ids, strict=True):
        if not isinstance(label, int | np.integer) or not 0 <= label < count:
            raise DataError(
                f"dataset {source.name}, split {split}: image {name} has label {label}, and labels go from 0 to "
                f"{count - 1}; extract the archives anew"
            )


_REMEDY = "extract the archives anew, or set option partial for a part of the dataset"


def _check_per_class(where: str, classes: list[str], listing: Listing, per_class: int | list[int]) -> None:
    expected = per_class if isinstance(per_class, list) else [per_class] * len(classes)
    counts = [0] * len(classes)
    for label in listing.labels:
        counts[label] += 1
    for name, have, want in zip(classes, counts, expected, strict=True):
        if have != want:
            raise DataError(f"{where}: {have} images of class {name} found, {want} declared; {_REMEDY}")
