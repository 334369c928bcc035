"""Local streams over a patch's pooled feature: attention over the states of an LSTM, and its controls.

The feature is the same at every step (Shroff 2020, section 3.2), so "time" here is depth of recurrence: nothing but the
LSTM's own state tells the steps apart.
"""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltpa.models.blocks import in_full_precision, widened
from ltpa.models.families.two_stream import Options
from ltpa.models.twostream.trunks import linear


@dataclasses.dataclass
class LocalOutputs:
    """What a local stream says of B patches.

    Attributes:
        logits: (B, C).
        states: (B, T, D), the LSTM's states phi_t; None without an LSTM.
        step_logits: (B, T, C), the classifier on each state, while training with `local: lstm`; else None.
        weights: (B, T), attention over steps, sums to 1; None without it.
        maps: (B, T, h, w), spatial attention of each step, sums to 1; `local: spatial` only.
    """

    logits: Tensor
    states: Tensor | None = None
    step_logits: Tensor | None = None
    weights: Tensor | None = None
    maps: Tensor | None = None


class LocalHead(nn.Module):
    """From the local trunk's map (B, C, h, w) to `LocalOutputs`; `classifier` is the last linear layer."""

    classifier: nn.Linear


class TimeAttention(nn.Module):
    """Softmax over steps of <W_t, phi_t> (eq. 3.6 and 3.7): one vector per step without bias, or a shared layer.

    W_t starts near zero (N(0, 0.01)), where attention is the mean over steps.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.shared = options.time_attention == "shared"
        if self.shared:
            self.score = nn.Linear(options.hidden, 1)
        else:
            self.vectors = nn.Parameter(torch.empty(options.steps, options.hidden))
            nn.init.normal_(self.vectors, std=0.01)

    @in_full_precision
    def forward(self, states: Tensor) -> Tensor:
        """Weights (B, T), in float32 or more, of states (B, T, D)."""
        if self.shared:
            scores = functional.linear(states, widened(self.score.weight), widened(self.score.bias)).squeeze(-1)
        else:
            scores = (states * widened(self.vectors)).sum(-1)
        return torch.softmax(scores, dim=1)


class CnnHead(LocalHead):
    """Mean over the map and a linear layer (row A1)."""

    def __init__(self, options: Options, channels: int, classes: int) -> None:
        super().__init__()
        self.classifier = linear(channels, classes)

    def forward(self, maps: Tensor) -> LocalOutputs:
        """Outputs for the trunk's maps."""
        return LocalOutputs(self.classifier(maps.mean((2, 3))))


class MlpHead(LocalHead):
    """Two linear layers in place of LSTM and attention, of as many parameters as these (within half a hidden unit)."""

    def __init__(self, options: Options, channels: int, classes: int) -> None:
        super().__init__()
        wide = matched_width(options, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, wide), nn.ReLU(), nn.Linear(wide, options.hidden))
        self.classifier = linear(options.hidden, classes)

    def forward(self, maps: Tensor) -> LocalOutputs:
        """Outputs for the trunk's maps."""
        return LocalOutputs(self.classifier(self.mlp(maps.mean((2, 3)))))


def matched_width(options: Options, channels: int) -> int:
    """Hidden units with which the MLP has as many parameters as LSTM and attention together."""
    with torch.device("meta"):
        replaced = [_lstm(options, channels), TimeAttention(options)]
    parameters = sum(p.numel() for module in replaced for p in module.parameters())
    return max(1, round((parameters - options.hidden) / (channels + 1 + options.hidden)))


class RecurrentHead(LocalHead):
    """A stacked LSTM over T copies of the pooled feature; attention over its states (A3), or the last of them (A2)."""

    def __init__(self, options: Options, channels: int, classes: int) -> None:
        super().__init__()
        self.steps = options.steps
        self.lstm = started_lstm(options, channels)
        self.attention = TimeAttention(options) if options.local == "attention" else None
        self.classifier = linear(options.hidden, classes, options.state_std)

    def forward(self, maps: Tensor) -> LocalOutputs:
        """Outputs for the trunk's maps. The feature is pooled once and repeated, never computed again."""
        feature = maps.mean((2, 3))
        states, _ = self.lstm(feature.unsqueeze(1).expand(-1, self.steps, -1))
        if self.attention is None:
            if not self.training:
                return LocalOutputs(self.classifier(states[:, -1]), states)
            step_logits = self.classifier(states)
            return LocalOutputs(step_logits[:, -1], states, step_logits)
        weights = self.attention(states)
        return LocalOutputs(self.classifier(attended(weights, states)), states, weights=weights)


def attended(weights: Tensor, states: Tensor) -> Tensor:
    """sum_t weights_t states_t, (B, D)."""
    return torch.einsum("bt,btd->bd", weights.to(states.dtype), states)


def _lstm(options: Options, channels: int) -> nn.LSTM:
    return nn.LSTM(channels, options.hidden, options.layers, batch_first=True)


def started_lstm(options: Options, channels: int) -> nn.LSTM:
    """The stacked LSTM over features of `channels`, with initial weights as `lstm_start` says."""
    lstm = _lstm(options, channels)
    for name, weight in lstm.named_parameters() if options.lstm_start == "orthogonal" else ():
        if name.startswith("weight_ih"):
            nn.init.xavier_uniform_(weight, gain=2.0)
        elif name.startswith("weight_hh"):
            nn.init.orthogonal_(weight)
    return lstm
