"""A dataset of real files: its archives fetched and extracted, read, counted, decoded."""

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltpa.archives.declare import Archive, parse_archives
from ltpa.archives.extract import extract_all
from ltpa.archives.fetch import DEFAULT_POLICY, fetch
from ltpa.archives.transfer import Policy
from ltpa.core.errors import ConfigError, DataError
from ltpa.core.files import is_hidden
from ltpa.core.hashing import sha256_file
from ltpa.core.text import printable
from ltpa.data.arrays import Split
from ltpa.data.listing import Listing
from ltpa.data.masks import OBJECT
from ltpa.data.pictures import passed_over_note
from ltpa.data.readers import read_listings
from ltpa.data.shards import prepare_split
from ltpa.data.source import Source, check_counts


def needed_archives(name: str, declaration: Mapping[str, Any]) -> list[Archive]:
    """The archives a declaration needs: all but optional ones, and those of the splits it prepares.

    Raises:
        ConfigError: the declaration is wrong.
    """
    source = Source.from_declaration(name, declaration)
    named = set(itertools.chain.from_iterable(map(str, split.values()) for split in source.splits.values()))
    archives = parse_archives(name, dict(declaration))
    return [archive for archive in archives if not archive.optional or archive.name in named]


def fetch_archives(
    name: str,
    declaration: Mapping[str, Any],
    downloads: Path,
    search: Sequence[Path] = (),
    policy: Policy = DEFAULT_POLICY,
) -> tuple[list[Archive], list[Path]]:
    """The needed archives of a dataset and their verified files, found in a folder of `search` or downloaded.

    Raises:
        ConfigError: the dataset has no archives.
        DataError: an archive cannot be obtained, or is not the declared one.
    """
    archives = needed_archives(name, declaration)
    if not archives:
        raise ConfigError(f"dataset {name} has no published archives; prepare it with --extracted DIR")
    return archives, fetch(archives, downloads, search, policy=policy)


def prepare_real(
    name: str,
    declaration: Mapping[str, Any],
    folder: Path,
    threads: int,
    extracted: Path | None,
    downloads: Path,
    search: Sequence[Path] = (),
    say: Callable[[str], None] = lambda text: None,
) -> tuple[list[str], dict[str, Split], dict[str, Any]]:
    """Read and decode a dataset. Its images are streamed into draft files in `folder` (`ltpa.data.rows`).

    Args:
        extracted: folder of files extracted before; None fetches and extracts the archives.
        downloads: where archives are downloaded and extracted.
        search: folders with archives that need no download.
        say: called with each line of progress.

    Returns:
        Class names, splits, and facts for the manifest.

    Raises:
        ConfigError: the declaration is wrong.
        DataError: files are missing, broken, or not as many as declared.
    """
    source = Source.from_declaration(name, declaration)
    hashes: dict[str, str] = {}
    if extracted is not None:
        splits, facts = _decoded(declaration["reader"], source, extracted, folder, threads, say)
    else:
        archives, files = fetch_archives(name, declaration, downloads, search)
        hashes = {archive.name: sha256_file(path) for archive, path in zip(archives, files, strict=True)}
        say(f"{name}: extracting {', '.join(hashes)}")
        ours = extract_all(files, archives, downloads / "extracted" / name, lambda text: say(f"{name}: {text}"))
        try:
            splits, facts = _decoded(declaration["reader"], source, ours, folder, threads, say)
        except DataError as error:
            raise DataError(f"{error} (archives are extracted anew once {ours} is deleted)") from error
    return source.classes, splits, {"options": declaration.get("options", {}), "archives": hashes, "splits": facts}


def _decoded(
    reader: str, source: Source, root: Path, folder: Path, threads: int, say: Callable[[str], None]
) -> tuple[dict[str, Split], dict[str, Any]]:
    """The splits of the extracted files in `root`, and facts about each."""
    listings = _listings(reader, root, source, say)
    counts = check_counts(source, listings)
    splits, facts = {}, {}
    for split, listing in listings.items():
        if not len(listing):
            raise DataError(
                f"{root}: no images of dataset {source.name}, split {split}, found here; is it the right folder?"
            )
        say(f"{source.name}: {split}, {len(listing)} images ({counts[split]['expected']} expected)")
        splits[split], decoded = prepare_split(folder, split, listing, source, threads)
        facts[split] = {**counts[split], **decoded, **_mask_facts(source, split, splits[split])}
        if listing.passed_over:
            say(f"{source.name}: {split}, {passed_over_note(listing.passed_over)}")
            facts[split]["passed_over"] = list(map(printable, listing.passed_over))
        for note in mask_notes(decoded, source.options.upright):
            say(f"{source.name}: {split}, {note}")
    return splits, facts


def mask_notes(facts: Mapping[str, Any], upright: bool) -> list[str]:
    """Notes on a split's masks, from the facts of `prepare_split`: void pixels, images turned by EXIF."""
    notes = []
    if void := facts.get("void_masks"):
        notes.append(f"{void} masks have void pixels (255), which count neither as object nor as background")
    if turned := facts.get("turned"):
        done = "they are turned, and their masks must be too" if upright else "neither they nor their masks are turned"
        notes.append(f"{len(turned)} images with masks have an EXIF orientation ({turned[0]}): {done}")
    return notes


def _listings(reader: str, root: Path, source: Source, say: Callable[[str], None]) -> dict[str, Listing]:
    """The listings of the files in `root`, or in the only folder in it where they lie one level deeper."""
    try:
        return read_listings(reader, root, source)
    except DataError:
        inside = [entry for entry in root.iterdir() if not is_hidden(entry.name)] if root.is_dir() else []
        if len(inside) != 1 or not inside[0].is_dir():
            raise
        with contextlib.suppress(DataError):
            listings = read_listings(reader, inside[0], source)
            say(f"{source.name}: read from {inside[0]}, the only folder there")
            return listings
        raise


def _mask_facts(source: Source, split: str, prepared: Split) -> dict[str, Any]:
    """How many images of each class show their object, and how many are expected to."""
    if prepared.masks is None:
        return {}
    has_object = np.array([(mask == OBJECT).any() for mask in prepared.masks])
    counts = [int(has_object[prepared.labels == label].sum()) for label in range(len(source.classes))]
    return {"with_object": counts, "with_object_expected": source.splits[split].get("with_object")}
