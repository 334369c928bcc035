"""The specs of the jobs that draw."""

import dataclasses
from typing import Any

from ltpa.core.specs import Spec


@dataclasses.dataclass(frozen=True)
class FiguresSpec(Spec):
    """Figures of the networks trained on `dataset`.

    `overlays` maps a variant to its `saliency` declaration and `labels` a variant to its title; overlays show `images`
    test images, the first of each class in turn. `published` holds the paper's fooling rates by variant and norm;
    `comparable` says whether those of this scale may be compared with them. `records` are the result records that the
    curves are drawn from, relative to the folder of the scale. `max_error_of_chance` are the limits of
    `ltpa.core.learned`; networks beyond them are named in the figures.
    """

    seeds: list[int]
    images: int
    labels: dict[str, str]
    overlays: dict[str, dict[str, object]]
    published: dict[str, dict[str, float]]
    comparable: bool = False
    records: list[str] = dataclasses.field(default_factory=list)
    max_error_of_chance: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class GallerySpec(Spec):
    """Figures of images and maps, of the networks of one seed.

    `figures` are entries of `config/figures.yaml` by name, with every role replaced by the dataset that plays it
    (`images.datasets`, `columns[].dataset`), and with each network's `label` and `saliency` declaration. `missing`
    says of the figures that are left out what they lack. `max_error_of_chance` are the limits of `ltpa.core.learned`.
    """

    seed: int
    figures: dict[str, dict[str, Any]]
    missing: dict[str, str]
    max_error_of_chance: dict[str, float] = dataclasses.field(default_factory=dict)
