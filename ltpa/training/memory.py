"""Out of memory: whether an error says so, and how many images at a time would fit."""

import gc

import torch

from ltpa.core.errors import MemoryFullError
from ltpa.training.stepping import Stepping

_ON_CPU = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is torch's way to say that memory ran out, on a GPU or on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ON_CPU)


def memory_full(name: str, stepper: Stepping, cause: str) -> MemoryFullError:
    """One line about the run `name`, whose step ran out of memory, with the batch size that would fit.

    Call it when the failed step's error is gone: its traceback holds the step's tensors. The run cannot go on
    afterwards.
    """
    size = stepper.recipe.batch_size
    fitting = fitting_batch(stepper)
    if fitting == size:
        advice = (
            f"a batch of {fitting} alone fits, so something else takes memory: give the training the device alone "
            "(jobs.gpu_share: 1)"
        )
    elif fitting:
        advice = f"a batch of {fitting} would fit: set batch_size of the recipe, and the rate with it"
    else:
        least = "one image fits" if stepper.smallest_batch == 1 else "two images fit"
        advice = f"not even {least}: take a smaller width or image size, or another device"
    return MemoryFullError(f"{name}: batches of {size} do not fit into memory ({cause}); {advice}")


def fitting_batch(stepper: Stepping) -> int:
    """The largest of the recipe's batch size, half of it, a quarter, ... with which a step fits; 0 where none does.

    Tried out beside all that a run holds: its data, gradients and velocities, in the recipe's number format. Never
    below what the step takes.
    """
    size: int = stepper.recipe.batch_size
    while size >= stepper.smallest_batch:
        gc.collect()
        if stepper.device.type == "cuda":
            torch.cuda.empty_cache()
        if _fits(stepper, size):
            return size
        size //= 2
    return 0


def _fits(stepper: Stepping, images: int) -> bool:
    try:
        stepper.rehearse(images)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return False
        raise
    return True
