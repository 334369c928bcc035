"""Prepare one dataset: its declared source in, verified arrays and their manifest out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ltpa.core import layout
from ltpa.core.declared import near_matches
from ltpa.core.errors import ConfigError
from ltpa.core.specs import PrepareSpec
from ltpa.data.arrays import Split, write_prepared

Prepared = tuple[list[str], dict[str, Split], dict[str, Any]]
"""Class names, splits, and facts for the manifest."""


def _embedded(name: str, source: dict[str, Any]) -> Prepared:
    from ltpa.data.embedded import generate

    return generate(name, source)


READERS: dict[str, Callable[[str, dict[str, Any]], Prepared]] = {"embedded": _embedded}
"""By the `reader` of a declaration: makes the dataset from its name and declaration."""


def run(spec: PrepareSpec, results: Path) -> None:
    """Make the dataset and write it below `results` (`ltpa.core.layout.data_dir`).

    Raises:
        ConfigError: the declaration names no known reader, or its options are wrong.
        DataError: the source is missing or not what it should be.
    """
    reader = spec.source.get("reader", "")
    if reader not in READERS:
        raise ConfigError(f"dataset {spec.dataset}: unknown reader {reader!r}; {near_matches(reader, READERS)}")
    classes, splits, facts = READERS[reader](spec.dataset, spec.source)
    write_prepared(layout.data_dir(results, spec.dataset), spec.dataset, classes, splits, facts)
