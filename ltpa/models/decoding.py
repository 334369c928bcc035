"""From cells to captions: the most likely word at each step, and beam search."""

import dataclasses

import torch
from torch import Tensor

from ltpa.core.errors import ConfigError
from ltpa.models.captioner import PADDING, Captioner, State, stacked


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


@torch.no_grad()
def beam(model: Captioner, cells: Tensor, width: int, how: str = "expectation") -> Caption:
    """The most likely caption that a beam of `width` finds, the greedy one included; log p is not divided by length.

    A width of 1 is `greedy`.

    Raises:
        ConfigError: `width` is below 1 or above the number of words.
    """
    if not 1 <= width <= model.num_classes:
        raise ConfigError(f"a beam of width {width}; it can be 1 to {model.num_classes}, the number of words")
    found = greedy(model, cells, how)
    if width == 1:
        return found
    count, longest, size = len(cells), model.options.length, model.num_classes
    given, projected, state = model.begin(cells)
    rows = torch.arange(count, device=cells.device).repeat_interleave(width)
    given, projected = given[rows], None if projected is None else projected[rows]
    state = State(state.hidden[rows], state.memory[rows])
    words = torch.full((count * width, longest), PADDING, device=cells.device)
    total = torch.full((count, width), -torch.inf, dtype=cells.dtype, device=cells.device)
    total[:, 0] = 0  # all hypotheses are one at first
    ended = torch.zeros(count * width, dtype=torch.bool, device=cells.device)
    before = words[:, 0].clone()
    stay = torch.full((size,), -torch.inf, dtype=cells.dtype, device=cells.device)
    stay[model.end] = 0  # an ended hypothesis goes on as itself
    for at in range(longest):
        log_p, new, _ = model.step(given, projected, state, before, how)
        log_p = torch.where(ended[:, None], stay, log_p).view(count, width, size)
        total, chosen = (total[..., None] + log_p).flatten(1).topk(width, 1)
        parent = (torch.arange(count, device=cells.device)[:, None] * width + chosen // size).flatten()
        before = (chosen % size).flatten()
        words, ended = words[parent], ended[parent]
        words[:, at] = torch.where(ended, words[:, at], before)
        ended = ended | (before == model.end)
        state = State(new.hidden[parent], new.memory[parent])
    best = total.argmax(1)
    rows = torch.arange(count, device=cells.device) * width + best
    better = total.gather(1, best[:, None]).squeeze(1) > found.log_p
    return Caption(
        torch.where(better[:, None], words[rows], found.words),
        torch.where(better, total.max(1).values, found.log_p),
        torch.where(better, ended[rows], found.ended),
    )
