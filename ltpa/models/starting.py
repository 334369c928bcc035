"""Starting a network from another one's weights, as the paper does for birds from CIFAR-100 (appendix A.3)."""

from ltpa.core.errors import ModelError
from ltpa.models.base import AttentionClassifier

_NOT_COPIED = ("head.", "preprocessing.")


def warm_start(model: AttentionClassifier, source: AttentionClassifier) -> None:
    """Copy all of `source` but its head into `model`, running statistics of batch normalisation included.

    The two may differ in number of classes, image size and pools. For attention networks the head is what follows
    the attended vectors: batch normalisation and linear layer.

    Raises:
        ModelError: the two are not of the same variant and width.
    """
    weights = {name: value for name, value in source.state_dict().items() if not name.startswith(_NOT_COPIED)}
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(_NOT_COPIED)}
    differing = sorted(
        name for name in weights.keys() | own.keys()
        if name not in weights or name not in own or weights[name].shape != own[name].shape
    )  # fmt: skip
    if differing:
        raise ModelError(
            f"cannot start a {model.architecture['family']} network from a {source.architecture['family']} one: "
            f"{len(differing)} tensors differ, first {differing[0]}; use a source of the same variant and width"
        )
    model.load_state_dict(weights, strict=False)
