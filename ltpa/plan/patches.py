"""The patch sources of a configuration: which are possible, and whether checks on their boxes can be made."""

from collections.abc import Callable, Mapping
from typing import Any

from ltpa.core.declared import unknown_name
from ltpa.core.errors import ConfigError
from ltpa.core.patches import RELEASED, STATISTICS, PatchSource
from ltpa.core.schema import read_plain
from ltpa.models.registry import parse_options
from ltpa.models.variants import Variant
from ltpa.plan.config import Config, Patches

NO_NETWORK = "none"


def patch_source(
    name: str, chosen: Patches, declared: Mapping[str, Any], variants: Mapping[str, Variant], where: str
) -> PatchSource:
    """The source of that name as its jobs read it.

    Args:
        name: a source that `chosen.sources` names.
        chosen: the section `protocols.patches` of a configuration.
        declared: `config/patches.yaml`.
        variants: `config/variants.yaml`.
        where: the configuration's name in messages.

    Raises:
        ConfigError: the source and what is put behind it do not go together.
    """
    network = "" if chosen.sources[name] == NO_NETWORK else chosen.sources[name]
    mode = declared[name].get("mode")
    values = {
        **declared[name],
        "network": network,
        "saliency": variants[network].saliency if network else None,
        "released": chosen.released if mode == RELEASED else None,
        "protopnet": chosen.protopnet.model_dump(mode="json") if mode == "protopnet" else None,
    }
    key = f"{where}: key 'protocols.patches.sources.{name}'"
    source = read_plain(PatchSource, values, key)
    if network:
        _check_network(source, variants[network], key)
        layers = parse_options(variants[network].architecture).layers
        if chosen.level and chosen.level not in layers:
            raise ConfigError(
                f"{where}: key 'protocols.patches.level' is {chosen.level!r}: "
                f"{network}, which is behind source {name}, "
                f"has no such layer; use one of {', '.join(layers)}, or leave the key out for the last"
            )
    return source


def _check_network(source: PatchSource, variant: Variant, key: str) -> None:
    """Raise `ConfigError` where the variant makes no saliency map of the kind that the source reads."""
    made_by_cam = source.saliency is not None and source.saliency["source"] == "cam"
    once = parse_options(variant.architecture).single_pass
    possible = {"cam": made_by_cam, "gradcam": once, "attention": source.saliency is not None}
    if not possible.get(source.map, True):
        raise ConfigError(
            f"{key}: {source.network} makes no map {source.map!r}; name another network behind this source"
        )


def check_patch_limits(config: Config, knows: Callable[[str, str], bool], fine_datasets: list[str], where: str) -> None:
    """Refuse limits on boxes that no job extracts or on statistics that none measures.

    Args:
        config: a checked configuration.
        knows: whether a dataset knows the `objects` or the `parts` of its images.
        fine_datasets: the datasets whose boxes are extracted.
        where: the configuration's name in messages.

    Raises:
        ConfigError: naming the limit.
    """
    patches = config.protocols.patches
    needed = {statistic: need for need, statistics in STATISTICS.items() for statistic in statistics}
    for source, limits in patches.limits.items():
        key = f"{where}: key 'protocols.patches.limits"
        if source not in patches.sources:
            raise ConfigError(
                f"{key}': {unknown_name('source of protocols.patches.sources', source, [*patches.sources])}"
            )
        for statistic in limits:
            if statistic not in needed:
                raise ConfigError(f"{key}.{source}': {unknown_name('statistic', statistic, list(needed))}")
            for dataset in fine_datasets if needed[statistic] else []:
                if not knows(dataset, needed[statistic]):
                    raise ConfigError(
                        f"{key}.{source}': {statistic} needs {needed[statistic]}, and {dataset} knows none; "
                        "drop this limit"
                    )
