"""Show, Attend and Tell (Xu et al. 2015): an LSTM that looks at cells of an image and says a word at a time.

The equations are those of section 3 of the paper; where paper and published code differ, docs/survey-captions.md says
what is computed here. Cells are (N, L, D), captions (N, T) int64 with -1 behind the end.
"""

import dataclasses
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltpa.core.errors import ModelError
from ltpa.models.base import AttentionClassifier
from ltpa.models.cells import CellTrunk
from ltpa.models.eye import Eye, Look, State
from ltpa.models.families.captioner import Options
from ltpa.models.registry import parse_options
from ltpa.models.starting import refuse_differences, take

PADDING = -1
# What the network of a started one may do otherwise: how it looks is no shape of a weight.
_MAY_DIFFER = frozenset(
    {"attention", "dropout", "penalty", "penalty_target", "coin", "policy_weight", "credit", "entropy"}
    | {"baseline_decay", "length"}
)


@dataclasses.dataclass
class Told:
    """A caption read word by word: log p (N, T, K) of every next word, and the looks of its steps.

    `maps` (N, T, L), `log_maps`, `cells` (N, T) and `gates` (N, T) are None where there are none.
    """

    log_p: Tensor
    maps: Tensor | None
    log_maps: Tensor | None
    cells: Tensor | None
    gates: Tensor | None


@dataclasses.dataclass
class Caption:
    """Captions (N, T) int64 with -1 behind the end, their log p (N,), and which of them ended (N,) within T words."""

    words: Tensor
    log_p: Tensor
    ended: Tensor


@dataclasses.dataclass
class Greedy(Caption):
    """And log p (N, T, K) of every word at each step, and the maps (N, T, L) of the steps; None without attention."""

    steps: Tensor
    maps: Tensor | None


class Captioner(AttentionClassifier):
    """Encoder, attention and decoder of captions; the classes are the words, the last of which is the end.

    Attributes:
        options: what it is.
        baseline: (T,) moving mean of what the words from each step on are worth (hard attention); saved with the
            weights.
    """

    classifies: ClassVar[bool] = False
    baseline: Tensor

    def __init__(self, options: Options, words: int, image_size: int) -> None:
        super().__init__(options.plain(), words, image_size)
        self.options, self.end = options, words - 1
        trunk = parse_options({"family": "cells", "width": options.width})
        self.trunk = CellTrunk(trunk)
        depth, wide = self.trunk.channels, options.hidden
        self.side = image_size // 4
        self.feature_dim = wide
        self.attention_levels = options.map_levels
        if options.position:
            self.position = nn.Parameter(torch.randn(self.side**2, depth))
        self.first_hidden, self.first_memory = nn.Linear(depth, wide), nn.Linear(depth, wide)
        self.embedding = nn.Embedding(words, options.word)
        self.eye = Eye(options, depth)
        self.lstm = nn.LSTMCell(options.word + depth, wide)
        out = options.word if options.deep_output else wide
        if options.deep_output:
            self.out_state, self.out_seen = nn.Linear(wide, out), nn.Linear(depth, out, bias=False)
        self.head = nn.Linear(out, words)
        self.dropout = nn.Dropout(options.dropout)
        self.register_buffer("baseline", torch.zeros(options.length))

    def reset_parameters(self) -> None:
        """Draw initial weights from torch's global random stream, as torch does for each kind of layer."""
        for module in self.modules():
            if module is not self and hasattr(module, "reset_parameters"):
                cast(nn.Linear, module).reset_parameters()
        if self.options.position:
            nn.init.normal_(self.position)
        self.baseline.zero_()

    def start_from(self, source: AttentionClassifier) -> bool:
        """Take the trunk of a `cells` network, or all weights of a captioner that differs in how it looks at most.

        Raises:
            ModelError: it is neither, or of other sizes.
        """
        if source.architecture["family"] == "cells":
            if source.architecture["width"] != self.options.width or source.image_size != self.image_size:
                raise ModelError(
                    f"cannot start a captioner of width {self.options.width:g} for {self.image_size} px from a cells "
                    f"network of width {source.architecture['width']:g} for {source.image_size} px; make both equal"
                )
            take(self, source, only="trunk.")
            return True
        refuse_differences(self, source, _MAY_DIFFER)
        if "none" in (pair := {self.architecture["attention"], source.architecture["attention"]}) and len(pair) > 1:
            raise ModelError("cannot start a captioner with attention from one without, nor the other way round")
        take(self, source, but=("preprocessing.", "baseline"))
        return True

    # --- looking and reading -----------------------------------------------------------------------------------------

    def cells(self, x: Tensor) -> Tensor:
        """The cells (N, L, D) of images, in reading order, without their position vectors."""
        self.check_input(x)
        return self.trunk(x)["cells"].flatten(2).transpose(1, 2)

    def begin(self, cells: Tensor) -> tuple[Tensor, Tensor | None, State]:
        """Cells with their positions, what the scores need of them, and the first state: two MLPs of the mean cell."""
        if self.options.position:
            cells = cells + self.position
        mean = cells.mean(1)
        state = State(torch.tanh(self.first_hidden(mean)), torch.tanh(self.first_memory(mean)))
        return cells, self.eye.project(cells) if self.eye.attends else None, state

    def step(
        self, cells: Tensor, projected: Tensor | None, state: State, words: Tensor, how: str, cell: Tensor | None = None
    ) -> tuple[Tensor, State, Look]:
        """Say the next word: log p (N, K), the new state, and where was looked.

        Args:
            words: (N,) the words before; -1 for none, whose embedding is zero.
            how, cell: as in `Eye.forward`.
        """
        look = self.eye(cells, projected, state, how, cell)
        before = self.embedding(words.clamp(min=0)) * (words >= 0)[:, None]
        hidden, memory = self.lstm(torch.cat([before, look.seen], 1), (state.hidden, state.memory))
        out = self.dropout(hidden)
        if self.options.deep_output:
            out = self.dropout(torch.tanh(before + self.out_state(out) + self.out_seen(look.seen)))
        return F.log_softmax(self.head(out), 1), State(hidden, memory), look

    def tell(self, cells: Tensor, captions: Tensor, how: str, choices: Tensor | None = None) -> Told:
        """Read captions (N, T) over `cells` word by word, each after the true ones before it.

        `choices` (N, T) are the cells to take in place of those that `how` would.
        """
        cells, projected, state = self.begin(cells)
        words = torch.full_like(captions[:, 0], PADDING)
        log_p, looks = [], []
        for at in range(captions.shape[1]):
            chosen = None if choices is None else choices[:, at]
            found, state, look = self.step(cells, projected, state, words, how, chosen)
            log_p.append(found)
            looks.append(look)
            words = captions[:, at]
        return Told(
            torch.stack(log_p, 1),
            stacked([look.weights for look in looks]),
            stacked([look.logarithms for look in looks]),
            stacked([look.cell for look in looks]),
            stacked([look.gate for look in looks]),
        )

    # --- learning ----------------------------------------------------------------------------------------------------

    def caption_loss(self, cells: Tensor, captions: Tensor) -> tuple[Tensor, Tensor]:
        """The training loss, a mean over captions, and log p (N, T, K) of their words.

        Soft: -sum_t log p(y_t) and the penalty. Hard: the same under cells that are drawn, and the score-function
        estimate of what the drawing is worth; under a batch's coin as soft. Moves the baseline in training mode.
        """
        options = self.options
        drawn = options.attention == "hard" and not (options.coin and torch.rand(()) < options.coin)
        told = self.tell(cells, captions, "sample" if drawn else "expectation")
        if drawn:
            return self.estimate(told, captions), told.log_p
        loss = -word_log_p(told.log_p, captions).sum(1).mean()
        if options.attention == "soft" and options.penalty and told.maps is not None:
            loss = loss + options.penalty * penalty(told.maps, captions, options.penalty_target)
        return loss, told.log_p

    def estimate(self, told: Told, captions: Tensor) -> Tensor:
        """The loss whose gradient estimates that of the bound on -log p (section 4.1), from one path per caption."""
        options, real = self.options, captions >= 0
        assert told.log_maps is not None and told.maps is not None and told.cells is not None
        found = word_log_p(told.log_p, captions)
        worth = found.detach()
        worth = worth.flip(1).cumsum(1).flip(1) if options.credit == "to-go" else worth.sum(1, keepdim=True) * real
        steps = captions.shape[1]
        taken = told.log_maps.gather(2, told.cells[..., None]).squeeze(2)
        credit = ((worth - self.baseline[:steps]) * taken * real).sum(1)
        spread = -((told.maps * told.log_maps).sum(2) * real).sum(1)
        if self.training:
            seen = real.sum(0)
            mean = (worth * real).sum(0) / seen.clamp(min=1)
            moved = options.baseline_decay * self.baseline[:steps] + (1 - options.baseline_decay) * mean
            self.baseline[:steps] = torch.where(seen > 0, moved, self.baseline[:steps])
        return -(found.sum(1) + options.policy_weight * credit + options.entropy * spread).mean()

    # --- what every network offers -----------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """log p (N, T, K) of each word of the caption that is most likely word by word, after the words before it."""
        return greedy(self, self.cells(x)).steps

    def features(self, x: Tensor) -> Tensor:
        """The first state (N, n)."""
        return self.begin(self.cells(x))[2].hidden

    def local_features(self, x: Tensor) -> dict[str, Tensor]:
        """The map of cells (N, D, h, w)."""
        self.check_input(x)
        return cast(dict[str, Tensor], self.trunk(x))

    def attention(self, x: Tensor, query: Tensor | None = None) -> dict[str, Tensor]:
        """The maps (N, h, w) of the words of the greedy caption; even behind its end."""
        if not self.attention_levels:
            return {}
        said = greedy(self, self.cells(x))
        assert said.maps is not None
        even = torch.full_like(said.maps, 1 / said.maps.shape[2])
        maps = torch.where((said.words >= 0)[..., None], said.maps, even)
        return {level: maps[:, at].unflatten(1, (self.side, -1)) for at, level in enumerate(self.attention_levels)}


@torch.no_grad()
def greedy(model: Captioner, cells: Tensor, how: str = "expectation", draws: Tensor | None = None) -> Greedy:
    """The most likely word at each step.

    Args:
        how: `expectation` or `argmax` of the attention.
        draws: (N, T) uniform numbers in [0, 1), with which a cell is drawn at each step: the one where the running sum
            of the weights passes the number, so that a caption does not depend on the others in its batch.
    """
    given, projected, state = model.begin(cells)
    count = len(cells)
    words = torch.full((count, model.options.length), PADDING, device=cells.device)
    before, total = words[:, 0].clone(), cells.new_zeros(count)
    going = torch.ones(count, dtype=torch.bool, device=cells.device)
    steps, looks = [], []
    for at in range(model.options.length):
        cell = None if draws is None else _drawn(model, given, projected, state, draws[:, at])
        log_p, state, look = model.step(given, projected, state, before, how, cell)
        best, before = log_p.max(1)
        words[:, at] = torch.where(going, before, words[:, at])
        total = torch.where(going, total + best, total)
        going = going & (before != model.end)
        steps.append(log_p)
        looks.append(look.weights)
    return Greedy(words, total, ~going, torch.stack(steps, 1), stacked(looks))


def _drawn(model: Captioner, cells: Tensor, projected: Tensor | None, state: State, draws: Tensor) -> Tensor | None:
    """The cells (N,) that uniform numbers choose; None without attention."""
    weights = model.eye(cells, projected, state, "expectation", None).weights
    if weights is None:
        return None
    passed = (weights.double().cumsum(1) <= draws[:, None]).sum(1)
    return passed.clamp(max=weights.shape[1] - 1)


def stacked(parts: list[Tensor | None]) -> Tensor | None:
    """What the steps gave, step by step (N, T, ...); None where they gave none."""
    there = [part for part in parts if part is not None]
    return torch.stack(there, 1) if there else None


def word_log_p(log_p: Tensor, captions: Tensor) -> Tensor:
    """log p (N, T) of the words of `captions` under `log_p` (N, T, K); zero behind the end."""
    found = log_p.gather(2, captions.clamp(min=0)[..., None]).squeeze(2)
    return found * (captions >= 0)


def penalty(maps: Tensor, captions: Tensor, target: str = "one") -> Tensor:
    """sum_i (target - sum_t alpha_ti)^2 (eq. 14), a mean over captions; steps behind the end do not count.

    For maps that each sum to 1 the least value with target 1 is (L - C)^2 / L for C words, at even maps.
    """
    real = captions >= 0
    sums = (maps * real[..., None]).sum(1)
    goal = real.sum(1, keepdim=True) / maps.shape[2] if target == "words-over-cells" else 1.0
    return ((goal - sums) ** 2).sum(1).mean()


def build_captioner(options: Options, num_classes: int, image_size: int) -> Captioner:
    """The captioner that `options` describe, over `num_classes` words."""
    return Captioner(options, num_classes, image_size)
