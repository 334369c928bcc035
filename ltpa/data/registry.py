"""The declared datasets by name, and the code that each is made by. Loads none of it."""

from typing import Any

from ltpa.core.declared import load_declaration, near_matches
from ltpa.core.errors import ConfigError
from ltpa.core.registry import SUFFIX, Registry, member

EMBEDDED = "embedded"
PREPARER = "ltpa.data.real:prepare_real"
MAKERS = Registry(
    "maker",
    {
        "captioned": "ltpa.data.captioned:generate",
        EMBEDDED: "ltpa.data.embedded:generate",
        "levels": "ltpa.data.levels:generate",
        "scenes": "ltpa.data.scenes:generate",
    },
)
"""By the `reader` of a declaration without files: from a name and a declaration to classes, splits and facts."""
READERS = Registry(
    "reader",
    {
        "action40": "ltpa.data.readers.action40:read",
        "cifar": "ltpa.data.readers.cifar:read",
        "cifar-c": "ltpa.data.readers.cifar_c:read",
        "cub": "ltpa.data.readers.cub:read",
        "dogs": "ltpa.data.readers.dogs:read",
        "folders": "ltpa.data.readers.folders:read",
        "idx": "ltpa.data.readers.idx:read",
        "jpeg-npz": "ltpa.data.readers.jpeg_npz:read",
        "objectdiscovery": "ltpa.data.readers.objectdiscovery:read",
        "stl": "ltpa.data.readers.stl:read",
        "svhn": "ltpa.data.readers.svhn:read",
    },
)
"""By the `reader` of a declaration with files: from a folder and a `Source` to a `Listing` of each split."""


def code_of(reader: str) -> list[str]:
    """Where the code lies that prepares the datasets of a reader; of an unknown one, that of all files."""
    if reader in MAKERS:
        return [MAKERS[reader]]
    if reader.endswith(SUFFIX):
        return [PREPARER, reader]
    return [PREPARER, *([READERS[reader]] if reader in READERS else [])]


def load_reader(reader: str) -> Any:
    """The function `read` of a reader, by its name or of a user's own file `FILE.py`.

    Raises:
        ValueError: there is none of that name; the message names near matches.
        ConfigError: a user's file is not trusted, does not run, or defines no `read` (`ltpa.core.registry`).
    """
    return member(f"{reader}:read") if reader.endswith(SUFFIX) else READERS.load(reader)


def list_datasets() -> list[str]:
    """Names of all datasets of `config/datasets.yaml`, in its order."""
    return list(load_declaration("datasets"))


def dataset_declaration(name: str) -> dict[str, Any]:
    """The declaration of a dataset in `config/datasets.yaml`.

    Raises:
        ConfigError: there is no dataset of that name; the message offers close ones.
    """
    declarations = load_declaration("datasets")
    if name not in declarations:
        raise ConfigError(f"unknown dataset {name!r}; {near_matches(name, declarations)}")
    return declarations[name]
