"""Starting a network from another one's weights, as the paper does for birds from CIFAR-100 (appendix A.3)."""

from collections.abc import Collection

from ltpa.core.errors import ModelError
from ltpa.models.base import AttentionClassifier

_NOT_COPIED = ("head.", "preprocessing.")
# Options that change neither the weights' shapes nor what a forward pass in evaluation makes of them; pools do, but the
# paper's networks for birds differ in them from those they start from.
_MAY_DIFFER = frozenset({"pools", "dropout", "bn_weight", "u_std", "legacy_grad_avg", "prediction"})


def warm_start(model: AttentionClassifier, source: AttentionClassifier) -> None:
    """Give `model` the weights of `source` that it starts from: all but the head, or what its class says.

    The two may differ in number of classes, image size and pools, and in options that concern training alone. Running
    statistics of batch normalisation are copied, too. For attention networks the head is what follows the attended
    vectors: batch normalisation and linear layer.

    Raises:
        ModelError: the two are not of the same variant and width, or not what the class of `model` asks for.
    """
    if not model.start_from(source):
        refuse_differences(model, source, _MAY_DIFFER)
        take(model, source, but=_NOT_COPIED)


def refuse_differences(model: AttentionClassifier, source: AttentionClassifier, may_differ: Collection[str]) -> None:
    """Raise `ModelError` where two architectures differ in an option that is not among `may_differ`."""
    own, other = model.architecture, source.architecture
    compared = ["family"] if own["family"] != other["family"] else [key for key in own if key not in may_differ]
    if differing := [
        f"{key} is {own[key]!r} here and {other[key]!r} there" for key in compared if own[key] != other[key]
    ]:
        raise ModelError(
            f"cannot start a {own['family']} network from this {other['family']} one: {', '.join(differing)}; "
            "use a source of the same variant and width"
        )


def take(model: AttentionClassifier, source: AttentionClassifier, only: str = "", but: tuple[str, ...] = ()) -> None:
    """Copy the tensors of `source` whose names begin with `only` and with none of `but` into `model`."""
    weights = {n: v for n, v in source.state_dict().items() if n.startswith(only) and not n.startswith(but)}
    model.load_state_dict(weights, strict=False)
