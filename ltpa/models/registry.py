"""From a name, or from a resolved architecture, to a network."""

import numbers
from collections.abc import Mapping
from typing import Any

from torch import nn

from ltpa.core.errors import ModelError
from ltpa.core.registry import member
from ltpa.models.base import AttentionClassifier
from ltpa.models.options import parse_options
from ltpa.models.variants import resolve_architecture


def build_model(architecture: Mapping[str, Any], num_classes: int, image_size: int) -> AttentionClassifier:
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
    model: AttentionClassifier = member(options.built_by())(options, num_classes, image_size)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p *= options.dropout
    model.reset_parameters()
    return model


def _as_int(value: Any) -> Any:
    """A whole number of whatever library as an `int`, which a model file can hold; anything else as it is."""
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else value


def create_model(
    variant: str, num_classes: int, image_size: int = 32, width: float = 1.0, **options: Any
) -> AttentionClassifier:
    """A new network of a named variant, in training mode; seed it with `torch.manual_seed`.

    Args:
        variant: a name of `list_models()`.
        num_classes: number of classes T.
        image_size: side of the square images in pixels; the smallest possible one is the family's `smallest_image`.
        width: factor on every channel count.
        options: further options of the variant's family, see `ltpa.models.options`.

    Raises:
        ModelError: unknown variant (near matches are listed), or options that are not possible.
    """
    return build_model(resolve_architecture(variant, width, **options), num_classes, image_size)
