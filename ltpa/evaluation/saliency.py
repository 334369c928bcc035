"""From a network's maps to one saliency map per image (paper section 5.4 and appendix A.4).

How a variant's maps combine is declared with it (`saliency` in `config/variants.yaml`): the product of the maps of some
attention levels, then the square root for the paper's networks and none for PAN; or the class activation map of GAP.
Maps are first brought to one size by interpolation (`Masking`), bilinear by default.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch.nn import functional

from ltpa.core.errors import ConfigError, ModelError, NotFiniteError
from ltpa.evaluation.inference import attention_maps, class_activation_maps

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

CAM = "cam"
UPSAMPLING = {"bilinear": "bilinear", "nearest": "nearest-exact", "bicubic": "bicubic"}


@dataclasses.dataclass(frozen=True)
class Masking:
    """How a map becomes a binary mask of an image's size.

    Attributes:
        upsampling: a key of `UPSAMPLING`; the paper does not name its method.
        threshold: None for Otsu's (the paper's), or the share of the map's range above which a pixel is marked.
    """

    upsampling: str = "bilinear"
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.upsampling not in UPSAMPLING:
            raise ConfigError(f"segmentation: upsampling is {self.upsampling!r}; use {', '.join(UPSAMPLING)}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(
                f"segmentation: threshold is {self.threshold!r}; use a share from 0 to 1, or null for Otsu's"
            )


@dataclasses.dataclass(frozen=True)
class Saliency:
    """How one map per image is made.

    Attributes:
        source: `attention`, or `cam` for the class activation map, whose only level is called `cam`.
        levels: the attention levels multiplied.
        sqrt: take the square root of the product.
    """

    source: str
    levels: Sequence[str] = ()
    sqrt: bool = False

    @classmethod
    def from_declaration(cls, declared: dict[str, Any] | None, stage: str) -> Self:
        """Read a variant's `saliency`.

        Raises:
            ConfigError: the variant declares none, an unknown source or key, or attention without levels.
        """
        if declared is None:
            raise ConfigError(f"{stage}: this variant declares no saliency map; leave it out of this stage")
        try:
            saliency = cls(**declared)
        except TypeError as error:
            raise ConfigError(f"{stage}: saliency {declared!r} is not {{source, levels, sqrt}}: {error}") from error
        if saliency.source not in ("attention", CAM):
            raise ConfigError(f"{stage}: saliency source is {saliency.source!r}; use attention or {CAM}")
        if (saliency.source == CAM) == bool(saliency.levels):
            raise ConfigError(f"{stage}: saliency source {saliency.source} with levels {list(saliency.levels)}")
        return saliency

    def maps(
        self, model: "AttentionClassifier", images: np.ndarray, batch_size: int, class_id: int | None = None
    ) -> dict[str, np.ndarray]:
        """All maps of the network by level, each (N, h, w) float32.

        `class_id` chooses the class of a class activation map, None each image's predicted class; attention needs none.
        """
        if self.source == CAM:
            return {CAM: class_activation_maps(model, images, batch_size, class_id)}
        return attention_maps(model, images, batch_size)

    def combine(self, levels: dict[str, np.ndarray]) -> np.ndarray:
        """One map per image, (N, H, W) float64, from maps by level that all have this size.

        Raises:
            ModelError: the network lacks a level.
        """
        used = (CAM,) if self.source == CAM else self.levels
        missing = [name for name in used if name not in levels]
        if missing:
            raise ModelError(f"saliency needs level {missing[0]}; the network has {', '.join(levels)}")
        product = levels[used[0]].astype(np.float64)
        for name in used[1:]:
            product *= levels[name]
        return np.sqrt(product) if self.sqrt else product


def upsample(maps: np.ndarray, size: tuple[int, int], method: str = "bilinear") -> np.ndarray:
    """Maps (N, h, w) brought to (N, H, W) float64 by interpolation between cell centres, within each map's range.

    `method` is a key of `UPSAMPLING`.

    Raises:
        NotFiniteError: a map is not finite.
    """
    if not np.isfinite(maps).all():
        bad = int((~np.isfinite(maps)).any(axis=(1, 2)).sum())
        raise NotFiniteError(f"its maps of {bad} of {len(maps)} images are not finite; retrain the network")
    stack = torch.from_numpy(np.asarray(maps, dtype=np.float64))[:, None]
    aligned = {} if method == "nearest" else {"align_corners": False}
    enlarged = functional.interpolate(stack, size, mode=UPSAMPLING[method], **aligned)
    if method == "bicubic":  # overshoots; a product of maps, or its root, wants none below zero
        enlarged = enlarged.clamp(stack.amin(dim=(2, 3), keepdim=True), stack.amax(dim=(2, 3), keepdim=True))
    return enlarged[:, 0].numpy()
