"""Training and test data as the engine holds them: whole, on the device."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ltpa.data.normalise import Normaliser
from ltpa.training.precision import tensor_cores

_BLOCK = 500


@dataclasses.dataclass
class Arrays:
    """Images (N, C, H, W) and labels (N,) int64, on one device.

    Attributes:
        images: network inputs, float32; or raw bytes, uint8, a quarter of the memory, which `normalise` is for.
        normalise: applied to raw images (float32, 0-255) a batch at a time; None where `images` are network inputs.
    """

    images: Tensor
    labels: Tensor
    normalise: nn.Module | None = None

    @classmethod
    def prepare(
        cls,
        images: np.ndarray,
        labels: np.ndarray,
        preprocessing: Normaliser,
        device: torch.device,
        between: Callable[[], None] = lambda: None,
    ) -> "Arrays":
        """Arrays of uint8 images (N, H, W, 3).

        They stay bytes where normalising costs nothing. What looks beyond the single pixel is computed here, once.
        `between` is called before each block of images; what it raises ends the work.
        """
        preprocessing = preprocessing.to(device)
        chunks = []
        with torch.no_grad():
            for start in range(0, len(images), _BLOCK):
                between()
                block = torch.from_numpy(np.array(images[start : start + _BLOCK])).to(device).permute(0, 3, 1, 2)
                chunks.append(block.contiguous() if preprocessing.pointwise else preprocessing(block.float()))
        labels_there = torch.from_numpy(np.array(labels, dtype=np.int64)).to(device)
        return cls(torch.cat(chunks), labels_there, preprocessing if preprocessing.pointwise else None)

    def inputs(self, images: Tensor) -> Tensor:
        """Network inputs (float32) of some of `images`, as they are or augmented."""
        return images if self.normalise is None else self.normalise(images.float())


@torch.no_grad()
def evaluation_logits(model: nn.Module, arrays: Arrays, part: slice) -> Tensor:
    """Logits (B, C) float32 of the images `part` of `arrays`, on their device.

    In evaluation mode, which is put back afterwards, and float32. Does not wait for the device.
    """
    was_training = model.training
    model.eval()
    with tensor_cores(False):
        inputs = arrays.inputs(arrays.images[part]).contiguous(memory_format=torch.channels_last)
        logits: Tensor = model(inputs)
    model.train(was_training)
    return logits
