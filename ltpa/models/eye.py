"""The attention step of Show, Attend and Tell: weights of cells, and what is seen under them."""

import dataclasses

import torch
from torch import Tensor

from ltpa.models.attention_step import AttentionStep
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


class Eye(AttentionStep):
    """One look of a captioner; without attention at the mean of all cells."""

    def __init__(self, options: Options, depth: int) -> None:
        super().__init__(depth, options.hidden, options.score if options.attention != "none" else 0, options.gate)

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
            logarithms = self.log_weights(projected, state.hidden)
            weights = logarithms.exp()
            if cell is None and how == "argmax":
                cell = weights.argmax(1)
            elif cell is None and how == "sample":
                cell = torch.multinomial(weights.detach(), 1).squeeze(1)
            if cell is None:
                seen = (weights.to(cells.dtype).unsqueeze(1) @ cells).squeeze(1)
            else:
                seen = cells[torch.arange(len(cells), device=cells.device), cell]
        gate = self.opening(state.hidden)
        if gate is not None:
            seen = gate[:, None] * seen
        return Look(seen, weights, logarithms, cell, gate)
