"""Declarations: the YAML files of `config/` that say once what variants, datasets, recipes and tables exist."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ltpa
from ltpa.core.errors import ConfigError


def config_dir() -> Path:
    """Folder of the declarations: `config/` of the checkout, or the copy a wheel carries as `ltpa/_config`.

    Raises:
        ConfigError: neither folder exists.
    """
    package = Path(ltpa.__file__).resolve().parent
    for folder in (package.parent / "config", package / "_config"):
        if (folder / "variants.yaml").is_file():
            return folder
    raise ConfigError(f"no declarations beside {package}; reinstall ltpa, or run from a complete checkout")


def load_declaration(name: str) -> dict[str, Any]:
    """Content of `config/<name>.yaml`, followed by that of every file of the folder `config/<name>/`, if there is one.

    Raises:
        ConfigError: the file is missing, a file is not YAML or holds something else than a mapping, or two files
            declare the same name.
    """
    path = config_dir() / f"{name}.yaml"
    declared = _read_mapping(path)
    for extra in sorted(path.with_suffix("").glob("*.yaml")):
        content = _read_mapping(extra)
        if twice := sorted(declared.keys() & content.keys()):
            raise ConfigError(f"{extra}: {', '.join(twice)} declared elsewhere too; keep one declaration of each")
        declared.update(content)
    return declared


def _read_mapping(path: Path) -> dict[str, Any]:
    import yaml

    from ltpa.core.plain_yaml import parse_yaml

    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read ({error.strerror}); restore it from the repository") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())}); correct it there") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds {type(content).__name__}, not a mapping of names to declarations")
    return content


def unknown_name(kind: str, name: str, known: list[str]) -> str:
    """The text for an unknown name: near matches, or all that exist."""
    return f"unknown {kind} {name!r}; {near_matches(name, known)}"


def near_matches(name: str, known: Iterable[str]) -> str:
    """End of an error message about an unknown `name`: the closest known names, whatever their case, or all of them."""
    names = list(known)
    folded = difflib.get_close_matches(name.casefold(), {each.casefold() for each in names}, n=3, cutoff=0.5)
    close = [each for found in folded for each in names if each.casefold() == found]
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"
