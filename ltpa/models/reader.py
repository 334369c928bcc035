"""Soft and hard attention over a map of features (Xu et al., Show, Attend and Tell, ICML 2015), read without words.

Annotations a_i (N, L, D) are the cells of a convolutional map. h_0 and c_0 are tanh of linear layers of their mean;
their weights alpha are those of `AttentionStep`; z is the expectation of a under alpha or one drawn cell, and an LSTM
takes z.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltpa.core.errors import ModelError
from ltpa.models.attention_step import AttentionStep
from ltpa.models.base import AttentionClassifier
from ltpa.models.blocks import max_pool
from ltpa.models.families.reader import Options
from ltpa.models.looking import Reading
from ltpa.models.policy import MovingBaseline, categorical_sample, score_loss
from ltpa.models.vgg import BASELINE_POOLS, CHANNELS, VggTrunk


def even_penalty(weights: Tensor) -> Tensor:
    """Mean over images of sum_i (1 - sum_t alpha_ti)^2 of weights (N, steps, L).

    Over C steps it is at least (L - C)^2 / L, reached by even weights alone: it spreads attention.
    """
    return (1 - weights.sum(1)).square().sum(1).mean()


class Reader(AttentionClassifier, Reading):
    """A trunk, one attention step used `steps` times, an LSTM, and a linear layer for the classes."""

    def __init__(self, options: Options, num_classes: int, image_size: int) -> None:
        super().__init__(options.plain(), num_classes, image_size)
        self.options = options
        self.steps = options.steps
        self.attention_levels = options.map_levels
        self.feature_dim = options.hidden
        features = options.channels(CHANNELS[options.layer])
        self.trunk = _trunk(options)
        self.first_state = nn.Linear(features, options.hidden)
        self.first_memory = nn.Linear(features, options.hidden)
        self.attend = AttentionStep(features, options.hidden, options.score, options.gate)
        self.core = nn.LSTMCell(features, options.hidden)
        self.action = nn.Linear(options.hidden, num_classes)
        if options.attention == "hard":
            self.baseline = MovingBaseline()
        side = image_size
        for number, window in BASELINE_POOLS.items():
            if number < int(options.layer.removeprefix("conv")):
                side = -(-side // window)  # pools round up
        self.cells = (side, side)

    def local_features(self, x: Tensor) -> dict[str, Tensor]:
        """The trunk's maps, up to the one that is read."""
        self.check_input(x)
        maps: dict[str, Tensor] = self.trunk(x)
        return maps

    def read(self, x: Tensor, way: str, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `Reading.read`."""
        if way == "sample" and noise is None:
            raise ModelError("reading by sample needs noise (N, steps, cells), so that it can be repeated")
        states, log_weights, _ = self._read(x, way, noise)
        logits = torch.stack([self.action(state) for state in states], 1)
        return logits, torch.stack(log_weights, 1).exp().unflatten(2, self.cells)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) after the last step, read as the network is declared to."""
        logits: Tensor = self.action(self.features(x))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """The LSTM's last state (N, hidden)."""
        return self._read(x, self.options.read)[0][-1]

    def log_attention(self, x: Tensor, query: Tensor | None = None) -> dict[str, Tensor]:
        """Logarithms of the weights of each step, (N, rows, columns) float64."""
        if query is not None:
            raise ModelError("reader has no global vector that another image could give; leave the query out")
        logs = self._read(x, self.options.read)[1]
        return {
            level: logs[number].double().unflatten(1, self.cells) for number, level in enumerate(self.attention_levels)
        }

    def attention(self, x: Tensor, query: Tensor | None = None) -> dict[str, Tensor]:
        """The weights of each step, (N, rows, columns), each map summing to 1."""
        return {level: logs.exp().to(x.dtype) for level, logs in self.log_attention(x, query).items()}

    def loss_and_logits(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the answer, and of a hard reader the loss of its drawn cells (equations 11 to 13)."""
        options = self.options
        hard = options.attention == "hard"
        drawn = torch.ones((), device=x.device)
        if hard:  # one coin for the whole batch, as in the authors' code
            drawn = (torch.rand((), device=x.device) >= options.coin).to(x.dtype)
        states, log_weights, chosen = self._read(x, "sample" if hard else "expectation", drawn=drawn)
        logits = self.action(states[-1])
        each = F.cross_entropy(logits, targets, reduction="none")
        loss = each.mean()
        weights = torch.stack(log_weights, 1)
        if options.penalty:
            loss = loss + options.penalty * even_penalty(weights.exp())
        if hard:
            reward = -each.detach()
            advantage = (reward - self.baseline(reward))[:, None]
            density = weights.gather(2, torch.stack(chosen, 1)[..., None]).squeeze(2) * drawn
            entropy = -(weights.exp() * weights).sum(2).sum(1).mean()
            loss = loss + options.policy_weight * score_loss(density, advantage) - options.entropy * entropy
        return loss, logits

    def _read(
        self, x: Tensor, way: str, noise: Tensor | None = None, drawn: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """States, log weights and chosen cells of each step; where `drawn` is 0 the expectation is read instead."""
        cells = self.local_features(x)[self.options.layer].flatten(2).transpose(1, 2)
        mean = cells.mean(1)
        state, memory = torch.tanh(self.first_state(mean)), torch.tanh(self.first_memory(mean))
        projected = self.attend.project(cells)
        states, logs, chosen = [], [], []
        for number in range(self.steps):
            log_weights = self.attend.log_weights(projected, state)
            if way == "expectation" or drawn is not None:
                vector = torch.einsum("nl,nld->nd", log_weights.exp().to(cells.dtype), cells)
            if way != "expectation":
                given = None if noise is None else noise[:, number].to(log_weights.dtype)
                cell = log_weights.argmax(1) if way == "argmax" else categorical_sample(log_weights, given)
                one = cells[torch.arange(len(x), device=x.device), cell]
                vector = one if drawn is None else torch.where(drawn > 0, one, vector)
                chosen.append(cell)
            opening = self.attend.opening(state)
            state, memory = self.core(vector if opening is None else opening[:, None] * vector, (state, memory))
            states.append(state)
            logs.append(log_weights)
        return states, logs, chosen


def _trunk(options: Options) -> VggTrunk:
    pools: dict[int, nn.Module] = {number: max_pool(window) for number, window in BASELINE_POOLS.items()}
    return VggTrunk(options, pools, last=options.layer)


def build_reader(options: Options, num_classes: int, image_size: int) -> Reader:
    """A network of these options."""
    return Reader(options, num_classes, image_size)
