"""The scores of Show, Attend and Tell (Xu et al. 2015), by which captioners and readers weigh the cells of a map."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltpa.models.blocks import widened


class AttentionStep(nn.Module):
    """e_i = v . tanh(W_a a_i + W_h h), weights by a softmax over the cells, and a scalar gate of the state.

    v has no bias: it would add a constant to every score, which the softmax takes out again.

    Args:
        depth, hidden: length of a cell's vector, and of the state.
        score: units of the layer under v; 0 for none of this, where nothing attends.
        gate: whether there is a gate.
    """

    def __init__(self, depth: int, hidden: int, score: int, gate: bool) -> None:
        super().__init__()
        self.attends = score > 0
        if self.attends:
            self.of_cells = nn.Linear(depth, score, bias=False)
            self.of_state = nn.Linear(hidden, score)
            self.score = nn.Linear(score, 1, bias=False)
        self.gate = nn.Linear(hidden, 1) if gate else None

    def project(self, cells: Tensor) -> Tensor:
        """W_a a_i (N, L, score) of cells (N, L, depth), which no step changes."""
        projected: Tensor = self.of_cells(cells)
        return projected

    def log_weights(self, projected: Tensor, hidden: Tensor) -> Tensor:
        """log alpha (N, L) under a state (N, hidden), at least in float32."""
        scores = self.score(torch.tanh(projected + self.of_state(hidden)[:, None])).squeeze(2)
        return F.log_softmax(widened(scores), 1)

    def opening(self, hidden: Tensor) -> Tensor | None:
        """How far the gate lets through what is seen, (N,); None without a gate."""
        return None if self.gate is None else torch.sigmoid(self.gate(hidden)).squeeze(1)
