"""From a network's maps to one saliency map per image (paper section 5.4 and appendix A.4).

How a variant's maps combine is declared with it (`saliency` in `config/variants.yaml`): the product of the maps of some
attention levels, then the square root for the paper's networks and none for PAN; or the class activation map of GAP.
Maps are first brought to one size by interpolation (`Masking`), bilinear by default.

Attention stays in logarithms until all levels are combined: softmax weights are often nearly one-hot, and their product
would underflow to a map that is zero everywhere. A combined map is scaled to a maximum of 1, which moves no score.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch.nn import functional

from ltpa.core.errors import ConfigError, ModelError, NotFiniteError
from ltpa.evaluation.inference import class_activation_maps, log_attention_maps

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

CAM = "cam"
COMBINED = "combined"
_LEAST = -600.0  # exp of it, and differences of such numbers, are far from denormal: flushing those changes no bit
UPSAMPLING = {"bilinear": "bilinear", "nearest": "nearest-exact", "bicubic": "bicubic"}


@dataclasses.dataclass(frozen=True)
class Masking:
    """How a map becomes a binary mask of an image's size.

    Attributes:
        upsampling: a key of `UPSAMPLING`; the paper does not name its method.
        threshold: None for Otsu's (the paper's), or the share of the map's range above which a pixel is marked.
    """

    upsampling: str
    threshold: float | None


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
        self,
        model: "AttentionClassifier",
        images: np.ndarray,
        batch_size: int,
        class_id: int | None = None,
        queries: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """All maps of the network by level, each (N, h, w): logarithms of attention, or class activation maps.

        `class_id` chooses the class of a class activation map, None each image's predicted class; attention needs none.
        With `queries` attention is that under their global vectors.
        """
        if self.source == CAM:
            return {CAM: class_activation_maps(model, images, batch_size, class_id)}
        return log_attention_maps(model, images, batch_size, queries)

    def at(
        self, levels: dict[str, np.ndarray], size: tuple[int, int], method: str = "bilinear"
    ) -> dict[str, np.ndarray]:
        """What `maps` gave at one size, (N, H, W) float64 by level, and `combined`.

        Attention maps are scaled to a maximum of 1.

        Raises:
            ModelError: the network lacks a level.
            NotFiniteError: a map is not finite.
        """
        used = (CAM,) if self.source == CAM else self.levels
        missing = [name for name in used if name not in levels]
        if missing:
            raise ModelError(f"saliency needs level {missing[0]}; the network has {', '.join(levels)}")
        if self.source == CAM:
            maps = upsample(levels[CAM], size, method)
            return {CAM: maps, COMBINED: maps}
        logs = {name: upsample_logarithms(each, size, method) for name, each in levels.items()}
        product = np.sum([logs[name] for name in used], axis=0)
        found = {**logs, COMBINED: product / 2 if self.sqrt else product}
        return {name: np.exp(np.maximum(each - _peaks(each), _LEAST)) for name, each in found.items()}


def _peaks(logs: np.ndarray) -> np.ndarray:
    """The maximum of each map, (N, 1, 1); 0 for a map of weights that are all zero."""
    peaks = logs.max(axis=(1, 2), keepdims=True)
    return np.where(np.isneginf(peaks), 0, peaks)


def upsample(maps: np.ndarray, size: tuple[int, int], method: str = "bilinear") -> np.ndarray:
    """Maps (N, h, w) brought to (N, H, W) float64 by interpolation between cell centres, within each map's range.

    `method` is a key of `UPSAMPLING`.

    Raises:
        NotFiniteError: a map is not finite.
    """
    _check_finite(np.isfinite(maps))
    stack = torch.from_numpy(np.asarray(maps, dtype=np.float64))[:, None]
    enlarged = _interpolate(stack, size, method)
    if method == "bicubic":  # overshoots; a product of maps, or its root, wants none below zero
        enlarged = enlarged.clamp(stack.amin(dim=(2, 3), keepdim=True), stack.amax(dim=(2, 3), keepdim=True))
    return enlarged[:, 0].numpy()


def upsample_logarithms(logs: np.ndarray, size: tuple[int, int], method: str = "bilinear") -> np.ndarray:
    """The logarithm of `upsample(exp(logs))`, (N, H, W) float64, for maps whose weights may be too small for exp.

    Raises:
        NotFiniteError: a logarithm is not a number, or infinite without being that of a weight of zero.
    """
    _check_finite(np.isfinite(logs) | np.isneginf(logs))
    stack = torch.from_numpy(np.asarray(logs, dtype=np.float64))
    references, factors = _along_rows(stack, torch.ones_like(stack), _weights(stack.shape[2], size[1], method))
    turned = _along_rows(references.mT, factors.mT, _weights(stack.shape[1], size[0], method))
    references, factors = turned[0].mT, turned[1].mT
    enlarged = references + factors.clamp(min=0).log()
    return enlarged.clamp(stack.amin(dim=(1, 2), keepdim=True), stack.amax(dim=(1, 2), keepdim=True)).numpy()


def _along_rows(
    references: torch.Tensor, factors: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Interpolate values `factors * exp(references)` along the last axis, and give the result in the same form.

    Each result has the largest reference of the cells that it is made of, so that none of them overflows, and those
    that underflow are negligible. `weights` (W, w) are those of the w cells for each of W results.
    """
    taps = int((weights != 0).sum(dim=1).max())
    chosen = weights.abs().topk(taps, dim=1).indices
    weight = weights.gather(1, chosen)
    found = references[..., chosen].where(weight != 0, -torch.inf)
    reference = found.amax(dim=-1)
    scale = (found - reference.nan_to_num(neginf=0)[..., None]).exp()
    return reference, (weight * factors[..., chosen] * scale).sum(dim=-1)


def _weights(cells: int, pixels: int, method: str) -> torch.Tensor:
    """The weights (pixels, cells) float64 with which `upsample` makes a row of pixels of a row of cells."""
    rows = torch.eye(cells, dtype=torch.float64)[:, None, None]
    return _interpolate(rows, (1, pixels), method)[:, 0, 0].T


def _interpolate(stack: torch.Tensor, size: tuple[int, int], method: str) -> torch.Tensor:
    aligned = {} if method == "nearest" else {"align_corners": False}
    return functional.interpolate(stack, size, mode=UPSAMPLING[method], **aligned)


def _check_finite(cells: np.ndarray) -> None:
    if not cells.all():
        bad = int((~cells).any(axis=(1, 2)).sum())
        raise NotFiniteError(f"its maps of {bad} of {len(cells)} images are not finite; retrain the network")
