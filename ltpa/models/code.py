"""Which of the families' code a network needs. Loads no torch."""

from collections.abc import Mapping
from typing import Any

from ltpa.core.registry import SUFFIX
from ltpa.models.registry import parse_options


def code_of(architecture: Mapping[str, Any]) -> list[str]:
    """Where the code lies that builds a network: its options, and the function that makes it of them.

    Raises:
        ModelError: the architecture is not possible.
    """
    options = parse_options(architecture)
    if options.family.endswith(SUFFIX):
        return [options.family, options.built_by()]
    return [f"{type(options).__module__}:{type(options).__qualname__}", options.built_by()]
