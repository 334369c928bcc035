"""The declared datasets by name."""

from typing import Any

from ltpa.core.declared import load_declaration, near_matches
from ltpa.core.errors import ConfigError


def list_datasets() -> list[str]:
    """Names of all datasets of `config/datasets.yaml`, in its order."""
    return list(load_declaration("datasets"))


def dataset_declaration(name: str) -> dict[str, Any]:
    """What `config/datasets.yaml` says about a dataset.

    Raises:
        ConfigError: there is no dataset of that name; the message offers close ones.
    """
    declared = load_declaration("datasets")
    if name not in declared:
        raise ConfigError(f"unknown dataset {name!r}; {near_matches(name, declared)}")
    return declared[name]
