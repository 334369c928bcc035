"""The network families by name, and from the description of an architecture to a network. Loads torch to build only."""

import functools
import numbers
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ltpa.core.declared import near_matches
from ltpa.core.errors import ConfigError, ModelError
from ltpa.core.registry import SUFFIX, member
from ltpa.core.schema import read_plain
from ltpa.models import families as folder
from ltpa.models.options import NetworkOptions

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier


@functools.cache
def families() -> tuple[str, ...]:
    """Names of all families: those of the files of `ltpa/models/families`, with - in place of _. Imports none."""
    return tuple(sorted(found.name.replace("_", "-") for found in pkgutil.iter_modules(folder.__path__)))


def family(name: Any) -> type[NetworkOptions]:
    """The declaration of a family. Imports its file and no other family's; `FILE.py` is a family of a user's own.

    Raises:
        ModelError: no family has this name; the message lists near matches.
        ConfigError: a user's file is not trusted, does not run, or defines no `Options` (`ltpa.core.registry`).
    """
    if isinstance(name, str) and name.endswith(SUFFIX):
        return _of_file(name)
    if not isinstance(name, str) or name not in families():
        raise ModelError(f"unknown family {name!r}: {near_matches(str(name), families())}")
    options: type[NetworkOptions] = member(f"{folder.__name__}.{name.replace('-', '_')}:Options")
    return options


def _of_file(name: str) -> type[NetworkOptions]:
    options = member(f"{name}:Options")
    if not (isinstance(options, type) and issubclass(options, NetworkOptions)):
        raise ConfigError(f"{name}: Options is no class derived from NetworkOptions (ltpa.models.options); derive it")
    missing = [key for key in ("builder", "recipes") if not hasattr(options, key)]
    if missing:
        raise ConfigError(f"{name}: Options lacks {' and '.join(missing)}; ltpa.models.options says what they are")
    if ":" not in options.builder:
        options.builder = f"{name}:{options.builder}"
    return options


def parse_options(architecture: Mapping[str, Any]) -> Any:
    """Options of the family that `architecture["family"]` names, checked and completed with defaults.

    Raises:
        ModelError: unknown family or option, or a value that is not possible; the message says what is.
    """
    name = architecture.get("family")
    return read_plain(family(name), architecture, str(name), ModelError)


def code_of(architecture: Mapping[str, Any]) -> list[str]:
    """Where the code lies that builds a network: its options, and the function that makes it of them.

    Raises:
        ModelError: as `parse_options`.
    """
    options = parse_options(architecture)
    if options.family.endswith(SUFFIX):
        return [options.family, options.built_by()]
    return [f"{type(options).__module__}:{type(options).__qualname__}", options.built_by()]


def build_model(architecture: Mapping[str, Any], num_classes: int, image_size: int) -> "AttentionClassifier":
    """A new network in training mode, weights drawn from torch's global random stream.

    Reads no file: `architecture` is what `resolve_architecture` gave, and the same data gives the same network. Under
    `with torch.device("meta")` it has shapes and no weights.

    Raises:
        ModelError: an option, the number of classes or the image size is not possible; the message says what is.
    """
    options = parse_options(architecture)
    num_classes, image_size = _as_int(num_classes), _as_int(image_size)
    options.check_image_size(image_size)
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 2:
        raise ModelError(f"a classifier needs at least 2 classes (a whole number), not {num_classes!r}")
    model: AttentionClassifier = options.build(num_classes, image_size)
    return model


def _as_int(value: Any) -> Any:
    """A whole number of whatever library as an `int`, which a model file can hold; anything else as it is."""
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else value
