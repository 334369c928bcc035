"""Starting a network from another one's weights, as the paper does for birds from CIFAR-100 (appendix A.3)."""

from ltpa.core.errors import ModelError
from ltpa.models.base import AttentionClassifier

_NOT_COPIED = ("head.", "preprocessing.")
# Options that change neither the weights' shapes nor what a forward pass in evaluation makes of them; pools do, but the
# paper's networks for birds differ in them from those they start from.
_MAY_DIFFER = frozenset({"pools", "dropout", "bn_weight", "u_std", "legacy_grad_avg", "prediction"})


def warm_start(model: AttentionClassifier, source: AttentionClassifier) -> None:
    """Copy all of `source` but its head into `model`, running statistics of batch normalisation included.

    The two may differ in number of classes, image size and pools, and in options that concern training alone. For
    attention networks the head is what follows the attended vectors: batch normalisation and linear layer.

    Raises:
        ModelError: the two are not of the same variant and width.
    """
    own, other = model.architecture, source.architecture
    compared = ["family"] if own["family"] != other["family"] else [key for key in own if key not in _MAY_DIFFER]
    if differing := [
        f"{key} is {own[key]!r} here and {other[key]!r} there" for key in compared if own[key] != other[key]
    ]:
        raise ModelError(
            f"cannot start a {own['family']} network from this {other['family']} one: {', '.join(differing)}; "
            "use a source of the same variant and width"
        )
    weights = {name: value for name, value in source.state_dict().items() if not name.startswith(_NOT_COPIED)}
    model.load_state_dict(weights, strict=False)
