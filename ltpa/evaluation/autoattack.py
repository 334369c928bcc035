"""APGD and Square of the optional package pyautoattack (Croce and Hein, ICML 2020; Andriushchenko et al., ECCV 2020).

Their random numbers are drawn for a whole batch at a time, so that results depend on the batch size. What they return
is projected into the ball and judged here.
"""

import importlib.util
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ltpa.evaluation.pgd import project
from ltpa.evaluation.robustness import Victims, stays_right

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

APGD_CE, APGD_T, SQUARE = "apgd-ce", "apgd-t", "square"
ATTACKS = (APGD_CE, APGD_T, SQUARE)
ITERATIONS, TARGETS = 100, 9
_LEAST_CLASSES_OF_TARGETED = 4  # its loss compares with the fourth highest logit


def unavailable(attack: str, classes: int) -> str:
    """Why an attack cannot be run on a network of so many classes; empty where it can."""
    if importlib.util.find_spec("pyautoattack") is None:
        return "pyautoattack is not installed: pip install 'ltpa[robust]'"
    if attack == APGD_T and classes < _LEAST_CLASSES_OF_TARGETED:
        return f"its loss needs {_LEAST_CLASSES_OF_TARGETED} classes, and the network has {classes}"
    return ""


class _UnitScale(nn.Module):
    """A network as a function of images scaled to 0-1."""

    def __init__(self, model: "AttentionClassifier") -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(self.model.preprocessing(255 * images))


def run(
    attack: str, model: "AttentionClassifier", attacked: Victims, epsilon: float, queries: int, batch_size: int
) -> np.ndarray:
    """Images (N,) bool that are right and stay so under one of `ATTACKS`; `queries` is of Square alone."""
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
    from pyautoattack.square import SquareAttack

    if epsilon == 0:
        return attacked.right.copy()
    device = attacked.pixels.device
    common = {"eps": epsilon / 255, "norm": "Linf", "n_restarts": 1, "seed": 0, "device": device, "verbose": False}
    network = _UnitScale(model)
    if attack == APGD_CE:
        attacker = APGDAttack(network, n_iter=ITERATIONS, loss="ce", **common)
    elif attack == APGD_T:
        targets = min(TARGETS, model.num_classes - 1)
        attacker = APGDAttack_targeted(network, n_iter=ITERATIONS, n_target_classes=targets, **common)
    else:
        attacker = SquareAttack(network, n_queries=queries, resc_schedule=False, **common)
    stands = attacked.right.copy()
    rows = np.flatnonzero(stands)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for start in range(0, len(rows), batch_size):
            some = attacked.only(rows[start : start + batch_size])
            pixels = some.pixels.contiguous()  # its gradients are reshaped without copies
            moved = 255 * attacker.perturb(pixels / 255, some.labels).detach()
            inside = project(moved, pixels, epsilon, True)
            stands[rows[start : start + batch_size]] = stays_right(model, some, inside, batch_size)
    return stands
