"""What the local stream looks at, step by step: Grad-CAM of each step's logit, and the true maps of the chapter-7 form.

In the main form the LSTM sees nothing of the patch's map A but its mean over positions. So the gradient of any logit
with respect to A is the same at every position of a channel, d logit / dA_kij = g_k / (h w): Grad-CAM at step t is the
same maps under other channel weights, and no attention over time can move in space. `gradient_spread` measures it.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ltpa.core.errors import ModelError
from ltpa.models.twostream.network import TwoStream


@dataclasses.dataclass(frozen=True, eq=False)
class StepMaps:
    """Of B patches and T steps.

    Attributes:
        cams: (B, T, h, w) float32, Grad-CAM of the predicted class's logit at each step, each scaled to 0-1.
        spread: (T,) largest ratio over patches of a channel's standard deviation of the gradient over positions to the
            gradient's largest magnitude; zero where the gradient is constant over positions.
        weights: (B, T) attention over steps; None without it.
        looks: (B, T, h, w) spatial attention, each sums to 1; chapter-7 form only.
    """

    cams: np.ndarray
    spread: np.ndarray
    weights: np.ndarray | None
    looks: np.ndarray | None


def step_maps(model: TwoStream, patches: Tensor) -> StepMaps:
    """Maps of each step for patches as the local stream takes them (B, 3, P, P); the network must be in eval mode.

    Raises:
        ModelError: the network has no steps.
    """
    head = model.local_head
    if head is None or model.options.local not in ("attention", "lstm", "spatial"):
        raise ModelError(f"two-stream: a network with local = {model.options.local!r} has no steps to show")
    with torch.no_grad():
        maps = model.patch_maps(patches)
    maps = maps.detach().requires_grad_()
    outputs = model.see_map(maps)
    assert outputs.states is not None
    logits = head.classifier(outputs.states)
    predicted = outputs.logits.argmax(1)
    cams, spread = [], []
    for step in range(logits.shape[1]):
        chosen = logits[:, step].gather(1, predicted[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, maps, retain_graph=True)
        spread.append(gradient_spread(gradient))
        cam = torch.relu((gradient.mean((2, 3), keepdim=True) * maps.detach()).sum(1))
        low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
        cams.append((cam - low) / (high - low + 1e-7))
    return StepMaps(
        torch.stack(cams, 1).numpy(),
        np.array(spread),
        None if outputs.weights is None else outputs.weights.detach().numpy(),
        None if outputs.maps is None else outputs.maps.detach().numpy(),
    )


def gradient_spread(gradient: Tensor) -> float:
    """Largest standard deviation over positions of a gradient (B, C, h, w), as a share of its largest magnitude."""
    largest = float(gradient.abs().max())
    return float(gradient.std((2, 3), correction=0).max()) / largest if largest else 0.0
