"""Names of a configuration against what is declared, so that a slip is one line before anything runs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ltpa.core.declared import unknown_name
from ltpa.core.errors import ConfigError
from ltpa.data.registry import MAKERS
from ltpa.models.variants import Variant
from ltpa.plan.config import Config
from ltpa.plan.patches import NO_NETWORK
from ltpa.training.recipe import read_recipe

_KINDS = {  # what a key names, where that is not the key itself without its s
    "data": "dataset",
}


class Declared(NamedTuple):
    """What the project declares, each by name."""

    variants: Mapping[str, Variant]
    datasets: Mapping[str, Any]
    recipes: Mapping[str, Any]
    patch_sources: Mapping[str, Any]
    tables: Mapping[str, Any]


def check_names(config: Config, declared: Declared, where: str) -> None:
    """Hold every name that `config` gives against what is declared; `where` is how errors call the configuration.

    Raises:
        ConfigError: a name that is not declared, with near matches; a variant whose family has no recipe; a declared
            recipe that cannot be.
    """
    protocols = config.protocols
    for key, names, known in (
        ("variants", config.variants, declared.variants),
        ("datasets", config.datasets, declared.datasets),
        ("data", config.data, declared.datasets),
        ("tables", config.tables, declared.tables),
        ("protocols.patches.sources", protocols.patches.sources, declared.patch_sources),
        ("recipes", [name for family in config.recipes.values() for name in family.values()], declared.recipes),
    ):
        for name in names:
            if name not in known:
                kind = _KINDS.get(key, key.rpartition(".")[2][:-1])
                raise ConfigError(f"{where}: key {key!r}: {unknown_name(kind, name, list(known))}")
    for source, network in protocols.patches.sources.items():
        if network not in (networks := [NO_NETWORK, *declared.variants]):
            key = f"protocols.patches.sources.{source}"
            raise ConfigError(f"{where}: key {key!r}: {unknown_name('variant', network, networks)}")
    for name in config.variants:
        variant = declared.variants[name]
        if "default" not in config.recipes.get(variant.recipe, {}):
            raise ConfigError(f"{where}: key 'recipes': add {variant.recipe}: {{default: NAME}} for variant {name}")
    groups = sorted({variant.recipe for variant in declared.variants.values()})
    for key, chosen in (("networks", config.scale.networks), ("training", config.scale.training)):
        for group in chosen:
            if group not in groups:
                raise ConfigError(f"{where}: key 'scale.{key}': {unknown_name('group of recipes', group, groups)}")
    for dataset, values in declared.datasets.items():
        for group in values.get("networks", {}):
            if group not in groups:
                text = unknown_name("group of recipes", group, groups)
                raise ConfigError(f"config/datasets: {dataset}: key 'networks': {text}; correct it there")
    _check_choices(config, declared, where)
    for name, values in declared.recipes.items():
        read_recipe(values, f"config/recipes.yaml: {name}")


def _check_choices(config: Config, declared: Declared, where: str) -> None:
    """Refuse a key under `recipes` that names no family, or within one no variant of it, no role and not both."""
    families = sorted({entry.recipe for entry in declared.variants.values()})
    roles = {entry.get("plays", name) for name, entry in declared.datasets.items()}
    for family, choices in config.recipes.items():
        if family not in families:
            raise ConfigError(f"{where}: key 'recipes': {unknown_name('group of recipes', family, families)}")
        variants = {name for name, entry in declared.variants.items() if entry.recipe == family}
        for key in choices.keys() - {"default"} - variants - roles:
            variant, joined, role = key.partition(" on ")
            known, kind, name = (variants, "variant", variant) if variant not in variants else (roles, "role", role)
            if not joined:
                known, kind, name = {"default", *variants, *roles}, "variant or role", key
            elif variant in variants and role in roles:
                continue
            raise ConfigError(f"{where}: key 'recipes.{family}.{key}': {unknown_name(kind, name, sorted(known))}")


def check_options(dataset: str, declared: Mapping[str, Any], where: str) -> None:
    """Refuse settings under `data` that the reader of `dataset`, declared so, does not know.

    Raises:
        ConfigError: naming the configuration and the dataset.
    """
    from ltpa.data.source import Source

    if declared["reader"] in MAKERS:
        raise ConfigError(f"{where}: key 'data': {dataset} is generated and has no options; remove them")
    try:
        chosen = Source.from_declaration(dataset, declared).splits
    except ConfigError as error:
        raise ConfigError(f"{where}: key 'data': {error}") from error
    learned = {"train", "test"}
    if learned <= declared["splits"].keys() and not learned <= chosen.keys():
        raise ConfigError(
            f"{where}: key 'data': dataset {dataset}: option 'splits' is {list(chosen)}; networks learn from train and "
            "are tested on test, so name both"
        )
