"""How a network's output depends on single cells of its maps, and how far maps can move without moving it.

Both look at the levels whose maps are weights of a mean; what follows a gate is not computed again for each cell. All
is in float64, where the weights of a softmax do not underflow.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ltpa.core.seeds import derive
from ltpa.evaluation.causal import ALL, Maps
from ltpa.evaluation.inference import pixel_batches
from ltpa.evaluation.map_statistics import jensen_shannon, kendall_tau, total_variation

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

MOVED = 0.05  # largest total variation distance at which the output counts as the same
STEPS = 150
_RATE, _MOMENTUM, _SQUARES, _TINY = 0.1, 0.9, 0.999, 1e-8  # of Adam, all but the first as its authors have them
_PENALTY = 20.0  # per unit of distance beyond what is allowed
_LOWEST = -30.0  # logarithm at which weights start at the least, so that their gradients do not vanish


def averaged_levels(model: "AttentionClassifier") -> list[str]:
    """The levels whose maps are weights of a mean; each gives one of the vectors that are classified, in this order."""
    return [level for level in model.attention_levels if level not in model.gated_levels]


def probe(
    model: "AttentionClassifier", images: np.ndarray, batch_size: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """`leave_one_out_tau` (N,) by level of images (N, H, W, 3) uint8, and `adversarial_divergence` (N,) by level
    and with `all` levels free.
    """
    exact = copy.deepcopy(model).double()
    levels = averaged_levels(model)
    taus: dict[str, list[np.ndarray]] = {level: [] for level in levels}
    moved: dict[str, list[np.ndarray]] = {level: [] for level in (*levels, *([ALL] if len(levels) > 1 else []))}
    seen = 0
    for maps in _exact_maps(exact, images, batch_size):
        count = len(maps[levels[0]][1])
        seeds = [derive(seed, "adversarial", row) for row in range(seen, seen + count)]
        seen += count
        for level in levels:
            taus[level].append(leave_one_out_tau(exact, maps, level).cpu().numpy())
        for scope, parts in moved.items():
            found = adversarial_divergence(exact, maps, levels if scope == ALL else [scope], seeds)
            parts.append(found.cpu().numpy())
    divergences = {scope: np.concatenate(parts) for scope, parts in moved.items()}
    divergences.setdefault(ALL, divergences[levels[0]])
    return {level: np.concatenate(parts) for level, parts in taus.items()}, divergences


def _exact_maps(exact: "AttentionClassifier", images: np.ndarray, batch_size: int) -> Iterator[Maps]:
    for pixels in pixel_batches(exact, images, batch_size):
        with torch.no_grad():
            maps = exact.weighted_maps(exact.preprocessing(pixels.double()))
        yield maps


def leave_one_out_tau(exact: "AttentionClassifier", maps: Maps, level: str) -> Tensor:
    """Kendall's tau (N,) of a level's weights with how far the output moves when each cell in turn gets none.

    The other weights of the map are scaled to sum 1. The distance is total variation. `exact` is in float64.
    """
    local, weights = maps[level]
    flat = weights.flatten(1)
    place = averaged_levels(exact).index(level)
    cells = flat.shape[1]
    taus = []
    with torch.no_grad():
        for row, vectors in enumerate(zip(*exact.vectors_under(maps, {}), strict=True)):
            own = exact.classify([vector[None] for vector in vectors]).softmax(dim=1)
            rest = flat[row].log().repeat(cells, 1).fill_diagonal_(-torch.inf).softmax(dim=1)
            left = [vector.expand(cells, -1) for vector in vectors]
            left[place] = rest @ local[row].flatten(1).T
            moved = total_variation(exact.classify(left).softmax(dim=1), own)
            taus.append(kendall_tau(flat[row][None], moved[None]))
    return torch.cat(taus)


@torch.enable_grad()
def adversarial_divergence(
    exact: "AttentionClassifier", maps: Maps, free: Sequence[str], seeds: Sequence[int]
) -> Tensor:
    """How different other maps can be that leave the output as it is: Jensen-Shannon divergence (N,) in nats.

    After Wiegreffe and Pinter (EMNLP 2019), for each image: `STEPS` steps of Adam on the logarithms of the weights of
    the levels `free` climb the divergence from the own weights, mean over these levels; the largest is taken at which
    the output has moved by at most `MOVED` in total variation. The search starts beside the own weights, where the
    gradient is not zero, at a place drawn from each image's seed. `exact` is in float64.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    order = averaged_levels(exact)
    with torch.no_grad():
        vectors = exact.vectors_under(maps, {})
        own = exact.classify(vectors).softmax(dim=1)
    local = {level: maps[level][0].flatten(2).transpose(1, 2) for level in free}
    weights = {level: maps[level][1].flatten(1) for level in free}
    scores = {}
    for level, own_weights in weights.items():
        logs = (own_weights / own_weights.amax(dim=1, keepdim=True)).log().clamp(min=_LOWEST)
        noise = torch.stack([torch.randn(logs.shape[1], generator=each, dtype=logs.dtype) for each in generators])
        scores[level] = (logs + noise.to(logs.device)).requires_grad_()
    best = own.new_zeros(len(own))
    means = {level: (torch.zeros_like(each), torch.zeros_like(each)) for level, each in scores.items()}
    for step in range(1, STEPS + 1):
        tried = {level: each.softmax(dim=1) for level, each in scores.items()}
        moved = [
            (tried[level][:, None] @ local[level]).squeeze(1) if level in tried else vector
            for level, vector in zip(order, vectors, strict=True)
        ]
        distance = total_variation(exact.classify(moved).softmax(dim=1), own)
        divergence = torch.stack([jensen_shannon(tried[level], weights[level]) for level in free]).mean(dim=0)
        best = torch.where(distance <= MOVED, torch.maximum(best, divergence.detach()), best)
        loss = (_PENALTY * (distance - MOVED).relu() - divergence).sum()
        gradients = torch.autograd.grad(loss, list(scores.values()))
        for level, gradient in zip(scores, gradients, strict=True):
            _adam(scores[level], gradient, *means[level], step)
    return best


@torch.no_grad()
def _adam(values: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: int) -> None:
    """A step of Adam, in place. `torch.optim` would load for a second what no network here needs."""
    mean.lerp_(gradient, 1 - _MOMENTUM)
    square.lerp_(gradient.square(), 1 - _SQUARES)
    spread = (square / (1 - _SQUARES**step)).sqrt() + _TINY
    values -= _RATE / (1 - _MOMENTUM**step) * mean / spread
