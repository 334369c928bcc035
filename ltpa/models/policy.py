"""Learning to choose: score-function gradients (REINFORCE, Williams 1992) and the baselines that go with them.

The gradient of an expected reward is the expectation of (reward - baseline) times the gradient of the choice's
log-density. Three mistakes of public code are impossible here: a sample is detached before its density is taken (or the
two gradients cancel exactly), the density is that of the sample as it was drawn and never of a clipped one, and a
choice is credited with all that comes after it.
"""

import math

import torch
from torch import Tensor, nn


def gaussian_log_density(sample: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """log N(sample; mean, std^2 I) over the last dimension; gradients reach `mean` alone."""
    distance = (sample.detach() - mean) / std
    size = sample.shape[-1]
    return -0.5 * distance.square().sum(-1) - size * (std.log() + 0.5 * math.log(2 * math.pi))


def categorical_sample(log_weights: Tensor, noise: Tensor | None = None) -> Tensor:
    """One index along the last dimension for each row of `log_weights`, drawn by the Gumbel maximum.

    Args:
        log_weights: (..., L) log-probabilities, up to a constant of the row.
        noise: (..., L) numbers in (0, 1); from torch's global stream where none are given.
    """
    uniform = torch.rand_like(log_weights) if noise is None else noise
    tiny = torch.finfo(log_weights.dtype).tiny
    return (log_weights.detach() - (-uniform.clamp_min(tiny).log()).clamp_min(tiny).log()).argmax(-1)


def score_loss(log_density: Tensor, advantage: Tensor) -> Tensor:
    """Mean over images of the sum over choices, whose gradient is minus that of the expected reward.

    Args:
        log_density: (N, choices).
        advantage: the same shape: the reward after each choice, less a baseline that does not look at the choice.
    """
    return -(advantage.detach() * log_density).sum(-1).mean()


def leave_one_out(rewards: Tensor) -> Tensor:
    """The mean reward of the other samples of the same image, for each of (samples, N, ...), samples at least 2."""
    return (rewards.sum(0, keepdim=True) - rewards) / (rewards.shape[0] - 1)


class MovingBaseline(nn.Module):
    """One number for all images: a moving mean of the rewards, part of the saved state (Xu et al. 2015: keep 0.9)."""

    value: Tensor

    def __init__(self, keep: float = 0.9) -> None:
        super().__init__()
        self.keep = keep
        self.register_buffer("value", torch.zeros(()))

    def forward(self, reward: Tensor) -> Tensor:
        """The baseline of this step, from the steps before; then takes the mean of `reward` in."""
        before = self.value.clone()
        with torch.no_grad():
            self.value.mul_(self.keep).add_((1 - self.keep) * reward.mean())
        return before
