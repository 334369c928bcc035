"""The same network before any training: what its maps hit by its architecture alone."""

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ltpa.core.seeds import derive
from ltpa.models.foreign import Foreign, redraw

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

DRAWS = 8
STATISTICS = 100  # images that batch normalisation takes its statistics from


def untrained_networks(model: "AttentionClassifier", draws: int = DRAWS) -> "Iterator[AttentionClassifier]":
    """Networks like `model`, its preprocessing included, with initial weights; nothing is learnt.

    Batch normalisation uses the statistics of each batch it sees, so that maps are as sharp as those of a network in
    use: pass all images in one batch. Dropout is off. The draws depend on the seed that `model` was trained with, so
    that the networks of several seeds have several sets of draws.
    """
    from ltpa.models import build_model

    device = next(model.parameters()).device
    for draw in range(draws):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(model.metadata.get("extra", {}).get("seed", 0), "untrained", draw))
            if isinstance(model, Foreign):
                other = copy.deepcopy(model)
                for part in other.network.modules():
                    redraw(part)
                network: AttentionClassifier = other
            else:
                network = build_model(model.architecture, model.num_classes, model.image_size)
                network.preprocessing = model.preprocessing
        network.to(device).eval()
        for part in network.modules():
            if isinstance(part, _BatchNorm):
                part.train()
        yield network


def settle(network: "AttentionClassifier", images: np.ndarray) -> None:
    """Give an untrained network the statistics of images (N, H, W, 3), so that no batch that it sees decides its maps.

    They are those of one batch of `STATISTICS` images, spread evenly over all.
    """
    from ltpa.evaluation.inference import logits_of

    norms = [part for part in network.modules() if isinstance(part, _BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches, of which there is one
    chosen = images[np.unique(np.linspace(0, len(images) - 1, STATISTICS).round().astype(int))]
    logits_of(network, chosen, len(chosen))
    network.eval()
