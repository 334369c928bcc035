"""Training and test data as the engine holds them: whole, normalised, on the device."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ltpa.training.precision import tensor_cores

_BLOCK = 500


@dataclasses.dataclass
class Arrays:
    """Network inputs (N, C, H, W) float32 and labels (N,) int64, on one device."""

    inputs: Tensor
    labels: Tensor

    @classmethod
    def prepare(
        cls,
        images: np.ndarray,
        labels: np.ndarray,
        preprocessing: nn.Module,
        device: torch.device,
        between: Callable[[], None] = lambda: None,
    ) -> "Arrays":
        """Normalise uint8 images (N, H, W, 3) once; what depends on the image alone is never computed again.

        `between` is called before each block of images; what it raises ends the work.
        """
        chunks = []
        with torch.no_grad():
            for start in range(0, len(images), _BLOCK):
                between()
                block = torch.from_numpy(np.array(images[start : start + _BLOCK])).to(device)
                chunks.append(preprocessing(block.permute(0, 3, 1, 2).float()))
        return cls(torch.cat(chunks), torch.from_numpy(np.array(labels, dtype=np.int64)).to(device))


@torch.no_grad()
def error_pct(
    model: nn.Module, arrays: Arrays, batch: int = _BLOCK, between: Callable[[], None] = lambda: None
) -> float:
    """Top-1 error in percent of `model` in evaluation mode and float32, `batch` images at a time.

    The mode is put back afterwards. Waits for the device once, at the end. `between` is called before each batch; what
    it raises ends the work.
    """
    was_training = model.training
    model.eval()
    wrong = torch.zeros((), dtype=torch.int64, device=arrays.labels.device)
    with tensor_cores(False):
        for start in range(0, len(arrays.labels), batch):
            part = slice(start, start + batch)
            between()
            inputs = arrays.inputs[part].contiguous(memory_format=torch.channels_last)
            wrong += (model(inputs).argmax(1) != arrays.labels[part]).sum()
    model.train(was_training)
    return 100 * int(wrong) / len(arrays.labels)
