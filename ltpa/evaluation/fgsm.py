"""Fast gradient sign attack: one gradient per image serves every epsilon (paper sections 2 and 5.2, figure 6).

x' = clip(x + eps * sign(grad of loss)) on raw 0-255 pixels, with the preprocessing inside the graph. The paper steps
"opposite to the predicted class score gradient" and does not say whether it clips or rounds; all are options.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from ltpa.core.errors import ConfigError
from ltpa.evaluation.inference import pixel_batches

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

LOSSES = ("predicted", "true", "score")


@dataclasses.dataclass(frozen=True)
class FgsmSettings:
    """Settings of the attack.

    Attributes:
        epsilons: step sizes on the 0-255 scale, each >= 0.
        loss: what the step climbs: the cross-entropy of the `predicted` or the `true` class, or minus the predicted
            class's logit (`score`).
        clip: keep pixels within 0-255.
        round: round pixels to whole numbers, as a stored picture would be.
        batch_size: images per forward and backward pass.
    """

    epsilons: Sequence[float] = (1, 2, 4, 8, 16)
    loss: str = "predicted"
    clip: bool = True
    round: bool = False
    batch_size: int = 250

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ConfigError(f"fgsm: loss is {self.loss!r}; use {', '.join(LOSSES)}")
        if not self.epsilons or any(not (math.isfinite(eps) and eps >= 0) for eps in self.epsilons):
            raise ConfigError(f"fgsm: epsilons are {list(self.epsilons)}; list finite numbers >= 0")
        if len(set(self.epsilons)) != len(self.epsilons):
            raise ConfigError(f"fgsm: epsilons are {list(self.epsilons)}; name each once")
        if self.batch_size < 1:
            raise ConfigError("fgsm: needs batch_size >= 1")


@dataclasses.dataclass(frozen=True)
class AttackResult:
    """What the attack did over all images.

    Attributes:
        fooling_rate_pct: for each epsilon, the share of images whose predicted class changed, right or wrong before.
        accuracy_pct: for each epsilon, the share classified correctly under attack.
        clean_accuracy_pct: share classified correctly without attack.
        zero_gradients: images whose gradient is zero everywhere (in float32), which no epsilon can change.
    """

    fooling_rate_pct: dict[float, float]
    accuracy_pct: dict[float, float]
    clean_accuracy_pct: float
    zero_gradients: int


def ascent_signs(
    model: "AttentionClassifier", pixels: torch.Tensor, labels: torch.Tensor, loss: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Signs of the loss's gradient, shaped like `pixels` (B, 3, S, S), and the predicted classes (B,).

    The loss is summed over the batch, so that no image's gradient depends on how many share its batch.
    """
    inputs = pixels.detach().clone().requires_grad_(True)
    logits = model(model.preprocessing(inputs))
    predicted = logits.argmax(dim=1)
    if loss == "score":
        objective = -logits.gather(1, predicted[:, None]).sum()
    else:
        objective = functional.cross_entropy(logits, labels if loss == "true" else predicted, reduction="sum")
    (gradient,) = torch.autograd.grad(objective, inputs)
    return gradient.sign(), predicted


def perturb(pixels: torch.Tensor, signs: torch.Tensor, epsilon: float, settings: FgsmSettings) -> torch.Tensor:
    """Pixels moved by `epsilon` along `signs`, then rounded and clipped as the settings say."""
    moved = pixels + epsilon * signs
    if settings.round:
        moved = moved.round()
    return moved.clamp(0, 255) if settings.clip else moved


def attack(
    model: "AttentionClassifier", images: np.ndarray, labels: np.ndarray, settings: FgsmSettings
) -> AttackResult:
    """Attack every image (N, H, W, 3) uint8 with every epsilon; `labels` (N,) int64 are the true classes."""
    fooled = dict.fromkeys(settings.epsilons, 0)
    correct = dict.fromkeys(settings.epsilons, 0)
    clean = zero = done = 0
    for pixels in pixel_batches(model, images, settings.batch_size):
        truth = torch.from_numpy(np.array(labels[done : done + len(pixels)])).to(pixels.device)
        signs, before = ascent_signs(model, pixels, truth, settings.loss)
        clean += int((before == truth).sum())
        zero += int((signs == 0).flatten(1).all(dim=1).sum())
        for epsilon in settings.epsilons:
            with torch.inference_mode():
                after = model(model.preprocessing(perturb(pixels, signs, epsilon, settings))).argmax(dim=1)
            fooled[epsilon] += int((after != before).sum())
            correct[epsilon] += int((after == truth).sum())
        done += len(pixels)
    return AttackResult(
        {epsilon: 100 * count / done for epsilon, count in fooled.items()},
        {epsilon: 100 * count / done for epsilon, count in correct.items()},
        100 * clean / done,
        zero,
    )
