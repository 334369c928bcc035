"""Out of memory: whether an error says so, and how many images at a time would fit."""

import gc

import torch

from ltpa.core.errors import MemoryFullError
from ltpa.models.base import AttentionClassifier
from ltpa.training.recipe import Recipe

_ON_CPU = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is torch's way to say that memory ran out, on a GPU or on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ON_CPU)


def memory_full(
    name: str, model: AttentionClassifier, recipe: Recipe, device: torch.device, cause: str
) -> MemoryFullError:
    """One line about the run `name`, whose step ran out of memory, with the batch size that would fit.

    Call it when the failed step's error is gone: its traceback holds the step's tensors.
    """
    fitting = fitting_batch(model, recipe.batch_size, device)
    if fitting == recipe.batch_size:
        advice = (
            f"a batch of {fitting} alone fits, so something else takes memory: give the training the device alone "
            "(jobs.gpu_share: 1)"
        )
    elif fitting:
        advice = f"a batch of {fitting} would fit: set batch_size of the recipe, and the rate with it"
    else:
        advice = "not even two images fit: take a smaller width or image size, or another device"
    return MemoryFullError(f"{name}: batches of {recipe.batch_size} do not fit into memory ({cause}); {advice}")


def fitting_batch(model: AttentionClassifier, batch_size: int, device: torch.device) -> int:
    """The largest of `batch_size`, half of it, a quarter, ... whose forward and backward pass fit; 0 where none does.

    Never 1, which batch normalisation does not take in training. Tried out, on black images of the network's
    size; its running statistics and gradients are of no use afterwards.
    """
    while batch_size > 1:
        model.zero_grad(set_to_none=True)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if _fits(model, batch_size, device):
            return batch_size
        batch_size //= 2
    return 0


def _fits(model: AttentionClassifier, batch_size: int, device: torch.device) -> bool:
    size = model.image_size
    try:
        inputs = torch.zeros(batch_size, 3, size, size, device=device)
        loss, _ = model.loss_and_logits(inputs, torch.zeros(batch_size, dtype=torch.int64, device=device))
        loss.backward()
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return False
        raise
    return True
