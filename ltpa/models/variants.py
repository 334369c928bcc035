"""The named variants of `config/variants.yaml` and their resolved architectures. Free of torch."""

import dataclasses
import functools
from typing import Any

from ltpa.core.declared import load_declaration, near_matches
from ltpa.core.errors import ConfigError, ModelError
from ltpa.models.options import parse_options


@dataclasses.dataclass(frozen=True)
class Variant:
    """One network as declared.

    Attributes:
        label: its name in tables.
        recipe: family of its training routine, `vgg` or `resnet`.
        training: settings laid over that routine's recipe.
        architecture: its options, defaults not filled in.
        saliency: how a class-agnostic map is made of it, or None.
        extension: True where the paper has no such network.
        baseline: the variant it is tested against in tables, or None.
    """

    label: str
    recipe: str
    architecture: dict[str, Any]
    saliency: dict[str, Any] | None
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    extension: bool = False
    baseline: str | None = None


@functools.cache
def declared_variants() -> dict[str, Variant]:
    """All variants by name, in the order of `config/variants.yaml`.

    Raises:
        ConfigError: an entry lacks a key, has an unknown one, or names a baseline that is not declared.
    """
    variants = {}
    for name, entry in load_declaration("variants").items():
        try:
            variants[name] = Variant(**entry)
        except TypeError as error:
            raise ConfigError(f"config/variants.yaml: {name}: {error}") from error
    for name, variant in variants.items():
        if variant.baseline is not None and variant.baseline not in variants:
            known = near_matches(variant.baseline, variants)
            raise ConfigError(f"config/variants.yaml: {name}: baseline {variant.baseline!r} is no variant; {known}")
    return variants


def list_models(extensions: bool = True) -> list[str]:
    """Names of all variants, those of the paper first; without `extensions` only those of the paper."""
    return [name for name, variant in declared_variants().items() if extensions or not variant.extension]


def get_variant(name: str) -> Variant:
    """The declaration of one variant.

    Raises:
        ModelError: no variant has this name; the message lists near matches.
    """
    variants = declared_variants()
    if not isinstance(name, str) or name not in variants:
        raise ModelError(f"unknown variant {name!r}: {near_matches(str(name), variants)}")
    return variants[name]


def chosen_saliency(variant: str, levels: str = "declared", root: str = "declared") -> dict[str, Any] | None:
    """A variant's `saliency` under a protocol's choices, as plain data; None where it declares none.

    Class activation maps have neither levels nor a root and stay as they are.

    Args:
        levels: `declared`, those multiplied in the paper; `last` of them alone; `all` that the network attends to.
        root: `declared`, as the variant says and none of a single level; `always` or `never`.

    Raises:
        ModelError: no variant has this name.
    """
    declared = get_variant(variant).saliency
    if declared is None or not declared.get("levels"):
        return declared
    attended = get_variant(variant).architecture.get("levels", declared["levels"])
    used = {"declared": declared["levels"], "last": declared["levels"][-1:], "all": attended}[levels]
    roots = {"declared": declared.get("sqrt", False) and len(used) > 1, "always": True, "never": False}
    return {**declared, "levels": list(used), "sqrt": roots[root]}


def resolve_architecture(variant: str, width: float = 1.0, **options: Any) -> dict[str, Any]:
    """Every option of a variant's network as plain JSON data, with `width` and `options` laid over its declaration.

    Raises:
        ModelError: unknown variant or option, or a combination that is not possible.
    """
    declared = get_variant(variant).architecture
    if options.get("family", declared["family"]) != declared["family"]:
        raise ModelError(
            f"variant {variant}: family is {declared['family']!r}, and no option makes it {options['family']!r}; "
            "take a variant of that family"
        )
    try:
        return parse_options({**declared, "width": width, **options}).plain()
    except ModelError as error:
        raise ModelError(f"variant {variant}: {error}") from error
