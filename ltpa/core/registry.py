"""Members of the package that are found by a name: readers of datasets, families of networks."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from ltpa.core.declared import near_matches


def member(place: str) -> Any:
    """What lies at `package.module:attribute`; the module is imported."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Registry(Mapping[str, str]):
    """Names, and the place of each one's code as `package.module:attribute`, which is imported when it is asked for.

    A job depends on the members that its spec names and on no others (`ltpa.core.code`): a module's
    `NAME = Registry(...)` is left out of the module's own hash, so that one more member changes nothing for the others.
    """

    def __init__(self, kind: str, places: Mapping[str, str]) -> None:
        self.kind, self._places = kind, dict(places)

    def __getitem__(self, name: str) -> str:
        return self._places[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def load(self, name: Any) -> Any:
        """The member of that name.

        Raises:
            ValueError: there is none; the message names near matches.
        """
        if not isinstance(name, str) or name not in self._places:
            raise ValueError(f"unknown {self.kind} {name!r}: {near_matches(str(name), self._places)}")
        return member(self._places[name])
