"""Prepare one dataset: its declared source in, verified arrays and their manifest out."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ltpa.core import layout
from ltpa.core.code import code_hash, save_definitions
from ltpa.core.declared import near_matches
from ltpa.core.errors import ConfigError, DataError
from ltpa.core.hashing import digest
from ltpa.core.registry import SUFFIX, member
from ltpa.core.specs import PrepareSpec
from ltpa.data.arrays import PreparedDataset, write_prepared
from ltpa.data.registry import MAKERS, PREPARER, READERS
from ltpa.data.rows import remove_drafts
from ltpa.runtime.lock import exclusive

_LOCK = ".prepare.lock"


def run(
    spec: PrepareSpec,
    results: Path,
    archives: Sequence[Path] = (),
    extracted: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Make the dataset and write it below `results` (`ltpa.core.layout.data_dir`).

    One process at a time prepares a dataset. Who waited for one that made it of the same declaration is done.

    Args:
        archives: folders searched for archives before anything is downloaded.
        extracted: folder of extracted files, in place of archives.
        say: told what goes on, a line at a time.

    Raises:
        ConfigError: the declaration names no known reader, its options are wrong, or `extracted` is given for a dataset
            without files.
        DataError: the source is missing or not what it should be.
        LtpaError: the folder cannot be written.
    """
    _check_request(spec, extracted)
    folder, waited = layout.data_dir(results, spec.dataset), []

    def wait(holder: str) -> None:
        waited.append(holder)
        say(f"{spec.dataset}: waiting for {holder}, which prepares it")

    with exclusive(folder / _LOCK, wait):
        if waited and extracted is None and _is_made_of(folder, spec):
            say(f"{spec.dataset}: prepared by that process")
        else:
            save_definitions(layout.code_path(results, code_hash(_code(spec))), _code(spec))
            _prepare(spec, folder, layout.downloads_dir(results), archives, extracted, say)


def _check_request(spec: PrepareSpec, extracted: Path | None) -> None:
    reader = spec.source.get("reader", "")
    if reader in MAKERS:
        if extracted is not None:
            raise ConfigError(
                f"dataset {spec.dataset} is made from embedded images, not from files; leave out --extracted"
            )
        return
    if reader not in READERS and not reader.endswith(SUFFIX):
        known = near_matches(reader, [*MAKERS, *READERS])
        raise ConfigError(f"dataset {spec.dataset}: unknown reader {reader!r}; {known}")


def _prepare(
    spec: PrepareSpec,
    folder: Path,
    downloads: Path,
    archives: Sequence[Path],
    extracted: Path | None,
    say: Callable[[str], None],
) -> None:
    made_by = {"config_hash": spec.hash(), "code_hash": code_hash(_code(spec))}
    if spec.source["reader"] in MAKERS:
        classes, splits, facts = MAKERS.load(spec.source["reader"])(spec.dataset, spec.source)
        write_prepared(folder, spec.dataset, classes, splits, {**facts, **made_by, "origin": _origin(spec)})
        return
    origin = _origin(spec) if extracted is None else "extracted files"
    try:
        classes, splits, facts = member(PREPARER)(
            spec.dataset, spec.source, folder, spec.threads, extracted, downloads, archives, say
        )
        write_prepared(folder, spec.dataset, classes, splits, {**facts, **made_by, "origin": origin})
    finally:
        remove_drafts(folder)


def _code(spec: PrepareSpec) -> list[str]:
    """The code that the arrays depend on."""
    return ["ltpa.stages.prepare", *spec.code]


def _origin(spec: PrepareSpec) -> str:
    """What tells arrays made of this declaration from others."""
    return digest(spec.source)


def _is_made_of(folder: Path, spec: PrepareSpec) -> bool:
    """Whether a complete dataset made of this declaration, and not of a user's extracted files, lies there."""
    try:
        return PreparedDataset.open(folder).facts.get("origin") == _origin(spec)
    except DataError:
        return False
