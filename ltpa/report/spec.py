"""The spec of the figures job."""

import dataclasses

from ltpa.core.specs import Spec


@dataclasses.dataclass(frozen=True)
class FiguresSpec(Spec):
    """Figures of the networks trained on `dataset`.

    `overlays` maps a variant to its `saliency` declaration and `labels` a variant to its title; overlays show `images`
    test images, the first of each class in turn. `published` holds the paper's fooling rates by variant and norm.
    """

    seeds: list[int]
    images: int
    labels: dict[str, str]
    overlays: dict[str, dict[str, object]]
    published: dict[str, dict[str, float]]
