"""Names of a configuration against what is declared, so that a slip is one line before anything runs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ltpa.core.config import Config, unknown_name
from ltpa.core.errors import ConfigError
from ltpa.models.variants import resolve_architecture
from ltpa.plan.patches import NO_NETWORK
from ltpa.training.recipe import Recipe

_KINDS = {  # what a key names, where that is not the key itself without its s
    "data": "dataset",
    "protocols.maps.controls_with": "variant",
    "protocols.fgsm.transferred": "variant",
}


class Declared(NamedTuple):
    """What the project declares, each by name."""

    variants: Mapping[str, Any]
    datasets: Mapping[str, Any]
    recipes: Mapping[str, Any]
    patch_sources: Mapping[str, Any]
    tables: Mapping[str, Any]


def check_names(config: Config, declared: Declared, where: str) -> None:
    """Hold every name that `config` gives against what is declared; `where` is how errors call the configuration.

    Raises:
        ConfigError: a name that is not declared, with near matches; a variant whose family has no recipe; a declared
            recipe that cannot be; a query for a network without a global vector.
    """
    protocols = config.protocols
    transferred = [name for pair in protocols.fgsm.transferred.items() for name in pair]
    for key, names, known in (
        ("variants", config.variants, declared.variants),
        ("datasets", config.datasets, declared.datasets),
        ("data", config.data, declared.datasets),
        ("tables", config.tables, declared.tables),
        ("protocols.query.variants", protocols.query.variants, declared.variants),
        ("protocols.patches.sources", protocols.patches.sources, declared.patch_sources),
        ("protocols.maps.controls_with", [protocols.maps.controls_with], declared.variants),
        (
            "protocols.fgsm.transferred",
            transferred,
            declared.variants,
        ),
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
        family = declared.variants[name]["recipe"]
        if "default" not in config.recipes.get(family, {}):
            raise ConfigError(f"{where}: key 'recipes': add {family}: {{default: NAME}} for variant {name}")
    for name, values in declared.recipes.items():
        Recipe.from_dict(values, f"config/recipes.yaml: {name}")
    _check_queries(protocols.query.variants, where)


def _check_queries(variants: list[str], where: str) -> None:
    for name in variants:
        options = resolve_architecture(name)
        attends = bool(options.get("levels")) and options["compatibility"] != "local"
        if not attends and options["family"] != "vgg-pan":
            raise ConfigError(
                f"{where}: key 'protocols.query.variants': {name} has no global vector that another image could give; "
                "name a network with pc, dp or tanh attention"
            )


def check_options(dataset: str, declared: Mapping[str, Any], where: str) -> None:
    """Refuse settings under `data` that the reader of `dataset`, declared so, does not know.

    Raises:
        ConfigError: naming the configuration and the dataset.
    """
    from ltpa.data.source import Source

    if declared["reader"] == "embedded":
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
