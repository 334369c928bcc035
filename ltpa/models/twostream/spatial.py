"""The form of the thesis' chapter 7: between the LSTM's steps, attention over the positions of the patch's map.

After Mott et al. 2019 (S3TA) with one query: keys and values are channels of the map with a spatial basis concatenated,
the query comes from the state of the step before, and the answer is the LSTM's input. These T maps are the only truly
spatial ones of the method.
"""

import math

import torch
from torch import Tensor, nn

from ltpa.core.errors import ModelError
from ltpa.models.blocks import in_full_precision
from ltpa.models.families.two_stream import Options
from ltpa.models.twostream.temporal import LocalHead, LocalOutputs, TimeAttention, attended, started_lstm
from ltpa.models.twostream.trunks import linear


class SpatialHead(LocalHead):
    """Local stream with spatial attention between steps.

    Raises:
        ModelError: as many key channels as the map has, so that none is left for values.
    """

    def __init__(self, options: Options, channels: int, classes: int) -> None:
        super().__init__()
        if options.key_channels >= channels:
            raise ModelError(f"two-stream: key_channels = {options.key_channels}: the map has {channels}; take fewer")
        self.steps, self.hidden, self.layers = options.steps, options.hidden, options.layers
        self.key_channels, self.basis_size = options.key_channels, options.basis_size
        extra = options.basis_size**2
        key, value = options.key_channels + extra, channels - options.key_channels + extra
        self.scale = 1 / math.sqrt(key) if options.score_scale == "sqrt" else 1.0
        wide = options.hidden
        self.query = nn.Sequential(
            nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, key)
        )
        self.answer = nn.Sequential(nn.Linear(value, wide), nn.ReLU(), nn.Linear(wide, wide))
        self.basis = nn.Linear(extra, extra) if options.basis == "learned" else None
        self.lstm = started_lstm(options, wide)
        self.attention = TimeAttention(options)
        self.classifier = linear(wide, classes, options.state_std)

    def forward(self, maps: Tensor) -> LocalOutputs:
        """Outputs for the trunk's maps (B, C, h, w); the first query, of a zero state, is the same for every patch."""
        batch, _, height, width = maps.shape
        cells = maps.flatten(2).transpose(1, 2)
        basis = cosine_basis(height, width, self.basis_size).to(cells)
        if self.basis is not None:
            basis = self.basis(basis)
        place = basis.expand(batch, -1, -1)
        keys = torch.cat([cells[..., : self.key_channels], place], -1)
        values = torch.cat([cells[..., self.key_channels :], place], -1)
        hidden = maps.new_zeros(self.layers, batch, self.hidden)
        cell = torch.zeros_like(hidden)
        states, looks = [], []
        for _ in range(self.steps):
            look = self._look(keys, self.query(hidden[-1]))
            answer = self.answer(torch.einsum("bn,bnv->bv", look.to(values.dtype), values))
            output, (hidden, cell) = self.lstm(answer.unsqueeze(1), (hidden, cell))
            states.append(output[:, 0])
            looks.append(look.reshape(batch, height, width))
        stacked = torch.stack(states, 1)
        weights = self.attention(stacked)
        logits = self.classifier(attended(weights, stacked))
        return LocalOutputs(logits, stacked, weights=weights, maps=torch.stack(looks, 1))

    @in_full_precision
    def _look(self, keys: Tensor, query: Tensor) -> Tensor:
        """Eq. 7.1: weights (B, n), in float32 or more, of n positions with keys (B, n, K) under a query (B, K)."""
        return torch.softmax(torch.einsum("bnk,bk->bn", keys, query) * self.scale, dim=1)


def cosine_basis(height: int, width: int, size: int) -> Tensor:
    """S[(i, j), (u, v)] = cos(pi u i / h) cos(pi v j / w); i = 1..h, j = 1..w, u, v = 1..size; (h w, size^2)."""

    def waves(length: int) -> Tensor:
        position = torch.arange(1, length + 1, dtype=torch.float64)
        frequency = torch.arange(1, size + 1, dtype=torch.float64)
        return torch.cos(math.pi * torch.outer(position, frequency) / length)

    down, across = waves(height), waves(width)
    product = down[:, None, :, None] * across[None, :, None, :]
    return product.reshape(height * width, size * size).float()
