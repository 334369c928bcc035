"""Which protocols there are: every module of this package that defines one, and files that a configuration names."""

import functools
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import ltpa.protocols
from ltpa.core.errors import ConfigError
from ltpa.core.hashing import sha256_file
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
    protocol = _defined(_run(Path(file)), file)
    if protocol.name != name:
        raise ConfigError(f"{file}: defines protocol {protocol.name!r}, not {name!r}; give both one name")
    return protocol


def _run(path: Path) -> ModuleType:
    try:
        name = f"ltpa_user_{path.stem}_{sha256_file(path)[:12]}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{path}: not a Python file; name one that ends in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); correct the path") from error
    except (SyntaxError, ImportError, NameError, AttributeError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{path}: does not run ({type(error).__name__}: {text}); correct it") from error
    return module


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
