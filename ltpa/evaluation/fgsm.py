"""Fast gradient sign attack: one gradient per image serves every epsilon (paper sections 2 and 5.2, figure 6).

x' = clip(x + eps * sign(grad of loss)) on raw 0-255 pixels, with the preprocessing inside the graph. The paper steps
"opposite to the predicted class score gradient" and does not say whether it clips or rounds; all are options.

Two numbers come of one gradient. The paper's fooling rate counts every image whose predicted class changes. Robust
accuracy counts the images that are right both without and under attack, and attacks the true class. Only images that
are right can count there, and for those the predicted class is the true one: both numbers share the same step.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from ltpa.core.errors import ModelError
from ltpa.evaluation.inference import decided, pixel_batches

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier


@dataclasses.dataclass(frozen=True)
class Attack:
    """How every image is attacked; `ltpa.protocols.fgsm.FgsmSettings` explains the values."""

    epsilons: Sequence[float]
    loss: str
    clip: bool
    round: bool
    batch_size: int


@dataclasses.dataclass(frozen=True, eq=False)
class AttackResult:
    """What an attack did to N images.

    Attributes:
        right: (N,) bool, whether the image is classified correctly without attack.
        fooled: for each epsilon (N,) bool, whether the predicted class changed, right or wrong before.
        robust: for each epsilon (N,) bool, whether the image is right without and under attack.
        zero_gradients: images whose gradient is zero everywhere (in float32), which no epsilon can change.
    """

    right: np.ndarray
    fooled: dict[float, np.ndarray]
    robust: dict[float, np.ndarray]
    zero_gradients: int

    @property
    def clean_accuracy_pct(self) -> float:
        """Share of the images that are right without attack."""
        return percent(self.right)

    @property
    def fooling_rate_pct(self) -> dict[float, float]:
        """For each epsilon the share of all images whose predicted class changed."""
        return {epsilon: percent(fooled) for epsilon, fooled in self.fooled.items()}

    @property
    def robust_accuracy_pct(self) -> dict[float, float]:
        """For each epsilon the share of all images that are right without and under attack."""
        return {epsilon: percent(robust) for epsilon, robust in self.robust.items()}


def worst_case(attacks: Sequence[AttackResult]) -> dict[float, np.ndarray]:
    """For each epsilon (N,) bool, whether the image withstands every one of `attacks` that was run with it."""
    survived: dict[float, np.ndarray] = {}
    for found in attacks:
        for epsilon, robust in found.robust.items():
            survived[epsilon] = survived.get(epsilon, found.right) & robust
    return survived


def percent(hits: np.ndarray) -> float:
    """Share of true entries, 0-100."""
    return 100 * int(hits.sum()) / len(hits)


def ascent_signs(
    model: "AttentionClassifier",
    pixels: torch.Tensor,
    labels: torch.Tensor,
    loss: str,
    predicted: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Signs of the loss's gradient, shaped like `pixels` (B, 3, S, S), and the predicted classes (B,).

    The loss is summed over the batch, so that no image's gradient depends on how many share its batch. `predicted`
    are the classes (B,) that losses other than `true` refer to; by default those that `model` predicts for `pixels`.
    """
    inputs = pixels.detach().clone().requires_grad_(True)
    logits = model(model.preprocessing(inputs))
    if predicted is None:
        predicted = decided(logits.detach())
    if loss == "score":
        objective = -logits.gather(1, predicted[:, None]).sum()
    else:
        objective = functional.cross_entropy(logits, labels if loss == "true" else predicted, reduction="sum")
    (gradient,) = torch.autograd.grad(objective, inputs)
    return gradient.sign(), predicted


def classify(model: "AttentionClassifier", pixels: torch.Tensor) -> torch.Tensor:
    """Predicted classes (B,) of raw pixels (B, 3, S, S).

    Raises:
        NotFiniteError: a logit is not finite.
    """
    with torch.inference_mode():
        return decided(model(model.preprocessing(pixels)))


def perturb(pixels: torch.Tensor, signs: torch.Tensor, epsilon: float, settings: Attack) -> torch.Tensor:
    """Pixels moved by `epsilon` along `signs`, then rounded and clipped as the settings say."""
    moved = pixels + epsilon * signs
    if settings.round:
        moved = moved.round()
    return moved.clamp(0, 255) if settings.clip else moved


class Tally:
    """Collects over batches what an attack does to a network."""

    def __init__(self, epsilons: Sequence[float]) -> None:
        self._right: list[torch.Tensor] = []
        self._fooled: dict[float, list[torch.Tensor]] = {epsilon: [] for epsilon in epsilons}
        self._robust: dict[float, list[torch.Tensor]] = {epsilon: [] for epsilon in epsilons}
        self._zero = 0

    def count_clean(self, before: torch.Tensor, truth: torch.Tensor, zero_gradients: int) -> None:
        """Count a batch before the attack: predicted and true classes (B,), images without any gradient."""
        self._right.append(before == truth)
        self._zero += zero_gradients

    def count_attacked(self, epsilon: float, after: torch.Tensor, before: torch.Tensor, truth: torch.Tensor) -> None:
        """Count a batch under attack: classes (B,) predicted after and before, and true ones."""
        self._fooled[epsilon].append(after != before)
        self._robust[epsilon].append((before == truth) & (after == truth))

    def result(self) -> AttackResult:
        """What was counted, images in the order of the batches."""
        return AttackResult(
            _joined(self._right),
            {epsilon: _joined(parts) for epsilon, parts in self._fooled.items()},
            {epsilon: _joined(parts) for epsilon, parts in self._robust.items()},
            self._zero,
        )


def _joined(parts: list[torch.Tensor]) -> np.ndarray:
    return torch.cat(parts).cpu().numpy()


def without_gradient(signs: torch.Tensor) -> int:
    """Number of images (B, 3, S, S) whose gradient signs are all zero."""
    return int((signs == 0).flatten(1).all(dim=1).sum())


def attack(
    model: "AttentionClassifier",
    images: np.ndarray,
    labels: np.ndarray,
    settings: Attack,
    source: "AttentionClassifier | None" = None,
) -> AttackResult:
    """Attack every image (N, H, W, 3) uint8 with every epsilon; `labels` (N,) int64 are the true classes.

    With `source` the gradient is that network's; the classes it refers to and those that count are `model`'s.

    Raises:
        ModelError: `source` takes images of another size than `model`.
        NotFiniteError: a network gives logits that are not finite.
    """
    if source is not None and source.image_size != model.image_size:
        raise ModelError(
            f"a perturbation of {source.image_size} px does not fit a network of {model.image_size} px; "
            "transfer between networks of one size"
        )
    tally = Tally(settings.epsilons)
    done = 0
    for pixels in pixel_batches(model, images, settings.batch_size):
        truth = torch.from_numpy(np.array(labels[done : done + len(pixels)])).to(pixels.device)
        before = None if source is None else classify(model, pixels).clone()  # no longer an inference tensor
        signs, before = ascent_signs(source or model, pixels, truth, settings.loss, before)
        tally.count_clean(before, truth, without_gradient(signs))
        for epsilon in settings.epsilons:
            after = classify(model, perturb(pixels, signs, epsilon, settings))
            tally.count_attacked(epsilon, after, before, truth)
        done += len(pixels)
    return tally.result()
