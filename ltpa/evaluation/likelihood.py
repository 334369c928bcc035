"""What a network over pixels is worth: bits, measured reach, completions, and images through an arithmetic coder.

Pixels are levels (N, H, W) int64. Give networks in double precision and evaluation mode.
"""

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from ltpa.evaluation.coder import Decoder, Encoder, counts_of
from ltpa.models.pixels import PixelNetwork


@torch.no_grad()
def bits(model: PixelNetwork, pixels: Tensor, batch: int) -> np.ndarray:
    """-log2 p (N, H, W) float64 of the pixels, each after those before it, `batch` images per pass."""
    parts = [model.nats(part).double() / math.log(2) for part in pixels.split(batch)]
    return torch.cat(parts).cpu().numpy()


@torch.no_grad()
def influence(model: PixelNetwork, pixels: Tensor) -> np.ndarray:
    """Which pixel matters to which: (P, P) bool, row the pixel that was changed, column the one predicted.

    Each pixel of all images is changed to the next level in turn; it matters to those whose logits change at all, in
    any of the images. Several images are needed, as a ReLU can hide what passes.
    """
    size = pixels[0].numel()
    base = model.logits(pixels).flatten(2)
    found = np.zeros((size, size), bool)
    for at in range(size):
        changed = pixels.flatten(1).clone()
        changed[:, at] = (changed[:, at] + 1) % model.num_classes
        logits = model.logits(changed.view_as(pixels)).flatten(2)
        found[at] = (logits != base).any(1).any(0).cpu().numpy()
    return found


@dataclasses.dataclass(frozen=True)
class Reach:
    """Attributes:
    leaks: pairs of pixels in which one matters to itself or to one before it; 0 in a right network.
    seen_pct: share of all pairs of a pixel and one before it in which the earlier one matters.
    rows: the most rows up from which a pixel matters.
    """

    leaks: int
    seen_pct: float
    rows: int


def reach(found: np.ndarray, width: int) -> Reach:
    """What `influence` says, for images of `width` columns."""
    later = np.triu(np.ones(found.shape, bool), 1)
    past = found & later
    changed, predicted = np.nonzero(past)
    rows = int((predicted // width - changed // width).max()) if len(changed) else 0
    return Reach(int((found & ~later).sum()), 100 * float(past.sum() / max(1, later.sum())), rows)


@torch.no_grad()
def _probabilities(model: PixelNetwork, pixels: Tensor, at: int) -> Tensor:
    """p (N, K) of the levels of pixel number `at`, from those before it alone: the others are set to 0."""
    before = pixels.flatten(1).clone()
    before[:, at:] = 0
    return model.logits(before.view_as(pixels)).flatten(2)[..., at].softmax(1)


def complete(model: PixelNetwork, pixels: Tensor, rows: int, draws: np.ndarray | None = None) -> Tensor:
    """Images that begin with the first `rows` rows of `pixels`, the rest drawn pixel by pixel.

    Args:
        draws: (N, P) uniform numbers in [0, 1), by which levels are drawn, so that an image does not depend on the
            others; None for the most likely level of each pixel.
    """
    found = pixels.clone()
    flat = found.view(len(found), -1)
    for at in range(rows * pixels.shape[2], flat.shape[1]):
        p = _probabilities(model, found, at)
        if draws is None:
            flat[:, at] = p.argmax(1)
        else:
            passed = p.cumsum(1) <= torch.from_numpy(draws[:, at, None]).to(p)
            flat[:, at] = passed.sum(1).clamp(max=model.num_classes - 1)
    return found


def encode(model: PixelNetwork, pixels: Tensor) -> list[tuple[int, int]]:
    """Each image as a number and its length in bits (`ltpa.evaluation.coder`), under the network's probabilities."""
    encoders = [Encoder() for _ in pixels]
    flat = pixels.flatten(1)
    for at in range(flat.shape[1]):
        counts = counts_of(_probabilities(model, pixels, at).cpu().numpy())
        for encoder, row, level in zip(encoders, counts, flat[:, at].tolist(), strict=True):
            encoder.put(row, level)
    return [encoder.message() for encoder in encoders]


def decode(model: PixelNetwork, messages: list[tuple[int, int]], height: int, width: int) -> Tensor:
    """The images (N, height, width) of `encode`, from the messages alone.

    The same number of messages at once as were encoded, on the same device: the network's probabilities must come out
    the same to the bit.
    """
    decoders = [Decoder(*message) for message in messages]
    pixels = torch.zeros(len(messages), height, width, dtype=torch.int64, device=model.head.weight.device)
    flat = pixels.view(len(messages), -1)
    for at in range(flat.shape[1]):
        counts = counts_of(_probabilities(model, pixels, at).cpu().numpy())
        levels = [decoder.get(row) for decoder, row in zip(decoders, counts, strict=True)]
        flat[:, at] = torch.tensor(levels, device=flat.device)
    return pixels
