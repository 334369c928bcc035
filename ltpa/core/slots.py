"""Slots: a fixed number of places that processes of one machine take in turn, for example one training per GPU.

What is shared out is cut into `UNITS` equal units, each a file that its holder keeps locked; a process that takes the
whole locks all of them, one that takes a quarter locks a quarter. So processes of different shares never take more than
there is. The kernel frees the locks when the process ends, however it ends.
"""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ltpa.core.errors import LtpaError

POLL_SECONDS = 0.2
UNITS = 8
SHARES = (1, 2, 4, 8)


def slot_folder() -> Path:
    """Folder of the current user's slot files; the same for every run on this machine, so that runs share the GPUs."""
    return Path(tempfile.gettempdir()) / f"ltpa-slots-{os.getuid()}"


@contextlib.contextmanager
def hold_slot(
    folder: Path, names: Sequence[str], share: int = 1, waiting: Callable[[], None] = lambda: None
) -> Iterator[str]:
    """Wait for a free slot, hold it for the life of the block, and yield the name it belongs to.

    Args:
        folder: where the lock files lie; processes that share slots name the same one.
        names: what is shared out, for example GPU names; each has `share` slots.
        share: one of `SHARES`; how many processes of this kind fit on one of `names` at a time.
        waiting: called again and again while waiting; what it raises ends the wait.

    Raises:
        LtpaError: there is nothing to share out, or the folder cannot be written.
    """
    if not names or share not in SHARES:
        raise LtpaError(f"{folder}: no slots to wait for ({len(names)} names, {share} slots each, of {SHARES})")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptors, name = _wait(folder, names, share, waiting)
    except OSError as error:
        raise LtpaError(f"{folder}: cannot keep slot files here ({error.strerror}); set TMPDIR elsewhere") from error
    try:
        yield name
    finally:
        _release(descriptors)


def _wait(folder: Path, names: Sequence[str], share: int, waiting: Callable[[], None]) -> tuple[list[int], str]:
    """Descriptors of the first slot's units that could all be locked, and the slot's name; all are tried in turn."""
    size = UNITS // share
    while True:
        for first in range(0, UNITS, size):
            for name in names:
                held = _take(folder, name, range(first, first + size))
                if held:
                    return held, name
        waiting()
        time.sleep(POLL_SECONDS)


def _take(folder: Path, name: str, units: range) -> list[int]:
    """Descriptors of the units' locked files; none where another process holds one of them."""
    held: list[int] = []
    for unit in units:
        path = folder / f"{name.replace('/', '_')}-{unit}.lock"
        held.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _release(held)
            return []
    return held


def _release(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
