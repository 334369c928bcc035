"""Beam search over captions."""

import torch
from torch import Tensor

from ltpa.core.errors import ConfigError
from ltpa.models.captioner import PADDING, Caption, Captioner, greedy
from ltpa.models.eye import State


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
