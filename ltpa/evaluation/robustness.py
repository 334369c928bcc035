"""How many images stay right under attacks that bound robustness, and signs that an attack was fooled itself.

The threat is any change of raw pixels by at most eps (0-255 scale), within 0-255, not rounded, against the true class;
the preprocessing is part of the network. An image is robust where it is right without attack and under all attacks run.
What a smaller eps allows, a larger one allows too: an image that falls at eps 2 counts as fallen at eps 4.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from ltpa.evaluation.fgsm import ascent_signs, classify, percent
from ltpa.evaluation.inference import decided, pixel_batches
from ltpa.evaluation.pgd import project, start_directions

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

MOMENTUM = 0.25
FIRST_STEP, QUARTERS = 2.0, 4  # in units of eps; halved after each quarter of the steps


@dataclasses.dataclass(frozen=True, eq=False)
class Victims:
    """Images to attack.

    Attributes:
        indices: (N,) places in the dataset, which random starts depend on.
        pixels: (N, 3, S, S) float32, raw.
        labels: (N,) int64, true classes.
        right: (N,) bool, whether the network is right without attack.
    """

    indices: np.ndarray
    pixels: torch.Tensor
    labels: torch.Tensor
    right: np.ndarray

    def only(self, rows: np.ndarray) -> "Victims":
        """Those of some rows."""
        chosen = torch.from_numpy(np.asarray(rows)).to(self.pixels.device)
        return Victims(self.indices[rows], self.pixels[chosen], self.labels[chosen], self.right[rows])


def victims(
    model: "AttentionClassifier", images: np.ndarray, labels: np.ndarray, indices: np.ndarray, batch_size: int
) -> Victims:
    """Images (N, H, W, 3) uint8 of a dataset, at the network's size.

    Raises:
        NotFiniteError: a logit is not finite.
    """
    parts = list(pixel_batches(model, images, batch_size))
    predicted = torch.cat([classify(model, part) for part in parts])
    truth = torch.from_numpy(np.array(labels)).to(predicted.device)
    return Victims(np.asarray(indices), torch.cat(parts), truth, (predicted == truth).cpu().numpy())


def fast_gradient_sign(
    model: "AttentionClassifier", attacked: Victims, epsilons: Sequence[float], batch_size: int
) -> dict[float, np.ndarray]:
    """Images (N,) bool that stay right after one step of each eps along the sign of the gradient."""
    signs = torch.cat(
        [
            ascent_signs(model, pixels, labels, "true")[0]
            for pixels, labels in _batches(attacked.pixels, attacked.labels, batch_size)
        ]
    )
    return {eps: stays_right(model, attacked, attacked.pixels + eps * signs, batch_size) for eps in epsilons}


def zero_gradients(model: "AttentionClassifier", attacked: Victims, batch_size: int) -> int:
    """Number of images that are right and whose gradient is zero everywhere, which hides them from gradients."""
    chosen = attacked.only(np.flatnonzero(attacked.right))
    return sum(
        int((ascent_signs(model, pixels, labels, "true")[0] == 0).flatten(1).all(dim=1).sum())
        for pixels, labels in _batches(chosen.pixels, chosen.labels, batch_size)
    )


def _batches(pixels: torch.Tensor, labels: torch.Tensor, size: int) -> "list[tuple[torch.Tensor, torch.Tensor]]":
    return list(zip(pixels.split(size), labels.split(size), strict=True))


def stays_right(model: "AttentionClassifier", attacked: Victims, moved: torch.Tensor, batch_size: int) -> np.ndarray:
    """Images (N,) bool that are right as they are and as `moved` (N, 3, S, S), which is clipped to 0-255."""
    parts = [classify(model, part) for part in moved.clamp(0, 255).split(batch_size)]
    return attacked.right & (torch.cat(parts) == attacked.labels).cpu().numpy()


def projected_gradient_descent(
    model: "AttentionClassifier", attacked: Victims, epsilon: float, steps: int, batch_size: int
) -> np.ndarray:
    """Images (N,) bool that stay right at every point that the attack visits.

    From a random point of the ball, a stream for each image, `steps` steps along the sign of the gradient: the first
    quarter of length 2 eps, each further quarter half as long. A quarter of the step before is kept as momentum, after
    the projection, as in APGD (Croce and Hein, ICML 2020).
    """
    stands = attacked.right.copy()
    rows = np.flatnonzero(stands)
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        stands[some] = _descend(model, attacked.only(some), epsilon, steps)
    return stands


def _descend(model: "AttentionClassifier", attacked: Victims, epsilon: float, steps: int) -> np.ndarray:
    starts = [start_directions((1, *attacked.pixels.shape[1:]), int(index), 0) for index in attacked.indices]
    pixels, labels = attacked.pixels, attacked.labels
    moved = project(pixels + epsilon * torch.cat(starts).to(pixels.device), pixels, epsilon, True)
    before = moved
    stands = np.ones(len(pixels), bool)
    left = np.arange(len(pixels))
    for step in range(steps + 1):
        inputs = moved.contiguous(memory_format=torch.channels_last).detach().requires_grad_(True)
        logits = model(model.preprocessing(inputs))
        right = (decided(logits.detach()) == labels).cpu().numpy()
        stands[left[~right]] = False
        if step == steps or not right.any():
            break
        (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, labels, reduction="sum"), inputs)
        kept = torch.from_numpy(np.flatnonzero(right)).to(pixels.device)
        pixels, labels, moved, before = pixels[kept], labels[kept], moved[kept], before[kept]
        left = left[right]
        length = FIRST_STEP * epsilon / 2 ** (step * QUARTERS // steps)
        ahead = project(moved + length * gradient[kept].sign(), pixels, epsilon, True)
        blended = moved + (1 - MOMENTUM) * (ahead - moved) + MOMENTUM * (moved - before)
        moved, before = project(blended, pixels, epsilon, True), moved
    return stands


def nested(survivors: dict[float, np.ndarray]) -> dict[float, np.ndarray]:
    """For each eps the images (N,) bool that stand under it and under every smaller one."""
    found: dict[float, np.ndarray] = {}
    for epsilon in sorted(survivors):
        smaller = [each for each in survivors if each <= epsilon]
        found[epsilon] = np.logical_and.reduce([survivors[each] for each in smaller])
    return found


def double_precision_agreement(model: "AttentionClassifier", attacked: Victims, batch_size: int) -> float:
    """Share (0-1) of the pixels at which the gradient's sign is the same in float64."""
    import copy

    precise = copy.deepcopy(model).double()
    same = total = 0
    for pixels, labels in _batches(attacked.pixels, attacked.labels, batch_size):
        signs, predicted = ascent_signs(model, pixels, labels, "true")
        others, _ = ascent_signs(precise, pixels.double(), labels, "true", predicted)
        same += int((signs == others).sum())
        total += signs.numel()
    return same / total


def tolerance(first: np.ndarray, second: np.ndarray) -> float:
    """Two standard errors of the difference of two shares (%), of images (N,) bool that stand."""
    spreads = [each.mean() * (1 - each.mean()) / len(each) for each in (first, second)]
    return 200 * float(np.sqrt(sum(spreads)))


def weaker(first: np.ndarray, second: np.ndarray) -> str:
    """Says so where more images stand under the attack of `second` than under that of `first`, beyond chance."""
    gap = percent(second) - percent(first)
    return f"{percent(second):.1f} % stand, {percent(first):.1f} % expected" if gap > tolerance(first, second) else ""
