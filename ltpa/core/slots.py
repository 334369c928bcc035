"""Slots: a fixed number of places that processes of one machine take in turn, for example one training per GPU.

Each slot is a file that its holder keeps locked. The kernel frees the lock when the process ends, however it ends.
"""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ltpa.core.errors import LtpaError

POLL_SECONDS = 0.2


def slot_folder() -> Path:
    """Folder of the current user's slot files; the same for every run on this machine, so that runs share the GPUs."""
    return Path(tempfile.gettempdir()) / f"ltpa-slots-{os.getuid()}"


def gpu_names(count: int) -> list[str]:
    """Names of the GPUs this process may use: those of CUDA_VISIBLE_DEVICES where it is set, else 0 to count - 1."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in visible.split(",")] if visible is not None else [str(i) for i in range(count)]
    return [name for name in names if name]


@contextlib.contextmanager
def hold_slot(folder: Path, names: Sequence[str], share: int = 1) -> Iterator[str]:
    """Wait for a free slot, hold it for the life of the block, and yield the name it belongs to.

    Args:
        folder: where the lock files lie; processes that share slots name the same one.
        names: what is shared out, for example GPU names; each has `share` slots.

    Raises:
        LtpaError: there is nothing to share out, or the folder cannot be written.
    """
    if not names or share < 1:
        raise LtpaError(f"{folder}: no slots to wait for ({len(names)} names, {share} slots each)")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, name = _wait(folder, names, share)
    except OSError as error:
        raise LtpaError(f"{folder}: cannot keep slot files here ({error.strerror}); set TMPDIR elsewhere") from error
    try:
        yield name
    finally:
        os.close(descriptor)


def _wait(folder: Path, names: Sequence[str], share: int) -> tuple[int, str]:
    """Descriptor of the first slot file that could be locked, and the slot's name; all slots are tried in turn."""
    while True:
        for index in range(share):
            for name in names:
                path = folder / f"{name.replace('/', '_')}-{index}.lock"
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                    continue
                return descriptor, name
        time.sleep(POLL_SECONDS)
