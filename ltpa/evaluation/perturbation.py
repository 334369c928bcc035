"""Whether the pixels that a map calls important decide what a network says: curves over perturbed images.

A map (N, S, S) matters by the order of its pixels alone. Ties are broken by a random key of each image, the same for
all maps, never by position. y is the class that the network predicts for the clean image, p_y its probability.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from ltpa.core.seeds import derive
from ltpa.evaluation.imputation import NOISE, impute
from ltpa.evaluation.inference import decided

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

BLUR_OF_SIDE, LEAST_BLUR = 5 / 224, 2.0  # deviation of the blurred baseline: a share of the side, and pixels


@dataclasses.dataclass(frozen=True, eq=False)
class Stimuli:
    """Images of a network, and what it says of them.

    Attributes:
        indices: (N,) places in the dataset, which random streams depend on.
        pixels: (N, 3, S, S) float32, raw.
        predicted: (N,) int64, y.
        probability: (N,) float64, p_y.
    """

    indices: np.ndarray
    pixels: torch.Tensor
    predicted: torch.Tensor
    probability: np.ndarray


def stimuli(model: "AttentionClassifier", images: np.ndarray, indices: np.ndarray, batch_size: int) -> Stimuli:
    """What is perturbed: images (N, S, S, 3) uint8 at the network's size.

    Raises:
        NotFiniteError: a logit is not finite.
    """
    device = next(model.parameters()).device
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float().to(device)
    with torch.inference_mode():
        logits = torch.cat([model(model.preprocessing(part)) for part in _parts(pixels, batch_size)])
        predicted = decided(logits)
    probability = logits.double().softmax(dim=1).gather(1, predicted[:, None])[:, 0]
    return Stimuli(np.asarray(indices), pixels, predicted, probability.cpu().numpy())


def _parts(pixels: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    return [part.contiguous(memory_format=torch.channels_last) for part in pixels.split(batch_size)]


def scores(
    model: "AttentionClassifier", pixels: torch.Tensor, predicted: torch.Tensor, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """p_y (N,) float64 of `pixels` (N, 3, S, S), and (N,) bool, whether `predicted` (N,) is still the highest class."""
    with torch.inference_mode():
        logits = torch.cat([model(model.preprocessing(part)) for part in _parts(pixels, batch_size)])
        agrees = decided(logits) == predicted
        found = logits.double().softmax(dim=1).gather(1, predicted[:, None])[:, 0]
    return found.cpu().numpy(), agrees.cpu().numpy()


def ranks(maps: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Rank (N, P) int64 of each pixel of maps (N, S, S), 0 for the highest; ties by a random key of each image."""
    flat = maps.reshape(len(maps), -1)
    found = np.empty(flat.shape, np.int64)
    for row, index in enumerate(indices):
        key = np.random.default_rng((derive(0, "ties"), index)).random(flat.shape[1])
        found[row, np.lexsort((key, -flat[row]))] = np.arange(flat.shape[1])
    return found


def baseline(kind: str, pixels: torch.Tensor, mean: Sequence[float]) -> torch.Tensor:
    """What replaces pixels (N, 3, S, S): the `mean` colour of the training images, the image's `blur`, or `black`."""
    if kind == "black":
        return torch.zeros_like(pixels)
    if kind == "mean":
        return torch.tensor(mean, dtype=pixels.dtype, device=pixels.device)[None, :, None, None].expand_as(pixels)
    deviation = max(LEAST_BLUR, BLUR_OF_SIDE * pixels.shape[-1])
    blurred = ndimage.gaussian_filter(pixels.cpu().numpy(), (0, 0, deviation, deviation), mode="nearest")
    return torch.from_numpy(blurred).to(pixels.device)


def curve(
    model: "AttentionClassifier",
    seen: Stimuli,
    order: np.ndarray,
    replacement: torch.Tensor,
    insert: bool,
    steps: int,
    batch_size: int,
) -> np.ndarray:
    """p_y (N, steps + 1) as the pixels of the lowest ranks `order` (N, P) are deleted, or inserted, by equal shares.

    Petsiuk et al. (BMVC 2018). Deletion begins with the image and ends with the replacement, insertion the other way.
    """
    start, end = (replacement, seen.pixels) if insert else (seen.pixels, replacement)
    count, _, height, width = seen.pixels.shape
    placed = torch.from_numpy(order.reshape(count, 1, height, width)).to(seen.pixels.device)
    cuts = [round(height * width * step / steps) for step in range(steps + 1)]
    found = [scores(model, torch.where(placed < cut, end, start), seen.predicted, batch_size)[0] for cut in cuts]
    return np.stack(found, axis=1)


def area(curves: np.ndarray) -> np.ndarray:
    """Area (N,) under curves (N, steps + 1) over 0-1, by trapezoids."""
    found: np.ndarray = np.trapezoid(curves, dx=1 / (curves.shape[1] - 1), axis=1)
    return found


def road(
    model: "AttentionClassifier", seen: Stimuli, orders: Sequence[np.ndarray], shares: Sequence[float], batch_size: int
) -> np.ndarray:
    """Share (0-1) of removals after which the predicted class stands, (len(orders), 2, N): most, least relevant first.

    Rong et al. (ICML 2022): `shares` of the pixels are removed and imputed, with noise of a stream for each image and
    share, and clipped to 0-255. `orders` are ranks (N, P) by map.
    """
    count, channels, height, width = seen.pixels.shape
    total = height * width
    images = seen.pixels.permute(0, 2, 3, 1).cpu().numpy().astype(np.float64)
    stands = np.zeros((len(orders), 2, count))
    for row in range(count):
        ranked = np.stack([each[row] for each in orders])
        both = np.stack([ranked, total - 1 - ranked], axis=1)  # least relevant first: ranks the other way round
        cuts = [round(total * share) for share in shares]
        removed = np.stack([both < cut for cut in cuts]).reshape(-1, height, width)
        filled = impute(np.broadcast_to(images[row], (len(removed), height, width, channels)), removed)
        noise = np.stack(
            [
                np.random.default_rng((derive(0, "road"), int(seen.indices[row]), cut)).normal(
                    0, 255 * NOISE, (height, width, channels)
                )
                for cut in cuts
            ]
        )
        filled += np.repeat(noise, len(removed) // len(cuts), axis=0) * removed[..., None]
        pixels = torch.from_numpy(np.clip(filled, 0, 255).astype(np.float32).transpose(0, 3, 1, 2))
        predicted = seen.predicted[row].expand(len(removed))
        _, agrees = scores(model, pixels.to(seen.pixels.device), predicted, batch_size)
        stands[:, :, row] = agrees.reshape(len(cuts), len(orders), 2).mean(axis=0)
    return stands


@dataclasses.dataclass(frozen=True, eq=False)
class Subsets:
    """Random subsets of pixels, (N, K, P) bool, and by how much p_y drops when they are replaced, (N, K)."""

    members: np.ndarray
    drops: np.ndarray


def dropped_subsets(
    model: "AttentionClassifier", seen: Stimuli, replacement: torch.Tensor, subsets: int, batch_size: int
) -> Subsets:
    """`subsets` random subsets of an eighth of the pixels for each image, and what they do; the same for all maps."""
    count, _, height, width = seen.pixels.shape
    size = max(1, height * width // 8)
    members = np.zeros((count, subsets, height * width), bool)
    for row, index in enumerate(seen.indices):
        keys = np.random.default_rng((derive(0, "subsets"), int(index))).random((subsets, height * width))
        np.put_along_axis(members[row], np.argpartition(keys, size, axis=1)[:, :size], True, axis=1)
    drops = np.empty((count, subsets))
    for column in range(subsets):
        removed = torch.from_numpy(members[:, column].reshape(count, 1, height, width)).to(seen.pixels.device)
        left, _ = scores(model, torch.where(removed, replacement, seen.pixels), seen.predicted, batch_size)
        drops[:, column] = seen.probability - left
    return Subsets(members, drops)


def faithfulness_correlation(maps: np.ndarray, subsets: Subsets) -> np.ndarray:
    """Pearson's r (N,) between the sum of a map (N, S, S) over a subset and the drop of p_y (Bhatt et al., IJCAI 2020).

    0 where either does not vary.
    """
    sums = np.einsum("nkp,np->nk", subsets.members, maps.reshape(len(maps), -1))
    left, right = (each - each.mean(axis=1, keepdims=True) for each in (sums, subsets.drops))
    scale = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    return np.where(scale > 0, (left * right).sum(axis=1) / np.where(scale > 0, scale, 1), 0.0)
