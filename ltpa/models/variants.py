"""The named variants of `config/variants.yaml`, their architectures and networks. Loads torch to build only."""

import fnmatch
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Required

from typing_extensions import TypedDict

from ltpa.core.declared import load_declaration, near_matches
from ltpa.core.errors import ConfigError, LtpaError, ModelError
from ltpa.core.schema import PLAIN, PlainData, read_plain
from ltpa.models.options import NetworkOptions
from ltpa.models.registry import build_model, family, parse_options

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

SOURCE = "config/variants"
_SIZE = "image_size"  # an option of the families whose networks see images of a size of their own


class Saliency(TypedDict, total=False):
    """How a class-agnostic map is made of a network, as plain data."""

    __pydantic_config__ = PLAIN  # type: ignore[misc]

    source: Required[Literal["attention", "cam"]]
    levels: list[str] | None
    sqrt: bool


class Variant(PlainData):
    """One network as declared.

    Attributes:
        label: its name in tables.
        architecture: its options, defaults not filled in.
        saliency: how a class-agnostic map is made of it, or None.
        training: settings laid over its recipe.
        extension: True where the paper has no such network.
        baseline: the variant it is tested against in tables, or None.
    """

    label: str
    architecture: dict[str, Any]
    saliency: Saliency | None = None
    training: dict[str, Any] = {}
    extension: bool = False
    baseline: str | None = None

    @property
    def family(self) -> str:
        """The name of its family."""
        return str(self.architecture.get("family"))

    @property
    def recipe(self) -> str:
        """The group of training recipes that its family takes."""
        return family(self.family).recipes

    @property
    def learning(self) -> str:
        """The kind of training step that its family takes."""
        return family(self.family).learning


@functools.cache
def declared_variants() -> dict[str, Variant]:
    """All variants by name, in the order of `config/variants.yaml` and the files of `config/variants/`.

    Raises:
        ConfigError: an entry lacks a key, has an unknown or wrong one, or names a baseline that is not declared.
    """
    return read_variants(load_declaration("variants"), SOURCE)


def read_variants(
    entries: Mapping[str, Any], where: str, beside: Mapping[str, Variant] | None = None
) -> dict[str, Variant]:
    """Declarations of variants, checked; `where` names their file in messages, `beside` holds those declared elsewhere.

    Raises:
        ConfigError: an entry lacks a key, has an unknown or wrong one, or names a baseline that is not declared.
    """
    variants = {name: read_plain(Variant, entry, f"{where}: {name}") for name, entry in entries.items()}
    known = {**(beside or {}), **variants}
    for name, variant in variants.items():
        if variant.baseline is not None and variant.baseline not in known:
            near = near_matches(variant.baseline, known)
            raise ConfigError(f"{where}: {name}: baseline {variant.baseline!r} is no variant; {near}")
    return variants


def check_architectures(variants: Mapping[str, Variant], where: str) -> None:
    """Refuse a declared variant whose network is not possible; `where` names the file of the declarations.

    Raises:
        ConfigError: naming the variant and the option.
    """
    for name, variant in variants.items():
        try:
            parse_options(variant.architecture)
        except LtpaError as error:
            raise ConfigError(f"{where}: {name}: architecture: {error}; correct it there") from error


def list_models(filter: str = "*", extensions: bool = True) -> list[str]:
    """Names of the variants that fit `filter`, a pattern such as `*att*`, those of the paper first.

    Without `extensions` only those of the paper.
    """
    return [
        name
        for name, variant in declared_variants().items()
        if fnmatch.fnmatchcase(name, filter) and (extensions or not variant.extension)
    ]


def get_variant(name: str) -> Variant:
    """The declaration of one variant.

    Raises:
        ModelError: no variant has this name; the message lists near matches.
    """
    variants = declared_variants()
    if not isinstance(name, str) or name not in variants:
        raise ModelError(f"unknown variant {name!r}: {near_matches(str(name), variants)}")
    return variants[name]


def chosen_saliency(variant: str | Variant, levels: str = "declared", root: str = "declared") -> dict[str, Any] | None:
    """The `saliency` of a variant under a protocol's choices, as plain data; None where it declares none.

    The variant is named, or given as declared.
    Class activation maps have neither levels nor a root and stay as they are.

    Args:
        levels: `declared`, those multiplied in the paper; `last` of them alone; `all` that the network attends to.
        root: `declared`, as the variant says and none of a single level; `always` or `never`.

    Raises:
        ModelError: no variant has this name.
    """
    chosen = variant if isinstance(variant, Variant) else get_variant(variant)
    if chosen.saliency is None:
        return None
    declared: dict[str, Any] = {**chosen.saliency}
    if not declared.get("levels"):
        return declared
    attended = chosen.architecture.get("levels", declared["levels"])
    used = {"declared": declared["levels"], "last": declared["levels"][-1:], "all": attended}[levels]
    roots = {"declared": declared.get("sqrt", False) and len(used) > 1, "always": True, "never": False}
    return {**declared, "levels": list(used), "sqrt": roots[root]}


def check_named(variant: str, options: NetworkOptions) -> None:
    """Refuse options of another network than the declared variant of this name; other names are let through.

    A `pc` network without its dead branch keeps its name.

    Raises:
        ModelError: the first option that differs, here and there.
    """
    declared = declared_variants().get(variant)
    if declared is None:
        return
    own = parse_options(declared.architecture)
    for key in ("family", *own.named_by):
        known = [getattr(each, key) for each in (own, own.without_dead_branch())]
        found = getattr(options, key, None)
        if found not in known:
            raise ModelError(
                f"variant {variant}: {key} is {_text(known[0])}, and this network's is {_text(found)}; take the "
                "variant that has it, or declare one"
            )


def _text(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)


def resolve_architecture(variant: str | Variant, width: float = 1.0, **options: Any) -> dict[str, Any]:
    """Every option of a variant's network as plain JSON data, with `width` and `options` laid over its declaration.

    The variant is named, or given as declared.

    Raises:
        ModelError: unknown variant or option, or a combination that is not possible.
    """
    chosen = variant if isinstance(variant, Variant) else get_variant(variant)
    name, declared = variant if isinstance(variant, str) else chosen.label, chosen.architecture
    if options.get("family", declared["family"]) != declared["family"]:
        raise ModelError(
            f"variant {name}: family is {declared['family']!r}, and no option makes it {options['family']!r}; "
            "take a variant of that family"
        )
    try:
        return parse_options({**declared, "width": width, **options}).plain()
    except ModelError as error:
        raise ModelError(f"variant {name}: {error}") from error


def create_model(
    variant: str, num_classes: int, image_size: int = 32, width: float = 1.0, **options: Any
) -> "AttentionClassifier":
    """A new network of a named variant, in training mode; seed it with `torch.manual_seed`.

    Args:
        variant: a name of `list_models()`.
        num_classes: number of classes T.
        image_size: side of the square images in pixels; the smallest possible one is the family's `smallest_image`.
            Two-stream networks are published for 448.
        width: factor on every channel count.
        options: further options of the variant's family, see `ltpa/models/families`.

    Raises:
        ModelError: unknown variant (near matches are listed), or options that are not possible.
    """
    return build_model(sized_architecture(variant, image_size, width, **options), num_classes, image_size)


def published_size(variant: str) -> int:
    """Side of the images that a variant's network is published for, in pixels."""
    own = family(get_variant(variant).family).model_fields.get(_SIZE)
    return 32 if own is None else int(own.default)


def sized_architecture(variant: str, image_size: int, width: float = 1.0, **options: Any) -> dict[str, Any]:
    """`resolve_architecture`, with the image size in it where the family states the size of its images itself."""
    if _SIZE in family(get_variant(variant).family).model_fields:
        options[_SIZE] = image_size
    return resolve_architecture(variant, width, **options)
