"""Distances of distributions and rank correlations, row by row, in float64: tensors (N, n) in, (N,) out."""

import torch
from torch import Tensor


def total_variation(first: Tensor, second: Tensor) -> Tensor:
    """Half the sum of |p - q| over the last axis of distributions of one shape (..., n): 0 to 1."""
    return (first.double() - second.double()).abs().sum(dim=-1) / 2


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Jensen-Shannon divergence of distributions (..., n) in nats: 0 where equal, ln 2 where disjoint."""
    p, q = first.double(), second.double()
    entropy = torch.special.entr
    return (entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2).sum(dim=-1)


def normalised_entropy(weights: Tensor) -> Tensor:
    """Entropy of rows of weights, scaled to sum 1 first, as a share of that of uniform ones: 0 (one cell) to 1."""
    rows = weights.double()
    shares = rows / rows.sum(dim=-1, keepdim=True)
    largest = torch.tensor(float(rows.shape[-1]), dtype=torch.float64).log()
    return torch.special.entr(shares).sum(dim=-1) / largest


def kendall_tau(first: Tensor, second: Tensor) -> Tensor:
    """Kendall's tau-b of pairs of rows, which corrects for ties; not a number where all cells of a row are equal."""
    signs = [(rows[:, :, None] - rows[:, None, :]).sign() for rows in (first.double(), second.double())]
    concordance = (signs[0] * signs[1]).sum(dim=(1, 2))
    untied = [sign.abs().sum(dim=(1, 2)) for sign in signs]
    return concordance / (untied[0] * untied[1]).sqrt()


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation of pairs of rows; exactly 1 where the ranks are the same.

    Not a number where all cells of a row are equal.
    """
    centred = [ranks - ranks.mean(dim=1, keepdim=True) for ranks in (mean_ranks(first), mean_ranks(second))]
    squares = [rows.square().sum(dim=1) for rows in centred]
    return (centred[0] * centred[1]).sum(dim=1) / (squares[0] * squares[1]).sqrt()


def mean_ranks(rows: Tensor) -> Tensor:
    """Ranks of the cells of each row (N, n), from 1 and the smallest on; equal cells share the mean of theirs."""
    ordered = rows.sort(dim=1).values.contiguous()
    below, upto = (torch.searchsorted(ordered, rows.contiguous(), side=side) for side in ("left", "right"))
    return (below + upto + 1).double() / 2
