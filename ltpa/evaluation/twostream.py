"""What a trained two-stream network scores: readouts of the local stream under test-time patch policies.

One pass over images and patches serves all: the classifier is linear, so the sums and means over steps of the thesis'
table 6.2 and the single steps of its figure 6.1 are sums of the steps' own logits.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ltpa.core.seeds import derive
from ltpa.models.twostream.inputs import patches_of, pixels, shown
from ltpa.models.twostream.network import TwoStream

MEAN_N, TOP1, RANDOM1, MAX_N = "mean_n", "top1", "random1", "max_n"
POLICIES = (MEAN_N, TOP1, RANDOM1, MAX_N)
JOINT, GLOBAL, LOCAL = "joint", "global", "local"
DRAWS = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Logits of consecutive images.

    Attributes:
        global_logits: (B, C) float64.
        local_logits: (B, n, C) float64, of every patch; None without a local stream.
        step_logits: (B, n, T, C) float64, the classifier on each state; None without an LSTM.
    """

    global_logits: np.ndarray
    local_logits: np.ndarray | None
    step_logits: np.ndarray | None


@torch.inference_mode()
def blocks(model: TwoStream, images: np.ndarray, boxes: np.ndarray | None, batch_size: int) -> Iterator[Block]:
    """The one pass over images (N, S, S, 3) and boxes (N, n, 4), `batch_size` images at a time, in eval mode."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        batch = pixels(images[part], device)
        global_logits = model.see_image(shown(batch, model.options.image_size)).double().cpu().numpy()
        local = steps = None
        if boxes is not None:
            local, steps = _see_patches(model, batch, boxes[part])
        yield Block(global_logits, local, steps)
    model.train(was_training)


def joint_logits(model: TwoStream, images: np.ndarray, boxes: np.ndarray | None, batch_size: int = 32) -> np.ndarray:
    """Joint logits (N, C) float64 of images that are each seen with the first of their boxes."""
    found = []
    for block in blocks(model, images, None if boxes is None else boxes[:, :1], batch_size):
        local = 0 if block.local_logits is None else model.options.local_weight * block.local_logits[:, 0]
        found.append(block.global_logits + local)
    return np.concatenate(found)


def _see_patches(model: TwoStream, batch: Tensor, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Local logits and steps' logits of all patches, one rank after the other to bound memory."""
    local, steps = [], []
    for rank in range(boxes.shape[1]):
        outputs = model.see_patch(patches_of(batch, boxes[:, rank], model.options))
        local.append(outputs.logits.double().cpu().numpy())
        if outputs.states is not None and model.local_head is not None:
            steps.append(model.local_head.classifier(outputs.states).double().cpu().numpy())
    return np.stack(local, 1), np.stack(steps, 1) if steps else None


def readouts(block: Block, bias: np.ndarray | None) -> dict[str, np.ndarray]:
    """Local logits (B, n, C) of every readout: `joint`, and with an LSTM `sum_1_t`, `mean_1_t` and `step_t`.

    `bias` is the local classifier's: FC(sum of t states) = sum of their logits less (t - 1) biases.
    """
    assert block.local_logits is not None
    found = {JOINT: block.local_logits}
    if block.step_logits is not None and bias is not None:
        sums = np.cumsum(block.step_logits, axis=2)
        for step in range(block.step_logits.shape[2]):
            found[f"sum_1_{step + 1}"] = sums[:, :, step] - step * bias
            found[f"mean_1_{step + 1}"] = sums[:, :, step] / (step + 1)
            found[f"step_{step + 1}"] = block.step_logits[:, :, step]
    return found


def random_ranks(seed: int, boxes: np.ndarray) -> np.ndarray:
    """The patches that `random1` takes of boxes (N, n, 4): ranks (10, N), a row for each draw."""
    return np.random.default_rng(derive(seed, "test-patch")).integers(boxes.shape[1], size=(DRAWS, len(boxes)))


class Scores:
    """Which images are classified correctly, by policy and readout.

    Attributes:
        correct: (policy, readout) to (N,) bool; for `random1` (draws, N).
        patches: readout (`local`, `global`, `joint`) to (N, n) bool, for each single patch; empty without patches.
    """

    def __init__(self) -> None:
        self.correct: dict[tuple[str, str], np.ndarray] = {}
        self.patches: dict[str, np.ndarray] = {}


def score(
    model: TwoStream,
    images: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray | None,
    seed: int,
    batch_size: int = 32,
) -> Scores:
    """Every readout under every policy, from one pass.

    Policies: `mean_n` averages the local logits over all patches, `top1` takes the best-ranked patch, `random1` one at
    random (10 draws, by `seed`), `max_n` the class of the highest probability over patches (a diagnostic).
    """
    weight = model.options.local_weight
    bias = None
    if model.local_head is not None:
        bias = model.local_head.classifier.bias.detach().double().cpu().numpy()
    ranks = None
    if boxes is not None:
        ranks = random_ranks(seed, boxes)
    collected: dict[tuple[str, str], list[np.ndarray]] = {}
    singles: dict[str, list[np.ndarray]] = {}
    start = 0
    for block in blocks(model, images, boxes, batch_size):
        truth = labels[start : start + len(block.global_logits)]
        alone = block.global_logits.argmax(1) == truth
        collected.setdefault((MEAN_N, GLOBAL), []).append(alone)
        if block.local_logits is None or ranks is None:
            for policy in POLICIES:  # without patches all policies are one
                collected.setdefault((policy, JOINT), []).append(alone)
            start += len(truth)
            continue
        drawn = ranks[:, start : start + len(truth)]
        for name, local in readouts(block, bias).items():
            joint = block.global_logits[:, None] + weight * local
            _collect(collected, name, joint, truth, drawn)
            if name == JOINT:
                _collect(collected, LOCAL, local, truth, drawn)
                singles.setdefault(LOCAL, []).append(local.argmax(2) == truth[:, None])
                singles.setdefault(JOINT, []).append(joint.argmax(2) == truth[:, None])
                singles.setdefault(GLOBAL, []).append(np.broadcast_to(alone[:, None], joint.shape[:2]))
        start += len(truth)
    scores = Scores()
    scores.correct = {key: np.concatenate(parts, axis=-1) for key, parts in collected.items()}
    scores.patches = {key: np.concatenate(parts) for key, parts in singles.items()}
    return scores


def _collect(
    collected: dict[tuple[str, str], list[np.ndarray]],
    name: str,
    logits: np.ndarray,
    truth: np.ndarray,
    drawn: np.ndarray,
) -> None:
    """Hits of logits (B, n, C) under each policy; `drawn` (draws, B) are the ranks of `random1`."""
    shifted = np.exp(logits - logits.max(2, keepdims=True))
    likely = (shifted / shifted.sum(2, keepdims=True)).max(1)
    single = logits.argmax(2)
    chosen = {
        MEAN_N: logits.mean(1).argmax(1),
        TOP1: single[:, 0],
        RANDOM1: single[np.arange(len(truth)), drawn],
        MAX_N: likely.argmax(1),
    }
    for policy, predicted in chosen.items():
        collected.setdefault((policy, name), []).append(predicted == truth)


def holds_part(boxes: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Whether boxes (N, n, 4), y first, hold the whole part (N, 4), x first as in prepared data; (N, n) bool."""
    left, top, right, bottom = (parts[:, k : k + 1] for k in range(4))
    return (boxes[..., 0] <= top) & (boxes[..., 1] <= left) & (boxes[..., 2] >= bottom) & (boxes[..., 3] >= right)
