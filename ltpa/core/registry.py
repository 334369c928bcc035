"""Members of the package, and of users' own files, that are found by a name: readers, families, protocols."""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ltpa.core.declared import near_matches
from ltpa.core.errors import ConfigError
from ltpa.core.hashing import sha256_file

SUFFIX = ".py"
_trusted: set[str] = set()


def trust(places: Iterable[str]) -> None:
    """Let code run from the files among `places`, which a configuration or a spec names (`FILE.py` or `FILE.py:name`).

    A file of a network may name such code, too, and is no reason to run it.
    """
    _trusted.update(file for place in places if (file := place.partition(":")[0]).endswith(SUFFIX))


def member(place: str) -> Any:
    """What lies at `package.module:attribute`, or at `FILE.py:attribute` of a trusted file; the module is imported.

    Raises:
        ConfigError: the file is not trusted, is missing, does not run, or lacks the attribute.
    """
    module, _, attribute = place.partition(":")
    if not module.endswith(SUFFIX):
        loaded = sys.modules.get(module) or importlib.import_module(module)  # a plan asks 100,000 times
        return getattr(loaded, attribute)
    try:
        return getattr(run_file(module), attribute)
    except AttributeError as error:
        raise ConfigError(f"{module}: defines no {attribute}; add it") from error


def run_file(name: str) -> ModuleType:
    """The module that a user's file defines; it runs once for each content.

    Raises:
        ConfigError: the file is not trusted, is missing, or does not run.
    """
    if name not in _trusted:
        raise ConfigError(
            f"{name}: code of a file runs only where a configuration names it; declare what it defines under 'own'"
        )
    try:
        return _run(name, sha256_file(Path(name)))
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read ({error.strerror}); correct the path") from error


@functools.cache
def _run(name: str, sha256: str) -> ModuleType:
    path = Path(name)
    module_name = f"ltpa_user_{path.stem}_{sha256[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: not a Python file; name one that ends in {SUFFIX}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError, NameError, AttributeError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{path}: does not run ({type(error).__name__}: {text}); correct it") from error
    return module


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
