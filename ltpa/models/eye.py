"""The attention step of Show, Attend and Tell: weights of cells, and what is seen under them."""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltpa.models.families.captioner import Options


@dataclasses.dataclass
class State:
    """Where the decoder stands: hidden state and memory (N, n)."""

    hidden: Tensor
    memory: Tensor


@dataclasses.dataclass
class Look:
    """One step of attention: what is seen (N, D), weights (N, L) and their logarithms, cell taken (N,) and gate (N,).

    `cell` is None where all cells are seen together; weights are None without attention.
    """

    seen: Tensor
    weights: Tensor | None
    logarithms: Tensor | None
    cell: Tensor | None
    gate: Tensor | None


class Eye(nn.Module):
    """The attention step: e_i = v . tanh(W_a a_i + W_h h), weights by a softmax over the cells, a scalar gate."""

    def __init__(self, options: Options, depth: int) -> None:
        super().__init__()
        self.attends = options.attention != "none"
        if self.attends:
            self.of_cells = nn.Linear(depth, options.score, bias=False)
            self.of_state = nn.Linear(options.hidden, options.score)
            self.score = nn.Linear(options.score, 1, bias=False)  # a bias would cancel in the softmax
        self.gate = nn.Linear(options.hidden, 1) if options.gate else None

    def project(self, cells: Tensor) -> Tensor | None:
        """W_a a_i of all cells, which no step changes."""
        return self.of_cells(cells) if self.attends else None

    def forward(self, cells: Tensor, projected: Tensor | None, state: State, how: str, cell: Tensor | None) -> Look:
        """Look once.

        Args:
            how: `expectation`, `argmax`, or `sample` from torch's global random stream.
            cell: (N,) the cells to take instead; with them `how` does not count.
        """
        logarithms = weights = None
        if projected is None:
            seen = cells.mean(1)
        else:
            scores = self.score(torch.tanh(projected + self.of_state(state.hidden)[:, None])).squeeze(2)
            logarithms = F.log_softmax(scores, 1)
            weights = logarithms.exp()
            if cell is None and how == "argmax":
                cell = weights.argmax(1)
            elif cell is None and how == "sample":
                cell = torch.multinomial(weights.detach(), 1).squeeze(1)
            if cell is None:
                seen = (weights.unsqueeze(1) @ cells).squeeze(1)
            else:
                seen = cells[torch.arange(len(cells), device=cells.device), cell]
        gate = None
        if self.gate is not None:
            gate = torch.sigmoid(self.gate(state.hidden)).squeeze(1)
            seen = gate[:, None] * seen
        return Look(seen, weights, logarithms, cell, gate)
