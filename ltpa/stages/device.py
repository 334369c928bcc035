"""The device a job computes on, and how torch is set up there."""

import contextlib
from collections.abc import Iterator

import torch

from ltpa.core.errors import LtpaError
from ltpa.core.slots import gpu_names, hold_slot, slot_folder


@contextlib.contextmanager
def compute_device(name: str, threads: int) -> Iterator[torch.device]:
    """Set torch up for reproducible work and yield the device; a GPU is held for the life of the block.

    Denormal numbers count as zero: weights that weight decay alone acts on, such as those of the dead branch under pc,
    may shrink until they are denormal, which common processors handle slowly. What it gains was not measured apart.

    Args:
        name: `cpu` or `cuda`. Each GPU is one slot that processes of this machine take in turn.
        threads: processor threads to compute with.

    Raises:
        LtpaError: a GPU is asked for and none is visible.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        if name == "cpu":
            yield torch.device("cpu")
        else:
            with _gpu() as device:
                yield device
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


@contextlib.contextmanager
def _gpu() -> Iterator[torch.device]:
    if not torch.cuda.is_available():
        raise LtpaError("jobs.gpus is 1, but torch sees no GPU here; set jobs.gpus to 0, or run on a machine with one")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    names = gpu_names(torch.cuda.device_count())
    with hold_slot(slot_folder(), names) as gpu:
        yield torch.device("cuda", names.index(gpu))


def describe_device(device: torch.device) -> str:
    """How a record names the device: `cpu`, or the GPU's model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
