"""Projected gradient descent under an L-infinity bound (Madry et al., ICLR 2018), beyond the paper's one step.

From x, or a random point at most eps away, `steps` steps of `step_size` * eps along the gradient's sign, each followed
by projection onto the eps-ball around x and, as the settings say, onto 0-255. The loss, its reference class (what the
network predicts for the clean image, or the true class), clipping and rounding are those of `ltpa.evaluation.fgsm`; one
step of size 1 without random start is that attack.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ltpa.evaluation.fgsm import (
    Attack,
    AttackResult,
    Tally,
    ascent_signs,
    classify,
    perturb,
    without_gradient,
)
from ltpa.evaluation.inference import pixel_batches

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier


@dataclasses.dataclass(frozen=True)
class IteratedAttack:
    """How the steps go; `ltpa.protocols.fgsm.PgdSettings` explains the values."""

    epsilons: Sequence[float]
    steps: int
    step_size: float
    random_start: bool
    seed: int


def start_directions(shape: Sequence[int], first: int, seed: int) -> torch.Tensor:
    """Uniform numbers in [-1, 1), float32 of `shape` (B, 3, S, S), for the images with indices from `first` on.

    Each image has a stream of its own, so that neither batches nor threads matter.
    """
    rows = [np.random.default_rng((seed, first + row)).random(tuple(shape[1:]), np.float32) for row in range(shape[0])]
    return torch.from_numpy(np.stack(rows)) * 2 - 1


def project(moved: torch.Tensor, pixels: torch.Tensor, epsilon: float, clip: bool) -> torch.Tensor:
    """The point of the `epsilon`-ball around `pixels`, and with `clip` of 0-255, that is nearest to `moved`."""
    inside = torch.maximum(torch.minimum(moved, pixels + epsilon), pixels - epsilon)
    return inside.clamp(0, 255) if clip else inside


def attack_iterated(
    model: "AttentionClassifier", images: np.ndarray, labels: np.ndarray, settings: Attack, pgd: IteratedAttack
) -> AttackResult:
    """Attack every image (N, H, W, 3) uint8 under every bound; `labels` (N,) int64 are the true classes.

    Of `settings` the loss, clip, round and batch size count, not the epsilons. The last point is judged; rounding it
    may leave the ball by half a grey level.
    """
    tally = Tally(pgd.epsilons)
    done = 0
    for pixels in pixel_batches(model, images, settings.batch_size):
        truth = torch.from_numpy(np.array(labels[done : done + len(pixels)])).to(pixels.device)
        first, before = ascent_signs(model, pixels, truth, settings.loss)
        tally.count_clean(before, truth, without_gradient(first))
        start = start_directions(pixels.shape, done, pgd.seed).to(pixels.device) if pgd.random_start else None
        for epsilon in pgd.epsilons:
            moved = pixels if start is None else project(pixels + epsilon * start, pixels, epsilon, settings.clip)
            for step in range(pgd.steps):
                if step or start is not None:
                    signs, _ = ascent_signs(model, moved, truth, settings.loss, before)
                else:
                    signs = first
                moved = project(moved + pgd.step_size * epsilon * signs, pixels, epsilon, settings.clip)
            after = classify(model, perturb(moved, first, 0, settings))
            tally.count_attacked(epsilon, after, before, truth)
        done += len(pixels)
    return tally.result()
