"""Prepare one dataset: its declared source in, verified arrays and their manifest out."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ltpa.core import layout
from ltpa.core.declared import near_matches
from ltpa.core.errors import ConfigError
from ltpa.core.specs import PrepareSpec
from ltpa.data.arrays import write_prepared
from ltpa.data.rows import remove_drafts

EMBEDDED = "embedded"


def run(
    spec: PrepareSpec,
    results: Path,
    archives: Sequence[Path] = (),
    extracted: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Make the dataset and write it below `results` (`ltpa.core.layout.data_dir`).

    Args:
        archives: folders searched for archives before anything is downloaded.
        extracted: folder of extracted files, in place of archives.
        say: told what goes on, a line at a time.

    Raises:
        ConfigError: the declaration names no known reader, its options are wrong, or `extracted` is given for a dataset
            without files.
        DataError: the source is missing or not what it should be.
    """
    reader = spec.source.get("reader", "")
    if reader != EMBEDDED:
        _prepare_real(spec, reader, results, archives, extracted, say)
        return
    if extracted is not None:
        raise ConfigError(f"dataset {spec.dataset} is made from embedded images, not from files; leave out --extracted")
    from ltpa.data.embedded import generate

    classes, splits, facts = generate(spec.dataset, spec.source)
    write_prepared(layout.data_dir(results, spec.dataset), spec.dataset, classes, splits, facts)


def _prepare_real(
    spec: PrepareSpec,
    reader: str,
    results: Path,
    archives: Sequence[Path],
    extracted: Path | None,
    say: Callable[[str], None],
) -> None:
    from ltpa.data.readers import READERS
    from ltpa.data.real import prepare_real

    if reader not in READERS:
        known = near_matches(reader, [EMBEDDED, *READERS])
        raise ConfigError(f"dataset {spec.dataset}: unknown reader {reader!r}; {known}")
    folder, downloads = layout.data_dir(results, spec.dataset), layout.downloads_dir(results)
    try:
        classes, splits, facts = prepare_real(
            spec.dataset, spec.source, folder, spec.threads, extracted, downloads, archives, say
        )
        write_prepared(folder, spec.dataset, classes, splits, facts)
    finally:
        remove_drafts(folder)
