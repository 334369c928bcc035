"""From the attended vectors of all levels to class scores (section 3.1 of the paper)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltpa.models.blocks import normalised_vector, widened


class ConcatHead(nn.Module):
    """`concat`: join the levels' vectors and classify them with one linear layer.

    Each vector passes BatchNorm, ReLU and dropout first, as in the published code; the paper does not mention it. With
    `norm` false the linear layer reads the vectors as they are.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, dropout: float, norm: bool = True) -> None:
        super().__init__()
        self.norms = _norms(channels, dropout, norm)
        self.linear = nn.Linear(sum(channels), num_classes)

    def features(self, vectors: Sequence[Tensor]) -> Tensor:
        """Input (N, sum of C_s) of the linear layer, from one g_a (N, C_s) per level."""
        return torch.cat([norm(vector) for norm, vector in zip(self.norms, vectors, strict=True)], dim=1)

    def level_logits(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """One tensor of logits (N, classes): that of the joint classifier."""
        return [self.linear(self.features(vectors))]


class IndepHead(nn.Module):
    """`indep`: one linear classifier per level, on vectors that passed BatchNorm, ReLU and dropout where `norm`."""

    def __init__(self, channels: Sequence[int], num_classes: int, dropout: float, norm: bool = True) -> None:
        super().__init__()
        self.norms = _norms(channels, dropout, norm)
        self.linears = nn.ModuleList(nn.Linear(count, num_classes) for count in channels)

    def features(self, vectors: Sequence[Tensor]) -> Tensor:
        """Inputs of the linear layers side by side (N, sum of C_s), from one g_a (N, C_s) per level."""
        return torch.cat([norm(vector) for norm, vector in zip(self.norms, vectors, strict=True)], dim=1)

    def level_logits(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """Logits (N, classes) of each level's own classifier."""
        return [linear(norm(vector)) for norm, linear, vector in zip(self.norms, self.linears, vectors, strict=True)]


def _norms(channels: Sequence[int], dropout: float, norm: bool) -> nn.ModuleList:
    return nn.ModuleList(normalised_vector(count, dropout) if norm else nn.Identity() for count in channels)


HEADS: dict[str, type[ConcatHead | IndepHead]] = {"concat": ConcatHead, "indep": IndepHead}


def mean_log_probability(level_logits: Sequence[Tensor]) -> Tensor:
    """Logarithm of the mean over levels of the predicted distributions (N, classes); one level's logits unchanged."""
    if len(level_logits) == 1:
        return level_logits[0]
    log_probabilities = torch.stack([F.log_softmax(widened(logits), dim=1) for logits in level_logits])
    return torch.logsumexp(log_probabilities, dim=0) - math.log(len(level_logits))


def summed_log_probability(level_logits: Sequence[Tensor]) -> Tensor:
    """Sum over levels of the log-probabilities (N, classes), whose largest is the released code's prediction.

    Its softmax is the normalised product of the levels' distributions. One level's logits are returned unchanged.
    """
    if len(level_logits) == 1:
        return level_logits[0]
    return torch.stack([F.log_softmax(widened(logits), dim=1) for logits in level_logits]).sum(dim=0)


PREDICTIONS = {"mean-probability": mean_log_probability, "sum-log-probability": summed_log_probability}


def summed_cross_entropy(level_logits: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Sum over levels of the mean cross-entropy with `targets` (N,): a scalar.

    It equals the negative log-likelihood of the summed log-probabilities, the loss of the published code.
    """
    return torch.stack([F.cross_entropy(logits, targets) for logits in level_logits]).sum()
