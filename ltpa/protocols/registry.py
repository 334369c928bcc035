"""Which protocols there are: every module of this package that defines one, and files that a configuration names."""

import functools
import importlib
import inspect
import pkgutil
from types import ModuleType

import ltpa.protocols
from ltpa.core.errors import ConfigError
from ltpa.core.registry import run_file, trust
from ltpa.protocols.base import Protocol

_OTHERS = ("base", "registry")


@functools.cache
def built_in() -> tuple[str, ...]:
    """Names of the protocols of this package, sorted."""
    names = (module.name for module in pkgutil.iter_modules(ltpa.protocols.__path__))
    return tuple(sorted(name for name in names if name not in _OTHERS))


def module_name(name: str) -> str:
    """The module of a protocol of this package."""
    return f"ltpa.protocols.{name}"


def has_checks(protocol: Protocol) -> bool:
    """Whether the checks of a scale look at a protocol's records."""
    return type(protocol).checks is not Protocol.checks


@functools.cache
def find(name: str, file: str = "") -> Protocol:
    """The protocol called `name`: of this package, or of a user's `file`, whose code then runs.

    Raises:
        ConfigError: the file is missing, does not run, or does not define exactly this protocol.
    """
    if not file:
        return _defined(importlib.import_module(module_name(name)), module_name(name))
    trust([file])
    protocol = _defined(run_file(file), file)
    if protocol.name != name:
        raise ConfigError(f"{file}: defines protocol {protocol.name!r}, not {name!r}; give both one name")
    return protocol


def _defined(module: ModuleType, where: str) -> Protocol:
    kinds = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Protocol) and kind.__module__ == module.__name__
    ]
    if len(kinds) != 1:
        raise ConfigError(f"{where}: defines {len(kinds)} protocols; define one class derived from Protocol")
    missing = [key for key in ("name", "title", "about", "metrics") if not hasattr(kinds[0], key)]
    if missing or inspect.isabstract(kinds[0]):
        raise ConfigError(f"{where}: {kinds[0].__name__} lacks {', '.join(missing) or 'measure'}; add it")
    protocol: Protocol = kinds[0]()
    return protocol
