"""The maps whose faithfulness is measured, those they are measured against, and what is reported of the two."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import kendalltau

from ltpa.data.arrays import Split
from ltpa.evaluation.controls import centre_prior
from ltpa.evaluation.map_controls import ORACLE, RANDOM, mask_map, own_map_of, random_map, untrained_map
from ltpa.evaluation.maps import CAM, network_maps
from ltpa.evaluation.saliency import COMBINED, Saliency, upsample

if TYPE_CHECKING:
    from ltpa.evaluation.perturbation import Stimuli
    from ltpa.models.base import AttentionClassifier

GRADIENT = "gradient"
CENTRE, OTHER, UNTRAINED = "centre", "other", "untrained"
CONTROLS = (RANDOM, CENTRE, OTHER, UNTRAINED, ORACLE)


def gradient_map(model: "AttentionClassifier", seen: "Stimuli", batch_size: int) -> np.ndarray:
    """Sum over channels of |d logit_y / d pixel|, (N, S, S) float32 (Simonyan et al., 2014)."""
    found = []
    for pixels, classes in zip(seen.pixels.split(batch_size), seen.predicted.split(batch_size), strict=True):
        inputs = pixels.clone().requires_grad_(True)
        logits = model(model.preprocessing(inputs))
        (gradient,) = torch.autograd.grad(logits.gather(1, classes.clone()[:, None]).sum(), inputs)
        found.append(gradient.abs().sum(dim=1).cpu().numpy())
    return np.concatenate(found)


def maps_of(
    model: "AttentionClassifier", images: np.ndarray, saliency: Saliency | None, batch_size: int
) -> dict[str, np.ndarray]:
    """Every map of the network but its gradient, (N, S, S) float64 by kind; `images` (N, S, S, 3) are of its size."""
    size = images.shape[1:3]
    found = {kind: upsample(each, size) for kind, each in network_maps(model, images, batch_size).items()}
    if saliency is not None and saliency.source != CAM and model.attention_levels:
        found[COMBINED] = saliency.at(saliency.maps(model, images, batch_size), size)[COMBINED]
    return found


def control_maps(
    model: "AttentionClassifier",
    split: Split,
    images: np.ndarray,
    indices: np.ndarray,
    own: Mapping[str, np.ndarray],
    saliency: Saliency | None,
    draws: int,
    dataset: str,
    batch_size: int,
) -> dict[str, list[np.ndarray]]:
    """Maps (N, S, S) that the network's are measured against; of `random` there are `draws`.

    * `random`: uniform numbers, of a stream for each image.
    * `centre`: a Gaussian in the middle (`ltpa.evaluation.controls`).
    * `other`: the network's own map of another of the images.
    * `untrained`: the own map of the network before training.
    * `oracle`: the object's mask, where the split has masks.
    """
    kind = own_map_of(own, saliency if COMBINED in own else None)
    size = images.shape[1:3]
    found = {
        RANDOM: [random_map(indices, size, dataset, draw) for draw in range(draws)],
        CENTRE: [centre_prior(images)],
        OTHER: [np.roll(own[kind], 1, axis=0)],
        UNTRAINED: [upsample(untrained_map(model, kind, images, saliency, batch_size), size)],
    }
    masks = mask_map(split, indices, size[0])
    if masks is not None:
        found[ORACLE] = [masks]
    return found


def beside_controls(values: Mapping[str, np.ndarray], higher: bool) -> dict[str, tuple[float, float, float | None]]:
    """Of each map's per-image values (N,): mean, mean minus `random`, and the latter in % of what `oracle` has.

    `higher` says whether higher values are better. The share is None for `random`, without an oracle, and where the
    oracle is not better than random by two standard errors: a share of next to nothing would mean nothing.
    """
    random = float(values[RANDOM].mean())
    span = _lead(values[ORACLE] - values[RANDOM], higher) if ORACLE in values else None
    found: dict[str, tuple[float, float, float | None]] = {}
    for kind, each in values.items():
        mean = float(each.mean())
        share = 100 * (mean - random) / span if span is not None and kind != RANDOM else None
        found[kind] = (mean, mean - random, share)
    return found


def _lead(gaps: np.ndarray, higher: bool) -> float | None:
    """The mean of gaps (N,); None unless it is on the better side of zero by two standard errors."""
    mean, error = float(gaps.mean()), float(gaps.std(ddof=1)) / len(gaps) ** 0.5
    return mean if (mean if higher else -mean) > 2 * error else None


def same_order(first: Sequence[float], second: Sequence[float]) -> tuple[float, int]:
    """Kendall's tau between two rankings of the same maps, and how many pairs turn; 1 and 0 for fewer than 2."""
    if len(first) < 2:
        return 1.0, 0
    signs = [np.sign(np.subtract.outer(each, each))[np.triu_indices(len(each), 1)] for each in (first, second)]
    tau = float(kendalltau(first, second).statistic)
    return (tau if np.isfinite(tau) else 0.0), int((signs[0] * signs[1] < 0).sum())
