"""Number formats of the training passes."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def tensor_cores(tf32: bool) -> Iterator[None]:
    """Whether a GPU may multiply float32 with 10 bits of mantissa (TF32), forward and backward; put back afterwards.

    PyTorch allows it in convolutions unless this is switched off.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def autocast(name: str, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Where the forward pass runs. Under `bf16` weights, losses, softmax and normalisation statistics stay float32."""
    if name == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()
