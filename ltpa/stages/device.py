"""The device a job computes on, and how torch is set up there."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

import torch

from ltpa.core.errors import ConfigError, LtpaError
from ltpa.runtime.slots import SHARES, hold_slot, slot_folder

SHARE_VARIABLE = "LTPA_GPU_SHARE"


@contextlib.contextmanager
def compute_device(name: str, threads: int, check: Callable[[], None] = lambda: None) -> Iterator[torch.device]:
    """Set torch up for reproducible work and yield the device; a GPU is held for the life of the block.

    Denormal numbers count as zero: weights that weight decay alone acts on, such as those of the dead branch under pc,
    may shrink until they are denormal, which common processors handle slowly. What it gains was not measured apart.

    Args:
        name: `cpu` or `cuda`. Each GPU is one slot that processes of this machine take in turn, or as many slots as the
            environment variable LTPA_GPU_SHARE says (`jobs.gpu_share` of a configuration).
        threads: processor threads to compute with.
        check: called again and again while all GPUs are taken; what it raises ends the wait.

    Raises:
        LtpaError: a GPU is asked for and none is visible.
        ConfigError: LTPA_GPU_SHARE is not a number of slots.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        if name == "cpu":
            yield torch.device("cpu")
        else:
            with _gpu(check) as device:
                yield device
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


@contextlib.contextmanager
def _gpu(check: Callable[[], None]) -> Iterator[torch.device]:
    if not torch.cuda.is_available():
        raise LtpaError("jobs.gpus is 1, but torch sees no GPU here; set jobs.gpus to 0, or run on a machine with one")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    names = gpu_names()

    def say() -> None:
        print(f"waiting: other processes hold the {len(names)} GPUs of this machine", file=sys.stderr, flush=True)

    with hold_slot(slot_folder(), names, _share(), say, check) as gpu:
        yield torch.device("cuda", names.index(gpu))


def gpu_names() -> list[str]:
    """The visible GPUs by their UUIDs, in torch's order.

    Numbers would not do: with CUDA_VISIBLE_DEVICES every process counts from 0, and that variable may itself hold
    numbers, UUIDs or both.
    """
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]


def _share() -> int:
    text = os.environ.get(SHARE_VARIABLE) or "1"
    if text not in map(str, SHARES):
        raise ConfigError(f"{SHARE_VARIABLE} is {text!r}; allowed: {', '.join(map(str, SHARES))}")
    return int(text)


def describe_device(device: torch.device) -> str:
    """How a record names the device: `cpu`, or the GPU's model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
